"""The foundation model of users' sequences: pretrain PinFM on everybody's events, evaluate, promote if it is not worse.

Monthly; and when the features change and there is no base, or one older than `PINLOOM_AIRFLOW__PRETRAIN_EVERY_DAYS`. A
pretraining that is killed, even days later, goes on from its last checkpoint. Without `PINLOOM_AIRFLOW__FOUNDATION`
nothing triggers this DAG.
"""

from datetime import timedelta

from airflow.sdk import DAG

from pinloom.airflow import defaults
from pinloom.airflow.assets import FEATURES, model
from pinloom.airflow.gate import NewsGate
from pinloom.airflow.training import params, schedule, train_and_judge
from pinloom.settings import get_settings

RECIPE = "pinfm"
SETTINGS = get_settings().airflow

with DAG(
    f"pretrain_{RECIPE}",
    doc_md=__doc__,
    schedule=schedule(FEATURES, cron=SETTINGS.pretrain_cron) if SETTINGS.foundation == RECIPE else None,
    start_date=defaults.START,
    catchup=False,
    max_active_runs=1,
    default_args=defaults.TASK,
    params=params(RECIPE),
):
    gate = NewsGate(
        task_id="news",
        upstream=["ingest", "features"],
        source=FEATURES,
        product=model(RECIPE),
        lasts=timedelta(days=SETTINGS.pretrain_every_days),
    )
    train_and_judge(RECIPE, gate)
