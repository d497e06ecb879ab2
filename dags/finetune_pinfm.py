"""The ranker with PinFM: fine-tune the base weekly, and when the ranking features or the base change; promote it if it
is not worse than the champion.

It serves when `PINLOOM_SERVING__RECIPE` says so. Without `PINLOOM_AIRFLOW__FOUNDATION` nothing triggers this DAG.
"""

from airflow.sdk import DAG

from pinloom.airflow import defaults
from pinloom.airflow.assets import RANKED, model
from pinloom.airflow.gate import NewsGate
from pinloom.airflow.training import params, schedule, train_and_judge
from pinloom.settings import get_settings

BASE, RECIPE = "pinfm", "pinfm_ranker"
UPSTREAM = ["ingest", "features", "train_pinsage"]
"""Not the pretraining, which may take days: what it makes is news when it is there."""

ON = get_settings().airflow.foundation == BASE

with DAG(
    f"finetune_{BASE}",
    doc_md=__doc__,
    schedule=schedule(RANKED, model(BASE)) if ON else None,
    start_date=defaults.START,
    catchup=False,
    max_active_runs=1,
    default_args=defaults.TASK,
    params=params(RECIPE),
):
    gate = NewsGate(task_id="news", upstream=UPSTREAM, source=RANKED, beside=[model(BASE)], product=model(RECIPE))
    train_and_judge(RECIPE, gate)
