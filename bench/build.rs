//! Tells the executable what it was built from: the compiler, the profile and the revision.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let rustc = first_line(&rustc, &["--version"]).unwrap_or_default();
    let profile = env::var("PROFILE").unwrap_or_default();
    let revision = first_line("git", &["rev-parse", "HEAD"]).unwrap_or_default();
    println!("cargo::rustc-env=ECHOBENCH_RUSTC={rustc}");
    println!("cargo::rustc-env=ECHOBENCH_PROFILE={profile}");
    println!("cargo::rustc-env=ECHOBENCH_REVISION={revision}");

    println!("cargo::rerun-if-changed=build.rs");
    // The log of HEAD changes with every commit and checkout, also where the branch itself has no
    // file of its own. A file that is not there would make every build run this again.
    let branch = first_line("git", &["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        if let Some(path) = first_line("git", &["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// The first line that a successful command prints.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?;
    output.status.success().then(|| line.to_owned())
}
