"""Bring the log into the lake, day by day; backfill it with `airflow backfill create --dag-id ingest`.

A manual run takes `start` and `stop` (days, half open), else the day before it.
"""

from datetime import datetime, time, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable, Param

from pinloom.airflow.assets import ACTIONS
from pinloom.airflow.operator import RayJobOperator
from pinloom.settings import get_settings

settings = get_settings()

with DAG(
    "ingest",
    description=__doc__,
    schedule=CronDataIntervalTimetable(settings.airflow.ingest_cron, timezone="UTC"),
    start_date=datetime.combine(settings.airflow.log_start, time.min),
    end_date=settings.airflow.log_end and datetime.combine(settings.airflow.log_end, time.min),
    catchup=False,
    max_active_runs=2,
    default_args={
        "retries": settings.airflow.retries,
        "retry_delay": timedelta(seconds=settings.airflow.retry_delay_s),
    },
    params={
        "start": Param(None, type=["null", "string"], format="date", description="first day"),
        "stop": Param(None, type=["null", "string"], format="date", description="the day after the last"),
        "dataset": Param("", type="string", description="data set or path of a YAML; empty: the setting"),
    },
):
    RayJobOperator(
        task_id="ingest",
        steps=["ingest", "validate"],
        dataset="{{ params.dataset }}",
        step_params={
            "start": "{{ params.start or data_interval_start | ds }}",
            "stop": "{{ params.stop or data_interval_end | ds }}",
        },
        outlets=[ACTIONS],
    )
