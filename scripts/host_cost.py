#!/usr/bin/env python3
"""Measure what load hosts cost a run: 1, 8, 32 and 100 load agents, all of them on this machine.

    scripts/host_cost.py FOLDER     about 3 minutes: the rows, the machine, and the picture FOLDER/hosts.svg
    scripts/host_cost.py --draw FOLDER      the picture again
    scripts/host_cost.py --table FOLDER     the table of docs/scale.md

Each round times `hosts check` and a run of a few blocks for each number of agents, in random order. The time of a block
lies between two rows of blocks.csv. Needs setpriv(1), and for the picture matplotlib.
"""

import csv
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

SCRIPTS = pathlib.Path(__file__).resolve().parent
AGENTS = [1, 8, 32, 100]
# As many as an interval needs: all of six values cover their median with 97 %.
ROUNDS = 6
BLOCKS = 6
CLIENTS = 100
POLL_SECONDS = 0.002
LONGEST_SECONDS = 60
LOAD = ["steady", "--models", "thread", "--clients", str(CLIENTS), "--drivers", "tasks", "--blocks", str(BLOCKS)]
# Whatever ends this script ends what it started.
WITH_PARENT = ["setpriv", "--pdeathsig", "TERM"]
MEASURED = ["check", "first block", "block"]
COLUMNS = ["round", "agents", "measured", "time_ns"]
SHOWN = {"check": "`hosts check`", "start": "start of a run", "block": "time of a block"}


def rows_of(path):
    """The number of rows that a file of a run has by now."""
    try:
        return path.read_bytes().count(b"\n") - 1
    except FileNotFoundError:
        return 0


def timed_check(echobench, hosts):
    """Seconds that `hosts check` takes."""
    start = time.monotonic()
    words = [*WITH_PARENT, echobench, "hosts", "check", hosts]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=LONGEST_SECONDS)
    return time.monotonic() - start


def timed_run(echobench, hosts, out):
    """Seconds from the start of a run to the end of each of its blocks."""
    start = time.monotonic()
    ends = []
    with tempfile.TemporaryFile() as messages:
        words = [*WITH_PARENT, echobench, "run", *LOAD, "--hosts", hosts, "--out", out]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=messages)
        try:
            while process.poll() is None and time.monotonic() - start < LONGEST_SECONDS:
                ends += [time.monotonic() - start] * (rows_of(out / "blocks.csv") - len(ends))
                time.sleep(POLL_SECONDS)
        finally:
            process.terminate()
            process.wait()
        if process.returncode != 0 or len(ends) != BLOCKS:
            messages.seek(0)
            sys.exit(f"a run with {hosts.stem} agents failed:\n{messages.read().decode()}")
    return ends


def measure(results):
    echobench = subprocess.run([SCRIPTS / "build.sh"], check=True, capture_output=True, text=True).stdout.strip()
    results.mkdir(parents=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for agents in AGENTS:
            load = '[[load]]\nlauncher = "env"\n' * agents
            (folder / f"{agents}.toml").write_text(f'[server]\nlauncher = "env"\naddress = "127.0.0.1"\n{load}')

        for number in range(1, ROUNDS + 1):
            for agents in random.sample(AGENTS, len(AGENTS)):
                hosts, out = folder / f"{agents}.toml", folder / f"{number}-{agents}"
                check, ends = timed_check(echobench, hosts), timed_run(echobench, hosts, out)
                blocks = [later - earlier for earlier, later in zip(ends, ends[1:])]
                values = [("check", check), ("first block", ends[0]), *(("block", value) for value in blocks)]
                rows += [[number, agents, name, round(value * 1e9)] for name, value in values]
        record = json.loads((out / "run.json").read_text())

    (results / "environment.json").write_text(json.dumps(record["environment"], indent=2) + "\n")
    with open(results / "hosts.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def figures(results):
    """Seconds by figure and number of agents, one value for each round."""
    measured = {}
    with open(results / "hosts.csv", newline="") as file:
        for row in csv.DictReader(file):
            key = row["measured"], int(row["agents"]), int(row["round"])
            measured.setdefault(key, []).append(int(row["time_ns"]) / 1e9)
    rounds = sorted({key[2] for key in measured})
    agents = sorted({key[1] for key in measured})

    found = {name: {} for name in SHOWN}
    for number in agents:
        checks, firsts, blocks = (
            [statistics.median(measured[name, number, each]) for each in rounds] for name in MEASURED
        )
        found["check"][number] = checks
        found["block"][number] = blocks
        found["start"][number] = [first - block for first, block in zip(firsts, blocks)]
    return found


def spread(values):
    """The median of the rounds, and the least and the greatest of them."""
    return statistics.median(values), min(values), max(values)


def shown(values):
    """That with one unit and three digits of the median."""
    value, low, high = spread(values)
    factor, unit = (1, "s") if value >= 1 else (1e3, "ms")
    digits = max(0, 2 - len(str(int(value * factor))) + 1)
    value, low, high = (f"{factor * each:.{digits}f}" for each in (value, low, high))
    return f"{value} {unit} [{low}, {high}]"


def table(results):
    found = figures(results)
    print("| load agents |", " | ".join(SHOWN.values()), "| beyond that with one agent | for each further agent |")
    print("| --- " * (len(SHOWN) + 3) + "|")
    for agents in found["block"]:
        cells = [shown(found[name][agents]) for name in SHOWN]
        beyond = [more - one for more, one in zip(found["block"][agents], found["block"][1])]
        each = [value / (agents - 1) for value in beyond] if agents > 1 else []
        cells += [shown(beyond), shown(each)] if each else ["–", "–"]
        print(f"| {agents} |", " | ".join(cells), "|")


def draw(results):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "hosts"
    found = figures(results)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
    contents = {"once in a run (s)": (["check", "start"], 1), "in each block (ms)": (["block"], 1e3)}
    for axes, (title, (names, factor)) in zip(panels, contents.items()):
        for name in names:
            agents = list(found[name])
            medians, lows, highs = zip(*(spread([factor * value for value in found[name][each]]) for each in agents))
            below = [median - low for median, low in zip(medians, lows)]
            above = [high - median for median, high in zip(medians, highs)]
            label = SHOWN[name].replace("`", "")
            axes.errorbar(agents, medians, [below, above], marker="o", capsize=3, label=label)
        axes.set_xticks(agents)
        axes.set_xlabel("load agents")
        axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=10)
        axes.legend()
    figure.savefig(results / "hosts.svg", bbox_inches="tight", metadata={"Date": None})


def main():
    match sys.argv[1:]:
        case ["--draw", folder]:
            draw(pathlib.Path(folder))
        case ["--table", folder]:
            table(pathlib.Path(folder))
        case [folder] if not folder.startswith("-"):
            measure(pathlib.Path(folder))
            draw(pathlib.Path(folder))
            table(pathlib.Path(folder))
        case _:
            sys.exit(__doc__.strip())


if __name__ == "__main__":
    main()
