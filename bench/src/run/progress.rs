//! Progress of a run on standard error: a bar on a terminal, a line per tenth elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::experiment::condition::Condition;
use crate::noteln;

/// Measured time to start and end the processes of one client.
const START_PER_CLIENT: Duration = Duration::from_millis(1);

/// Measured time to start and end the servers of a block.
const START_PER_BLOCK: Duration = Duration::from_millis(150);

/// Progress through a list of blocks.
pub(super) struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new(blocks: &[(&Condition, u32)]) -> Self {
        let total = blocks
            .iter()
            .map(|(condition, _)| expected_ms(condition))
            .sum();
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };

        let bar = ProgressBar::with_draw_target(Some(total), target);
        // A line that is wider than the terminal would be drawn again below itself at each step.
        let style =
            ProgressStyle::with_template("{bar:30} {percent:>3} %  {eta} left\n{wide_msg}{prefix}");
        bar.set_style(style.expect("the template is well formed"));
        let is_step = blocks.iter().any(|(condition, _)| condition.step.is_some());
        if !is_terminal && !is_step {
            noteln!("measuring for about {} s", total / 1000);
        }
        Progress { bar, is_terminal }
    }

    /// Shows which block is measured now.
    pub(super) fn begin(&self, condition: &Condition, block: u32) {
        let Condition {
            scenario,
            placement,
            effort,
            ..
        } = condition;
        let clients = condition.key().clients_in_words();
        let load = condition
            .load_percent
            .map(|percent| format!(" at {percent} %"))
            .unwrap_or_default();

        self.bar.set_message(format!(
            "{} · {clients}, {placement}{load} · block {block}/{}",
            scenario.name, effort.blocks
        ));
    }

    /// Shows interim results; only a terminal has room for them.
    pub(super) fn show_interim(&self, text: impl FnOnce() -> String) {
        if self.is_terminal {
            self.bar.set_prefix(text());
        }
    }

    /// Advances by one finished block.
    pub(super) fn finish_block(&self, condition: &Condition) {
        let tenth = |done: u64| done * 10 / self.bar.length().unwrap_or(1).max(1);
        let before = tenth(self.bar.position());
        self.bar.inc(expected_ms(condition));
        let after = tenth(self.bar.position());

        if !self.is_terminal && condition.step.is_none() && after > before && after < 10 {
            noteln!(
                "{} % done, about {} s left",
                after * 10,
                self.bar.eta().as_secs()
            );
        }
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Approximate duration of a block, processes included; good enough for the time left.
pub(super) fn expected_ms(condition: &Condition) -> u64 {
    let processes = u32::try_from(condition.arms.len()).unwrap_or(1) * condition.clients;
    let connecting = condition.scenario.traffic.ramp_up.0 + START_PER_CLIENT * processes;
    let time = condition.block_time() + START_PER_BLOCK + connecting;
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
