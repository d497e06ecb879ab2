"""Inputs of the recipe over a planted graph, its neighbourhoods counted exactly; and a graph on which PinSage wins."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from components.contract import Contract
from components.evaluation.bootstrap import Bootstrap, Interval
from components.evaluation.related import HeldOut, by_shared_boards, by_vectors
from components.generator.boards import PlantedBoards
from components.graph.bipartite import BipartiteGraph
from components.graph.neighbours import Neighbourhoods
from components.history.items import ItemTable
from components.history.keys import keys
from components.models.pinsage.catalogue import Catalogue
from components.models.pinsage.config import PAPER
from components.models.pinsage.recipe import PinSageRecipe
from components.recipe import RecipeInputs

# Most of what lies on a board is there by chance: who is near must be told from who was met once.
# Boards are few: most of a topic never met an item, so that counting shared boards does not find it.
WORLD: dict[str, Any] = {
    "topics": 50,
    "per_topic": 20,
    "boards": 700,
    "per_board": 8,
    "strays": 0.5,
    "signal": 0.4,
    "isolated": 50,
}
TOP = 60
WALK: dict[str, Any] = {"walks": 64, "length": 6, "restart": 0.3, "band": [0.1, 0.4], "seed": 1}
"""What a step says of its walks, beside the widths of its arrays."""

LEARN: dict[str, Any] = {
    "epochs": 4,
    "steps_per_epoch": 30,
    "neighbours": TOP,
    "learning_rate": 1e-2,
    "hidden": 48,
    "dim": 32,
    **PAPER,
    "length": "one",
    "margin": 0.2,
}


def contest(
    planted: PlantedBoards, recipe: PinSageRecipe, vectors: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Interval]]:
    """hit@10, and MRR with ranks counted by twos, of vectors and of what does not learn, on the held-out pairs."""
    pairs = HeldOut.of(recipe.held_out.with_columns(user_hash=1 + pl.int_range(pl.len())))
    scorers = {name: by_vectors(v) for name, v in vectors.items()} | {
        "content only": by_vectors(planted.vectors),
        "co-occurrence": by_shared_boards(graph_of(planted)),
        "co-occurrence, damped": by_shared_boards(graph_of(planted), 0.5),
    }
    found = {}
    for name, scorer in scorers.items():
        places = pairs.places(scorer)
        ratios = {"hit@10": pairs.by_user(places.hit(10)), "MRR": pairs.by_user(places.reciprocal(2))}
        found[name] = dict(zip(ratios, Bootstrap(pairs.users, 500).intervals(list(ratios.values())), strict=True))
    return found


def item_table(vectors: np.ndarray, categorical: np.ndarray | None = None) -> ItemTable:
    n = len(vectors)
    ids = ["", *(f"i{k:05d}" for k in range(1, n))]
    labels = pl.DataFrame({"row": np.arange(n), "item_id": ids, "category": "", "title": ""})
    return ItemTable(
        keys=np.where(np.arange(n) == 0, -1, keys(ids)),
        vectors=vectors,
        categorical=np.zeros((n, 0), np.int32) if categorical is None else categorical,
        hash=np.arange(n, dtype=np.int32),
        numeric=np.zeros((n, 1), np.float32),
        labels=labels.with_columns(created_at=pl.lit(None, pl.Datetime("us", "UTC"))),
    )


def visits(planted: PlantedBoards) -> np.ndarray:
    """How often walks of one hop, two (half as many) and three (a quarter) end at each item. [N, N], diagonal 0."""
    n, boards = len(planted.topic), int(planted.boards.max()) + 1
    edges = sparse.csr_matrix((np.ones(len(planted.items)), (planted.items, planted.boards)), shape=(n, boards))
    to_board = sparse.diags(1 / np.maximum(np.asarray(edges.sum(1)).ravel(), 1)) @ edges
    to_item = sparse.diags(1 / np.maximum(np.asarray(edges.sum(0)).ravel(), 1)) @ edges.T
    hop = (to_board @ to_item).toarray()
    dense: np.ndarray = hop + hop @ hop / 2 + hop @ hop @ hop / 4
    np.fill_diagonal(dense, 0)
    return dense


def neighbourhoods(
    planted: PlantedBoards, top: int = 20, band: tuple[int, int] = (40, 60)
) -> tuple[Neighbourhoods, np.ndarray]:
    """Exact neighbourhoods, and a band of ranks."""
    chance = visits(planted)
    order = np.argsort(-chance, axis=1, kind="stable")
    heavy = np.take_along_axis(chance, order, axis=1)
    rows = np.where(heavy > 0, order, 0).astype(np.int32)
    weights = heavy[:, :top] / np.maximum(heavy[:, :top].sum(1, keepdims=True), 1e-12)
    return Neighbourhoods(rows[:, :top], weights.astype(np.float32)), rows[:, band[0] : band[1]]


def graph_of(planted: PlantedBoards) -> BipartiteGraph:
    n, boards = len(planted.topic), int(planted.boards.max()) + 1
    return BipartiteGraph.from_edges(planted.items, planted.boards, n_items=n, n_boards=boards)


def catalogue(planted: PlantedBoards, top: int = 20) -> Catalogue:
    return Catalogue.build(item_table(planted.vectors), graph_of(planted).degree, *neighbourhoods(planted, top))


def recipe_inputs(planted: PlantedBoards, folder: Path, top: int = 20, train: float = 0.8) -> RecipeInputs:
    item_table(planted.vectors).save(folder / "items")
    graph_of(planted).save(folder / "graph")
    near, band = neighbourhoods(planted, top, (top, top + 30))
    near.save(folder / "neighbourhoods")
    (folder / "band").mkdir()
    np.save(folder / "band" / "band.npy", band)
    pairs = pl.DataFrame({"query": planted.query, "positive": planted.positive}).with_columns(
        weight=pl.lit(1.0, pl.Float32)
    )
    cut = int(train * pairs.height)
    pairs[:cut].write_parquet(folder / "train.parquet", row_group_size=1000)
    pairs[cut:].write_parquet(folder / "validation.parquet")
    tables = {
        name: [str(p) for p in (folder / name).iterdir()] for name in ("items", "graph", "neighbourhoods", "band")
    }
    splits = {f"pairs/{s}": [str(folder / f"{s}.parquet")] for s in ("train", "validation")}
    contract = Contract.model_validate(
        {
            "name": "planted",
            "actions": [{"name": "save", "role": "positive"}],
            "ties": "unordered",
            "splits": {"burn_in": "2018-01-01", "validation": "2018-02-01", "test": "2018-02-15", "end": "2018-03-01"},
        }
    )
    return RecipeInputs(
        contract=contract,
        tables={**tables, **splits},
        vectors="content-1",
        params={"neighbourhoods": WALK | {"top": top, "band_size": 30}},
    )
