//! Workload of a scenario as a record has it: runs of different workloads are never compared, whatever their
//! scenarios are called.

use std::collections::{BTreeMap, BTreeSet};

use echobench_clients::parse_duration;
use serde_json::Value;

use crate::render::units;
use crate::scenario::Scenario;

/// Settings of a workload and commands of external arms, as text by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Workload {
    settings: BTreeMap<String, String>,
    commands: BTreeMap<String, String>,
}

impl Workload {
    /// The workload of a scenario in `run.json`, which may be of another version.
    pub(super) fn of(scenario: &Value) -> Self {
        // Reading it as a scenario adds the defaults that another version does not write.
        let known = serde_json::from_value::<Scenario>(scenario.clone());
        let known = known.and_then(serde_json::to_value);
        let scenario = known.unwrap_or_else(|_| scenario.clone());

        let traffic = scenario["traffic"].as_object();
        let mut settings: BTreeMap<String, String> = traffic
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        if let Some(spacing) = scenario["sweep"].get("spacing") {
            settings.insert("spacing".to_owned(), text(spacing));
        }

        let external = scenario["external"].as_array();
        let commands = external
            .into_iter()
            .flatten()
            .map(|arm| (text(&arm["name"]), text(&arm["command"])))
            .collect();
        Workload { settings, commands }
    }

    /// The settings that differ, each with both values, and the arms with different commands; `None` if there
    /// are none. An arm that only one of them has is no difference.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let names: BTreeSet<&String> = self.settings.keys().chain(other.settings.keys()).collect();
        let settings = names.into_iter().filter_map(|name| {
            let (own, others) = (self.settings.get(name), other.settings.get(name));
            let or_none = |value: Option<&String>| value.map_or("none", String::as_str).to_owned();
            (own != others).then(|| format!("{name} ({} and {})", or_none(own), or_none(others)))
        });

        let commands = self.commands.iter().filter_map(|(arm, own)| {
            let others = other.commands.get(arm)?;
            (own != others).then(|| format!("command of {arm} ({own} and {others})"))
        });
        let differences: Vec<String> = settings.chain(commands).collect();
        (!differences.is_empty()).then(|| differences.join(", "))
    }
}

fn text(value: &Value) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    match parse_duration(text) {
        Ok(time) => units::duration(time.as_nanos() as f64),
        Err(_) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workload(traffic: &Value, external: &Value) -> Workload {
        Workload::of(&json!({ "traffic": traffic, "external": external }))
    }

    #[test]
    fn every_setting_of_the_traffic_counts() {
        let small = json!({ "payload_bytes": 64, "think": "0ns", "timeout": "5s", "work": "none" });
        let mut large = small.clone();
        large["payload_bytes"] = json!(65_536);
        large["requests_per_connection"] = json!(1);
        let (small, large) = (workload(&small, &json!([])), workload(&large, &json!([])));
        assert_eq!(small.difference(&small), None);
        let words = "payload_bytes (64 and 65536), requests_per_connection (none and 1)";
        assert_eq!(small.difference(&large).as_deref(), Some(words));
    }

    #[test]
    fn arms_of_one_name_must_be_one_server() {
        let traffic = json!({ "timeout": "5000000000ns" });
        let arm = |name: &str, command: &str| json!([{ "name": name, "command": command }]);
        let one = workload(&traffic, &arm("mine", "a {port}"));
        let two = workload(&json!({ "timeout": "5s" }), &arm("mine", "b {port}"));
        let other = workload(&traffic, &arm("yours", "b {port}"));
        let words = "command of mine (a {port} and b {port})";
        assert_eq!(one.difference(&two).as_deref(), Some(words));
        assert_eq!(one.difference(&other), None);
    }

    #[test]
    fn defaults_are_no_difference() {
        let scenario = Scenario::find("steady").unwrap();
        let written = serde_json::to_value(&scenario).unwrap();
        let mut older = written.clone();
        older["traffic"].as_object_mut().unwrap().remove("work");
        assert_ne!(written, older);
        assert_eq!(Workload::of(&written), Workload::of(&older));
    }
}
