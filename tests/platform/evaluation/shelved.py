"""A planted log of items with a hidden topic: people buy along a topic, boards collect from one, names say little."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.contract import ACTIONS, BOARDS, ITEMS
from pinloom.datasets.graph import GraphSpec
from pinloom.lake import Manifest
from pinloom.settings import Settings, TrainingSettings
from pinloom.steps.base import load_step, run_step
from pinloom.steps.job import open_lake
from tests.platform.evaluation.lab import Lab
from tests.platform.serving import planted

TOPICS, PER_TOPIC, COLD = 20, 20, 20
"""The last items by name, one of each topic, are on no board."""

SHELVES, PER_SHELF = 500, 8
SPEC = planted.SPEC.model_copy(
    update={"graph": GraphSpec.model_validate({"pairs": {"window_hours": 1, "per_step": 4}})}
)
WALK = {"top": 20, "walks": 64, "length": 6, "band_size": 16}
SMALL = {"neighbours": 20, "category_dim": 0, "epochs": 4, "steps_per_epoch": 30, "learning_rate": 0.01}
"""Without categories, which here say nothing."""

NAMES = [f"thing-{i:03d}" for i in range(TOPICS * PER_TOPIC)]


def topic_of(name: str) -> int:
    return int(name.split("-")[1]) % TOPICS


def members(topic: int) -> list[str]:
    return NAMES[topic::TOPICS]


def items() -> pl.DataFrame:
    """Category and title are drawn without the topic, but for one word in some titles."""
    rng = np.random.default_rng(5)
    words = [f"word{w}" for w in range(40)]
    rows = [
        {
            "item_id": name,
            "created_at": datetime(2025, 12, 1, tzinfo=UTC),
            "created_at_inferred": False,
            "category": planted.CATEGORIES[rng.integers(4)],
            "title": " ".join([*rng.choice(words, 3), f"hint{topic_of(name)}" if rng.random() < 0.3 else "plain"]),
        }
        for name in NAMES
    ]
    return pl.DataFrame(rows, schema=ITEMS)


def actions() -> pl.DataFrame:
    """Every day each user looks at four items of one topic and buys them one after the other."""
    rng = np.random.default_rng(6)
    return pl.DataFrame([r for day in range(planted.DAYS) for r in _day(rng, day)], schema=ACTIONS)


def _day(rng: np.random.Generator, day: int) -> Iterator[dict[str, object]]:
    for u, user in enumerate(planted.USERS):
        moment = datetime(planted.START.year, 1, 1, 9, u, tzinfo=UTC) + timedelta(days=day)
        request = f"{user}/{day}"
        for place, name in enumerate(rng.choice(members(int(rng.integers(TOPICS))), 4, replace=False)):
            shown = {"user_id": user, "item_id": name, "surface": "shelf", "request_id": request}
            yield {**shown, "event_id": f"{request}/{place}", "action": "seen", "timestamp": moment}
            bought = moment + timedelta(seconds=30 * (place + 1))
            yield {**shown, "event_id": f"{request}/{place}/buy", "action": "buy", "timestamp": bought}


def boards() -> pl.DataFrame:
    """Each of one topic, with strays; saved over all days."""
    rng = np.random.default_rng(7)
    start = datetime(planted.START.year, planted.START.month, planted.START.day, tzinfo=UTC)
    kept, rows = NAMES[:-COLD], []
    for shelf in range(SHELVES):
        own = [n for n in members(int(rng.integers(TOPICS))) if n in kept]
        for _ in range(PER_SHELF):
            name = rng.choice(own) if rng.random() < 0.8 else rng.choice(kept)
            at = start + timedelta(minutes=int(rng.integers(planted.DAYS * 1440)))
            rows.append({"board_id": f"shelf-{shelf}", "item_id": str(name), "timestamp": at})
    return pl.DataFrame(rows, schema=BOARDS)


class VectorLab(Lab):
    """The log through features, graph and neighbourhoods; a PinSage trained on them once."""

    @cached_property
    def trained(self) -> Manifest:
        return self.train("base", recipe="pinsage", **SMALL)

    def run(self, key: str, **inputs: Manifest) -> Manifest:  # type: ignore[override]
        """Another run with the weights of `trained`, on other inputs where given."""
        changed = {**self.trained.inputs, **{name: self.ref(m) for name, m in inputs.items()}}
        return self.lake.publish(self.trained.model_copy(update={"key": key, "inputs": changed}))

    def beside(self, step: str, params: dict[str, Any], **inputs: Manifest) -> Manifest:
        """A manifest of a step that the pointers do not stay on."""
        before = self.lake.require(step)
        made = self.step(step, params, **inputs)
        self.lake.advance(step, lambda _: before)
        return made

    @cached_property
    def scores(self) -> pl.DataFrame:
        return pl.read_parquet(self.lake.local_paths(self.evaluated.output("scores")))

    @cached_property
    def evaluated(self) -> Manifest:
        return self.evaluate()

    def evaluate(self, **params: Any) -> Manifest:
        return self.step("evaluate", {"recipe": "pinsage", "resamples": 200, **params}, train=self.trained)

    def challenge(  # type: ignore[override]
        self, recipe: str, key: str, rank: pl.Expr, train: Manifest | None = None, split: str = "test"
    ) -> Manifest:
        """An evaluation of run `key` in which its positives stand at planted ranks; `recipe` keeps tests apart."""
        train = self.run(f"{recipe}-{key}") if train is None else train
        own = {f"above/{recipe}": rank.cast(pl.Int64) - 1, f"equal/{recipe}": pl.lit(1, pl.Int64)}
        writer = self.lake.writer("evaluate", f"{recipe}-{key}", "scores", "0")
        writer.parquet("scores.parquet", self.scores.with_columns(**own))
        change = {
            "key": f"{recipe}-{key}",
            "inputs": {**self.evaluated.inputs, "train": self.ref(train)},
            "params": {**self.evaluated.params, "recipe": recipe, "split": split},
            "outputs": {"scores": writer.output()},
        }
        published = self.lake.publish(self.evaluated.model_copy(update=change))
        return self.lake.advance(f"evaluations/{recipe}", lambda _: published)


def build(home: Path) -> VectorLab:
    settings = Settings(home=home, training=TrainingSettings(workers=1, log_every_s=60))
    lake = open_lake(settings, SPEC.name)
    table = planted.publish(lake, actions(), items())
    writer = lake.writer("validate", "shelved", "boards", "0")
    for (day,), rows in boards().group_by(pl.col("timestamp").dt.date(), maintain_order=True):
        writer.parquet(f"{day}.parquet", rows, partition=str(day))
    outputs = {**table.outputs, "boards": writer.output()}
    with_boards = lake.publish(table.model_copy(update={"key": "with-boards", "outputs": outputs}))
    lake.advance("actions", lambda _: with_boards)
    features = run_step(load_step("features"), lake=lake, settings=settings, spec=SPEC)
    (home / "scratch").mkdir()
    found = VectorLab(settings, lake, features, home / "scratch", SPEC)
    found.step("graph")
    found.step("neighbourhoods", WALK)
    return found


@pytest.fixture(scope="session")
def vector_lab(tmp_path_factory: pytest.TempPathFactory) -> VectorLab:
    return build(tmp_path_factory.mktemp("vectors"))
