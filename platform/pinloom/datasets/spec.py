"""The dataset YAML, typed. A mistake in it is answered with the field, what was expected and the remedy."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from components.contract import Contract
from components.errors import UserError
from pinloom.datasets.graph import GraphSpec
from pinloom.datasets.mapping import Section, TableMapping, problems
from pinloom.datasets.metric import Metric

SHIPPED = Path(__file__).parent


class SourceSpec(Section):
    """Either `reader` ('module:Class') or `root` and `tables`.

    Attributes:
        options: of the reader.
        root: folder of the files, relative to the YAML; `${NAME}` and `${NAME:-default}` are read from the environment.
        tables: contract table → one mapping, or several whose rows are added.
    """

    reader: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    root: str = "."
    tables: dict[str, tuple[TableMapping, ...]] = Field(default_factory=dict)

    @field_validator("tables", mode="before")
    @classmethod
    def _one_or_many(cls, tables: Any) -> Any:
        if not isinstance(tables, dict):
            return tables
        return {name: [m] if isinstance(m, dict) else m for name, m in tables.items()}

    @model_validator(mode="after")
    def _one_way(self) -> SourceSpec:
        if self.reader and self.tables:
            raise ValueError("give either a reader or tables, not both")
        if self.tables and "actions" not in self.tables:
            raise ValueError("tables has no mapping of 'actions'")
        return self


class FeatureSpec(Section):
    """Which `features.*` columns (named without the prefix) describe an item, and how.

    Attributes:
        categorical, numeric, text, vectors: inputs of the 32-d content vectors; `title` and `category`
            may be named too.
        crosses: categorical item columns for which (user × value) counts are ranking features.
    """

    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    crosses: tuple[str, ...] = ()
    sequence_length: int = Field(default=100, ge=1)


class ValidationSpec(Section):
    """Table-level thresholds of the gate.

    Attributes:
        max_quarantined: share of rows that may fail row-level rules before the run stops.
        max_volume_change: factor by which a partition's row count may differ from the last published one.
        max_mix_change: largest change of the actions' shares (total variation distance) against the last one.
        earliest: UTC day before which no timestamp is believed.
    """

    max_quarantined: float = Field(default=0.05, ge=0, le=1)
    max_volume_change: float | None = Field(default=20.0, ge=1)
    max_mix_change: float | None = Field(default=0.5, ge=0, le=1)
    earliest: date = date(2000, 1, 1)


class PromotionSpec(Section):
    """The gate: challenger − champion, paired bootstrap over users, lower bound ≥ −delta.

    Attributes:
        metric: of rankers; other kinds of model have their own.
        deltas: for kinds whose metric is of another size; a kind without one has `delta`.
    """

    metric: str = "hit@3"
    delta: float = Field(default=0.005, ge=0)
    deltas: dict[Literal["vectors", "sequence"], Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=1000, ge=1)

    def of_kind(self, kind: str) -> PromotionSpec:
        """The gate for models of a `Recipe.kind`."""
        own = {str(of): delta for of, delta in self.deltas.items()}
        return self.model_copy(update={"delta": own.get(kind, self.delta), "deltas": {}})


class DatasetSpec(Section):
    contract: Contract
    source: SourceSpec
    features: FeatureSpec = FeatureSpec()
    graph: GraphSpec = GraphSpec()
    validation: ValidationSpec = ValidationSpec()
    promotion: PromotionSpec = PromotionSpec()
    path: str = ""

    @model_validator(mode="after")
    def _mappings_agree(self) -> DatasetSpec:
        vocabulary = [a.name for a in self.contract.actions]
        wrong = [
            f"source.tables.{table}: {problem}"
            for table, mappings in self.source.tables.items()
            for mapping in mappings
            for problem in problems(table, mapping, vocabulary)
        ]
        wrong += self._unfilled_features() if self.source.tables else []
        wrong += [*self._unknown_weights(), *self._unknown_metric()]
        wrong += [
            f"graph.{place}: there is no action '{action}' (there are: {', '.join(vocabulary)})"
            for place, action in self.graph.actions_named()
            if action not in vocabulary
        ]
        if wrong:
            raise ValueError("\n    ".join(wrong))
        return self

    def _unfilled_features(self) -> list[str]:
        filled = {"title", "category"} | self._mapped("items")
        of_users = self._mapped("users")
        there_are = ", ".join(sorted(of_users)) or "none"
        return [
            f"contract.user_weights: no mapping of users fills '{name}' (there are: {there_are})"
            for name in self.contract.user_weights
            if name not in of_users
        ] + [
            f"features.{kind}: no mapping of items fills '{name}' (there are: {', '.join(sorted(filled))})"
            for kind in ("categorical", "numeric", "text", "vectors", "crosses")
            for name in getattr(self.features, kind)
            if name not in filled
        ]

    def _mapped(self, table: str) -> set[str]:
        """Features that the mappings of a table fill."""
        return {f for m in self.source.tables.get(table, ()) for f in m.features}

    def _unknown_weights(self) -> list[str]:
        heads = self.contract.heads
        allowed = [*(a.name for a in self.contract.actions if a.head), "no_action"]
        weights = self.contract.label_weights
        return [
            f"contract.label_weights: there is no head '{head}' (there are: {', '.join(heads)})"
            for head in weights
            if head not in heads
        ] + [
            f"contract.label_weights.{head}: no action '{action}' with a head (there are: {', '.join(allowed)})"
            for head, row in weights.items()
            for action in row
            if action not in allowed
        ]

    def _unknown_metric(self) -> list[str]:
        try:
            Metric.parse(self.promotion.metric, self.contract.heads)
        except UserError as e:
            return [f"promotion.metric: {e.problem}: {e.remedy}"]
        return []

    @property
    def name(self) -> str:
        return self.contract.name

    def as_of(self, day: date) -> DatasetSpec:
        """The data set as a snapshot whose log ends at midnight of `day` sees it: with its splits."""
        splits = self.contract.splits.as_of(day)
        return self.model_copy(update={"contract": self.contract.model_copy(update={"splits": splits})})

    def declaration(self, field: str) -> Any:
        """One section as plain JSON: what a step that reads it has in its key. Dots descend (`contract.splits`)."""
        value: Any = self.model_dump(mode="json")
        for part in field.split("."):
            value = value[part]
        return value


def load_dataset(name_or_path: str) -> DatasetSpec:
    """A shipped data set by name, or any YAML by path.

    Raises:
        UserError: no such data set; or the YAML is wrong, naming each field.
    """
    shipped = SHIPPED / name_or_path / "dataset.yaml"
    path = shipped if shipped.exists() else Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(p.parent.name for p in SHIPPED.glob("*/dataset.yaml")))
        raise UserError(f"no data set '{name_or_path}'", f"give the path of a YAML, or one of: {names}")
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as e:
        raise UserError(f"{path} is not YAML: {e}", "mend the syntax at the line named") from e
    if not isinstance(raw, dict):
        raise UserError(f"{path} holds {type(raw).__name__}, not a mapping", "start from docs/datasets/template.yaml")
    try:
        return DatasetSpec.model_validate({**raw, "path": str(path)})
    except ValidationError as e:
        lines = [f"  {'.'.join(map(str, err['loc'])) or '(top)'}: {err['msg']}" for err in e.errors()]
        raise UserError(
            f"{path} does not describe a data set:\n" + "\n".join(lines),
            "compare with docs/datasets/template.yaml",
        ) from e
