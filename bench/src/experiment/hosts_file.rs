//! The file of a lab: the hosts of a run, and how each is used.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context as _;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::hosts::{HostOptions, HostsOptions, ServerAddress, check_plain_path};
use crate::host::cpus::CpuList;
use crate::processes::site::launcher_words;
use crate::scenario::checked_file::{CheckedFile, Fault};

/// Weights of load hosts.
const MOST_WEIGHT: u32 = 1_000_000;

/// A file of hosts.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostsFile {
    /// Path of this executable on hosts that name none of their own.
    executable: Option<PlainPath>,
    server: ServerTable,
    load: Vec<LoadTable>,
}

/// The host of the servers.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ServerTable {
    launcher: Option<Launcher>,
    #[serde(deserialize_with = "parsed")]
    address: Option<ServerAddress>,
    executable: Option<PlainPath>,
    #[serde(deserialize_with = "parsed")]
    cpus: Option<CpuList>,
}

/// A host of clients.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LoadTable {
    launcher: Option<Launcher>,
    executable: Option<PlainPath>,
    #[serde(deserialize_with = "parsed")]
    cpus: Option<CpuList>,
    source_addresses: Vec<IpAddr>,
    weight: Option<u32>,
}

impl HostsOptions {
    /// Reads a file of hosts. `words` lead to the same file again.
    pub fn from_file(path: &Path, words: Vec<String>) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let mut file = CheckedFile::parse(&name, &text)?;
        let hosts: HostsFile = file.deserialize();
        for fault in hosts.faults() {
            file.add(&fault);
        }
        file.finish()?;
        Ok(hosts.options(words))
    }
}

impl HostsFile {
    /// Everything that is wrong with it beyond the types of its fields.
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut launchers = self.load.iter().map(|load| &load.launcher);
        if self.server.launcher.is_none() && launchers.all(Option::is_none) {
            let problem = "missing, as in every [[load]]; a host other than this one needs one, such as \"ssh hostA\"";
            faults.push(Fault::new("server.launcher", problem));
        }
        if self.server.address.is_none() {
            let problem = "missing; the address of the server's host in the network of the clients, such as \"10.0.0.1\"";
            faults.push(Fault::new("server.address", problem));
        }

        for (number, load) in (1..).zip(&self.load) {
            let mut add = |field: &str, problem: String| {
                faults.push(Fault::new(format!("load[{number}].{field}"), problem));
            };
            if load
                .weight
                .is_some_and(|weight| !(1..=MOST_WEIGHT).contains(&weight))
            {
                add("weight", format!("is not between 1 and {MOST_WEIGHT}"));
            }
            let mut seen = BTreeSet::new();
            for source in &load.source_addresses {
                if source.is_unspecified() {
                    add(
                        "source_addresses",
                        format!("{source} is no address of a host"),
                    );
                } else if !seen.insert(source) {
                    add("source_addresses", format!("{source} is listed twice"));
                }
                let server = self.server.address.map(|server| server.ip());
                if server.is_some_and(|server| server.is_ipv4() != source.is_ipv4()) {
                    let problem =
                        format!("{source} and server.address are of different versions of IP");
                    add("source_addresses", problem);
                }
            }
        }
        faults
    }

    fn options(self, words: Vec<String>) -> HostsOptions {
        let executable = self.executable;
        let host = |launcher: Option<Launcher>, own: Option<PlainPath>, cpus: Option<CpuList>| {
            let path = own.or_else(|| executable.clone());
            HostOptions {
                launcher: launcher.map(|launcher| launcher.0),
                executable: path.map(|path| path.0),
                cpus,
                ..HostOptions::default()
            }
        };

        let server = self.server;
        let loads = self.load.into_iter().map(|load| HostOptions {
            source_addresses: load.source_addresses,
            weight: load.weight.unwrap_or(1),
            ..host(load.launcher, load.executable, load.cpus)
        });
        HostsOptions {
            loads: loads.collect(),
            server: host(server.launcher, server.executable, server.cpus),
            server_address: server.address,
            words,
        }
    }
}

/// Words of a launcher: a list, or a text that is read as a shell reads it.
struct Launcher(Vec<String>);

impl<'de> Deserialize<'de> for Launcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LauncherVisitor)
    }
}

struct LauncherVisitor;

impl<'de> Visitor<'de> for LauncherVisitor {
    type Value = Launcher;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command such as \"ssh hostA\", or a list of its words")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Launcher, E> {
        launcher_words(text).map(Launcher).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Launcher, A::Error> {
        let words: Vec<String> = Vec::deserialize(SeqAccessDeserializer::new(list))?;
        if words.first().is_none_or(String::is_empty) {
            return Err(de::Error::custom(
                "names no command; give one, as in [\"ssh\", \"hostA\"]",
            ));
        }
        Ok(Launcher(words))
    }
}

/// A path that a remote shell reads as one word.
#[derive(Clone)]
struct PlainPath(String);

impl<'de> Deserialize<'de> for PlainPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        check_plain_path(&path).map_err(de::Error::custom)?;
        Ok(PlainPath(path))
    }
}

/// Reads the text of a value.
fn parsed<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<HostsOptions> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("lab.toml");
        fs::write(&path, text)?;
        let options = HostsOptions::from_file(&path, Vec::new());
        options.map_err(|error| {
            let folder = format!("{}/", folder.path().display());
            anyhow::anyhow!("{}", error.to_string().replace(&folder, ""))
        })
    }

    /// The document, from the heading of its section about the file on.
    fn documented() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hosts.md");
        let text = fs::read_to_string(path).unwrap();
        let (_, section) = text.split_once("\n## The file of a lab\n").unwrap();
        section.split("\n## ").next().unwrap().to_owned()
    }

    #[test]
    fn the_example_of_the_document_is_read() {
        let section = documented();
        let (_, example) = section.split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let options = read(example).unwrap();

        let ssh = ["ssh", "-o", "BatchMode=yes", "hostA"].map(str::to_owned);
        assert_eq!(options.server.launcher, Some(ssh.to_vec()));
        assert_eq!(
            options.server_address.unwrap().to_string(),
            "10.0.0.1:7000-7099"
        );
        assert_eq!(options.loads.len(), 2);
        assert!(
            options
                .loads
                .iter()
                .all(|load| load.executable.as_deref() == Some("/tmp/echobench"))
        );
        let weights: Vec<u32> = options.loads.iter().map(|load| load.weight).collect();
        assert_eq!(weights, [2, 1]);
        assert_eq!(options.loads[0].source_addresses.len(), 3);
    }

    /// Names of the fields of a table, as the reader knows them.
    fn fields_of(table: &str, head: &str) -> BTreeSet<String> {
        let error = read(&format!("{head}\nno_such_field = 1\n"))
            .unwrap_err()
            .to_string();
        let (_, list) = error.split_once("expected one of ").expect(&error);
        let list = list.lines().next().unwrap();
        let names = list.split('`').skip(1).step_by(2);
        names.map(|name| format!("{table}{name}")).collect()
    }

    #[test]
    fn the_reference_has_every_field() {
        let mut fields = fields_of("", "");
        for (table, head) in [("server", "[server]"), ("load", "[[load]]")] {
            fields.remove(table);
            fields.extend(fields_of(&format!("{table}."), head));
        }

        let section = documented();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let documented: BTreeSet<String> = rows
            .filter_map(|row| row.split('`').nth(1).map(str::to_owned))
            .collect();
        assert_eq!(documented, fields);
    }

    #[test]
    fn every_fault_is_named_with_its_line_and_field() {
        let error = read(
            "executable = '/my folder/echobench'\n\
             lab = 'mine'\n\
             [server]\n\
             address = '0.0.0.0'\n\
             cpus = [0, 1]\n\
             [[load]]\n\
             launcher = 'ssh hostB'\n\
             weight = 0\n\
             cpus = '3-1'\n\
             [[load]]\n\
             launcher = []\n\
             source_addresses = ['10.0.0.2', '10.0.0.2']\n\
             colour = 'red'\n",
        );
        let error = error.unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().collect();
        let expected = [
            ["lab.toml, line 1, executable", "one word"],
            ["lab.toml, line 2, lab", "unknown field `lab`"],
            ["lab.toml, line 4, server.address", "every address"],
            ["lab.toml, line 5, server.cpus", "expected a string"],
            ["lab.toml, line 8, load[1].weight", "between 1 and"],
            [
                "lab.toml, line 9, load[1].cpus",
                "'3-1' is not a list of CPUs",
            ],
            ["lab.toml, line 11, load[2].launcher", "names no command"],
            [
                "lab.toml, line 12, load[2].source_addresses",
                "listed twice",
            ],
            [
                "lab.toml, line 13, load[2].colour",
                "unknown field `colour`",
            ],
        ];
        assert_eq!(lines.len(), expected.len(), "{error}");
        for (line, words) in lines.iter().zip(expected) {
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
    }

    #[test]
    fn hosts_that_are_missing_are_faults() {
        let error = read("[[load]]\nweight = 1\n").unwrap_err().to_string();
        assert!(
            error.contains("lab.toml, server.launcher: missing"),
            "{error}"
        );
        assert!(
            error.contains("lab.toml, server.address: missing"),
            "{error}"
        );
        let mixed = "[server]\nlauncher = 'env'\naddress = '10.0.0.1'\n[[load]]\nsource_addresses = ['::1']\n";
        let error = read(mixed).unwrap_err().to_string();
        assert!(
            error.contains("line 5, load[1].source_addresses: ::1"),
            "{error}"
        );
    }
}
