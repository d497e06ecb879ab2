"""A search over configurations: each is trained once, its measures kept as one JSON line."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def search(
    about: str | None,
    fields: str,
    trained: Callable[[Line, Path], Line],
    told: Callable[[Line], object],
    first: Callable[[], Iterable[Line]] = tuple,
) -> int:
    """The command: configurations in, JSON lines out; those that are there already are not trained again.

    Args:
        about: what `--help` says; `fields` of a configuration beside its name and overrides.
        trained: trains one in a folder and returns its measures.
        told: of its measures, what the terminal shows.
        first: lines for a file that has none yet, of what is not trained.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("configurations", type=Path, help=f'JSON lines: {{"name": …, "overrides": {{…}}, {fields}}}')
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    parser.add_argument("--keep", type=Path, help="folder for the artifacts, one folder each by name")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    os.environ.setdefault("TQDM_DISABLE", "1")
    done = [json.loads(line)["name"] for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for line in first() if not done else ():
        _add(args.out, line)
        print(line["name"], told(line), flush=True)
    for wanted in map(json.loads, args.configurations.read_text().splitlines()):
        if wanted["name"] in done:
            continue
        with tempfile.TemporaryDirectory(prefix="pinloom-search-") as folder:
            found = trained(wanted, Path(folder))
            if args.keep:
                shutil.copytree(Path(folder) / "checkpoint" / "artifact", args.keep / wanted["name"])
        _add(args.out, {**wanted, **found})
        print(wanted["name"], told(found), f"{found['seconds']:.0f} s", flush=True)
    return 0


def _add(out: Path, line: Line) -> None:
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")
