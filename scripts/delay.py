#!/usr/bin/env python3
"""Run the main models over links with a round trip of 1, 5 and 20 ms, and over loopback.

    scripts/delay.py FOLDER     a results folder for each link, under FOLDER, and the picture FOLDER/delay.svg
    scripts/delay.py --draw FOLDER     the picture again

Server, clients and the link (delay_link.c) share this machine: the server has a network namespace and a CPU of its own,
the clients another. Needs root, ip(8), nsenter(1), a C compiler, two CPUs, and for the picture pandas and matplotlib.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

SCRIPTS = pathlib.Path(__file__).resolve().parent
ROUND_TRIPS_MS = [0, 1, 5, 20]
SERVER, CLIENTS = "10.79.0.1", "10.79.0.2"


@contextlib.contextmanager
def link(folder, round_trip_ms):
    """The launchers of server and clients, and the server's address, while a link is there; loopback without a delay."""
    if round_trip_ms == 0:
        yield "env", "env", "127.0.0.1"
        return

    names = [f"eb{os.getpid()}-{side}" for side in ("server", "clients")]
    process = None
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        words = [folder / "delay_link", names[0], SERVER, names[1], CLIENTS, str(round_trip_ms * 1000)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if process.stdout.readline() != "up\n":
            sys.exit("the link cannot be made")
        server, clients = (f"nsenter --net=/run/netns/{name}" for name in names)
        yield server, clients, SERVER
    finally:
        # The link ends with its input.
        if process is not None:
            process.stdin.close()
            process.wait()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def measure(results):
    echobench = subprocess.run([SCRIPTS / "build.sh"], check=True, capture_output=True, text=True).stdout.strip()
    results.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-o", folder / "delay_link", SCRIPTS / "delay_link.c"], check=True)

        for round_trip_ms in ROUND_TRIPS_MS:
            with link(folder, round_trip_ms) as (server, clients, address):
                out = results / f"{round_trip_ms}ms"
                hosts = folder / "hosts.toml"
                hosts.write_text(
                    f'[server]\nlauncher = "{server}"\naddress = "{address}"\ncpus = "0"\n'
                    f'[[load]]\nlauncher = "{clients}"\ncpus = "1"\n'
                )
                words = ["run", os.path.relpath(SCRIPTS / "delay.toml"), "--hosts", hosts, "--out", out]
                subprocess.run([echobench, *words], check=True)


def draw(results):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd

    rows = []
    for round_trip_ms in ROUND_TRIPS_MS:
        summary = pd.read_csv(results / f"{round_trip_ms}ms" / "summary.csv")
        rows.append(summary.assign(round_trip=ROUND_TRIPS_MS.index(round_trip_ms)))
    rows = pd.concat(rows)

    matplotlib.rcParams["svg.hashsalt"] = "delay"
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
    titles = {"throughput_per_second": "throughput ÷ thread", "cpu_ns_per_request": "CPU time per request ÷ thread"}
    for axes, (metric, title) in zip(panels, titles.items()):
        compared = rows[(rows["metric"] == metric) & rows["ratio"].notna()]
        for offset, (model, points) in enumerate(compared.groupby("model", sort=False)):
            below, above = points["ratio"] - points["ratio_low"], points["ratio_high"] - points["ratio"]
            place = points["round_trip"] + 0.06 * (offset - 1)
            axes.errorbar(place, points["ratio"], [below, above], marker="o", capsize=3, label=model)
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set_xticks(range(len(ROUND_TRIPS_MS)), ["loopback", *(f"{trip} ms" for trip in ROUND_TRIPS_MS[1:])])
        axes.set_xlabel("round trip of the link")
        axes.set_title(title, fontsize=10)
    panels[0].legend()
    figure.savefig(results / "delay.svg", bbox_inches="tight", metadata={"Date": None})


def main():
    match sys.argv[1:]:
        case ["--draw", folder]:
            draw(pathlib.Path(folder))
        case [folder] if not folder.startswith("-"):
            measure(pathlib.Path(folder))
            draw(pathlib.Path(folder))
        case _:
            sys.exit(__doc__.strip())


if __name__ == "__main__":
    main()
