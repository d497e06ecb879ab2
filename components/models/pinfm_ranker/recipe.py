"""Fine-tuning PinFM inside the host ranker, beside TransAct."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

from torch import nn

from components.contract import Ties
from components.errors import UserError
from components.history.schema import FeatureSchema
from components.models.pinfm.artifact import describe_pinfm, load_pinfm
from components.models.pinfm.config import PinFMConfig
from components.models.pinfm.negatives import ItemCounts
from components.models.pinfm.segments import Cut, Segments
from components.models.pinfm_ranker.config import ABLATIONS, PinFMRankerConfig
from components.models.pinfm_ranker.model import PinFMModule
from components.models.pinfm_ranker.objective import NextToken
from components.models.ranker.model import Ranker
from components.models.ranker.recipe import RankerRecipe
from components.models.source import Piece, since
from components.models.transact.recipe import transact_modules
from components.nn.hashed import without_rows
from components.recipe import RecipeInputs


class PinFMRankerRecipe(RankerRecipe):
    """The ranker with TransAct and a pretrained PinFM."""

    name = "pinfm_ranker"
    config_type = PinFMRankerConfig
    ablations = ABLATIONS
    export_fields = frozenset({"table_bits"})
    extra_inputs: ClassVar[Mapping[str, str]] = {"base": "champions/pinfm|runs/pinfm"}

    def __init__(self, config: PinFMRankerConfig, inputs: RecipeInputs) -> None:
        super().__init__(config, inputs)
        if config.base != "none":
            self.config = replace(config, pinfm=self._sizes())
        if config.unseen_rows:
            self._unseen_from()

    @property
    def folder(self) -> Path:
        """Of the base's artifact."""
        return Path(self.inputs.files("artifact")[0]).parent

    def _sizes(self) -> PinFMConfig:
        """
        Raises:
            UserError: the base was pretrained with another vocabulary.
        """
        said = describe_pinfm(self.folder)
        if tuple(said["actions"]) != self.schema.actions:
            raise UserError(
                f"the base knows the actions {', '.join(said['actions'])}; the features have "
                f"{', '.join(self.schema.actions)}",
                "pretrain again: `pinloom step train --param recipe=pinfm`",
            )
        return PinFMConfig(**said["config"])

    def _unseen_from(self) -> int:
        """Moment from which on the base has seen nothing, µs since epoch.

        Raises:
            UserError: nothing to train on is later.
        """
        until = describe_pinfm(self.folder).get("trained_until")
        if until is None or until >= self.inputs.contract.splits.interval("train")[1].timestamp() * 1e6:
            raise UserError(
                "the base was pretrained on all days that rankers learn from: no row is unseen",
                """pretrain with --param overrides='{"hold_out_days": 14}', or leave `unseen_rows` off""",
            )
        return int(until)

    @cached_property
    def pieces(self) -> list[Piece]:
        """Of `examples/train`, all or what the base has not seen."""
        if not self.config.unseen_rows:
            return super().pieces
        return since(self.inputs.files("examples/train"), self._unseen_from())

    @staticmethod
    def build_ranker(config: PinFMRankerConfig, schema: FeatureSchema) -> Ranker:
        modules = transact_modules(config, schema)
        if config.base != "none":
            modules["pinfm"] = PinFMModule(config, schema)
        return Ranker(config, schema, modules)

    def build_model(self) -> nn.Module:
        """The pretrained weights in their place, and the sequence loss where it trains them."""
        with without_rows():
            model = cast(Ranker, super().build_model())
        module = model.modules_by_name.get("pinfm")
        if isinstance(module, PinFMModule):
            config: PinFMRankerConfig = self.config
            if config.base in ("tuned", "frozen"):
                module.base.load_state_dict(load_pinfm(self.folder).state_dict(), assign=True)
            else:
                module.base.table.draw(self.inputs.seed)
            module.base.table.sparse = config.base != "frozen"
            if config.sequence_loss and config.base != "frozen":
                ties = Ties.ORDERED if self.schema.ordered_ties else Ties.UNORDERED
                module.next_token = NextToken(self.counts, self.schema.positive, ties, config.sequence_positions)
        return model

    @cached_property
    def counts(self) -> ItemCounts:
        """How often each item was chosen before the validation date."""
        stop = round(self.inputs.contract.splits.interval("validation")[0].timestamp() * 1e6)
        cut = Cut(stop, self.config.pinfm.length, self.schema.max_history)
        return Segments.of(self.inputs.files("histories"), cut, list(self.schema.positive)).counts
