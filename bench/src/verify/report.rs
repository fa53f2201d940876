//! Report of a verification, as text and as an exit code.

use super::{Check, CheckOutcome};
use crate::render::Style;

/// Outcomes of a verification.
#[derive(Default)]
pub(crate) struct VerifyReport {
    pub(super) outcomes: Vec<(&'static Check, CheckOutcome)>,
    /// Whether a signal ended it early.
    pub(super) interrupted: bool,
    /// End of the server, if it was started for the suite.
    pub(super) end: Option<anyhow::Result<()>>,
}

impl VerifyReport {
    /// The outcomes as a table; empty if no check was done.
    pub(crate) fn text(&self) -> String {
        if self.outcomes.is_empty() {
            return String::new();
        }

        let row = |(check, outcome): &(&Check, CheckOutcome)| {
            let text = match outcome {
                CheckOutcome::Passed => "pass".to_owned(),
                CheckOutcome::Failed(why) => format!("FAIL: {}: {why}", check.what),
                CheckOutcome::Skipped => "skipped: not an echobench server".to_owned(),
                CheckOutcome::NotDone(why) => format!("not done: {why}"),
            };
            vec![check.name.to_owned(), text]
        };
        let rows = self.outcomes.iter().map(row).collect();
        Style::Plain.table(&["check", "outcome"], rows, &[0, 1]) + "\n"
    }

    /// Reasons why the table is not the whole answer, a line each.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.interrupted {
            remarks.push("interrupted".to_owned());
        }
        if let Some(Err(error)) = &self.end {
            remarks.push(format!("the server's end: {error:#}"));
        }
        remarks
    }

    /// Exit code of the command: 2 if a check failed, else 1 if not everything could be done.
    pub(crate) fn exit_code(&self) -> u8 {
        let has = |wanted: fn(&CheckOutcome) -> bool| {
            let mut outcomes = self.outcomes.iter();
            outcomes.any(|(_, outcome)| wanted(outcome))
        };

        let failed = has(|outcome| matches!(outcome, CheckOutcome::Failed(_)));
        let not_done = has(|outcome| matches!(outcome, CheckOutcome::NotDone(_)));
        let no_end = matches!(self.end, Some(Err(_)));

        if failed && !self.interrupted {
            2
        } else {
            u8::from(self.interrupted || not_done || no_end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::CHECKS;

    fn report(outcomes: &[CheckOutcome]) -> VerifyReport {
        VerifyReport {
            outcomes: CHECKS.iter().zip(outcomes.iter().cloned()).collect(),
            ..VerifyReport::default()
        }
    }

    #[test]
    fn only_a_verification_that_is_done_can_pass() {
        let failed = || CheckOutcome::Failed("no".to_owned());
        let not_done = || CheckOutcome::NotDone("no files".to_owned());
        let passed = [CheckOutcome::Passed, CheckOutcome::Skipped];
        assert_eq!(report(&passed).exit_code(), 0);
        assert_eq!(report(&[CheckOutcome::Passed, not_done()]).exit_code(), 1);
        assert_eq!(report(&[failed(), not_done()]).exit_code(), 2);

        let mut not_awaited = report(&passed);
        not_awaited.end = Some(Err(anyhow::anyhow!("no child processes")));
        assert_eq!(not_awaited.exit_code(), 1);
        assert!(not_awaited.remarks()[0].contains("no child processes"));

        let mut interrupted = report(&passed);
        interrupted.interrupted = true;
        assert_eq!(interrupted.exit_code(), 1);
    }
}
