"""Figures: gates and states as heat maps over time, and gradient norms over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gatedcells._files import written_beside
from gatedcells.trace.equations import check_index

if TYPE_CHECKING:
    from gatedcells.trace.gradient_flow import GradientFlow
    from gatedcells.trace.record import DirectionTrace, Trace

# Gates lie in 0..1, what went through tanh in -1..1; the colours stay apart in grey, too.
_SHOWN = {
    "GRU": ("reset", "update", "candidate", "hidden"),
    "LSTM": ("input", "forget", "candidate", "output", "cell", "hidden"),
}
_STYLES = {"RNN": ("#777777", ":"), "GRU": ("#d95f02", "-"), "LSTM": ("#1b75bb", "--")}


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _written(figure: Any, path: str | Path | None) -> Any:
    if path is not None:
        with written_beside(Path(path)) as beside:
            figure.savefig(beside, dpi=110, format=Path(path).suffix[1:] or "png")
    return figure


def heat_maps(trace: Trace, path: str | Path | None, row: int) -> Any:
    """See `Trace.plot`."""
    columns = [(layer, way) for layer in range(trace.layers) for way in range(trace.directions)]
    first = trace[0]
    T, B = first.x.shape[:2]
    check_index("row", row, B)
    names = _SHOWN[first.kind]
    width = min(14.0, 2.2 + 0.14 * T) * len(columns)
    figure = _figure(min(40.0, max(5.0, width)), 1.5 * len(names) + 0.7)
    axes = figure.subplots(len(names), len(columns), squeeze=False, sharex="col")
    for column, (layer, way) in enumerate(columns):
        d = trace[layer, way]
        for line, name in enumerate(names):
            axis, image = axes[line, column], _heat(axes[line, column], d, name, row)
            axis.set_ylabel(f"{name}\nunit", fontsize=9)
            axis.yaxis.get_major_locator().set_params(integer=True)
            figure.colorbar(image, ax=axis, pad=0.01)
        direction = " (reverse)" if d.reverse else ""
        axes[0, column].set_title(f"layer {layer}{direction}", fontsize=10)
        axes[-1, column].set_xlabel("t")
        axes[-1, column].xaxis.get_major_locator().set_params(integer=True)
    convention = "" if first.kind == "LSTM" or first.reset_after else ", reset gate before the product"
    figure.suptitle(f"{first.kind}{convention}: row {row}", fontsize=11)
    return _written(figure, path)


def _heat(axis: Any, d: DirectionTrace, name: str, row: int) -> Any:
    values = d[name][:, row].detach().double().cpu().numpy().T
    there = d.takes_part()[:, row].cpu().numpy()
    shown = np.where(there[None, :], values, np.nan)
    if name in ("candidate", "hidden", "cell"):
        largest = max(1.0, float(np.nanmax(np.abs(shown), initial=0.0)))
        return axis.imshow(shown, aspect="auto", cmap="PuOr", vmin=-largest, vmax=largest)
    return axis.imshow(shown, aspect="auto", cmap="viridis", vmin=0, vmax=1)


def gradient_flow(flow: GradientFlow, path: str | Path | None) -> Any:
    """See `GradientFlow.plot`."""
    figure = _figure(13.5, 4.3)
    plain, cut, straight = figure.subplots(1, 3, sharey=True)
    for name, one in flow.flows.items():
        colour, style = _STYLES[one.kind]
        for state, norms in one.norms.items():
            back = np.arange(len(norms))[::-1]
            thin = {"linewidth": 1.0, "alpha": 0.6} if state == "cell" else {"linewidth": 1.8}
            label = name if state == "hidden" else f"{name}, cell state"
            plain.semilogy(back, _seen(norms), style, color=colour, label=label, **thin)
            cut.semilogy(back, _seen(one.clipped[state]), style, color=colour, **thin)
        if one.straight is not None:
            state = "hidden" if one.kind == "GRU" else "cell"
            back = np.arange(len(one.straight))[::-1]
            straight.semilogy(back, _seen(one.norms[state]), style, color=colour, linewidth=1.0, alpha=0.6)
            through = "z" if one.kind == "GRU" else "f"
            straight.semilogy(
                back, _seen(one.straight), style, color=colour, linewidth=1.8, marker=".",
                markevery=max(1, len(back) // 12), label=f"{name}, through {through} alone",
            )  # fmt: skip
    cut.axhline(flow.clip, color="#222222", linewidth=0.8)
    for axis, title in (
        (plain, "unclipped"),
        (cut, f"clipped to norm {flow.clip:g} at every state"),
        (straight, "direct path (thin: all paths)"),
    ):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("steps before the last")
        axis.grid(alpha=0.25)
        if axis is not cut:
            axis.legend(fontsize=8)
    plain.set_ylabel("|dL/dh_t|")
    return _written(figure, path)


def _seen(values: Any) -> Any:
    """Zeros have no place on a logarithmic axis."""
    found = values.cpu().numpy()
    return np.where(found > 0, found, np.nan)
