"""The report of a run: one page of what happened, and the Data Docs behind it, readable without a network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from pinloom.reporting.html import render
from pinloom.validation.days import DAY
from pinloom.validation.quarantine import Tally
from pinloom.validation.verdict import Problem

SHOWN_DAYS = 20
"""Days shown: those that differ most from the day that they are held against."""

FETCHED = re.compile(r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<footer\b.*?</footer>", re.DOTALL)
"""What Data Docs fetch from the network (styles, scripts, a logo) or what is dead without it."""


def write_report(
    folder: Path,
    *,
    title: str,
    problems: Sequence[Problem],
    tallies: dict[str, Tally],
    days: pl.DataFrame,
    facts: dict[str, str],
) -> None:
    """Put `index.html` before the Data Docs in `folder`, and make their pages self-contained."""
    style = render("data_docs_style", {})
    for page in folder.rglob("*.html"):
        page.write_text(FETCHED.sub("", page.read_text()).replace("</head>", f"{style}</head>"))
    shutil.rmtree(folder / "static", ignore_errors=True)
    content = {
        "title": title,
        "problems": problems,
        "facts": facts,
        "tables": tallies,
        "days": _most_changed(days),
        "all_days": days.height,
        "pages": _pages(folder),
    }
    (folder / "index.html").write_text(render("validation", content))


def _most_changed(days: pl.DataFrame) -> list[dict[str, Any]]:
    change = pl.max_horizontal(pl.col("volume_factor").log().fill_null(0), pl.col("mix_change").fill_null(0))
    return days.top_k(SHOWN_DAYS, by=change).sort(DAY).to_dicts()


def _pages(folder: Path) -> list[dict[str, str]]:
    """Suite, batch and link of each page of results: `validations/<suite>/<batch>/<time>/<asset>.html`."""
    found = sorted(p.relative_to(folder) for p in folder.glob("validations/*/*/*/*.html"))
    return [{"suite": p.parts[1], "batch": p.parts[2], "link": quote(p.as_posix())} for p in found]
