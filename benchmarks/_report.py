"""What every benchmark prints: a table for people, one JSON object a line for machines."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One measured ratio or number.

    Attributes:
        value: what was measured, in the unit that `figure` names.
        rival: what the same run measured for the named alternative (None: nothing to compare with).
        goal: the goal in words (`<= 2`).
        holds: whether the goal was reached.
    """

    figure: str
    value: float
    rival: float | None
    goal: str
    holds: bool


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The parser that every benchmark starts from: `--quick` and `--json`."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help="smaller data, under a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser


def exit_code(doc: str | None, figures: Callable[[bool], Iterable[Figure]]) -> int:
    """A whole benchmark that takes nothing but `--quick` and `--json`. Returns the exit code: 1 = a goal was missed."""
    args = arguments(doc).parse_args()
    logging.disable(logging.INFO)
    os.environ.setdefault("TQDM_DISABLE", "1")
    return 0 if report(figures(args.quick), args.json) else 1


def report(figures: Iterable[Figure], as_json: bool) -> bool:
    """Print the figures. Returns whether all goals hold."""
    figures = list(figures)
    if as_json:
        for figure in figures:
            print(json.dumps(asdict(figure)))
    else:
        width = max((len(f.figure) for f in figures), default=6)
        print(f"{'figure':<{width}}  {'value':>12}  {'rival':>12}  {'goal':<10}  holds")
        for f in figures:
            rival = "" if f.rival is None else f"{f.rival:.4g}"
            print(f"{f.figure:<{width}}  {f.value:>12.4g}  {rival:>12}  {f.goal:<10}  {'yes' if f.holds else 'NO'}")
    return all(f.holds for f in figures)
