//! Arms of an experiment: their names, and the command lines that start their servers.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use echobench_protocol::Service;
use echobench_servers::Model;
use serde::{Deserialize, Serialize};

/// Placeholder of the port in the command line of an external server.
pub const PORT: &str = "{port}";
/// Placeholder of the address on which it has to listen.
pub const ADDRESS: &str = "{address}";

/// External servers that are shipped with echobench. Their text is part of the executable, which then
/// works without any other file.
const SHIPPED: &[(&str, &str)] = &[
    (
        "{threading_echo.py}",
        include_str!("../../../servers/external/threading_echo.py"),
    ),
    (
        "{forking_echo.py}",
        include_str!("../../../servers/external/forking_echo.py"),
    ),
    (
        "{asyncio_echo.py}",
        include_str!("../../../servers/external/asyncio_echo.py"),
    ),
];

/// One server under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// The name in tables and in the column `model`, unique under a condition.
    pub name: String,
    /// Origin of its server.
    pub program: Program,
    /// The arguments of that program.
    pub arguments: Vec<String>,
    /// Reason for not running it, if there is one.
    pub skip: Option<String>,
}

/// Origin of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// This executable.
    Own,
    /// Another build of it.
    Build(PathBuf),
    /// Another project: the program is found as a shell finds it, and does not report when it is ready.
    External(String),
}

impl Arm {
    /// A model with options of `serve`, as in `pool --workers 8`, served by this executable.
    #[must_use]
    pub fn of_model(model: &str) -> Self {
        Arm {
            name: model.to_owned(),
            program: Program::Own,
            arguments: serve(model),
            skip: unavailable(model),
        }
    }

    /// The same model under the name `name`, served by another build.
    #[must_use]
    pub fn of_build(name: String, build: &Path, model: &str) -> Self {
        Arm {
            name,
            program: Program::Build(build.to_owned()),
            arguments: serve(model),
            skip: unavailable(model),
        }
    }

    /// The model that it serves; `None` for an external server.
    #[must_use]
    pub fn model(&self) -> Option<&'static Model> {
        if matches!(self.program, Program::External(_)) {
            return None;
        }
        echobench_servers::find(self.arguments.get(1)?).ok()
    }

    /// Whether its server counts the requests of clients: services without frames count pieces of a
    /// stream, however the kernel cuts it.
    #[must_use]
    pub fn counts_requests(&self) -> bool {
        let mut words = self.arguments.iter();
        let service = words.find_map(|word| match word.strip_prefix("--service")? {
            "" => Some(None),
            value => value.strip_prefix('=').map(Some),
        });
        let service = service.map(|value| value.or_else(|| words.next().map(String::as_str)));
        service.is_none_or(|name| name == Some(Service::Echo.name()))
    }

    /// An external server. Fails if its command line cannot be parsed.
    pub fn of_external(external: &External) -> anyhow::Result<Self> {
        let mut words = external.words()?.into_iter();
        let program = words.next().context("a command has a word")?;
        Ok(Arm {
            name: external.name.clone(),
            program: Program::External(program),
            arguments: words.collect(),
            skip: external.missing(),
        })
    }

    /// The command line of the server. Fails if the program's path is not UTF-8.
    pub fn command(&self) -> anyhow::Result<Vec<String>> {
        let program = match &self.program {
            Program::Own => std::env::current_exe().context("cannot find this executable")?,
            Program::Build(path) => path.clone(),
            Program::External(name) => name.into(),
        };

        let program = program
            .into_os_string()
            .into_string()
            .ok()
            .with_context(|| format!("the path of the executable of {} is not UTF-8", self.name))?;

        let mut command = vec![program];
        command.extend_from_slice(&self.arguments);
        Ok(command)
    }

    /// The arguments of `supervise` for this server, which is to listen on the address, or on one of its choice.
    pub fn supervised(&self, listen: Option<SocketAddr>) -> anyhow::Result<Vec<String>> {
        let listen = listen.map(|address| ["--listen".to_owned(), address.to_string()]);
        let listen = listen.into_iter().flatten();
        let own = |flag: &str| vec![flag.to_owned()];

        Ok(match self.program {
            Program::External(_) => {
                let words = own("--external").into_iter().chain(listen);
                words.chain(own("--")).chain(self.command()?).collect()
            }
            Program::Build(_) => {
                let words = own("--").into_iter().chain(self.command()?);
                words.chain(listen).collect()
            }
            // Each host has this executable at a place of its own.
            Program::Own => {
                let words = ["--own", "--"].map(str::to_owned).into_iter();
                words
                    .chain(self.arguments.iter().cloned())
                    .chain(listen)
                    .collect()
            }
        })
    }
}

/// The reason why this host cannot serve a model, if there is one.
pub(crate) fn unavailable(model: &str) -> Option<String> {
    let name = model.split_whitespace().next()?;
    echobench_servers::find(name).ok()?.unavailable()
}

fn serve(model: &str) -> Vec<String> {
    let words = ["serve"].into_iter().chain(model.split_whitespace());
    words.map(str::to_owned).collect()
}

/// A server of another project that echoes every byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// The name in tables.
    pub name: String,
    /// Its command line, quoted as for a shell. `{port}` is replaced by the port to listen on, `{address}` by the
    /// address, and the name of a shipped server, as in `{asyncio_echo.py}`, by its text.
    pub command: String,
    /// A program that it needs; without it the arm is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
}

impl External {
    /// The words of its command line.
    fn words(&self) -> anyhow::Result<Vec<String>> {
        let Some(words) = shlex::split(&self.command).filter(|words| !words.is_empty()) else {
            bail!(
                "external server '{}': cannot read its command (an open quote?): {}",
                self.name,
                self.command
            );
        };

        let shipped = |word: String| {
            let text = SHIPPED.iter().find(|(name, _)| *name == word);
            text.map_or(word, |(_, text)| (*text).to_owned())
        };
        Ok(words.into_iter().map(shipped).collect())
    }

    /// Checks that it can be an arm.
    pub fn check(&self) -> anyhow::Result<()> {
        let name = &self.name;
        if name.is_empty() || name.chars().any(char::is_control) {
            bail!("an external server needs a name, as in mine='server {PORT}'");
        }

        let first = name.split_whitespace().next().unwrap_or_default();
        if echobench_servers::find(first).is_ok() {
            bail!(
                "external server '{name}' has the name of a model; give it another, as in mine='server {PORT}'"
            );
        }

        let words = self.words()?;
        if let Some(place) = [PORT, ADDRESS]
            .iter()
            .find(|place| words[0].contains(**place))
        {
            bail!(
                "external server '{name}': {place} stands where its program is named; for a variable write \
                 env PORT={PORT} server"
            );
        }
        if !words.iter().any(|word| word.contains(PORT)) {
            bail!(
                "external server '{name}': its command does not say where the port goes; add {PORT}"
            );
        }
        Ok(())
    }

    /// The reason why it cannot run here, if a program that it needs is missing.
    fn missing(&self) -> Option<String> {
        missing(self.needs.as_deref()?)
    }
}

impl FromStr for External {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An option or a path of the command may have a sign of equality as well.
        let is_name =
            |name: &str| !name.contains(|c: char| c.is_whitespace() || "{/'\"".contains(c));
        let named = text.split_once('=');
        let named = named.filter(|(name, _)| is_name(name.trim()));
        let (name, command) = match named {
            Some((name, command)) => (name.trim().to_owned(), command),
            None => (name_of_program(text), text),
        };

        let external = External {
            name,
            command: command.trim().to_owned(),
            needs: None,
        };
        external.check()?;
        Ok(external)
    }
}

/// The reason for skipping what needs a program that this host does not have.
pub(crate) fn missing(program: &str) -> Option<String> {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| {
            let file = folder.join(program).metadata();
            file.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
    });
    (!found).then(|| format!("{program} is not installed"))
}

/// The name of the program that a command line starts, without its folder.
fn name_of_program(command: &str) -> String {
    let words = shlex::split(command).unwrap_or_default();
    let program = words.first().map(Path::new).and_then(Path::file_name);
    // Without a word the command is refused, by whatever name.
    program.map_or_else(
        || "server".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_serves_the_model_with_its_options() {
        let arm = Arm::of_build("old".into(), Path::new("/builds/old"), "pool --workers 8");
        let expected = ["/builds/old", "serve", "pool", "--workers", "8"];
        assert_eq!(arm.command().unwrap(), expected);
        let own = Arm::of_model("thread");
        assert_eq!(own.name, "thread");
        assert_eq!(own.command().unwrap()[1..], ["serve", "thread"]);
    }

    #[test]
    fn each_server_is_told_its_address_in_its_own_way() {
        let address = Some("10.0.0.1:7".parse().unwrap());
        let told = |arm: Arm| arm.supervised(address).unwrap().join(" ");
        let external = "mine=server {address} {port}".parse().unwrap();
        assert_eq!(
            told(Arm::of_external(&external).unwrap()),
            "--external --listen 10.0.0.1:7 -- server {address} {port}"
        );
        assert_eq!(
            told(Arm::of_model("thread")),
            "--own -- serve thread --listen 10.0.0.1:7"
        );
        let build = Arm::of_build("old".into(), Path::new("/old"), "thread");
        assert_eq!(told(build), "-- /old serve thread --listen 10.0.0.1:7");
    }

    #[test]
    fn services_without_frames_count_no_requests() {
        for (arm, counts) in [
            ("thread", true),
            ("thread --service echo", true),
            ("thread --service=echo --backlog 5", true),
            ("thread --service raw", false),
            ("pool --workers 8 --service=time", false),
        ] {
            assert_eq!(Arm::of_model(arm).counts_requests(), counts, "{arm}");
        }
    }

    #[test]
    fn the_command_line_of_an_external_server_is_read_as_a_shell_would() {
        let external: External = "mine=server --name 'two words' -p {port}".parse().unwrap();
        let arm = Arm::of_external(&external).unwrap();
        let expected = [
            "--external",
            "--",
            "server",
            "--name",
            "two words",
            "-p",
            PORT,
        ];

        assert_eq!(arm.supervised(None).unwrap(), expected);
        assert_eq!((arm.name.as_str(), arm.skip), ("mine", None));
    }

    #[test]
    fn a_shipped_server_is_given_as_its_text() {
        for (name, text) in SHIPPED {
            assert!(!text.contains(PORT), "{name}: it would be replaced");
            let external: External = format!("x=python3 -c {name} {PORT}").parse().unwrap();
            let command = Arm::of_external(&external).unwrap().command().unwrap();
            assert_eq!(command[2], *text);
        }
    }

    #[test]
    fn invalid_external_servers_are_refused_with_the_reason() {
        for (text, word) in [
            ("server", "where the port goes"),
            ("=server {port}", "needs a name"),
            ("mine=server", "where the port goes"),
            ("mine=server 'open {port}", "open quote"),
            ("fork=server {port}", "name of a model"),
            ("x={address}/server {port}", "program is named"),
        ] {
            let error = text.parse::<External>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_server_without_a_name_has_that_of_its_program() {
        for (text, name, command) in [
            ("./old/server {port}", "server", "./old/server {port}"),
            ("/opt/a=b/server {port}", "server", "/opt/a=b/server {port}"),
            ("server --port={port}", "server", "server --port={port}"),
            (
                "'./a b/my server' {port}",
                "my server",
                "'./a b/my server' {port}",
            ),
            ("mine=./old/server {port}", "mine", "./old/server {port}"),
            ("v1.2= server -p {port}", "v1.2", "server -p {port}"),
            ("env PORT={port} server", "env", "env PORT={port} server"),
        ] {
            let external: External = text.parse().unwrap();
            assert_eq!((&external.name[..], &external.command[..]), (name, command));
        }

        for (text, word) in [
            ("PORT={port} ./server", "env PORT={port}"),
            ("bin/thread {port}", "name of a model"),
            ("./server 'open {port}", "open quote"),
        ] {
            let error = text.parse::<External>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_needed_program_is_looked_up() {
        let needing = |needs: &str| External {
            name: "x".to_owned(),
            command: "x {port}".to_owned(),
            needs: Some(needs.to_owned()),
        };
        assert_eq!(needing("sh").missing(), None);
        let reason = needing("no-such-program").missing().unwrap();
        assert!(reason.contains("no-such-program"), "{reason}");
    }
}
