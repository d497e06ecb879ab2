"""The promotion gate: is the challenger not worse than the champion, and was either asked about what it had learned?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from components.errors import UserError
from components.evaluation.bootstrap import Bootstrap, Interval
from pinloom.datasets.spec import PromotionSpec
from pinloom.evaluation.measure import Asked
from pinloom.reporting.tables import count

CHAMPION = "champion"


@dataclass(frozen=True)
class Comparison:
    """One metric of two models on the same questions, so oriented that a positive `gain` is better."""

    metric: str
    challenger: Interval
    rival: Interval
    gain: Interval


@dataclass(frozen=True)
class Decision:
    """What was decided, and why.

    Attributes:
        rival: 'champion', or what a first one must beat, or '' when nothing was compared.
        champion: manifest URI of the champion at the time, '' when there was none.
        reason: one or two sentences for people.
        asked: of what the models were asked: '1 200 requests'.
        comparisons: the gate's metric first.
    """

    promoted: bool
    reason: str
    rival: str = ""
    challenger: str = ""
    champion: str = ""
    asked: str = ""
    comparisons: tuple[Comparison, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Contest:
    """Two models' answers to the same questions; what a kind of model hands the gate.

    Attributes:
        rival: 'champion', or the name of what a first champion must beat.
        metrics: the gate's first.
        unit: what the task's questions are called: 'requests'.
    """

    task: Asked[Any]
    challenger: Any
    other: Any
    rival: str
    metrics: Sequence[str]
    unit: str = "requests"
    questions: int = 0

    @property
    def asked(self) -> str:
        return f"{count(self.questions or self.task.units)} {self.unit}"

    def compare(self, rules: PromotionSpec, seed: int = 0) -> tuple[Comparison, ...]:
        """Paired comparison of each metric.

        Raises:
            UserError: a metric that needs probabilities which the rival does not have, or that nothing measures.
        """
        boot = Bootstrap(self.task.units, rules.resamples, seed, rules.confidence, self.task.user_of)
        return tuple(self._compare(name, boot) for name in self.metrics)

    def _compare(self, name: str, boot: Bootstrap) -> Comparison:
        ours, theirs = (self.task.statistic(name, answer) for answer in (self.challenger, self.other))
        if ours is None or theirs is None:
            raise UserError(
                f"promotion.metric '{name}' needs probabilities, which {self.rival} does not have",
                "choose a metric of the order for the data set's `promotion`: hit@K, recall@K, mrr or auc/HEAD",
            )
        if not ours.denominator.sum():
            raise UserError(
                f"'{name}' cannot be measured: it never happened in {self.asked}",
                "choose another metric, or evaluate on a split in which it happens",
            )
        pair = (theirs, ours) if self.task.lower_is_better(name) else (ours, theirs)
        mine, other = boot.intervals([ours, theirs])
        return Comparison(name, mine, other, boot.differences([pair[0]], [pair[1]])[0])


def decide(contest: Contest, rules: PromotionSpec, champion: str, seed: int = 0) -> Decision:
    """A first champion must beat the rival: the lower bound of its gain lies above zero. A later one must not be worse
    than the champion: the lower bound is at least −delta.

    Args:
        champion: what to call it in the reason.
    """
    found = contest.compare(rules, seed)
    low, first = found[0].gain.low, contest.rival != CHAMPION
    promoted = low > 0 if first else low >= -rules.delta
    if first:
        told = f"Promoted as the first champion: it beats {contest.rival}."
        refused = f"Not promoted: a first champion must beat {contest.rival}, with a lower bound above zero."
    else:
        told = f"Promoted over {champion}: the lower bound is at least −{rules.delta:g}."
        refused = f"Kept {champion}: the lower bound is below −{rules.delta:g}."
    reason = f"{told if promoted else refused} {_said(contest, found[0], rules)}"
    return Decision(promoted, reason, contest.rival, asked=contest.asked, comparisons=found)


def _said(contest: Contest, found: Comparison, rules: PromotionSpec) -> str:
    gain, rival = found.gain, "the champion's" if contest.rival == CHAMPION else contest.rival
    return (
        f"On {contest.asked} of the same split {found.metric} is {found.challenger.value:.4f} against {rival} "
        f"{found.rival.value:.4f}; the paired gain is {gain.value:+.4f} "
        f"({rules.confidence:.0%} interval {gain.low:+.4f} to {gain.high:+.4f}, {rules.resamples} resamples)."
    ).replace("-", "−")


@dataclass(frozen=True)
class Span:
    """First and last moment of something."""

    first: datetime
    last: datetime

    def __str__(self) -> str:
        return f"{self.first:%Y-%m-%d} to {self.last:%Y-%m-%d}"


def refuse_seen(split: str, asked: Span, who: str, learned: Span, later: str) -> None:
    """A model may be judged only on what came after everything that it learned from or was chosen by.

    Args:
        later: how else to come to a later split.

    Raises:
        UserError: the split begins before the end of what the model learned from.
    """
    if asked.first <= learned.last:
        raise UserError(
            f"the {split} split ({asked}) lies inside what {who} learned from ({learned})",
            f"evaluate on a later split: move `contract.splits` of the data set forward, or {later}",
        )
