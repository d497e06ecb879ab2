"""The decision page: who was compared with whom, on what, and what followed."""

from __future__ import annotations

from pinloom.datasets import DatasetSpec
from pinloom.evaluation.gate import CHAMPION, Decision
from pinloom.reporting import plots
from pinloom.reporting.html import render
from pinloom.reporting.tables import Row, Table, difference, number, words


def page(decision: Decision, spec: DatasetSpec, key: str) -> str:
    """One self-contained HTML document."""
    rules = spec.promotion
    rows = tuple(
        Row(
            (
                words(c.metric),
                number(c.challenger, f"{c.metric}.challenger", 4),
                number(c.rival, f"{c.metric}.rival", 4),
                difference(c.gain, f"{c.metric}.gain", 4),
            ),
            subject=i == 0,
        )
        for i, c in enumerate(decision.comparisons)
    )
    rival = decision.rival.capitalize() or "Rival"
    asked = "above 0" if decision.rival not in ("", CHAMPION) else f"at least −{rules.delta:g}"
    content = {
        "title": "Promoted" if decision.promoted else "Not promoted",
        "reason": decision.reason,
        "facts": [
            ("Data set", spec.name),
            ("Against", rival),
            ("Asked", decision.asked or "nothing"),
            ("Metric of the gate", decision.comparisons[0].metric if decision.comparisons else rules.metric),
            ("Lower bound must be", asked),
            ("Confidence", f"{rules.confidence:.0%}"),
        ],
        "prose": "Both are asked the same, and every resample draws the same ones for both. The first line "
        "decides, the others are there to be read. Gain is so signed that above zero is better.",
        "comparison": Table(("Metric", "Challenger", rival, "Gain"), rows) if rows else None,
        "forest": plots.forest([(c.metric, c.gain) for c in decision.comparisons], "gain") if rows else "",
        "lineage": [
            ("decision", key),
            ("challenger", _key(decision.challenger)),
            ("champion", _key(decision.champion) or "none"),
        ],
    }
    return render("decision", content)


def _key(uri: str) -> str:
    return uri.rsplit("/", 1)[-1].removesuffix(".json")
