//! Scripts of the repository: which executable they run, and which revision `regress.sh` compares with.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::common::{Finished, finish, git, succeeds};

/// The repository that this test belongs to.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Copies the scripts by another process: a child that is forked for another test in the meantime
/// would inherit a script open for writing, and then it could not be executed.
fn copy_scripts(folder: &Path) {
    let scripts = repository().join("scripts");
    succeeds(Command::new("cp").arg("-R").arg(scripts).arg(folder));
}

/// Settings of the one who runs the tests must not reach the cargo of the scripts.
fn script(folder: &Path, name: &str) -> Command {
    let mut command = Command::new(folder.join("scripts").join(name));
    command.current_dir(folder);
    for variable in [
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "CDPATH",
    ] {
        command.env_remove(variable);
    }
    command
}

/// A package named echobench without dependencies, whose executable prints "fresh" and its arguments,
/// and a stale executable in the default target folder, which leaves a file `stale` behind.
struct Package {
    folder: TempDir,
}

impl Package {
    fn new() -> Package {
        let folder = TempDir::new().unwrap();
        let package = Package { folder };
        let manifest = "[package]\nname = \"echobench\"\nversion = \"0.0.0\"\nedition = \"2024\"\n";
        let lock = "version = 4\n\n[[package]]\nname = \"echobench\"\nversion = \"0.0.0\"\n";
        // The page of the report has its pictures in a folder beside it.
        let main = r#"fn main() {
            let arguments: Vec<String> = std::env::args().skip(1).collect();
            println!("fresh {}", arguments.join(" "));
            if let Some(page) = arguments.last().filter(|last| last.ends_with(".html")) {
                let pictures = page.trim_end_matches(".html");
                std::fs::create_dir_all(pictures).unwrap();
                std::fs::write(format!("{pictures}/picture.svg"), "fresh").unwrap();
            }
        }"#;
        let stale = "#!/bin/sh\ntouch stale\n";
        for (path, text) in [
            ("Cargo.toml", manifest),
            ("Cargo.lock", lock),
            ("src/main.rs", main),
            ("examples/gate-trials.rs", main),
            ("target/release/echobench", stale),
            ("docs/results.md", "`echobench table results/some`\n"),
            (
                "docs/claims.md",
                "`echobench claims --from results/claims`\n",
            ),
            ("docs/img/picture.svg", "old"),
        ] {
            package.write(path, text);
        }
        let stale = package.path("target/release/echobench");
        succeeds(Command::new("chmod").arg("+x").arg(stale));
        copy_scripts(package.folder.path());
        package
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn script(&self, name: &str) -> Command {
        script(self.folder.path(), name)
    }

    /// The command has run what cargo built, and not what lay in the default folder.
    fn runs_fresh(&self, command: Command, arguments: &str) {
        let end = finish(command);
        assert_eq!(end.code, Some(0), "{end:?}");
        assert!(
            end.stdout.contains(&format!("fresh {arguments}")),
            "{end:?}"
        );
        assert!(!self.path("stale").exists(), "a stale executable: {end:?}");
    }
}

#[test]
fn scripts_run_what_cargo_built_wherever_the_target_folder_is() {
    for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"] {
        let package = Package::new();
        let mut command = package.script("compare.sh");
        command.arg("--full").env(variable, "elsewhere");
        package.runs_fresh(command, "run steady churn blocking --full");
        assert!(package.path("elsewhere/release/echobench").exists());
    }

    let version = succeeds(Command::new("rustc").arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let triple = format!("target = {:?}", host.expect("the host's triple"));
    for setting in ["target-dir = \"else \\\\ \\\"where\\\"\"", &triple] {
        let package = Package::new();
        package.write(".cargo/config.toml", &format!("[build]\n{setting}\n"));
        let mut command = package.script("compare.sh");
        command.args(["--from", "results/some"]);
        package.runs_fresh(command, "table results/some");
    }
}

#[test]
fn every_script_runs_what_cargo_built() {
    let package = Package::new();
    let script = |name: &str| {
        let mut command = package.script(name);
        command.env("CARGO_BUILD_TARGET_DIR", "elsewhere");
        command
    };

    package.runs_fresh(script("report.sh"), "claims --from results/claims");
    let picture = fs::read_to_string(package.path("docs/img/picture.svg")).unwrap();
    assert_eq!(picture, "fresh");

    let mut command = script("gate-error-rates.sh");
    command.arg("4");
    package.runs_fresh(command, "measure 4 --out");

    let built = finish(script("build.sh")).stdout;
    let folder = package.folder.path().canonicalize().unwrap();
    let expected = folder.join("elsewhere/release/echobench");
    assert_eq!(Path::new(built.trim_end()), expected);
}

#[test]
fn a_search_path_of_cd_does_not_matter() {
    let package = Package::new();
    package.write("other/scripts/compare.sh", "");
    let other = package.path("other");
    // As it is typed: a relative name is what the search path is for.
    let mut command = Command::new("bash");
    command
        .arg("scripts/compare.sh")
        .current_dir(package.folder.path())
        .env("CDPATH", other);
    package.runs_fresh(command, "run steady churn blocking");
}

#[test]
fn a_build_that_fails_is_not_replaced_by_an_older_executable() {
    let package = Package::new();
    package.write("src/main.rs", "not Rust");
    let end = finish(package.script("compare.sh"));
    assert_ne!(end.code, Some(0), "{end:?}");
    assert_eq!(end.stdout, "");
    assert!(!package.path("stale").exists());
}

#[test]
fn recipes_name_what_is_there() {
    let root = repository();
    let list = succeeds(Command::new(root.join(".ci/run")).arg("--list"));
    let steps: Vec<&str> = list.lines().collect();
    let justfile = fs::read_to_string(root.join("justfile")).unwrap();
    let recipes = justfile
        .lines()
        .filter_map(|line| line.strip_prefix("    "));

    let mut named = 0;
    for recipe in recipes {
        let mut words = recipe.split_whitespace().filter(|word| !word.contains('"'));
        let program = words.next().expect("a command");
        if program == ".ci/run" {
            let unknown: Vec<_> = words.filter(|step| !steps.contains(step)).collect();
            assert!(unknown.is_empty(), "no such steps: {unknown:?}");
        }
        let known = ["cargo", "@just"].contains(&program) || root.join(program).is_file();
        assert!(known, "{recipe}");
        named += usize::from(program.contains('/'));
    }
    assert!(named >= 5);
}

#[test]
fn actions_are_pinned_by_commit_and_keep_no_credentials() {
    let workflows = repository().join(".github/workflows");
    for entry in fs::read_dir(workflows).unwrap() {
        let path = entry.unwrap().path();
        let workflow = fs::read_to_string(&path).unwrap();
        let uses = workflow
            .lines()
            .filter_map(|line| line.split("uses: ").nth(1));
        for action in uses {
            let (_, pin) = action.split_once('@').expect("a version");
            let (commit, version) = pin.split_once(" # v").expect("its version as a comment");
            let is_digit = |c: char| c.is_ascii_hexdigit();
            assert!(
                commit.len() == 40 && commit.chars().all(is_digit),
                "{action}"
            );
            assert!(!version.is_empty());
        }
        let checkouts = workflow.matches("actions/checkout@").count();
        let without = workflow.matches("persist-credentials: false").count();
        assert_eq!(checkouts, without, "{}", path.display());
    }
}

/// A repository with a pull request: main has the commits "old" and "base", of which "base" is where
/// the pull request, "head", left it; `refs/pull/1/merge` merges it into main.
struct Upstream {
    folder: TempDir,
}

impl Upstream {
    fn new() -> Upstream {
        let folder = TempDir::new().unwrap();
        let upstream = Upstream { folder };
        let path = upstream.path();
        git(path, &["init", "--quiet", "--initial-branch", "main"]);
        copy_scripts(path);
        upstream.commit("old");
        upstream.commit("base");
        git(path, &["switch", "--quiet", "--create", "change"]);
        upstream.commit("head");
        git(path, &["switch", "--quiet", "main"]);
        git(path, &["switch", "--quiet", "--detach"]);
        let merge = [
            "merge",
            "--quiet",
            "--no-ff",
            "--message",
            "merge",
            "change",
        ];
        git(path, &merge);
        git(path, &["update-ref", "refs/pull/1/merge", "HEAD"]);
        git(path, &["switch", "--quiet", "main"]);
        git(path, &["branch", "--quiet", "-D", "change"]);
        upstream
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn commit(&self, sources: &str) {
        fs::write(self.path().join("sources"), sources).unwrap();
        git(self.path(), &["add", "--all"]);
        git(self.path(), &["commit", "--quiet", "--message", sources]);
    }

    /// The pull request as continuous integration checks it out: on no branch, and without a local
    /// one. With a depth, only so much of the history is there.
    fn checked_out(&self, depth: Option<&str>) -> TempDir {
        let clone = TempDir::new().unwrap();
        let path = clone.path();
        git(path, &["init", "--quiet", "--initial-branch", "unborn"]);
        // By its URL: a shallow clone cannot be made from a path.
        let url = format!("file://{}", self.path().display());
        git(path, &["remote", "add", "origin", &url]);
        let mut fetch = vec!["fetch", "--quiet"];
        if let Some(depth) = depth {
            fetch.extend(["--depth", depth]);
        }
        let heads = "+refs/heads/*:refs/remotes/origin/*";
        let pull = "+refs/pull/1/merge:refs/remotes/pull/1/merge";
        fetch.extend(["origin", heads, pull]);
        git(path, &fetch);
        let merge = "refs/remotes/pull/1/merge";
        git(path, &["checkout", "--quiet", "--detach", merge]);
        clone
    }
}

/// Runs the comparison of a checkout with an earlier revision; nothing of it may be left behind.
fn regress(checkout: &Path, arguments: &[&str]) -> Finished {
    let stub = repository().join("bench/tests/it/stub");
    let path = env::var("PATH").unwrap();
    let mut command = script(checkout, "regress.sh");
    command
        .args(arguments)
        .env("PATH", format!("{}:{path}", stub.display()));
    let end = finish(command);
    let worktrees = git(checkout, &["worktree", "list", "--porcelain"]);
    assert_eq!(worktrees.matches("worktree ").count(), 1, "{worktrees}");
    end
}

/// The pull request was compared with this one.
fn compared_with(end: &Finished, baseline: &str) {
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(end.stdout, format!("gate head\nbaseline {baseline}\n"));
}

#[test]
fn a_pull_request_is_compared_with_its_base() {
    let upstream = Upstream::new();
    let clone = upstream.checked_out(None);
    for arguments in [
        &[] as &[&str],
        &["--quick"],
        &["origin/main"],
        &["HEAD^1", "--quick"],
    ] {
        compared_with(&regress(clone.path(), arguments), "base");
    }
    compared_with(&regress(clone.path(), &["HEAD~2"]), "old");
}

#[test]
fn the_main_branch_is_that_of_the_origin_or_else_the_local_one() {
    let upstream = Upstream::new();
    let clone = upstream.checked_out(None);
    let head = "refs/remotes/origin/HEAD";

    // A local main that is behind.
    git(clone.path(), &["branch", "main", "HEAD~2"]);
    compared_with(&regress(clone.path(), &[]), "base");
    git(
        clone.path(),
        &["update-ref", "-d", "refs/remotes/origin/main"],
    );
    compared_with(&regress(clone.path(), &[]), "old");

    // The origin's own word goes first.
    git(
        clone.path(),
        &["update-ref", "refs/remotes/origin/trunk", "HEAD^1"],
    );
    git(
        clone.path(),
        &["symbolic-ref", head, "refs/remotes/origin/trunk"],
    );
    compared_with(&regress(clone.path(), &[]), "base");
}

#[test]
fn a_missing_revision_is_one_line_with_advice() {
    let upstream = Upstream::new();
    let clone = upstream.checked_out(None);
    regress(clone.path(), &["nowhere"]).refused(&["no revision 'nowhere'"]);
    git(
        clone.path(),
        &["update-ref", "-d", "refs/remotes/origin/main"],
    );
    let words = ["origin/HEAD, origin/main or main", "scripts/regress.sh REV"];
    regress(clone.path(), &[]).refused(&words);

    let shallow = upstream.checked_out(Some("1"));
    for arguments in [&[] as &[&str], &["HEAD^1"]] {
        let end = regress(shallow.path(), arguments);
        end.refused(&["shallow", "git fetch --unshallow"]);
        assert_eq!(end.stderr.lines().count(), 1, "{end:?}");
    }
    git(shallow.path(), &["fetch", "--quiet", "--unshallow"]);
    compared_with(&regress(shallow.path(), &[]), "base");

    // Deep enough for what the workflow asks for.
    let shallow = upstream.checked_out(Some("2"));
    compared_with(&regress(shallow.path(), &["HEAD^1"]), "base");
}
