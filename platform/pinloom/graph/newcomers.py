"""Vectors of items that no graph has, from their declared features alone: PinSage is inductive.

PinSage and its compiler are imported where a model is there to be asked: most replicas have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from components.contract import FEATURE_PREFIX
from components.errors import UserError
from components.history.items import ItemTable
from components.history.schema import FeatureSchema
from pinloom.features.blocks import hashed
from pinloom.features.content import Encoder
from pinloom.features.vectors import actions_behind, open_encoder, read_items
from pinloom.lake import Lake, Manifest

if TYPE_CHECKING:
    from components.models.pinsage.model import PinSage

OWN = ("title", "category")
"""Columns of an item that the contract itself names."""


@dataclass(frozen=True)
class Newcomers:
    """
    Attributes:
        encoder: of the content vectors that the model reads.
        model: None where content vectors stand for its own.
        categorical: columns whose values it reads.
    """

    encoder: Encoder
    model: PinSage | None
    categorical: tuple[str, ...]

    @classmethod
    def load(cls, lake: Lake, embedded: Manifest, schema: FeatureSchema) -> Self:
        """As `embedded` (of step `embed`) made its vectors.

        Raises:
            UserError: its content encoder is of another version of the code.
        """
        encoder = open_encoder(lake, lake.manifest(embedded.inputs["features"]["uri"]))
        if encoder is None:
            raise UserError(
                f"the content encoder behind {embedded.uri} is of another version of the code",
                "run `pinloom step features graph neighbourhoods`, train PinSage and embed again",
            )
        if "train" not in embedded.inputs:
            return cls(encoder, None, schema.categorical)
        from components.models.pinsage.artifact import load_pinsage

        train = lake.manifest(embedded.inputs["train"]["uri"])
        return cls(encoder, load_pinsage(lake.local_folder(train.output("artifact"))), schema.categorical)

    def vectors(self, items: pl.DataFrame) -> NDArray[np.float32]:
        """float32 [n, d] of the rows of `items` as if they were on no board."""
        content = self.encoder.encode(items)
        if self.model is None:
            return content.astype(np.float32)
        from components.models.pinsage.catalogue import Catalogue
        from components.models.pinsage.inference import embed

        return embed(self.model, Catalogue.without_boards(content, hashed(items, self.categorical)))[1:]

    def vector(self, item: Mapping[str, object]) -> NDArray[np.float32]:
        """float32 [1, d] of one item.

        Args:
            item: `title`, `category` and features by their declared names; what is left out is unknown.

        Raises:
            UserError: a name that is not declared.
        """
        known = {n for names in self.encoder.declared.values() for n in names} | {*self.categorical, *OWN}
        if unknown := sorted(set(item) - known):
            raise UserError(f"items have no feature '{unknown[0]}'", f"features of an item: {', '.join(sorted(known))}")
        return self.vectors(
            pl.DataFrame({n if n in OWN else f"{FEATURE_PREFIX}{n}": [item.get(n)] for n in sorted(known)})
        )


def embedded_as(lake: Lake, origin: Manifest, features: Manifest, table: ItemTable) -> NDArray[np.float16]:
    """Short vectors of all items of `features` as the `embed` manifest `origin` has them, newcomers included.

    Args:
        table: the item table of `features`.
    """
    files = {uri.rsplit("/", 1)[-1]: lake.local_path(uri) for uri in origin.output("items").uris}
    before = ItemTable.load(files)
    rows = before.rows_of_keys(table.keys)
    vectors = np.array(before.vectors[rows])
    new = np.flatnonzero(rows == 0)[1:]
    if len(new):
        schema = FeatureSchema.load(lake.local_path(origin.file("schema", "schema.json")))
        made = Newcomers.load(lake, origin, schema)
        items = read_items(lake, actions_behind(lake, features))
        assert made.model is not None
        full = torch.from_numpy(made.vectors(items[new.tolist()]))
        vectors[new] = made.model.compact(full).numpy()
    return vectors
