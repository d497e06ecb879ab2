"""A recipe is a model family's training, without Ray: plain torch, tested as such.

The one distributed loop (`pinloom.training`) runs any recipe on 1 process or 100. The recipe owns what differs
between families: the model, how it is made parallel, its optimisers, its batches and their position, its loss, what
it measures, and the artifact that serving reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from components.contract import Contract
from components.nn.hashed import exchanged

BatchT = TypeVar("BatchT", bound="Batch")
Sums = dict[str, tuple[float, float]]
"""Metric name → (sum, weight). The loop adds them over batches and ranks; a metric is sum / weight."""


class Batch(Protocol):
    """Tensors that move together."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Any: ...

    def pin_memory(self) -> Any: ...


@dataclass(frozen=True)
class Rank:
    """Place of this process among the workers."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class RecipeInputs:
    """What the platform hands a recipe.

    Attributes:
        tables: local file paths by output name of the `features` manifest (and of the recipe's extra inputs);
            partitions of an output are addressed as `<output>/<partition>` (`examples/train`).
        feature_service: name and version of the features that the rows were built with (goes into the artifact).
        vectors: version of the item vectors: names the function that made them.
        params: parameters of the steps that made the tables, by step.
    """

    contract: Contract
    tables: Mapping[str, list[str]]
    feature_service: str = ""
    vectors: str = ""
    seed: int = 0
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def files(self, name: str) -> list[str]:
        from components.errors import UserError

        if not self.tables.get(name):
            raise UserError(
                f"the features have no table '{name}' (they have: {', '.join(sorted(self.tables)) or 'none'})",
                "run `pinloom step features` over an interval that covers the splits of the data set",
            )
        return self.tables[name]


class BatchSource(ABC, Generic[BatchT]):
    """An endless-by-epoch source of training batches with a position that can be saved.

    Iterating yields the rest of the current epoch; every rank yields the same number of batches.
    """

    @abstractmethod
    def __iter__(self) -> Iterator[BatchT]: ...

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Position after the last batch yielded: epoch, offset, random state."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Start epoch `epoch` from its beginning (shuffled by (seed, epoch), whatever the number of ranks)."""

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int: ...


@dataclass(frozen=True)
class Optimization:
    """One optimiser and, optionally, its schedule stepped once per batch."""

    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None


class Recipe(ABC, Generic[BatchT]):
    """A family's training. `config` is a frozen dataclass whose fields are the run's hyper-parameters.

    The loop reads two of them: `epochs` and `patience`.

    Class attributes:
        name: as in `components/models/<name>`.
        config_type: its config dataclass, with a classmethod `debug()`.
        monitor: validation metric that early stopping watches; `higher_is_better` its direction.
        kind: what it makes: a 'ranker' of candidates, 'vectors' of items, or what a 'sequence' leads to; decides how
            it is evaluated.
        batch_field: field of its config that says how much one worker takes per step.
        extra_inputs: what it reads beside the features: name → pointer (`a|b` is the first that names anything). Its
            outputs are in `inputs.tables` by output name.
        ablations: row of the report → the fields of the configuration that it changes.
        export_fields: fields that training does not read: they change the artifact alone (`export_again`).
    """

    name: str
    config_type: type
    monitor: str = "loss"
    higher_is_better: bool = False
    kind: Literal["ranker", "vectors", "sequence"] = "ranker"
    batch_field: str = "batch"
    extra_inputs: ClassVar[Mapping[str, str]] = {}
    ablations: Mapping[str, Mapping[str, Any]] = {}
    export_fields: frozenset[str] = frozenset()

    def __init__(self, config: Any, inputs: RecipeInputs) -> None:
        self.config = config
        self.inputs = inputs

    @abstractmethod
    def build_model(self) -> nn.Module:
        """A freshly initialised model; the loop seeds torch before the call."""

    def parallelize(self, model: nn.Module, rank: Rank) -> nn.Module:
        """DDP over all workers, but for tables that exchange rows (as torchrec keeps its own out)."""
        if rank.world == 1:
            return model
        ids = [rank.device.index] if rank.device.type == "cuda" else None
        nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, exchanged(model))
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    @abstractmethod
    def optimizations(self, model: nn.Module, total_steps: int) -> list[Optimization]: ...

    @abstractmethod
    def train_batches(self, rank: Rank) -> BatchSource[BatchT]: ...

    @abstractmethod
    def validation_batches(self, rank: Rank) -> Iterator[BatchT]:
        """This rank's share of the validation rows."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: BatchT) -> tuple[Tensor, dict[str, float]]:
        """Scalar training loss and numbers worth a curve."""

    @abstractmethod
    def measure(self, model: nn.Module, batch: BatchT) -> Sums:
        """Validation sums of one batch; called in eval mode under `no_grad`. Must contain `monitor`."""

    def on_epoch(self, epoch: int) -> None:
        """Called before each epoch (curricula)."""

    @property
    def epochs(self) -> int:
        return int(self.config.epochs)

    @property
    def patience(self) -> int | None:
        """Validations without improvement before stopping early; None = never."""
        patience: int | None = self.config.patience
        return patience

    def export_own(self, model: nn.Module, folder: Path) -> None:
        """Called on every rank before rank 0's `export`: write what of the artifact each rank holds a part of.

        The folder may not be there yet; the ranks' files come together in one.
        """

    @abstractmethod
    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the artifact: `model.safetensors` and `artifact.json`, enough to serve. Never pickle."""

    def export_again(self, artifact: Path, folder: Path) -> None:
        """`export` of what an artifact holds, whose configuration is this one but for `export_fields`.

        Raises:
            UserError: its weights are not those of a model of this configuration.
        """
        raise NotImplementedError(f"recipe '{self.name}' has no fields of the artifact alone")


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, for reading weights and measuring: the ranks' shares of validation may differ in length."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


RECIPES = {
    "transact": "components.models.transact.recipe:TransActRecipe",
    "sasrec": "components.models.sasrec.recipe:SASRecRecipe",
    "pinsage": "components.models.pinsage.recipe:PinSageRecipe",
    "pinfm": "components.models.pinfm.recipe:PinFMRecipe",
    "pinfm_ranker": "components.models.pinfm_ranker.recipe:PinFMRankerRecipe",
}
"""Recipe name → class; imported when asked for."""


def load_recipe(name: str) -> type[Recipe[Any]]:
    import importlib

    from components.errors import UserError

    if name not in RECIPES:
        raise UserError(f"there is no recipe '{name}'", f"one of: {', '.join(RECIPES)}")
    module, cls = RECIPES[name].split(":")
    recipe: type[Recipe[Any]] = getattr(importlib.import_module(module), cls)
    return recipe


def make_recipe(
    name: str, inputs: RecipeInputs, flavour: str = "default", overrides: dict[str, Any] | None = None
) -> Recipe[Any]:
    """Recipe `name` with flavour 'default' or 'debug' of its config and single fields overridden.

    Raises:
        UserError: unknown recipe, flavour or field.
    """
    return configure(load_recipe(name), inputs, flavour, overrides)


def configure(
    cls: type[Recipe[Any]], inputs: RecipeInputs, flavour: str = "default", overrides: dict[str, Any] | None = None
) -> Recipe[Any]:
    """`make_recipe` for a class at hand."""
    return cls(resolve(cls, flavour, overrides), inputs)


def resolve(cls: type[Recipe[Any]], flavour: str = "default", overrides: dict[str, Any] | None = None) -> Any:
    """The configuration that a flavour and overrides stand for, before the recipe reads any data.

    Raises:
        UserError: unknown flavour or field.
    """
    from dataclasses import fields, replace

    from components.errors import UserError

    config_type: Any = cls.config_type
    config = config_type() if flavour == "default" else getattr(config_type, flavour, lambda: None)()
    if config is None:
        raise UserError(f"recipe '{cls.name}' has no flavour '{flavour}'", "use 'default' or 'debug'")
    unknown = set(overrides or {}) - {f.name for f in fields(config)}
    if unknown:
        raise UserError(
            f"recipe '{cls.name}' has no field {', '.join(sorted(unknown))}",
            f"fields: {', '.join(f.name for f in fields(config))}",
        )
    return replace(config, **(overrides or {}))
