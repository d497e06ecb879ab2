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
        return Ranker(config, schema, transact_modules(config, schema))


def transact_modules(config: TransActConfig, schema: FeatureSchema) -> dict[str, SequenceModule]:
    """TransAct as a ranker's sequence module by name; none where `config.sequence` says so."""
    if config.sequence == "none":
        return {}
    module = TransAct(
        config.effective(),
        actions=len(schema.actions),
        positive=schema.positive,
        vector_dim=schema.vector_dim,
        length=min(config.sequence_length, schema.sequence_length),
    )
    return {"actions": module}
