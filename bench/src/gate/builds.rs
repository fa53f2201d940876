//! Builds of echobench in a gate: their compatibility with this one, and the copies that are run.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use echobench_servers::MODELS;
use nix::fcntl::{FcntlArg, fcntl};
use serde::{Deserialize, Serialize};

use crate::host::environment::{Environment, sha256_of};
use crate::processes::child::ChildProcess;
use crate::scenario::arm::PORT;

/// Version of the interface of `serve`, its options and its lines of output; rises with an incompatible
/// change.
const SERVE_INTERFACE: u32 = 1;
/// Longest wait for the answer of `about`.
const ABOUT_TIMEOUT: Duration = Duration::from_secs(10);
/// Least descriptor of a copy: three digits.
const FIRST_DESCRIPTOR: RawFd = 100;

/// Description of an executable: the answer of `echobench about`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The version of echobench.
    pub echobench: String,
    /// The commit that it was built from.
    pub revision: Option<String>,
    /// The version of the wire protocol.
    pub protocol: u8,
    /// The version of the interface of `serve`.
    pub serve: u32,
    /// The models that it can serve.
    pub models: Vec<String>,
}

impl About {
    /// The description of this executable.
    #[must_use]
    pub fn this_build() -> Self {
        About {
            echobench: env!("CARGO_PKG_VERSION").to_owned(),
            revision: Environment::revision(),
            protocol: echobench_protocol::VERSION,
            serve: SERVE_INTERFACE,
            models: MODELS.iter().map(|model| model.name.to_owned()).collect(),
        }
    }
}

/// An executable whose servers this one can drive.
#[derive(Clone, Debug, Serialize)]
pub struct Build {
    /// Its description of itself.
    #[serde(flatten)]
    pub about: About,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    #[serde(skip)]
    path: PathBuf,
}

impl Build {
    /// Reads the description of an executable; `side` is `baseline` or `candidate`. Fails unless it is an
    /// echobench whose servers this one can drive.
    pub fn open(side: &str, path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if !path.is_file() {
            bail!(
                "no {side} executable {shown}: build one with `cargo build --release`, or give the command line of \
                 another server, with {PORT} where its port goes"
            );
        }
        // Without a slash the name would be looked up in PATH.
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot find the {side} {shown}"))?;

        let about = ask(&path).with_context(|| {
            format!(
                "the {side} {shown} is not an echobench that a gate can drive; for another server add its port: \
                 '{shown} {PORT}'"
            )
        })?;

        let own = About::this_build();
        if (about.protocol, about.serve) != (own.protocol, own.serve) {
            bail!(
                "the {side} {shown} is echobench {} with protocol {} and serve interface {}; this one \
                 drives {} and {}: compare builds that share them",
                about.echobench,
                about.protocol,
                about.serve,
                own.protocol,
                own.serve
            );
        }

        let sha256 = sha256_of(&path).with_context(|| format!("cannot read the {side} {shown}"))?;
        Ok(Build {
            about,
            sha256,
            path,
        })
    }

    /// Fails unless it can serve the model of an arm.
    pub fn check_model(&self, side: &str, arm: &str) -> anyhow::Result<()> {
        let model = arm.split_whitespace().next().unwrap_or_default();
        if !self.about.models.iter().any(|known| known == model) {
            bail!(
                "unknown model '{model}': the {side} knows {}",
                self.about.models.join(", ")
            );
        }
        Ok(())
    }

    /// A copy of the executable.
    pub(super) fn copy(&self) -> anyhow::Result<Copy> {
        let copy = copy_without_name(&self.path);
        let copy = copy.with_context(|| format!("cannot copy {}", self.path.display()))?;
        Ok(Copy(copy))
    }

    /// The version, and the first digits of the revision.
    #[must_use]
    pub fn title(&self) -> String {
        let revision = self
            .about
            .revision
            .as_deref()
            .and_then(|hash| hash.get(..7));
        match revision {
            Some(revision) => format!("{} ({revision})", self.about.echobench),
            None => self.about.echobench.clone(),
        }
    }
}

fn ask(path: &Path) -> anyhow::Result<About> {
    let mut command = Command::new(path);
    // Messages of a program that is no echobench would hide ours.
    command.arg("about").stderr(Stdio::null());
    let agent = ChildProcess::spawn_command(command, "`about`")?;
    agent.receive(Instant::now() + ABOUT_TIMEOUT)
}

/// A copy of an executable, for one arm. The second arm of the baseline then differs from the first in whatever a
/// candidate differs in: its file, where the kernel keeps that in memory, and a path, of the same length, as long
/// arguments move the stack.
///
/// The file has no name, so that nothing stays behind however this process ends. Servers are started from
/// `/proc/PID/fd/N`, which is there as long as this process is.
pub(super) struct Copy(File);

impl Copy {
    /// The path of the copy.
    pub(super) fn path(&self) -> PathBuf {
        let descriptor = self.0.as_raw_fd();
        PathBuf::from(format!("/proc/{}/fd/{descriptor}", std::process::id()))
    }
}

/// A copy of an executable in the temporary folder, without a name.
fn copy_without_name(path: &Path) -> io::Result<File> {
    let mut copy = tempfile::tempfile()?;
    copy.set_permissions(Permissions::from_mode(0o700))?;
    io::copy(&mut File::open(path)?, &mut copy)?;

    // The kernel executes no file that is open for writing.
    let reader = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    drop(copy);

    // Descriptors of one length, whatever else is open: the paths must not differ in theirs.
    let descriptor = fcntl(&reader, FcntlArg::F_DUPFD_CLOEXEC(FIRST_DESCRIPTOR))?;
    #[expect(unsafe_code, reason = "fcntl returns a bare number")]
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}
