"""Figures as inline SVG: text stays text, nothing is fetched, the same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from components.evaluation.bootstrap import Interval
from pinloom.evaluation.study import CalibrationBin

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
PALETTE = ("#1d4ed8", "#d97706", "#047857", "#b91c1c", "#6d28d9", "#0e7490")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pinloom",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titleweight": "semibold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def forest(rows: Sequence[tuple[str, Interval]], xlabel: str) -> str:
    """Paired differences with intervals around zero, one line a rival."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 0.55 + 0.36 * len(rows)))
        for y, (_, d) in enumerate(rows):
            colour = PALETTE[2] if d.low > 0 else PALETTE[3] if d.high < 0 else MUTED
            axes.plot([d.low, d.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(d.value, y, "o", color=colour, markersize=6)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(xlabel)
        return _svg(figure)


def calibration(heads: Mapping[str, Sequence[CalibrationBin]]) -> str:
    """Observed rate against prediction on log axes, one panel a head, against the diagonal."""
    with plt.rc_context(STYLE):
        figure, panels = _panels(len(heads), height=2.5)
        for axes, (head, bins), colour in zip(panels, heads.items(), _cycle(len(heads)), strict=True):
            _calibration_panel(axes, bins, colour)
            axes.set_title(head)
        panels[0].set_ylabel("observed rate")
        return _svg(figure)


def _calibration_panel(axes: Axes, bins: Sequence[CalibrationBin], colour: str) -> None:
    shown = [b for b in bins if b.predicted > 0 and b.observed.value > 0]
    x = np.array([b.predicted for b in shown])
    y = np.array([b.observed.value for b in shown])
    low = np.array([max(b.observed.low, y.min() / 10) for b in shown])
    high = np.array([b.observed.high for b in shown])
    axes.set_xscale("log")
    axes.set_yscale("log")
    if len(shown):
        ends = [min(x.min(), y.min()) / 1.5, max(x.max(), y.max()) * 1.5]
        axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.vlines(x, low, high, color=colour, linewidth=1.4, alpha=0.55)
        axes.plot(x, y, "o-", color=colour, markersize=4, linewidth=1.4)
    axes.set_xlabel("predicted")


def histogram(shares: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str) -> str:
    """Outlines over the same axis: {label: (edges [B + 1], share of each bin [B])}."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 2.6))
        for (label, (edges, share)), colour in zip(shares.items(), _cycle(len(shares)), strict=True):
            axes.stairs(share, edges, color=colour, label=label, linewidth=1.5)
            axes.stairs(share, edges, color=colour, fill=True, alpha=0.12)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("share of pairs")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
        return _svg(figure)


def atlas(maps: Mapping[str, tuple[NDArray[np.float64], Sequence[str]]], legend: Sequence[str]) -> str:
    """Points of the plane side by side: {title: ([S, 2], group of each)}; groups not in `legend` are grey."""
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, grid = plt.subplots(1, len(maps), figsize=(4.6 * len(maps), 4.4), squeeze=False)
        for axes, (title, (points, groups)) in zip(grid.flat, maps.items(), strict=True):
            group = np.array(groups)
            other = ~np.isin(group, legend)
            axes.scatter(*points[other].T, s=5, color=GRID, linewidths=0)
            for name, colour in zip(legend, _cycle(len(legend)), strict=True):
                axes.scatter(*points[group == name].T, s=8, color=colour, linewidths=0, label=name)
            axes.set_title(title)
            axes.set_xticks([])
            axes.set_yticks([])
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.07), ncols=3, fontsize=8, markerscale=2
        )
        return _svg(figure)


def training(curve: Sequence[Mapping[str, float]]) -> str:
    """Panels of the loss and of the metrics that validation measured, by the points of a training curve."""
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name in sorted({n for point in curve for n in point} - {"step", "epoch"}):
        kind, _, metric = name.partition("/")
        points = [(p["step"], p[name]) for p in curve if name in p and np.isfinite(p[name])]
        panels.setdefault(metric, {})[kind] = ([x for x, _ in points], [y for _, y in points])
    wanted = sorted(panels, key=lambda m: (m != "loss", m))[:6]
    return curves({m: panels[m] for m in wanted}) if wanted else ""


def curves(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> str:
    """Training curves: {panel title: {line label: (steps, values)}}."""
    with plt.rc_context(STYLE):
        figure, grid = _panels(len(panels), height=2.3)
        for axes, (title, lines) in zip(grid, panels.items(), strict=True):
            for (label, (x, y)), colour in zip(lines.items(), _cycle(len(lines)), strict=True):
                marker = "o" if len(x) < 30 else ""
                axes.plot(x, y, label=label, color=colour, linewidth=1.5, marker=marker, markersize=3)
            axes.set_title(title)
            axes.set_xlabel("step")
            if len(lines) > 1:
                axes.legend(fontsize=8)
        return _svg(figure)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(count, 3) or 1
    lines = -(-count // columns) or 1
    figure, grid = plt.subplots(lines, columns, figsize=(9.2, height * lines), squeeze=False)
    figure.subplots_adjust(wspace=0.3, hspace=0.55)
    flat = list(grid.flat)
    for unused in flat[count:]:
        unused.remove()
    return figure, flat[:count]


def _cycle(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]
