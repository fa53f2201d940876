#!/usr/bin/env python3
"""Measure what the relay of agents does to the figures: equal runs of one block, with agents and without, in turn.

    scripts/relay_error.py          60 pairs, about 3 minutes
    scripts/relay_error.py 12       12 pairs

Both forms have the server on one CPU and the clients on the other. The order within a pair is random. Prints for each
figure the median over the pairs of the value with agents ÷ the value without, with the interval of the sign test. Needs
two CPUs.
"""

import csv
import math
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

SCRIPTS = pathlib.Path(__file__).resolve().parent
MODELS = ["thread", "async"]
FIGURES = ["throughput_per_second", "latency_p50_ns", "cpu_ns_per_request"]
HOSTS = """
[server]
launcher = "env"
address = "127.0.0.1"
cpus = "SERVER"

[[load]]
launcher = "env"
cpus = "CLIENTS"
"""


def block(echobench, folder, options):
    """The figures of one block, by model and name."""
    out = folder / "out"
    words = [echobench, "run", "steady", "--models", ",".join(MODELS), "--clients", "64", "--drivers", "tasks"]
    words += ["--blocks", "1", "--out", out, *options]
    subprocess.run(words, check=True, capture_output=True)
    with open(out / "blocks.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    subprocess.run(["rm", "-r", out], check=True)

    figures = {(row["model"], name): float(row[name]) for row in rows for name in FIGURES}
    for name in FIGURES:
        figures["async ÷ thread", name] = figures["async", name] / figures["thread", name]
    return figures


def interval(values):
    """The narrowest interval between two of the sorted values that covers the median with 95 % or more."""
    values, count = sorted(values), len(values)
    for cut in range(count // 2, 0, -1):
        outside = 2 * sum(math.comb(count, k) for k in range(cut)) / 2**count
        if outside <= 0.05:
            return values[cut - 1], values[count - cut]
    sys.exit("fewer than 6 pairs have no interval")


def main():
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    echobench = subprocess.run([SCRIPTS / "build.sh"], check=True, capture_output=True, text=True).stdout.strip()
    ratios = {(arm, name): [] for arm in [*MODELS, "async ÷ thread"] for name in FIGURES}

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        hosts = folder / "hosts.toml"
        hosts.write_text(HOSTS.replace("SERVER", "0").replace("CLIENTS", "1"))
        forms = {"agents": ["--hosts", hosts], "none": ["--placement", "split"]}
        for _ in range(pairs):
            order = random.sample(list(forms), 2)
            seen = {form: block(echobench, folder, forms[form]) for form in order}
            for key, values in ratios.items():
                values.append(seen["agents"][key] / seen["none"][key])

    print(f"with agents ÷ without, median of {pairs} pairs of one block, 64 clients as tasks\n")
    for (arm, name), values in ratios.items():
        low, high = interval(values)
        print(f"{arm:14}  {name:22} {statistics.median(values):.4f} [{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    main()
