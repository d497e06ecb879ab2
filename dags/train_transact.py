"""Retrain TransAct weekly and when the features change; evaluate; promote if it is not worse than the champion."""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, Param

from pinloom.airflow import defaults
from pinloom.airflow.assets import FEATURES, model
from pinloom.airflow.gate import NewsGate
from pinloom.airflow.operator import RayJobOperator
from pinloom.settings import get_settings

RECIPE = "transact"
settings = get_settings().airflow

with DAG(
    f"train_{RECIPE}",
    doc_md=__doc__,
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(settings.train_cron, timezone="UTC"), assets=[FEATURES]
    ),
    start_date=defaults.START,
    catchup=False,
    max_active_runs=1,
    default_args=defaults.TASK,
    params={
        "flavour": Param(settings.train_flavour, type="string", description="of the recipe; empty: its default"),
        "overrides": Param(settings.train_overrides, type="object", description="fields of its configuration"),
        "dataset": defaults.DATASET,
    },
):
    features = "{{ ti.xcom_pull('news')['result'] }}"
    gate = NewsGate(task_id="news", upstream=["ingest", "features"], source=FEATURES, product=model(RECIPE))
    train = RayJobOperator(
        task_id="train",
        steps=["train"],
        step_params={
            "recipe": RECIPE,
            "flavour": "{{ params.flavour }}",
            "overrides": "{{ params.overrides | tojson if params.overrides else '' }}",
        },
        inputs_from=[features],
        dataset="{{ params.dataset }}",
    )
    judge = RayJobOperator(
        task_id="evaluate_promote",
        steps=["evaluate", "promote"],
        step_params={"recipe": RECIPE, **settings.evaluation},
        inputs_from=[features, "{{ ti.xcom_pull('train') }}"],
        dataset="{{ params.dataset }}",
        outlets=[model(RECIPE)],
        outlet_extra={"covers": "{{ ti.xcom_pull('news')['covers'] }}"},
    )
    gate >> train >> judge
