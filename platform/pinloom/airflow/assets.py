"""What the DAGs hand to one another. An event's extra has `result`: the URI of the job's result."""

from airflow.sdk import Asset

ACTIONS = Asset("actions")
FEATURES = Asset("features")
SERVING = Asset("serving")


def model(recipe: str) -> Asset:
    return Asset(f"model/{recipe}")
