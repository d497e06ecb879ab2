"""What happened in each row: one contract row per action, with its id."""

from __future__ import annotations

import polars as pl

from pinloom.datasets.mapped.files import ROW, LogFile
from pinloom.datasets.source import conform

FEEDBACK = "__feedback."
RATING = "__rating."
"""Prefixes of the converted columns that say what happened; no contract column begins so."""


def words(file: LogFile, vocabulary: list[str]) -> dict[str, str | None]:
    """Value of the column mapped to `action` → action, None for values whose rows are left out."""
    return file.mapping.action_values or {a: a for a in vocabulary}


def expand_actions(rows: pl.DataFrame, file: LogFile, vocabulary: list[str]) -> pl.DataFrame:
    """Contract table `actions` from converted rows.

    An event's id is the one mapped, or else a hash of the file's place in the source and the row's number in it,
    followed by the action's position in the mapping where a row can stand for several.
    """
    if "event_id" not in rows.columns:
        rows = rows.with_columns(event_id=pl.concat_str(pl.lit(file.prefix), ROW, separator="-"))
    if "action" in file.mapping.filled:
        return conform(_named(rows, words(file, vocabulary)), "actions")
    parts = [
        rows.filter(happened).with_columns(
            action=pl.lit(action), event_id=pl.concat_str("event_id", pl.lit(str(i)), separator="-")
        )
        for i, (action, happened) in enumerate(_signals(file))
    ]
    return conform(pl.concat(parts), "actions")


def _signals(file: LogFile) -> list[tuple[str, pl.Expr]]:
    """(action, whether it happened) for each that the mapping names."""
    m = file.mapping
    signals = [(action, pl.lit(True)) for action in m.every_row]
    signals += [(action, pl.col(FEEDBACK + action)) for action in m.feedback]
    for i, rule in enumerate(m.ratings):
        rating = pl.col(f"{RATING}{i}")
        least = rating.is_not_null() if rule.at_least is None else rating >= rule.at_least
        signals.append((rule.action, least if rule.below is None else least & (rating < rule.below)))
    return signals


def _named(rows: pl.DataFrame, values: dict[str, str | None]) -> pl.DataFrame:
    left_out = pl.col("action").is_in([v for v, action in values.items() if action is None])
    return rows.filter(~left_out).with_columns(pl.col("action").replace(values))
