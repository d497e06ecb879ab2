"""Serve the champion of `PINLOOM_SERVING__RECIPE`: bring Ray Serve to it, test it, keep it or roll back."""

from airflow.sdk import DAG

from pinloom.airflow import defaults
from pinloom.airflow.assets import SERVING, model
from pinloom.airflow.operator import RayJobOperator
from pinloom.settings import get_settings

with DAG(
    "deploy",
    doc_md=__doc__,
    schedule=[model(get_settings().serving.recipe)],
    start_date=defaults.START,
    catchup=False,
    max_active_runs=1,
    default_args=defaults.TASK,
    params={"dataset": defaults.DATASET},
):
    RayJobOperator(
        task_id="deploy",
        steps=["deploy"],
        dataset="{{ params.dataset }}",
        outlets=[SERVING],
    )
