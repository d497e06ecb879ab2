"""The dataset YAML, typed. A mistake in it is answered with the field, what was expected and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.contract import Contract
from components.errors import UserError

SHIPPED = Path(__file__).parent


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TimeSpec(_Section):
    column: str
    unit: Literal["s", "ms", "us", "iso"] = "iso"


class RatingRule(_Section):
    """Rows whose `column` lies in [at_least, below) become action `action`."""

    column: str
    action: str
    at_least: float | None = None
    below: float | None = None


class TableMapping(_Section):
    """How one file set fills one contract table.

    Attributes:
        files: glob, relative to `source.root`; Parquet or CSV by ending.
        columns: contract column → source column.
        constants: contract column → value.
        feedback: action → 0/1 source column (wide one-hot feedback to one row per action).
        ratings: thresholds of a numeric column to actions.
        every_row: actions that each row stands for, whatever its feedback (the exposure itself).
    """

    files: str
    columns: dict[str, str] = Field(default_factory=dict)
    constants: dict[str, str | float | int] = Field(default_factory=dict)
    time: dict[str, TimeSpec] = Field(default_factory=dict)
    feedback: dict[str, str] = Field(default_factory=dict)
    ratings: tuple[RatingRule, ...] = ()
    every_row: tuple[str, ...] = ()
    numeric_features: dict[str, str] = Field(default_factory=dict)
    categorical_features: dict[str, str] = Field(default_factory=dict)


class SourceSpec(_Section):
    """Either `reader` ('module:Class') or `root` and `tables`.

    Attributes:
        root: folder of the files; `${NAME}` and `${NAME:-default}` are read from the environment.
    """

    reader: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    root: str = "."
    tables: dict[str, TableMapping] = Field(default_factory=dict)


class FeatureSpec(_Section):
    """Which `features.*` columns (named without the prefix) describe an item, and how.

    Attributes:
        categorical, numeric, text, vectors: inputs of the 32-d content vectors.
        crosses: categorical item columns for which (user × value) counts are ranking features.
    """

    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    crosses: tuple[str, ...] = ()
    sequence_length: int = 100


class ValidationSpec(_Section):
    """Table-level thresholds of the gate.

    Attributes:
        max_quarantined: share of rows that may fail row-level rules before the run stops.
        max_volume_change: factor by which a partition's row count may differ from the last published one.
        max_mix_change: largest change of an action's share (total variation distance) against the last one.
    """

    max_quarantined: float = 0.05
    max_volume_change: float | None = 20.0
    max_mix_change: float | None = 0.5
    earliest: str = "2000-01-01"


class PromotionSpec(_Section):
    """The gate: challenger − champion, paired bootstrap over requests, lower bound ≥ −delta."""

    metric: str = "hit@3"
    delta: float = 0.005
    confidence: float = 0.95
    resamples: int = 1000


class DatasetSpec(_Section):
    contract: Contract
    source: SourceSpec
    features: FeatureSpec = FeatureSpec()
    validation: ValidationSpec = ValidationSpec()
    promotion: PromotionSpec = PromotionSpec()
    path: str = ""

    @property
    def name(self) -> str:
        return self.contract.name

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
