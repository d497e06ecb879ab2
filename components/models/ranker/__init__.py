"""The host ranker: batches, model, objective, artifact."""

from components.models.ranker.artifact import RankerArtifact, load_ranker
from components.models.ranker.batch import RankingBatch, Sequence
from components.models.ranker.data import collate, collate_example

__all__ = ["RankerArtifact", "RankingBatch", "Sequence", "collate", "collate_example", "load_ranker"]
