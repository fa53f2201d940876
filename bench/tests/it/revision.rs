//! Revision and dirty flag of an executable: only the workspace's own checkout counts.

#[path = "../../build/checkout.rs"]
mod checkout;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use echobench::host::environment::Environment;
use tempfile::TempDir;

use crate::common::git;
use checkout::Checkout;

/// A checkout with one commit of one file, `src/lib.rs`.
fn checkout(options: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let init = ["init", "--quiet", "--initial-branch", "main"];
    git(folder.path(), &[&init as &[&str], options].concat());
    fs::create_dir(folder.path().join("src")).unwrap();
    commit(folder.path(), "first");
    folder
}

fn commit(root: &Path, text: &str) {
    fs::write(root.join("src/lib.rs"), text).unwrap();
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--message", text]);
}

fn head(root: &Path) -> String {
    git(root, &["rev-parse", "HEAD"]).trim_end().to_owned()
}

#[test]
fn only_the_workspaces_own_checkout_counts() {
    let folder = checkout(&[]);
    let root = folder.path();
    let own = Checkout::at(root).expect("its own checkout");
    assert_eq!(own.revision(), Some(head(root)));

    // Copied into another project's tree, with and without a commit of that project.
    let vendored = root.join("vendor/echobench");
    fs::create_dir_all(&vendored).unwrap();
    assert!(Checkout::at(&vendored).is_none());
    assert!(Checkout::at(&root.join("src")).is_none());

    // A worktree and a checkout within another one are their own.
    let worktree = root.join("worktree");
    git(
        root,
        &["worktree", "add", "--quiet", worktree.to_str().unwrap()],
    );
    commit(&worktree, "second");
    let own = Checkout::at(&worktree).expect("its own checkout");
    assert_eq!(own.revision(), Some(head(&worktree)));
    assert_ne!(own.revision(), Some(head(root)));
    git(&vendored, &["init", "--quiet"]);
    let own = Checkout::at(&vendored).expect("its own checkout");
    assert_eq!(own.revision(), None);

    let none = TempDir::new().unwrap();
    assert!(Checkout::at(none.path()).is_none());
    assert!(Checkout::at(&none.path().join("absent")).is_none());
}

#[test]
fn sources_differ_until_they_are_committed_or_restored() {
    let folder = checkout(&[]);
    let root = folder.path();
    let own = Checkout::at(root).expect("its own checkout");
    let differs = |paths: &[&str]| own.differs(paths).expect("git answers");
    assert!(!differs(&["src"]));

    fs::write(root.join("src/lib.rs"), "changed").unwrap();
    assert!(differs(&["src"]));
    assert!(!differs(&["elsewhere"]));
    git(root, &["add", "--all"]);
    assert!(differs(&["src", "elsewhere"]));
    git(root, &["commit", "--quiet", "--message", "changed"]);
    assert!(!differs(&["src"]));

    fs::remove_file(root.join("src/lib.rs")).unwrap();
    assert!(differs(&["src"]));
    git(root, &["checkout", "--", "src"]);
    assert!(!differs(&["src"]));

    fs::write(root.join("notes"), "of no commit").unwrap();
    assert!(!differs(&["."]));
}

/// The time and the size of every file under these paths, as cargo looks at them.
fn state(paths: &[PathBuf]) -> BTreeMap<PathBuf, (SystemTime, u64)> {
    let mut state = BTreeMap::new();
    let mut left = paths.to_vec();
    while let Some(path) = left.pop() {
        let data = fs::metadata(&path).unwrap();
        if data.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        state.insert(path, (data.modified().unwrap(), data.len()));
    }
    state
}

/// Asserts that this command changes a file that the build script watches.
fn changes_with(root: &Path, arguments: &[&str]) {
    let own = Checkout::at(root).expect("its own checkout");
    let watched = own.changed_by_commits();
    assert!(watched.iter().all(|path| path.is_absolute()), "{watched:?}");
    let before = state(&watched);
    assert!(!before.is_empty());

    git(root, arguments);
    assert_ne!(state(&watched), before, "{arguments:?} in {watched:?}");
}

#[test]
fn a_commit_or_a_checkout_changes_a_file_that_is_watched() {
    let commit = ["commit", "--quiet", "--allow-empty", "--message", "next"];
    let no_log = ["-c", "core.logAllRefUpdates=false"];
    let no_log_commit = [&no_log as &[&str], &commit].concat();

    let folder = checkout(&[]);
    let root = folder.path();
    changes_with(root, &commit);
    changes_with(root, &["switch", "--quiet", "--create", "other"]);
    changes_with(root, &["reset", "--quiet", "--hard", "HEAD^"]);
    git(root, &["pack-refs", "--all"]);
    changes_with(root, &commit);
    let worktree = root.join("worktree");
    git(
        root,
        &["worktree", "add", "--quiet", worktree.to_str().unwrap()],
    );
    changes_with(&worktree, &commit);
    changes_with(&worktree, &["checkout", "--quiet", "--detach", "main"]);

    // Without a log of HEAD: the file of the branch, or the folder in which it comes to be.
    fs::remove_dir_all(root.join(".git/logs")).unwrap();
    git(root, &["switch", "--quiet", "main"]);
    fs::remove_dir_all(root.join(".git/logs")).unwrap();
    changes_with(root, &no_log_commit);
    git(root, &["pack-refs", "--all"]);
    changes_with(root, &no_log_commit);
}

#[test]
fn the_record_holds_what_the_build_script_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let own = Checkout::at(root).is_some();

    // Which of the two values depends on when it was built.
    let environment = Environment::capture();
    assert_eq!(environment.revision.is_some(), own);
    assert_eq!(environment.dirty.is_some(), own);
}
