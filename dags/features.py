"""Features of all that was ingested; once, however many days came in.

They go online from here when rankers read content vectors, else from `train_pinsage`, with learned ones.
"""

from airflow.sdk import DAG

from pinloom.airflow import defaults
from pinloom.airflow.assets import ACTIONS, FEATURES
from pinloom.airflow.gate import NewsGate
from pinloom.airflow.operator import RayJobOperator
from pinloom.airflow.training import DATASET
from pinloom.settings import get_settings

SETTINGS = get_settings().airflow
STEPS = ["features"] if SETTINGS.embeddings else ["features", "materialize"]

with DAG(
    "features",
    doc_md=__doc__,
    schedule=[ACTIONS],
    start_date=defaults.START,
    catchup=False,
    max_active_runs=1,
    default_args=defaults.TASK,
    params={"dataset": defaults.DATASET},
):
    gate = NewsGate(task_id="news", upstream=["ingest"], source=ACTIONS, product=FEATURES)
    gate >> RayJobOperator(
        task_id="features",
        steps=STEPS,
        step_params={"train_days": SETTINGS.train_days},
        inputs_from=["{{ ti.xcom_pull('news')['result'] }}"],
        dataset=DATASET,
        outlets=[FEATURES],
        outlet_extra={"covers": "{{ ti.xcom_pull('news')['covers'] }}"},
    )
