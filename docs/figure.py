#!/usr/bin/env python3
"""Draw one figure from the rows of a results folder: the throughput of each model by number of clients.

    pip install pandas matplotlib
    docs/figure.py results/2026-11-29-7b26b2e-epyc-2cpu-kvm throughput.svg

The points are the medians of summary.csv, the bars their intervals. The columns are described in docs/results-format.md.
"""

import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: figure.py FOLDER FIGURE")
    folder, figure = pathlib.Path(sys.argv[1]), sys.argv[2]

    rows = pd.read_csv(folder / "summary.csv")
    wanted = (
        (rows["scenario"] == "steady")
        & (rows["driver"] == "tasks")
        & (rows["placement"] == "split")
        & (rows["metric"] == "throughput_per_second")
    )
    rows = rows[wanted].dropna(subset=["estimate"])
    if rows.empty:
        sys.exit(f"{folder} has no rows of the scenario `steady` with tasks on CPUs of their own")

    _, axes = plt.subplots(figsize=(7, 4))
    for model, points in rows.groupby("model", sort=False):
        points = points.sort_values("clients")
        below, above = points["estimate"] - points["low"], points["high"] - points["estimate"]
        axes.errorbar(points["clients"], points["estimate"], [below, above], marker="o", capsize=3, label=model)

    counts = sorted(rows["clients"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clients")
    axes.set_ylabel("requests per second")
    axes.set_title(f"steady, tasks, split: {folder.name}", fontsize=9)
    axes.legend()
    plt.savefig(figure, bbox_inches="tight")


if __name__ == "__main__":
    main()
