"""Bring the log into the lake, day by day.

Scheduled daily; backfill it with `airflow backfill create --dag-id ingest`. A manual run takes `start` and `stop`
(days, half open), else the day before it.
"""

from airflow.sdk import DAG, CronDataIntervalTimetable, Param

from pinloom.airflow import defaults
from pinloom.airflow.assets import ACTIONS
from pinloom.airflow.operator import RayJobOperator
from pinloom.settings import get_settings

with DAG(
    "ingest",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable(get_settings().airflow.ingest_cron, timezone="UTC"),
    start_date=defaults.START,
    end_date=defaults.END,
    catchup=False,
    max_active_runs=2,
    default_args=defaults.TASK,
    params={
        "start": Param(None, type=["null", "string"], format="date", description="first day"),
        "stop": Param(None, type=["null", "string"], format="date", description="the day after the last"),
        "dataset": defaults.DATASET,
    },
):
    RayJobOperator(
        task_id="ingest",
        steps=["ingest", "validate"],
        step_params={
            "start": "{{ params.start or data_interval_start | ds }}",
            "stop": "{{ params.stop or data_interval_end | ds }}",
        },
        dataset="{{ params.dataset }}",
        outlets=[ACTIONS],
    )
