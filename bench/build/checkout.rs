//! The git checkout of a workspace: its revision, and whether its files differ from it. Part of the build
//! script, and of its test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A git checkout whose top folder is the workspace.
pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout of a workspace; `None` where there is none, or where the workspace lies within
    /// another project's checkout, whose revision says nothing about the sources here.
    pub(crate) fn at(root: &Path) -> Option<Checkout> {
        let root = root.canonicalize().ok()?;
        let checkout = Checkout { root };
        let top = checkout.git(&["rev-parse", "--show-toplevel"])?;
        let top = Path::new(top.trim_end_matches('\n')).canonicalize().ok()?;

        (top == checkout.root).then_some(checkout)
    }

    /// The full hash of the commit that is checked out.
    pub(crate) fn revision(&self) -> Option<String> {
        Some(
            self.git(&["rev-parse", "--verify", "--quiet", "HEAD"])?
                .trim_end()
                .to_owned(),
        )
    }

    /// Whether tracked files under these paths differ from the commit.
    pub(crate) fn differs(&self, paths: &[&str]) -> Option<bool> {
        let mut arguments = vec!["status", "--porcelain", "--untracked-files=no", "--"];
        arguments.extend(paths);

        Some(!self.git(&arguments)?.is_empty())
    }

    /// Files and folders of which at least one changes with every commit and every checkout.
    pub(crate) fn changed_by_commits(&self) -> Vec<PathBuf> {
        let head = self.path_of("HEAD");
        let logs = ["logs/HEAD", "reftable/tables.list"].map(|log| self.path_of(log));
        let logs: Vec<_> = logs
            .into_iter()
            .flatten()
            .filter(|log| log.exists())
            .collect();

        // Without a log there is the file of the branch; a branch that is packed with others has none
        // until the next commit, which changes the folder.
        let branch = self.git(&["symbolic-ref", "--quiet", "HEAD"]);
        let branch = branch.filter(|_| logs.is_empty());
        let branch = branch.and_then(|branch| self.path_of(branch.trim_end()));
        let branch =
            branch.and_then(|file| Some(file.ancestors().find(|at| at.exists())?.to_owned()));

        head.into_iter().chain(logs).chain(branch).collect()
    }

    /// The place of one of git's own files.
    fn path_of(&self, name: &str) -> Option<PathBuf> {
        let path = self.git(&["rev-parse", "--git-path", name])?;
        Some(self.root.join(path.trim_end_matches('\n')))
    }

    /// Output of git; `None` when it is not installed or fails.
    fn git(&self, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new("git");
        // A hook's variables name the repository that the hook runs in, whatever the folder.
        for variable in [
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GIT_COMMON_DIR",
        ] {
            command.env_remove(variable);
        }
        let output = command
            .arg("--no-optional-locks")
            .arg("-C")
            .arg(&self.root)
            .args(arguments)
            .output()
            .ok()?;
        let printed = String::from_utf8(output.stdout).ok()?;

        output.status.success().then_some(printed)
    }
}
