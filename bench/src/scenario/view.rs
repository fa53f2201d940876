//! Choices with which results are read: the objective, and the arm that ratios refer to.

use std::collections::BTreeMap;

use super::{Scenario, Slo};

/// Choices of a reader, or of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Objective of open loops.
    pub slo: Option<Slo>,
    /// Name of the arm that ratios refer to.
    pub reference: Option<String>,
}

/// Choices for the scenarios of a run: those of the reader, else those of each scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Views {
    given: View,
    of_scenario: BTreeMap<String, View>,
}

impl Views {
    /// Choices of the reader before those of the scenarios.
    #[must_use]
    pub fn new<'a>(given: View, scenarios: impl IntoIterator<Item = &'a Scenario>) -> Self {
        let of_scenario = scenarios.into_iter().map(|scenario| {
            let view = View {
                slo: scenario.slo,
                reference: scenario.reference.clone(),
            };
            (scenario.name.clone(), view)
        });
        Views {
            given,
            of_scenario: of_scenario.collect(),
        }
    }

    /// The objective of a scenario.
    #[must_use]
    pub fn slo(&self, scenario: &str) -> Option<Slo> {
        let of_scenario = || self.of_scenario.get(scenario)?.slo;
        self.given.slo.or_else(of_scenario)
    }

    /// The reference arm of a scenario, if one was chosen.
    #[must_use]
    pub fn reference(&self, scenario: &str) -> Option<&str> {
        let of_scenario = || self.of_scenario.get(scenario)?.reference.as_deref();
        self.given.reference.as_deref().or_else(of_scenario)
    }
}
