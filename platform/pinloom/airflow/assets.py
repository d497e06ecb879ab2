"""What the DAGs hand to one another. An event's extra has `result`: the URI of the job's result."""

from airflow.sdk import Asset

from pinloom.settings import get_settings

ACTIONS = Asset("actions")
FEATURES = Asset("features")
VECTORS = Asset("vectors")
"""The features with learned item vectors, of the graph before the splits: rankers are trained and judged on them."""

SERVING = Asset("serving")

RANKED = VECTORS if get_settings().airflow.embeddings else FEATURES
"""What rankers are trained on."""


def model(recipe: str) -> Asset:
    return Asset(f"model/{recipe}")
