"""The evaluation page: the study's numbers in tables, figures and plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from components.evaluation.bootstrap import Interval
from pinloom.evaluation.measure import Intervals
from pinloom.evaluation.study import FULL_METRICS, NOSEQ, PERSONAL, POPULARITY, TREE, K, Study, chance, coverage
from pinloom.reporting import plots, prose
from pinloom.reporting.about import About
from pinloom.reporting.cases import draw_cases
from pinloom.reporting.html import render
from pinloom.reporting.tables import Cell, Row, Table, count, difference, number, words

CASES = 6
NAMES = {
    NOSEQ: "Same ranker, no sequence",
    TREE: "Boosted tree on counts",
    PERSONAL: "Personal frequency",
    POPULARITY: "Popularity",
    "transact": "TransAct",
    "pinfm_ranker": "TransAct and PinFM",
}


def name_of(ranker: str) -> str:
    return NAMES.get(ranker, ranker)


def page(found: Study, about: About) -> str:
    """One self-contained HTML document."""
    subject = name_of(found.subject)
    said = prose.Prose(found, about.contract, about.split, subject, about.seen)
    cases = draw_cases(
        found.task.rows,
        found.task.chosen,
        found.rankers[found.subject].final,
        about.items,
        about.contract,
        CASES,
        about.seed,
    )
    content = {
        "title": f"{subject} on {about.contract.name}",
        "subject": subject,
        "k": K,
        "confidence": f"{found.boot.confidence:.0%}",
        "verdict": said.verdict(),
        "prose": said.sections(),
        "facts": _facts(found, about),
        "headline": _headline(found),
        "lift": _lift(found, found.lift, found.headline, "lift"),
        "forest": _forest(found.lift),
        "ablations": _ablations(found) if found.ablations else None,
        "ablation_slices": _young(found) if found.ablation_slices else None,
        "ablation_forest": _forest(found.ablation_lift) if found.ablation_lift else "",
        "heads": [(head, _head_table(found, head)) for head in found.task.heads],
        "calibration": plots.calibration(found.calibration) if found.calibration else "",
        "curves": plots.training(about.curve),
        "matched": _matched(found) if found.matched else None,
        "full": _full(found) if found.full else None,
        "slices": _slices(found),
        "diversity": _diversity(found),
        "cases": cases,
        "lineage": about.lineage,
    }
    return render("rankers", content)


def _facts(found: Study, about: About) -> list[tuple[str, str]]:
    rows = found.task.rows
    boards = [("Boards behind item vectors", about.known_boards)] if about.known_boards else []
    return [
        ("Split", about.dates),
        *boards,
        ("Requests", count(rows.requests.height)),
        ("Candidates a request", f"{len(rows) / rows.requests.height:.1f}"),
        ("Chosen candidates", count(found.task.chosen.sum())),
        (f"HIT@{K} by chance", f"{chance(found.task):.3f}"),
        ("Bootstrap resamples", count(found.boot.resamples)),
    ]


def _rows(found: Study, results: Intervals, metrics: Sequence[str], section: str, digits: int = 3) -> tuple[Row, ...]:
    """One row a ranker, one cell a metric."""
    return tuple(
        Row(
            (
                words(name_of(ranker)),
                *(number(by_name.get(m), f"{section}.{ranker}.{m}", digits) for m in metrics),
            ),
            subject=ranker == found.subject,
        )
        for ranker, by_name in results.items()
    )


def _headline(found: Study) -> Table:
    metrics = _hits(found)
    return Table(("", *map(_title, metrics)), _rows(found, found.headline, metrics, "headline"))


def _hits(found: Study) -> list[str]:
    present = {m for by_name in found.headline.values() for m in by_name}
    return [m for m in (f"hit@{K}", *(f"hit@{K}/{h}" for h in found.task.heads)) if m in present]


def _title(metric: str) -> str:
    base, _, head = metric.partition("/")
    label = {"mrr": "MRR", "auc": "AUC", "log_loss": "Log-loss", "calibration": "Calibration"}.get(base)
    label = label or base.replace("hit", "HIT").replace("recall", "Recall")
    return f"{label} {head}".strip()


def _forest(lift: Intervals) -> str:
    differences = [(name_of(r), m[f"hit@{K}"]) for r, m in lift.items() if f"hit@{K}" in m]
    return plots.forest(differences, f"difference in HIT@{K}")


def _ablations(found: Study) -> Table:
    aucs = [m for m in found.ablations[found.subject] if m.startswith("auc/")]
    return _lift(found, found.ablation_lift, found.ablations, "ablation_lift", aucs)


def _young(found: Study) -> Table:
    slices = found.ablation_slices
    counts = Row((words("Chosen"), *(words(count(s.count)) for s in slices)))
    rows = tuple(
        Row(
            (words(name_of(r)), *(number(s.found.get(r), f"ablation_slices.{s.name}.{r}") for s in slices)),
            subject=r == found.subject,
        )
        for r in found.ablations
    )
    return Table(("", *(prose.sentence(s.name) for s in slices)), (counts, *rows))


def _lift(found: Study, lift: Intervals, headline: Intervals, section: str, beside: Sequence[str] = ()) -> Table:
    """Paired differences subject − rival in hits and what is `beside`; `headline` has the rivals' own values."""
    metrics = [*_hits(found), *beside]
    overall = f"hit@{K}"
    ours = found.headline[found.subject][overall].value

    def cells(rival: str, by_name: Mapping[str, Interval]) -> tuple[Cell, ...]:
        signs = [found.task.lower_is_better(m) for m in metrics]
        return (
            words(name_of(rival)),
            Cell(prose.relative(ours, headline[rival][overall].value)),
            *(difference(by_name.get(m), f"{section}.{rival}.{m}", 3, s) for m, s in zip(metrics, signs, strict=True)),
        )

    rows = tuple(Row(cells(rival, by_name)) for rival, by_name in lift.items())
    return Table(("Against", f"HIT@{K}, relative", *map(_title, metrics)), rows)


def _head_table(found: Study, head: str) -> Table:
    metrics = [f"{kind}/{head}" for kind in ("auc", "log_loss", "calibration")]
    hits = f"hit@{K}/{head}"
    combined = {r: {**found.headline.get(r, {}), **m} for r, m in found.heads.items()}
    rows = tuple(
        Row(
            (
                words(name_of(r)),
                number(m.get(hits), f"headline.{r}.{hits}"),
                number(m.get(metrics[0]), f"heads.{r}.{metrics[0]}", 4),
                number(m.get(metrics[1]), f"heads.{r}.{metrics[1]}", 6),
                number(m.get(metrics[2]), f"heads.{r}.{metrics[2]}", 2),
            ),
            subject=r == found.subject,
        )
        for r, m in combined.items()
    )
    return Table(("", f"HIT@{K}", "AUC", "Log-loss", "Calibration"), rows)


def _matched(found: Study) -> Table:
    metrics = (f"hit@{K}", "pairs")
    return Table(("", f"HIT@{K}", "Negatives beaten"), _rows(found, found.matched, metrics, "matched"))


def _full(found: Study) -> Table:
    return Table(("", *map(_title, FULL_METRICS)), _rows(found, found.full, FULL_METRICS, "full"))


def _slices(found: Study) -> Table:
    rankers = list(found.rankers)
    rows = tuple(
        Row(
            (
                words(s.name),
                words(count(s.count)),
                *(number(s.found.get(r), f"slices.{s.name}.{r}") for r in rankers),
            )
        )
        for s in found.slices
    )
    return Table(("", "Chosen", *map(name_of, rankers)), rows)


def _diversity(found: Study) -> Table:
    covered = coverage(found)
    metrics = (f"categories@{K}", "categories@10", f"repeats@{K}")
    rows = tuple(
        Row((*row.cells, Cell(f"{covered[ranker]:.3f}", key=f"coverage.{ranker}")), row.subject)
        for ranker, row in zip(found.diversity, _rows(found, found.diversity, metrics, "diversity", 2), strict=True)
    )
    columns = ("", f"Categories in {K}", "Categories in 10", f"Chosen before, of {K}", f"Catalogue in {K}")
    return Table(columns, rows)
