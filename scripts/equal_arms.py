#!/usr/bin/env python3
"""Compare equal arms in the short form of scripts/compare.sh: how often does a table show a difference that is none?

    scripts/equal_arms.py RUNS FOLDER     RUNS runs of 3 minutes: a row for each table and metric, and the machine
    scripts/equal_arms.py --table FOLDER  the table of docs/methodology.md

A run has four arms of one model, each with an option of `serve` at its usual value; the models take turns. The
number of a run is its seed. Runs are added to a FOLDER that exists. Needs setpriv(1).
"""

import csv
import json
import math
import pathlib
import subprocess
import sys
import tempfile

SCRIPTS = pathlib.Path(__file__).resolve().parent
SCENARIOS = ["steady", "churn", "blocking"]
MODELS = ["thread", "fork", "pool", "async"]
# Each at its usual value, and all of one length: the length of a command line moves the stack.
OPTIONS = ["--backlog 1024", "--max-work 60s", "--drain 5000ms", "--service echo"]
METRICS = {
    "throughput_per_second": "throughput",
    "latency_p50_ns": "p50",
    "latency_p99_ns": "p99",
    "slice_latency_p99_ns": "p99 of a slice",
    "cpu_ns_per_request": "CPU per request",
}
LEVEL = 0.05
LONGEST_SECONDS = 600
COLUMNS = ["run", "model", "scenario", "metric", "comparisons", "resolved"]


def tables(summary):
    """The comparisons of each table of a run and metric, and those that it calls resolved."""
    counts = {}
    with open(summary, newline="") as file:
        for row in csv.DictReader(file):
            if row["metric"] in METRICS and row["verdict"]:
                count = counts.setdefault((row["scenario"], row["metric"]), [0, 0])
                count[0] += 1
                count[1] += row["verdict"] in ("higher", "lower")
    return counts


def measure(runs, results):
    echobench = subprocess.run([SCRIPTS / "build.sh"], check=True, capture_output=True, text=True).stdout.strip()
    results.mkdir(parents=True, exist_ok=True)
    path = results / "tables.csv"
    done = rows_of(results) if path.exists() else []
    first = 1 + max((int(row["run"]) for row in done), default=0)
    with open(path, "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not done:
            writer.writerow(COLUMNS)
        for run in range(first, first + runs):
            model = MODELS[run % len(MODELS)]
            arms = ",".join(f"{model} {option}" for option in OPTIONS)
            with tempfile.TemporaryDirectory() as folder:
                out = pathlib.Path(folder) / "run"
                # Whatever ends this script ends what it started.
                words = ["setpriv", "--pdeathsig", "TERM", echobench, "run", *SCENARIOS]
                words += ["--models", arms, "--seed", str(run), "--out", out]
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                subprocess.run(words, check=True, timeout=LONGEST_SECONDS, **quiet)
                found = tables(out / "summary.csv")
                record = json.loads((out / "run.json").read_text())
            writer.writerows([run, model, *table, *counts] for table, counts in sorted(found.items()))
            file.flush()
            (results / "environment.json").write_text(json.dumps(record["environment"], indent=2) + "\n")


def rows_of(results):
    with open(results / "tables.csv", newline="") as file:
        return list(csv.DictReader(file))


def most_by_chance(tables):
    """The number of tables that chance exceeds in at most 1 of 40 series of so many."""
    probability, below = 0.0, 0
    while True:
        probability += math.comb(tables, below) * LEVEL**below * (1 - LEVEL) ** (tables - below)
        if probability >= 0.975:
            return below
        below += 1


def table(results):
    rows = rows_of(results)
    print("| metric |", " | ".join(f"`{scenario}`" for scenario in SCENARIOS), "| all | within chance |")
    print("| --- " * (len(SCENARIOS) + 3) + "|")
    for metric, name in METRICS.items():
        of_metric = [row for row in rows if row["metric"] == metric]
        groups = [[row for row in of_metric if row["scenario"] == scenario] for scenario in SCENARIOS]
        false = [sum(int(row["resolved"]) > 0 for row in group) for group in [*groups, of_metric]]
        cells = [f"{count} of {len(group)}" for count, group in zip(false, [*groups, of_metric])]
        print(f"| {name} |", " | ".join(cells), f"| up to {most_by_chance(len(of_metric))} |")


def main():
    match sys.argv[1:]:
        case ["--table", results]:
            table(pathlib.Path(results))
        case [runs, results] if runs.isdigit():
            measure(int(runs), pathlib.Path(results))
            table(pathlib.Path(results))
        case _:
            sys.exit(__doc__.strip())


if __name__ == "__main__":
    main()
