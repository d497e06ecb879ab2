"""The decision page: who was compared with whom, on what, and what followed."""

from __future__ import annotations

from pinloom.datasets.spec import PromotionSpec
from pinloom.evaluation.gate import CHAMPION, Decision
from pinloom.reporting import plots
from pinloom.reporting.html import render
from pinloom.reporting.tables import Row, Table, difference, number, words


def page(decision: Decision, dataset: str, rules: PromotionSpec, key: str) -> str:
    """One self-contained HTML document."""
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
    content = {
        "title": "Promoted" if decision.promoted else "Not promoted",
        "reason": decision.reason,
        "facts": [("Data set", dataset), *(_terms(decision, rules) if rows else [])],
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


def _terms(decision: Decision, rules: PromotionSpec) -> list[tuple[str, str]]:
    later = decision.rival == CHAMPION
    return [
        ("Against", decision.rival.capitalize()),
        ("Asked", decision.asked),
        ("Metric of the gate", decision.comparisons[0].metric),
        ("Lower bound must be", f"at least −{rules.delta:g}" if later else "above 0"),
        ("Confidence", f"{rules.confidence:.0%}"),
    ]


def _key(uri: str) -> str:
    return uri.rsplit("/", 1)[-1].removesuffix(".json")
