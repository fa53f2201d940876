//! The action in `action.yml`, and the workflow in `docs/gate-in-your-ci.md`: their steps are run as GitHub would, in a
//! folder of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use tempfile::TempDir;

use crate::common::{Finished, finish, git, is_installed, script, succeeds};
use crate::documents::root;
use crate::gate::TINY;

/// A step of a workflow or of the action.
#[derive(Deserialize)]
struct Step {
    id: Option<String>,
    run: Option<String>,
    uses: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default, rename = "with")]
    inputs: BTreeMap<String, yaml_serde::Value>,
}

#[derive(Deserialize)]
struct Input {
    #[serde(default)]
    required: bool,
    default: Option<String>,
}

#[derive(Deserialize)]
struct Output {
    value: String,
}

#[derive(Deserialize)]
struct Steps {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Action {
    inputs: BTreeMap<String, Input>,
    outputs: BTreeMap<String, Output>,
    runs: Steps,
}

#[derive(Deserialize)]
struct Workflow {
    jobs: BTreeMap<String, Steps>,
}

fn action() -> Action {
    let text = fs::read_to_string(root().join("action.yml")).unwrap();
    yaml_serde::from_str(&text).unwrap()
}

/// The steps of a workflow in the document.
fn workflow(name: &str) -> Vec<Step> {
    let text = fs::read_to_string(root().join("docs/gate-in-your-ci.md")).unwrap();
    let (_, example) = text
        .split_once(&format!("```yaml\nname: {name}\n"))
        .expect(name);
    let (example, _) = example.split_once("```").expect("its end");
    let workflow: Workflow = yaml_serde::from_str(example).unwrap();
    let jobs = workflow.jobs.into_values();
    jobs.flat_map(|job| job.steps).collect()
}

/// Values of expressions: `inputs.NAME`, and `steps.ID.outputs.NAME` of steps that have run.
type Context = BTreeMap<String, String>;

/// The text with the value of each expression in its place.
fn evaluated(text: &str, context: &Context) -> String {
    let mut parts = text.split("${{");
    let mut value = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").expect("the end of an expression");
        // An output that no step has set is empty.
        let known = context.get(name.trim()).map_or("", String::as_str);
        value += known;
        value += rest;
    }
    value
}

/// A job on a runner: its workspace, the checkout of the action, and what the steps have written.
struct Job {
    folder: TempDir,
    action: PathBuf,
    path: String,
}

impl Job {
    /// A job whose action is this repository.
    fn new() -> Job {
        let folder = TempDir::new().unwrap();
        for name in ["workspace", "temp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Job {
            folder,
            action: root(),
            path: std::env::var("PATH").unwrap(),
        }
    }

    /// A job in which cargo has built this executable already.
    fn with_executable(executable: &Path) -> Job {
        let mut job = Job::new();
        let stubs = job.folder.path().join("stubs");
        fs::create_dir(&stubs).unwrap();
        let message =
            serde_json::json!({ "reason": "compiler-artifact", "executable": executable });
        script(&stubs, "cargo", &format!("echo '{message}'"));
        job.path = format!("{}:{}", stubs.display(), job.path);
        job
    }

    fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    fn summary(&self) -> String {
        fs::read_to_string(self.folder.path().join("summary")).unwrap_or_default()
    }

    /// Runs a script as the shell `bash` of a step. Its outputs come into the context.
    fn run(&self, step: &Step, context: &mut Context) -> Finished {
        let text = step.run.as_ref().expect("a script");
        assert!(!text.contains("${{"), "an input could become code: {text}");
        let file = self.folder.path().join("script");
        fs::write(&file, text).unwrap();
        let outputs = self.folder.path().join("outputs");
        fs::write(&outputs, "").unwrap();

        let mut command = Command::new("bash");
        command
            .args(["--noprofile", "--norc", "-eo", "pipefail"])
            .arg(&file)
            .current_dir(self.workspace())
            .env("PATH", &self.path)
            .env("RUNNER_TEMP", self.folder.path().join("temp"))
            .env("GITHUB_ACTION_PATH", &self.action)
            .env("GITHUB_OUTPUT", &outputs)
            .env("GITHUB_STEP_SUMMARY", self.folder.path().join("summary"));
        for (name, value) in &step.env {
            command.env(name, evaluated(value, context));
        }

        let end = finish(command);
        let id = step.id.as_deref().unwrap_or_default();
        for line in fs::read_to_string(&outputs).unwrap().lines() {
            let (name, value) = line.split_once('=').expect("NAME=VALUE");
            context.insert(format!("steps.{id}.outputs.{name}"), value.to_owned());
        }
        end
    }

    /// Runs the action with these inputs, up to the first step that fails; returns the end of the last one, and the
    /// outputs.
    fn act(&self, inputs: &[(&str, &str)]) -> (Finished, BTreeMap<String, String>) {
        let action = action();
        for (name, _) in inputs {
            assert!(action.inputs.contains_key(*name), "no input '{name}'");
        }
        let mut context = Context::new();
        for (name, input) in &action.inputs {
            let given = inputs.iter().find(|(given, _)| given == name);
            assert!(given.is_some() || !input.required, "no {name}");
            let default = input.default.clone().unwrap_or_default();
            let value = given.map_or(default, |(_, value)| (*value).to_owned());
            context.insert(format!("inputs.{name}"), value);
        }

        let mut last = None;
        for step in &action.runs.steps {
            let end = self.run(step, &mut context);
            let failed = end.code != Some(0);
            last = Some(end);
            if failed {
                break;
            }
        }
        let outputs = action.outputs.iter();
        let outputs =
            outputs.map(|(name, output)| (name.clone(), evaluated(&output.value, &context)));
        (last.expect("a step"), outputs.collect())
    }
}

/// An executable that behaves as a gate with this exit code, and writes its arguments to standard output.
fn stub(folder: &Path, code: i32, headline: &str) -> PathBuf {
    let report = if headline.is_empty() {
        String::new()
    } else {
        format!(
            "for word; do case $word in markdown=*) echo \"### Gate: {headline}\" >\"${{word#markdown=}}\" ;; esac; done"
        )
    };
    let text = format!(
        "{report}\nprintf \"<%s>\" \"$@\"\necho measuring >&2\necho \"error: no luck\" >&2\nexit {code}"
    );
    script(folder, "echobench", &text);
    folder.join("echobench")
}

#[test]
fn each_exit_code_of_the_gate_is_a_result_of_the_step() {
    let within = "pass: every line is within its floor";
    let slower = "regression: echo throughput is 9.9 % worse";
    let noisy = "inconclusive: echo throughput may be up to 5.0 % worse";
    for (code, headline, inconclusive, expected, line) in [
        (0, within, "warning", 0, ""),
        (
            2,
            slower,
            "warning",
            2,
            "::error title=gate::regression: echo throughput is 9.9 %25 worse\n",
        ),
        (
            3,
            noisy,
            "warning",
            0,
            "::warning title=gate::inconclusive: echo throughput may be up to 5.0 %25 worse\n",
        ),
        (
            3,
            noisy,
            "failure",
            3,
            "::error title=gate::inconclusive: echo throughput may be up to 5.0 %25 worse\n",
        ),
        (1, "", "warning", 1, "::error title=gate::error: no luck\n"),
        (2, "", "warning", 2, "::error title=gate::error: no luck\n"),
    ] {
        let place = TempDir::new().unwrap();
        let job = Job::with_executable(&stub(place.path(), code, headline));
        let (end, outputs) = job.act(&[
            ("baseline", "a 'b c' {port}"),
            ("candidate", "$(touch no) {port}; touch no"),
            ("options", "--quick  --blocks\n30"),
            ("inconclusive", inconclusive),
        ]);

        assert_eq!(end.code, Some(expected), "{end:?}");
        let commands: String = end
            .stdout
            .split_inclusive('\n')
            .filter_map(|text| text.find("::").map(|at| &text[at..]))
            .collect();
        assert_eq!(commands, line, "{end:?}");
        let words =
            "<gate><--baseline><a 'b c' {port}><--candidate><$(touch no) {port}; touch no><--out>";
        assert!(end.stdout.contains(words), "{end:?}");
        assert!(end.stdout.contains("<--quick><--blocks><30>"), "{end:?}");
        // Progress is shown while the gate runs.
        assert!(end.stderr.contains("measuring\n"), "{end:?}");
        assert!(!job.workspace().join("no").exists());

        let (verdict, summary) = match headline.split_once(':') {
            Some((verdict, _)) => (verdict, format!("### Gate: {headline}\n")),
            None => ("", "### Gate: no verdict\n\nerror: no luck\n".to_owned()),
        };
        assert_eq!(outputs["verdict"], verdict);
        assert_eq!(job.summary(), summary);
        assert!(Path::new(&outputs["folder"]).is_dir());
    }
}

#[test]
fn an_unknown_word_for_inconclusive_is_found_before_anything_is_built() {
    let job = Job::with_executable(Path::new("/nowhere"));
    let inputs = [
        ("baseline", "a {port}"),
        ("candidate", "b {port}"),
        ("inconclusive", "ignore"),
    ];
    let (end, outputs) = job.act(&inputs);
    assert_eq!(end.code, Some(1), "{end:?}");
    let line = "::error title=gate::inconclusive is 'ignore': give warning or failure\n";
    assert_eq!(end.stdout, line);
    assert_eq!(outputs["verdict"], "");
}

#[test]
fn a_build_that_fails_fails_the_action() {
    let job = Job::with_executable(Path::new("/nowhere"));
    let (end, _) = job.act(&[("baseline", "a {port}"), ("candidate", "b {port}")]);
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains("which executable it built"), "{end:?}");
}

/// A repository of somebody's server, with a pull request that changes these files.
fn upstream(files: [&str; 2], change: impl Fn(&str) -> String) -> TempDir {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    git(path, &["init", "--quiet", "--initial-branch", "main"]);
    let commit = |message: &str| {
        git(path, &["add", "--all"]);
        git(path, &["commit", "--quiet", "--message", message]);
    };
    for name in files {
        fs::copy(root().join("docs/examples").join(name), path.join(name)).unwrap();
    }
    commit("base");
    git(path, &["tag", "--annotate", "--message", "release", "v1"]);
    git(path, &["switch", "--quiet", "--create", "change"]);
    for name in files {
        let text = fs::read_to_string(path.join(name)).unwrap();
        fs::write(path.join(name), change(&text)).unwrap();
    }
    commit("head");
    git(path, &["switch", "--quiet", "main"]);
    git(
        path,
        &[
            "commit",
            "--quiet",
            "--allow-empty",
            "--message",
            "meanwhile",
        ],
    );
    let merge = [
        "merge",
        "--quiet",
        "--no-ff",
        "--message",
        "merge",
        "change",
    ];
    git(path, &merge);
    folder
}

/// Runs a workflow of the document over a repository, with these servers and options; returns the end of the action, and
/// its outputs.
fn example(
    job: &Job,
    name: &str,
    upstream: &Path,
    servers: Option<[&str; 2]>,
    options: &str,
) -> (Finished, BTreeMap<String, String>) {
    let mut acted = None;
    for step in workflow(name) {
        let text = |name: &str| step.inputs[name].as_str().expect("text").to_owned();
        match step.uses.as_deref() {
            None => {
                let end = job.run(&step, &mut Context::new());
                assert_eq!(end.code, Some(0), "{end:?}");
            }
            Some(name) if name.starts_with("actions/checkout@") => {
                let url = format!("file://{}", upstream.display());
                let path = text("path");
                let depth = step.inputs["fetch-depth"].as_u64().unwrap().to_string();
                let mut clone = vec!["clone", "--quiet", &url, &path];
                // 0 is the whole history.
                if depth != "0" {
                    clone.extend(["--depth", &depth]);
                }
                git(&job.workspace(), &clone);
                git(
                    &job.workspace().join(path),
                    &["checkout", "--quiet", "--detach"],
                );
            }
            Some(name) if name.starts_with("OWNER/echobench@") => {
                assert_eq!(step.inputs.len(), 2);
                let (baseline, candidate) = (text("baseline"), text("candidate"));
                let [baseline, candidate] = servers.unwrap_or([&baseline, &candidate]);
                acted = Some(job.act(&[
                    ("baseline", baseline),
                    ("candidate", candidate),
                    ("options", options),
                ]));
            }
            Some(name) => assert!(name.starts_with("actions/upload-artifact@"), "{name}"),
        }
    }
    acted.expect("a step with the action")
}

/// The verdict of the reports, to which everything else has to fit.
fn consistent_verdict(job: &Job, end: &Finished, outputs: &BTreeMap<String, String>) -> String {
    let folder = Path::new(&outputs["folder"]);
    let json = fs::read_to_string(folder.join("rows/gate.json"));
    let json = json.unwrap_or_else(|_| panic!("no report: {end:?}"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let verdict = json["verdict"].as_str().unwrap().to_owned();
    assert_eq!(outputs["verdict"], verdict);
    assert!(folder.join("gate.xml").exists());

    let (code, word) = match verdict.as_str() {
        "pass" => (0, "gate: pass"),
        "regression" => (2, "::error title=gate::regression"),
        _ => (0, "::warning title=gate::inconclusive"),
    };
    assert_eq!(end.code, Some(code), "{end:?}");
    assert!(end.stdout.contains(word), "{end:?}");
    assert!(
        job.summary().starts_with(&format!("### Gate: {verdict}: ")),
        "{}",
        job.summary()
    );
    verdict
}

/// Both servers of the examples: one that is unchanged, and one that became several times as slow. How fast they are does
/// not matter.
#[test]
fn the_workflow_of_the_document_judges_servers_in_c_and_python() {
    if !is_installed("cc") || !is_installed("python3") {
        return;
    }
    let slow = |text: &str| text.replace("else 0\n", "else 2_000\n");
    let upstream = upstream(["echo.c", "echo.py"], slow);
    let tiny = upstream.path().join("tiny.toml");
    fs::write(&tiny, TINY).unwrap();
    let options = format!("--quick --scenario {}", tiny.display());
    let own = Path::new(env!("CARGO_BIN_EXE_echobench"));

    for name in ["gate", "drift"] {
        let job = Job::with_executable(own);
        let (end, outputs) = example(&job, name, upstream.path(), None, &options);
        let about = "candidate `head/echo {port}` against baseline `base/echo {port}`";
        assert!(end.stdout.contains(about), "{end:?}");
        // On a busy machine it may not know; that equal servers are a regression, hardly ever.
        let verdict = consistent_verdict(&job, &end, &outputs);
        assert_ne!(verdict, "regression", "{end:?}");
    }

    let job = Job::with_executable(own);
    let python = [
        "mine=python3 base/echo.py {port}",
        "mine=python3 head/echo.py {port}",
    ];
    let (end, outputs) = example(&job, "gate", upstream.path(), Some(python), &options);
    assert_ne!(consistent_verdict(&job, &end, &outputs), "pass", "{end:?}");
    assert!(end.stdout.contains(" mine "), "{end:?}");

    let job = Job::with_executable(own);
    let missing = ["base/none {port}", "head/echo {port}"];
    let (end, outputs) = example(&job, "gate", upstream.path(), Some(missing), &options);
    assert_eq!(
        (end.code, &outputs["verdict"][..]),
        (Some(1), ""),
        "{end:?}"
    );
    assert!(job.summary().contains("no verdict"), "{}", job.summary());
    assert!(
        job.summary().contains("cannot start 'base/none'"),
        "{}",
        job.summary()
    );
}

/// The same with the build of the action, and the workload of the gate.
#[test]
#[ignore = "builds in release mode, and runs a gate of 20 seconds"]
fn the_action_builds_what_it_runs() {
    if !is_installed("cc") {
        return;
    }
    // The build of the action then has little to do, and is no test that hangs.
    succeeds(&mut Command::new(root().join("scripts/build.sh")));
    let upstream = upstream(["echo.c", "echo.py"], |text| format!("{text}\n"));
    let job = Job::new();
    let (end, outputs) = example(&job, "gate", upstream.path(), None, "--quick");
    println!("{}{}", end.stderr, job.summary());
    assert_ne!(consistent_verdict(&job, &end, &outputs), "regression");
}
