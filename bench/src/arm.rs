//! The arms of an experiment: what each one is called, and the command line that starts its server.

use std::path::PathBuf;

use anyhow::Context;

/// One server under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// The name in tables and in the column `model`; no two arms of a cell share it.
    pub name: String,
    /// Where its server comes from.
    pub program: Program,
    /// The arguments of that program.
    pub arguments: Vec<String>,
}

/// Where a server comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// This executable.
    Own,
    /// Another build of it.
    Build(PathBuf),
}

impl Arm {
    /// A model with options of `serve`, as in `pool --workers 8`, served by this executable.
    #[must_use]
    pub fn of_model(model: &str) -> Self {
        Arm {
            name: model.to_owned(),
            program: Program::Own,
            arguments: serve(model),
        }
    }

    /// The same, called `name` and served by another build.
    #[must_use]
    pub fn of_build(name: String, build: PathBuf, model: &str) -> Self {
        Arm {
            name,
            program: Program::Build(build),
            arguments: serve(model),
        }
    }

    /// The command line of the server. Fails when the program's path is not UTF-8.
    pub fn command(&self) -> anyhow::Result<Vec<String>> {
        let program = match &self.program {
            Program::Own => std::env::current_exe().context("cannot find this executable")?,
            Program::Build(path) => path.clone(),
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
}

fn serve(model: &str) -> Vec<String> {
    let words = ["serve"].into_iter().chain(model.split_whitespace());
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_serves_the_model_with_its_options() {
        let arm = Arm::of_build("old".into(), "/builds/old".into(), "pool --workers 8");
        let expected = ["/builds/old", "serve", "pool", "--workers", "8"];
        assert_eq!(arm.command().unwrap(), expected);
        let own = Arm::of_model("thread");
        assert_eq!(own.name, "thread");
        assert_eq!(own.command().unwrap()[1..], ["serve", "thread"]);
    }
}
