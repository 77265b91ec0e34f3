"""Figures from the rows in ``results/``, and from nothing else: ``python -m benchmarks.plot``."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.table_rows import devices, newest

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
COLOURS = {"gatedcells": "#1b6ca8", "torch": "#d95f0e", "onnxruntime": "#7a7a7a"}


def main() -> None:
    """Draw every figure anew."""
    argparse.ArgumentParser(description=__doc__).parse_args()  # or --help would write
    for device in devices("cells"):
        print(roofline(device))
    print(history())


def roofline(device: str) -> Path:
    """Inference in float32 on one thread: operations a second over operations a byte of weights, per peer."""
    _, rows = newest(f"{device}-cells", mode="inference", threads="1", dtype="float32")
    ours = [row for row in rows if row["who"] == "gatedcells"]
    peak = max(float(r["gflops"]) / float(r["of_peak_gflops"]) for r in ours if float(r["of_peak_gflops"]))
    bandwidth = max(
        float(r["weights_gb_per_s"]) / float(r["of_peak_gb_per_s"])
        for r in ours
        if float(r["of_peak_gb_per_s"])
    )
    plt.switch_backend("agg")
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True, layout="constrained")
    for axis, op in zip(axes, ("gru", "lstm"), strict=True):
        for who, colour in COLOURS.items():
            found = [row for row in rows if (row["op"], row["who"]) == (op, who)]
            intensity = [float(row["gflops"]) / float(row["weights_gb_per_s"]) for row in found]
            axis.scatter(
                intensity, [float(row["gflops"]) for row in found], s=26, color=colour, label=who, alpha=0.85
            )
        reach = [0.4, 300]
        axis.plot(reach, [min(peak, bandwidth * x) for x in reach], alpha=0)
        axis.plot([0.4, peak / bandwidth, 300], [0.4 * bandwidth, peak, peak], color="black", lw=1)
        axis.set(
            xscale="log",
            yscale="log",
            title=f"{op.upper()} inference, float32",
            xlabel="operations per byte of weights",
        )
    axes[0].set_ylabel("10$^9$ operations a second")
    axes[0].legend(frameon=False)
    about = rows[0]
    figure.suptitle(
        f"{about['device']}, 1 thread, torch {about['torch']}, {about['date']}, commit {about['commit']};"
        f" line: matrix product and 512 KB vector read on this core", fontsize=8,
    )  # fmt: skip
    FIGURES.mkdir(exist_ok=True)
    path = FIGURES / f"cpu_roofline_{device.split('-')[0]}.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def history() -> Path:
    """The error of a year's forecasts over the days that were trained on, per forecaster."""
    _, rows = newest("backtest")
    windows = dict.fromkeys((row["window_hours"], row["train_hours"], row["regions"]) for row in rows)
    days = [float(window or float(hours) / float(regions)) / 24 for window, hours, regions in windows]
    colours = {"GRU": "#1b6ca8", "LightGBM": "#d95f0e", "ridge": "#7a7a7a", "day-and-week ratio": "black"}
    plt.switch_backend("agg")
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, colour in colours.items():
        found = [row for row in rows if row["model"].startswith(name)]
        style = "--" if name == "day-and-week ratio" else "o-"
        axis.plot(days, [float(row["smape"]) for row in found], style, color=colour, label=found[0]["model"])
    axis.set(xscale="log", xlabel="days trained on, mean of the regions", ylabel="sMAPE %, next hour")
    axis.set_xticks(days, [f"{day:,.0f}" for day in days])
    axis.minorticks_off()
    axis.legend(frameon=False)
    about = rows[0]
    figure.suptitle(
        f"the year from {about['origin'][:10]}, {about['regions']} regions; {about['device']},"
        f" torch {about['torch']}, {about['date']}, commit {about['commit']}", fontsize=8,
    )  # fmt: skip
    path = FIGURES / "history.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
