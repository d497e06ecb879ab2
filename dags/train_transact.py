"""Retrain TransAct weekly and when the features change; evaluate; promote if it is not worse than the champion."""

from airflow.sdk import DAG

from pinloom.airflow import defaults
from pinloom.airflow.assets import RANKED, model
from pinloom.airflow.gate import NewsGate
from pinloom.airflow.training import params, schedule, train_and_judge

RECIPE = "transact"
UPSTREAM = ["ingest", "features", "train_pinsage"]

with DAG(
    f"train_{RECIPE}",
    doc_md=__doc__,
    schedule=schedule(RANKED),
    start_date=defaults.START,
    catchup=False,
    max_active_runs=1,
    default_args=defaults.TASK,
    params=params(RECIPE),
):
    gate = NewsGate(task_id="news", upstream=UPSTREAM, source=RANKED, product=model(RECIPE))
    train_and_judge(RECIPE, gate)
