"""Which item vectors a snapshot has. A vector version names the function that made them, whichever family it is of.

`metrics.vectors` of a features manifest is that name; a model scores rightly only with vectors of the version that it
was trained with. Content vectors are named by their encoder, which snapshots hand on.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.errors import UserError
from pinloom.datasets.spec import FeatureSpec
from pinloom.features.content import Encoder
from pinloom.lake import Lake, Manifest

RECENT = 30
"""Snapshots looked through for one that the same parameters made."""


def version(features: Manifest) -> str:
    """Version of the vectors of a snapshot's item table."""
    return str(features.metrics["vectors"])


def trained_on(lake: Lake, train: Manifest) -> Manifest:
    """The features that a run was trained on."""
    return lake.manifest(train.inputs["features"]["uri"])


def before_embedding(lake: Lake, features: Manifest) -> Manifest | None:
    """The features in which learned item vectors took the place of content vectors; None where they did not."""
    return _read_from(lake, features) if "content_vectors" in features.metrics else None


def actions_behind(lake: Lake, features: Manifest) -> Manifest:
    """The log that features were built from; embedded ones, and those handed on, were built from features."""
    while "actions" not in features.inputs:
        features = _read_from(lake, features)
    return lake.manifest(features.inputs["actions"]["uri"])


def _read_from(lake: Lake, embedded: Manifest) -> Manifest:
    return lake.manifest(embedded.inputs["features"]["uri"])


def open_encoder(lake: Lake, features: Manifest) -> Encoder | None:
    """The encoder of a snapshot, or None when this version of the code does not read it."""
    if "encoder" not in features.outputs:
        return None
    files = {uri.rsplit("/", 1)[-1]: lake.read_bytes(uri) for uri in features.output("encoder").uris}
    return Encoder.from_files(files)


def read_table(lake: Lake, source: Manifest, output: str) -> pl.DataFrame:
    files = [io.BytesIO(lake.read_bytes(uri)) for uri in source.output(output).uris]
    return pl.concat([pl.read_parquet(f) for f in files], how="diagonal_relaxed")


def read_items(lake: Lake, source: Manifest) -> pl.DataFrame:
    """Items in the order of the item table: row 0 is the unknown item, then `item_id` in byte order."""
    items = read_table(lake, source, "items").unique("item_id", keep="last", maintain_order=True).sort("item_id")
    unknown = pl.DataFrame({"item_id": [""]})
    return pl.concat([unknown, items.filter(pl.col("item_id") != "")], how="diagonal")


def encoded_as(lake: Lake, origin: Manifest, features: Manifest) -> NDArray[np.float16]:
    """Vectors of all items of `features`, in its rows, as the snapshot `origin` would have made them.

    Raises:
        UserError: `origin` has no encoder that can be read.
    """
    encoder = open_encoder(lake, origin)
    if encoder is None:
        raise UserError(
            f"{origin.uri} has no encoder that this version of the code reads, so its vectors cannot be made again",
            "train again on features of today",
        )
    return encoder.encode(read_items(lake, actions_behind(lake, features)))


def require_encoder(lake: Lake, uri: str, declared: FeatureSpec) -> Encoder:
    """The encoder of the features manifest at `uri`, fit for what is declared.

    Raises:
        UserError: there is none, or the declaration has changed since.
    """
    encoder = open_encoder(lake, lake.manifest(uri))
    if encoder is None or not encoder.fits(declared):
        why = "has no encoder that can be read" if encoder is None else "was made for another `features` declaration"
        raise UserError(f"encoder={uri}: the manifest {why}", "give that of other features, 'auto' or 'refit'")
    return encoder


def choose_encoder(
    lake: Lake, declared: FeatureSpec, source: Manifest, served: str, step: int, params: dict[str, Any]
) -> str:
    """URI of the features manifest whose encoder a new snapshot of `source` shall use; '' = fit one.

    That of the model that serves, else that of the newest snapshot, if it was made for the same declaration. A
    snapshot that there is already with these vectors, made from the same actions by the same parameters, decides as it
    did then: it is found again instead of being built twice.

    Args:
        served: pointer to the run that serves.
        step: version of the step.
        params: of the step, without `encoder`.
    """
    recent = list(lake.history("features", RECENT))
    wanted = next((m for m in _candidates(lake, served, recent) if _usable(lake, m, declared)), None)
    if wanted is None:
        return ""
    for made in recent:
        alike = made.version == step and {k: v for k, v in made.params.items() if k != "encoder"} == params
        same = made.inputs.get("actions", {}).get("sha256") == source.content_hash()
        if alike and same and version(made) == version(wanted):
            return str(made.params.get("encoder", ""))
    return wanted.uri


def _candidates(lake: Lake, served: str, recent: list[Manifest]) -> Iterator[Manifest]:
    serving = lake.latest(served)
    if serving is not None and "features" in serving.inputs:
        yield trained_on(lake, serving)
    yield from recent[:1]


def _usable(lake: Lake, features: Manifest, declared: FeatureSpec) -> bool:
    encoder = open_encoder(lake, features)
    return encoder is not None and encoder.fits(declared)
