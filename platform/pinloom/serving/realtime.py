"""`POST /v1/actions`: checked against the contract, landed in the lake, appended to the online store."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from components.contract import Contract, midnight
from pinloom.serving.schemas import Action, Problem

CLOCK_SKEW = timedelta(seconds=1)
"""By how much a caller's clock may run ahead of ours."""

MAX_REPORTED = 20


class Refused(Exception):
    """The body breaks the contract; nothing of it was stored."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.field}: {p.problem}" for p in problems))
        self.problems = problems


def check(actions: list[Action], contract: Contract, earliest: date, now: datetime | None = None) -> None:
    """Refuse words outside the vocabulary and times outside the log: `validate` would quarantine them.

    Args:
        earliest: UTC day before which no timestamp is believed.

    Raises:
        Refused: names each field, what is wrong and the remedy (the first 20).
    """
    believed = (midnight(earliest), (now or datetime.now(UTC)) + CLOCK_SKEW)
    problems = [p for i, a in enumerate(actions) for p in _problems(i, a, contract, believed)]
    if problems:
        raise Refused(problems[:MAX_REPORTED])


def _problems(i: int, action: Action, contract: Contract, believed: tuple[datetime, datetime]) -> list[Problem]:
    found = []
    first, latest = believed
    if action.action not in contract.action_index:
        found.append(
            Problem(
                field=f"[{i}].action",
                problem=f"'{action.action}' is not an action of '{contract.name}'",
                remedy=f"one of: {', '.join(contract.action_index)}",
            )
        )
    if action.timestamp > latest:
        found.append(
            Problem(
                field=f"[{i}].timestamp",
                problem=f"{action.timestamp.isoformat()} is in the future",
                remedy="send the moment at which it happened, with its offset; check the sender's clock",
            )
        )
    if action.timestamp < first:
        found.append(
            Problem(
                field=f"[{i}].timestamp",
                problem=f"{action.timestamp.isoformat()} is before {first.date()}, the data set's earliest day",
                remedy="numbers count seconds or milliseconds since 1970: check the unit; or lower validation.earliest",
            )
        )
    return found
