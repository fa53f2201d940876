//! Tells the executable what it was built from: the compiler, the profile, the target, the revision, and whether
//! the sources differed from it.

#[path = "build/checkout.rs"]
mod checkout;

use std::env;
use std::path::PathBuf;
use std::process::Command;

use checkout::Checkout;

/// The files that the executable is made of, relative to the root of the workspace.
const SOURCES: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    "fork",
    "protocol",
    "servers",
    "clients",
    "bench/Cargo.toml",
    "bench/build.rs",
    "bench/build",
    "bench/scenarios",
    "bench/src",
];

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let rustc = version(&rustc).unwrap_or_default();
    let profile = env::var("PROFILE").unwrap_or_default();
    println!("cargo::rustc-env=ECHOBENCH_RUSTC={rustc}");
    println!("cargo::rustc-env=ECHOBENCH_PROFILE={profile}");
    let target = env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=ECHOBENCH_TARGET={target}");

    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = package.parent().expect("the package is in a workspace");
    let checkout = Checkout::at(root);
    let revision = checkout.as_ref().and_then(Checkout::revision);
    let dirty = checkout.as_ref().and_then(|own| own.differs(&SOURCES));
    println!(
        "cargo::rustc-env=ECHOBENCH_REVISION={}",
        revision.unwrap_or_default()
    );
    println!(
        "cargo::rustc-env=ECHOBENCH_DIRTY={}",
        dirty.map_or(String::new(), |dirty| dirty.to_string())
    );

    let sources = SOURCES.map(|source| root.join(source));
    let commits = checkout
        .map(|own| own.changed_by_commits())
        .unwrap_or_default();
    for path in sources.into_iter().chain(commits) {
        // A file that is not there would make every build run this again.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

/// The version line of a compiler.
fn version(rustc: &str) -> Option<String> {
    let output = Command::new(rustc).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}
