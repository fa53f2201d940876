//! The tables that people read, character by character.

use echobench::render::Style;
use echobench::results::{BlockRow, Metric, SCHEMA_VERSION, SummaryRow, Validity, ValidityFlag};
use echobench::run::tables::tables;
use echobench::scenario::{Placement, Views};
use echobench::stats::RatioVerdict;
use echobench_clients::Driver;
use serde_json::json;

/// One arm in the summary, without its values.
struct Arm {
    scenario: &'static str,
    clients: u32,
    driver: Driver,
    model: &'static str,
}

impl Arm {
    fn row(&self, metric: Metric, estimate: Option<f64>) -> SummaryRow {
        let row = json!({
            "schema_version": SCHEMA_VERSION,
            "scenario": self.scenario,
            "clients": self.clients,
            "driver": self.driver,
            "placement": Placement::Split,
            "traffic": "",
            "model": self.model,
            "metric": metric,
            "estimate": estimate,
            "method": "median of blocks, sign-test interval",
            "blocks": 11,
        });
        // What is missing is not known.
        serde_json::from_value(row).expect("a row")
    }

    /// All its metrics, in the order of the columns.
    fn rows(&self, throughput: SummaryRow, values: [Option<f64>; 6]) -> Vec<SummaryRow> {
        let names = [
            Metric::LatencyP50,
            Metric::LatencyP99,
            Metric::CpuPerRequest,
            Metric::MemoryPerConnection,
            Metric::FailedRequests,
            Metric::ClientsNeverServed,
        ];
        let rest = names.into_iter().zip(values);
        let rest = rest.map(|(name, value)| self.row(name, value));
        std::iter::once(throughput).chain(rest).collect()
    }

    fn block(&self, status: &str) -> BlockRow {
        BlockRow {
            schema_version: SCHEMA_VERSION,
            scenario: self.scenario.to_owned(),
            clients: self.clients,
            driver: self.driver,
            placement: Placement::Split,
            model: self.model.to_owned(),
            block: 11,
            status: status.to_owned().into(),
            ..BlockRow::default()
        }
    }
}

fn steady(clients: u32, driver: Driver, model: &'static str) -> Arm {
    Arm {
        scenario: "steady",
        clients,
        driver,
        model,
    }
}

/// The ratio of an arm to the reference, with its interval.
fn compared(mut row: SummaryRow, ratio: [f64; 3], verdict: RatioVerdict) -> SummaryRow {
    row.reference = Some("thread".to_owned());
    row.ratio = Some(ratio[0]);
    if verdict != RatioVerdict::TooFewBlocks {
        row.ratio_low = Some(ratio[1]);
        row.ratio_high = Some(ratio[2]);
    }
    row.verdict = Some(verdict);
    row
}

/// Every kind of cell there is: plain values, missing ones, failures, starved clients; ratios that
/// are resolved, not resolved, and not to be had.
fn example() -> (Vec<SummaryRow>, Vec<BlockRow>) {
    let rate = Metric::Throughput;
    let mut summary = Vec::new();

    let thread = steady(8, Driver::Threads, "thread");
    let throughput = thread.row(rate, Some(98_765.4));
    let values = [12_345.0, 56_789.0, 4_321.0, 13_926.4, 0.0, 0.0];
    summary.extend(thread.rows(throughput, values.map(Some)));

    let asynchronous = steady(8, Driver::Threads, "async");
    let throughput = compared(
        asynchronous.row(rate, Some(123_456.0)),
        [1.25, 1.2, 1.304],
        RatioVerdict::Higher,
    );
    let values = [9_999.0, 1_234_567.0, 987.0, -2048.0, 1_234.0, 0.0];
    summary.extend(asynchronous.rows(throughput, values.map(Some)));
    summary.push(asynchronous.row(Metric::SliceLatencyP99, Some(98_765.0)));

    let pool = steady(8, Driver::Threads, "pool --workers 3");
    let throughput = compared(
        pool.row(rate, Some(99_000.0)),
        [1.01, 0.97, 1.05],
        RatioVerdict::Unresolved,
    );
    let values = [
        Some(12_000.0),
        None,
        Some(4_000.0),
        None,
        Some(0.0),
        Some(5.0),
    ];
    summary.extend(pool.rows(throughput, values));

    let thread = steady(8, Driver::Processes, "thread");
    let throughput = thread.row(rate, Some(90_000.0));
    let values = [Some(1e9), Some(2.5e9), None, None, Some(0.0), Some(0.0)];
    summary.extend(thread.rows(throughput, values));

    let failing = steady(8, Driver::Processes, "async");
    let throughput = compared(
        failing.row(rate, Some(45_000.0)),
        [0.5, 0.0, 0.0],
        RatioVerdict::TooFewBlocks,
    );
    summary.extend(failing.rows(throughput, [None; 6]));

    let gone = steady(8, Driver::Processes, "fork");
    let mut throughput = gone.row(rate, None);
    throughput.reference = Some("thread".to_owned());
    summary.extend(gone.rows(throughput, [None; 6]));

    let churn = Arm {
        scenario: "churn",
        clients: 1,
        driver: Driver::Tasks,
        model: "iterative",
    };
    let throughput = churn.row(rate, Some(0.4));
    let values = [Some(999.0), None, Some(1e6), None, Some(0.0), Some(0.0)];
    summary.extend(churn.rows(throughput, values));

    // How fairly clients were served, where there is something to say about it.
    for (arm, least, most, jain, first) in [
        (
            steady(8, Driver::Threads, "thread"),
            980.0,
            1_020.0,
            0.999,
            1e6,
        ),
        (
            steady(8, Driver::Threads, "pool --workers 3"),
            0.0,
            2_666.0,
            0.375,
            1.5e9,
        ),
    ] {
        summary.push(arm.row(Metric::ClientLeastRequests, Some(least)));
        summary.push(arm.row(Metric::ClientMostRequests, Some(most)));
        summary.push(arm.row(Metric::JainIndex, Some(jain)));
        summary.push(arm.row(Metric::FirstReplyMax, Some(first)));
    }

    let mut disturbed = pool.block("ok");
    disturbed.validity = Validity::from("disturbed;generator".to_owned());
    let blocks = vec![
        thread.block("ok"),
        disturbed,
        gone.block("the server did not start: exit code 1"),
        gone.block("the server did not start: exit code 1"),
        failing.block("the server ended: killed by SIGKILL"),
        churn.block("ok"),
    ];
    (summary, blocks)
}

#[test]
fn plain_tables() {
    let (summary, blocks) = example();
    let text = tables(&summary, &blocks, Style::Plain, &Views::default());
    same(&text, include_str!("../golden/tables.txt"));
}

#[test]
fn markdown_tables() {
    let (summary, blocks) = example();
    let text = tables(&summary, &blocks, Style::Markdown, &Views::default());
    same(&text, include_str!("../golden/tables.md"));
}

#[test]
fn medians_say_which_blocks_they_leave_out() {
    let thread = steady(8, Driver::Threads, "thread");
    let summary = [thread.row(Metric::Throughput, Some(98_765.4))];
    let mut blocks: Vec<BlockRow> = (1..=11)
        .map(|block| BlockRow {
            block,
            ..thread.block("ok")
        })
        .collect();
    blocks[3].status = "killed by SIGKILL".to_owned().into();
    let text = tables(&summary, &blocks, Style::Plain, &Views::default());

    let words = "FAILED: thread, 8 threads: killed by SIGKILL (failed in 1 of 11 blocks, which its medians leave out)";
    assert!(text.contains(words), "{text}");
}

#[test]
fn an_arm_against_one_that_served_nothing_has_no_bound() {
    let (thread, fork) = (
        steady(8, Driver::Threads, "thread"),
        steady(8, Driver::Threads, "fork"),
    );
    let mut summary = vec![thread.row(Metric::Throughput, Some(0.0))];
    let ratio = [f64::INFINITY, 2.0, f64::INFINITY];
    let row = fork.row(Metric::Throughput, Some(1_000.0));
    summary.push(compared(row, ratio, RatioVerdict::Higher));
    let text = tables(&summary, &[], Style::Plain, &Views::default());

    assert!(text.contains("  0/s "), "{text}");
    assert!(
        text.contains("∞ [2.00, ∞]") && !text.contains("inf"),
        "{text}"
    );
}

#[test]
fn ratios_leave_out_the_blocks_in_which_the_reference_failed() {
    let (thread, fork) = (
        steady(8, Driver::Threads, "thread"),
        steady(8, Driver::Threads, "fork"),
    );
    let row = fork.row(Metric::Throughput, Some(1_000.0));
    let summary = [
        thread.row(Metric::Throughput, Some(1_000.0)),
        compared(row, [1.0; 3], RatioVerdict::TooFewBlocks),
    ];
    let blocks = [thread.block("killed by SIGKILL"), thread.block("ok")];
    let text = tables(&summary, &blocks, Style::Plain, &Views::default());

    let words = "(failed in 1 of 2 blocks, which its medians and all ratios to it leave out)";
    assert!(text.contains(words), "{text}");
}

fn same(text: &str, expected: &str) {
    assert!(
        text == expected,
        "expected:\n{expected}\nbut it is:\n{text}"
    );
}

#[test]
fn nothing_measured_makes_no_table() {
    for style in [Style::Plain, Style::Markdown] {
        assert_eq!(tables(&[], &[], style, &Views::default()), "");
    }
}

#[test]
fn a_verdict_on_rows_that_are_mostly_not_valid_begins_with_that() {
    let (summary, mut blocks) = example();
    for block in &mut blocks {
        block.status = "ok".to_owned().into();
        block.validity.insert(ValidityFlag::Disturbed);
    }

    let text = tables(&summary, &blocks, Style::Plain, &Views::default());
    let (_, in_short) = text.split_once("In short").unwrap();
    let lines: Vec<&str> = in_short.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(
        lines[1],
        "- Do not rely on this: 5 of 5 rows are not valid, see above."
    );
    let said = lines.iter().filter(|line| line.contains("not valid"));
    let first = said.filter(|line| line.starts_with("- Do not rely"));
    assert_eq!(first.count(), 2, "each scenario: {in_short}");
}
