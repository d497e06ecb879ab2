"""TransAct inside the host ranker."""

from __future__ import annotations

from components.history.schema import FeatureSchema
from components.models.ranker.model import Ranker, SequenceModule
from components.models.ranker.recipe import RankerRecipe
from components.models.transact.config import ABLATIONS, TransActConfig
from components.models.transact.model import TransAct


class TransActRecipe(RankerRecipe):
    """The ranker with TransAct, or with one of Table 1's rivals in its place (`config.sequence`)."""

    name = "transact"
    config_type = TransActConfig
    ablations = ABLATIONS

    @staticmethod
    def build_ranker(config: TransActConfig, schema: FeatureSchema) -> Ranker:
        modules: dict[str, SequenceModule] = {}
        if config.sequence != "none":
            modules["actions"] = TransAct(
                config.effective(),
                actions=len(schema.actions),
                positive=schema.positive,
                vector_dim=schema.vector_dim,
                length=min(config.sequence_length, schema.sequence_length),
            )
        return Ranker(config, schema, modules)
