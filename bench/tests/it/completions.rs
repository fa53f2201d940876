//! Completion scripts and man pages.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{executable, finish};
use tempfile::TempDir;

#[test]
fn scripts_complete_names_and_offer_nothing_hidden() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let mut command = executable();
        command.args(["completions", shell]);
        let run = finish(command);
        assert_eq!(run.code, Some(0), "{run:?}");

        for hidden in ["inject-steps", "take-alarms", "no-reap", "supervise"] {
            assert!(!run.stdout.contains(hidden), "{shell} offers {hidden}");
        }
        // What the scripts of these shells can offer as the value of an argument.
        if matches!(shell, "bash" | "zsh") {
            for name in ["rate_sweep", "prethread", "C15", "processes", "split"] {
                assert!(run.stdout.contains(name), "{shell} does not offer {name}");
            }
        }
    }
}

/// Completes the last word of a line with bash, as pressing the tab key does.
fn complete(words: &[&str]) -> String {
    let mut command = executable();
    command.args(["completions", "bash"]);
    let script = finish(command).stdout;

    let line = format!(
        "{script}\nCOMP_WORDS=(echobench {}); COMP_CWORD={}; _echobench echobench '{}' '{}'; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len(),
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let output = Command::new("bash").arg("-c").arg(line).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_scenarios_models_and_values() {
    for (words, completed) in [
        (&["run", "rate"][..], "rate_sweep\n"),
        (&["serve", "prefo"], "prefork\n"),
        (&["claims", "C11"], "C11\n"),
        (&["load", "--driver", "proc"], "processes\n"),
        (&["run", "--placement", "sp"], "split\n"),
    ] {
        assert_eq!(complete(words), completed, "{words:?}");
    }
}

#[test]
fn man_pages_are_well_formed() {
    let folder = TempDir::new().unwrap();
    let mut command = executable();
    command.arg("man").arg(folder.path());
    assert_eq!(finish(command).code, Some(0));

    let mut pages = 0;
    for page in fs::read_dir(folder.path()).unwrap() {
        let page = page.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        assert!(
            text.contains(".SH NAME") && text.contains(".TH echobench"),
            "{}",
            page.display()
        );
        pages += 1;

        let mut lint = Command::new("mandoc");
        lint.args(["-T", "lint", "-W", "warning"])
            .arg(&page)
            .stderr(Stdio::inherit());
        let Ok(output) = lint.output() else {
            eprintln!("not checked further: there is no mandoc");
            continue;
        };
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    }
    assert!(pages > 10, "{pages} pages");
}
