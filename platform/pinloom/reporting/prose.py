"""Sentences that say what the numbers say, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping

from components.contract import Contract
from components.evaluation.bootstrap import Interval
from pinloom.evaluation.measure import LEAST_CHOSEN
from pinloom.evaluation.study import HISTORY_LENGTHS, NOSEQ, PERSONAL, POPULARITY, TREE, K, Study
from pinloom.reporting.tables import DASH, count, listing, signed

HIT = f"hit@{K}"
INLINE = {
    NOSEQ: "the same ranker without the sequence",
    TREE: "the boosted tree",
    PERSONAL: "personal frequency",
    POPULARITY: "popularity",
}


TIMES = 5
"""Beyond so many times the rival's figure a percentage is one of next to nothing."""


def relative(ours: float, theirs: float) -> str:
    """The difference as a share of the rival's figure, or itself where that is about 0."""
    if ours > TIMES * theirs:
        return f"{signed(ours - theirs)} (absolute)"
    return f"{signed(100 * (ours / theirs - 1), 1)} %" if theirs else DASH


def verb(names: list[str]) -> str:
    return "does" if len(names) == 1 else "do"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def told_apart(lift: Mapping[str, Interval]) -> list[str]:
    """Who is beaten, who is level, who is better, by paired differences subject − rival."""
    beaten = [r for r, d in lift.items() if d.low > 0]
    better = [r for r, d in lift.items() if d.high < 0]
    level = [r for r in lift if r not in beaten and r not in better]
    sentences = []
    if beaten:
        sentences.append(f"That is more than {listing(beaten)} {verb(beaten)}.")
    if level:
        sentences.append(f"It cannot be told apart from {listing(level)} on this split.")
    if better:
        sentences.append(f"{sentence(listing(better))} {verb(better)} better.")
    return sentences


def ablations(subject: str, lift: Mapping[str, Mapping[str, Interval]], metric: str, alike: str) -> str:
    """What the table of ablations is, and which of them can be told apart."""
    clear = [r for r, m in lift.items() if metric in m and not m[metric].low <= 0 <= m[metric].high]
    told = f"{listing(clear)} can be told apart from it" if clear else "none can be told apart from it"
    return (
        f"{subject} with one choice changed, trained alike: {alike}. Each difference is {subject} minus the row, "
        f"paired. On this split {told}; one seed each, and one in twenty such intervals misses by chance."
    )


class Prose:
    """Text of one evaluation."""

    def __init__(self, found: Study, contract: Contract, split: str, subject: str, seen: bool) -> None:
        self.found, self.contract, self.split, self.subject = found, contract, split, subject
        self.seen = seen

    @property
    def exposures(self) -> str:
        return "inferred exposures" if self.contract.exposures == "inferred" else "exposures"

    def verdict(self) -> str:
        """Who is beaten, who is not told apart, who is better; by the paired intervals of HIT@3."""
        ours = self.found.headline[self.found.subject][HIT]
        lift = {INLINE.get(r, r): m[HIT] for r, m in self.found.lift.items() if HIT in m}
        sentences = [
            f"Of the first {K} candidates that {self.subject} ranks, {ours.value:.3f} are chosen on average "
            f"({ours.low:.3f} to {ours.high:.3f}), where anything was chosen at all."
        ]
        return " ".join([*sentences, *told_apart(lift)])

    def sections(self) -> dict[str, str]:
        return {
            "requests": self._requests(),
            "rivals": self._rivals(),
            "ablations": self._ablations(),
            "sampling": self._sampling(),
            "training": self._training(),
            "matched": self._matched(),
            "full": self._full(),
            "slices": self._slices(),
            "diversity": self._diversity(),
            "cases": "Drawn at random among requests with a history in which something was chosen. "
            "Green is what was chosen; other candidates show their final score.",
        }

    def _requests(self) -> str:
        rows = self.found.task.rows
        said = (
            f"{count(rows.requests.height)} requests of the {self.split} split with {count(len(rows))} {self.exposures}"
        )
        if self.seen:
            return f"{said}. The ranker learned from these days or was stopped by them, which flatters it."
        return f"{said}, all later than anything the ranker learned from."

    def _rivals(self) -> str:
        text = (
            "Popularity counts everybody's positive actions of the last 28 days; personal frequency the user's own "
            "with the item, then recency, then popularity. The tree (scikit-learn) learns from the training split the "
            "same point-in-time counts that the ranker may read."
        )
        if NOSEQ in self.found.rankers:
            text += " The ranker without the sequence has the same features, fields, seed and rows per step."
        return text

    def _ablations(self) -> str:
        return ablations(self.subject, self.found.ablation_lift, HIT, "same rows, seed and steps")

    def _sampling(self) -> str:
        sampled = (self.found.task.rows.weights > 1).any()
        return (
            f"{self.exposures} that were sampled count with 1 over the probability with which each was kept."
            if sampled
            else f"no {self.exposures} were sampled away."
        )

    def _training(self) -> str:
        return "Means between two points of the training curve; validation at the end of each epoch."

    def _matched(self) -> str:
        found = self.found
        source = "everything that could have been shown" if found.matched_source == "full" else f"the {self.exposures}"
        if not found.matched_count:
            return f"No request has five candidates as popular as what was chosen among {source}."
        return (
            f"Popularity explains much of any choice. Here each of {count(found.matched_count)} chosen items competes "
            f"with {found.matched_mean:.0f} others on average from the same popularity decile, drawn at random from "
            f"{source} of its request; {count(found.matched_left_out)} with fewer than five such are left out. "
            "Negatives beaten: the share of them ranked below what was chosen (one half is chance)."
        )

    def _full(self) -> str:
        task = self.found.full_task
        if task is None:
            return ""
        rows = task.rows
        return (
            f"Sampling leaves out most of what a request could have shown. For {count(rows.requests.height)} requests "
            f"all of it is ranked: {count(self.found.full_size)} candidates each on average."
        )

    def _slices(self) -> str:
        return (
            f"Of all that was chosen in a slice, the share ranked among the first {K} of its request. Core users are "
            "those at least as active in the 28 days before the request as the median one; a history holds at most "
            f"the newest {HISTORY_LENGTHS[-1]} actions. Weeks count from the first day of the split: later ones show "
            f"how rankers age that are not retrained. Slices with fewer than {LEAST_CHOSEN} chosen items are left out."
        )

    def _diversity(self) -> str:
        return (
            f"Different item categories among the first {K} and 10 of a request; the share of the first {K} that the "
            f"user had chosen before; and the share of all candidate items that is among anybody's first {K}."
        )
