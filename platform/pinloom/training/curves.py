"""A run's curve as JSON lines and as a picture."""

from __future__ import annotations

import json
from pathlib import Path


def write_curves(curve: list[dict[str, float]], folder: Path) -> tuple[Path, Path]:
    """Write `curves.jsonl` (a point a line) and `curves.png` into `folder`."""
    lines = folder / "curves.jsonl"
    lines.write_text("".join(json.dumps(point) + "\n" for point in curve))
    picture = folder / "curves.png"
    _draw(curve, picture)
    return lines, picture


def _draw(curve: list[dict[str, float]], path: Path) -> None:
    """One panel per metric, training and validation together."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    series = sorted({name for point in curve for name in point} - {"step", "epoch"})
    panels = sorted({name.split("/", 1)[1] for name in series}, key=lambda n: (n != "loss", n))
    figure, axes = plt.subplots(len(panels), 1, figsize=(7, 2.4 * len(panels)), squeeze=False, layout="constrained")
    for panel, ax in zip(panels, axes[:, 0], strict=True):
        for name in (s for s in series if s.split("/", 1)[1] == panel):
            points = [(p["step"], p[name]) for p in curve if name in p]
            marker = "o" if name.startswith("validation/") else ""
            ax.plot(*zip(*points, strict=True), marker=marker, label=name.split("/", 1)[0])
        ax.set_ylabel(panel)
        ax.legend(loc="best")
    axes[-1, 0].set_xlabel("step")
    figure.savefig(path, dpi=100)
    plt.close(figure)
