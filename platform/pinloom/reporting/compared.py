"""The tables and the figure of a subject against its rivals, alike for every kind whose metrics need no heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pinloom.evaluation.measure import Intervals, Slice
from pinloom.reporting import plots, prose
from pinloom.reporting.tables import Cell, Row, Table, count, difference, number, words


@dataclass(frozen=True)
class Compared:
    """Who is compared and by what.

    Attributes:
        headline: who → metric → interval, the subject's among them.
        metrics: columns; `gate` is the one that decides, and whose differences are drawn.
        name_of, title: how a page calls who is compared, and a metric.
    """

    subject: str
    headline: Intervals
    metrics: Sequence[str]
    gate: str
    name_of: Callable[[str], str]
    title: Callable[[str], str]

    def measured(self, results: Intervals, section: str) -> Table:
        rows = tuple(
            self._row(who, (number(m.get(n), f"{section}.{who}.{n}", 4) for n in self.metrics))
            for who, m in results.items()
        )
        return Table(("", *map(self.title, self.metrics)), rows)

    def lift(self, lift: Intervals, values: Intervals, section: str) -> Table:
        """Paired differences subject − rival; `values` has the rivals' own."""
        ours = self.headline[self.subject][self.gate].value
        rows = tuple(
            Row(
                (
                    words(self.name_of(who)),
                    Cell(prose.relative(ours, values[who][self.gate].value)),
                    *(difference(m.get(n), f"{section}.{who}.{n}", 4) for n in self.metrics),
                )
            )
            for who, m in lift.items()
        )
        return Table(("Against", f"{self.title(self.gate)}, relative", *map(self.title, self.metrics)), rows)

    def forest(self, lift: Intervals) -> str:
        differences = [(self.name_of(who), m[self.gate]) for who, m in lift.items()]
        return plots.forest(differences, f"difference in {self.title(self.gate)}")

    def slices(self, slices: Sequence[Slice], everyone: Iterable[str], counted: str) -> Table:
        """The share found in each part of what is to be found; `counted` is what the parts consist of."""
        counts = Row((words(counted), *(words(count(s.count)) for s in slices)))
        rows = tuple(
            self._row(who, (number(s.found.get(who), f"slices.{s.name}.{who}") for s in slices)) for who in everyone
        )
        return Table(("", *(prose.sentence(s.name) for s in slices)), (counts, *rows))

    def comparison(self, lift: Intervals, ablations: Intervals, ablation_lift: Intervals) -> Mapping[str, object]:
        """What both templates show of rivals and of ablations, by its name there."""
        return {
            "headline": self.measured(self.headline, "headline"),
            "lift": self.lift(lift, self.headline, "lift"),
            "forest": self.forest(lift),
            "ablations": self.lift(ablation_lift, ablations, "ablation_lift") if ablations else None,
            "ablation_values": self.measured(ablations, "ablations") if ablations else None,
            "ablation_forest": self.forest(ablation_lift) if ablations else "",
        }

    def _row(self, who: str, cells: Iterable[Cell]) -> Row:
        return Row((words(self.name_of(who)), *cells), subject=who == self.subject)
