"""A pretrained PinFM as files: `model.safetensors` and `artifact.json`, and the id table beside them.

The table is the greater part by far, so it has files of its own: each rank writes the rows that it holds
(`table-1-of-2.safetensors`), and one file after the other they are the whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from components.errors import UserError
from components.models.artifact import FORMAT, describe_as, fill, save_artifact
from components.models.pinfm.config import PinFMConfig
from components.models.pinfm.model import PinFM
from components.nn.hashed import Shard, without_rows

TABLE = "table.weight"
RECIPE = "pinfm"
WHOLE = "copy the whole folder of the artifact"


def save_table(folder: Path, model: PinFM) -> None:
    """Write the rows of the id table that this process holds."""
    folder.mkdir(parents=True, exist_ok=True)
    shard = model.table.shard
    whole = model.table.tables * model.table.rows
    rows = model.table.weight.detach()[: max(0, whole - model.table.first)]
    name = f"table-{shard.rank + 1}-of-{shard.world}.safetensors"
    save_file({TABLE: rows.cpu().contiguous()}, str(folder / name))


def save_pinfm(
    folder: Path,
    model: PinFM,
    *,
    actions: Sequence[str],
    learned: tuple[int, int],
    trained_until: int,
    feature_service: str = "",
) -> None:
    """Write all but the id table (`save_table`).

    Args:
        actions: the vocabulary, in the order of the indices that the model reads.
        learned: first and last moment (µs since epoch) of what it was trained on or chosen by.
        trained_until: moment that no event which it was trained on reaches.
    """
    said = {
        "recipe": RECIPE,
        "format": FORMAT,
        "config": asdict(model.config),
        "actions": list(actions),
        "learned": list(learned),
        "trained_until": trained_until,
        "feature_service": feature_service,
    }
    save_artifact(folder, model, said, without=(TABLE,))


def describe_pinfm(folder: str | Path) -> dict[str, Any]:
    """What `artifact.json` says.

    Raises:
        UserError: the folder holds no PinFM, or one of another version of the code.
    """
    return describe_as(folder, RECIPE, "PinFM", PinFMConfig, needed=("actions", "learned"))


def load_pinfm(folder: str | Path, *, shard: Shard | None = None, sparse: bool = False) -> PinFM:
    """Open an artifact, in evaluation mode, on the CPU.

    Args:
        shard: rows of the id table to load; default all.
        sparse: as in `PinFM`.

    Raises:
        UserError: as `describe_pinfm`; or files are missing, or not of what is described.
    """
    said = describe_pinfm(folder)
    with without_rows():
        model = PinFM(PinFMConfig(**said["config"]), len(said["actions"]), shard=shard, sparse=sparse)
    fill(model, folder, without=(TABLE,))
    read_table(folder, model)
    return model.eval()


def table_files(folder: str | Path) -> list[Path]:
    """Files of the id table; one after the other they hold its rows.

    Raises:
        UserError: some are missing.
    """
    found = sorted(Path(folder).glob("table-*-of-*.safetensors"), key=lambda p: int(p.name.split("-")[1]))
    whole = {int(p.stem.split("-")[-1]) for p in found}
    if whole != {len(found)}:
        raise UserError(f"{folder} holds {len(found)} files of the id table", WHOLE)
    return found


@torch.no_grad()
def read_table(folder: str | Path, model: PinFM) -> None:
    """Give the id table the rows that this process holds; no others are read.

    Raises:
        UserError: the files are missing, or hold another table than is described.
    """
    table, begin = model.table, 0
    table.weight = nn.Parameter(torch.zeros(table.share, table.width))
    first, last = table.first, table.first + table.share
    for path in table_files(folder):
        with safe_open(str(path), framework="pt") as file:
            rows = file.get_slice(TABLE)
            count, width = rows.get_shape()
            if width != table.width:
                raise UserError(f"{path} holds rows of {width} values, its description says {table.width}", WHOLE)
            a, b = max(first, begin), min(last, begin + count)
            if a < b:
                table.weight[a - first : b - first] = rows[a - begin : b - begin]
            begin += count
    if begin != table.tables * table.rows:
        raise UserError(f"{folder} holds {begin} rows of an id table of {table.tables * table.rows}", WHOLE)
