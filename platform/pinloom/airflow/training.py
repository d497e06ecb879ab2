"""What the training DAGs share: when they run, their parameters, and the tasks of any recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Asset, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable, Param

from pinloom.airflow import defaults
from pinloom.airflow.assets import model
from pinloom.airflow.gate import NewsGate
from pinloom.airflow.operator import RayJobOperator
from pinloom.settings import get_settings

_settings = get_settings().airflow
DATASET = "{{ params.dataset or ti.xcom_pull('news')['dataset'] }}"
"""Of tasks behind a `NewsGate`: the run's own, else that of the news."""


def schedule(*sources: Asset, cron: str = _settings.train_cron) -> AssetOrTimeSchedule:
    """By the clock (weekly), and whenever a source changed."""
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(cron, timezone="UTC"), assets=AssetAny(*sources))


def params(recipe: str) -> dict[str, Any]:
    flavour, overrides = _settings.train_flavour.get(recipe, ""), _settings.train_overrides.get(recipe, {})
    return {
        "flavour": Param(flavour, type="string", description="of the recipe; empty: its default"),
        "overrides": Param(overrides, type="object", description="fields of its configuration"),
        "dataset": defaults.DATASET,
    }


def train(recipe: str, inputs_from: Sequence[str]) -> RayJobOperator:
    return RayJobOperator(
        task_id="train",
        steps=["train"],
        step_params={
            "recipe": recipe,
            "flavour": "{{ params.flavour }}",
            "overrides": "{{ params.overrides | tojson if params.overrides else '' }}",
        },
        inputs_from=inputs_from,
        dataset=DATASET,
    )


def train_and_judge(recipe: str, gate: NewsGate) -> None:
    """Behind the gate of a DAG whose product is the model itself: train on the news, evaluate, promote."""
    news = "{{ ti.xcom_pull('news')['result'] }}"
    fit = train(recipe, [news])
    judge = evaluate_promote(
        recipe,
        [news, "{{ ti.xcom_pull('train') }}"],
        outlets=[model(recipe)],
        outlet_extra={"covers": "{{ ti.xcom_pull('news')['covers'] }}"},
    )
    gate >> fit >> judge


def evaluate_promote(recipe: str, inputs_from: Sequence[str], **kwargs: Any) -> RayJobOperator:
    return RayJobOperator(
        task_id="evaluate_promote",
        steps=["evaluate", "promote"],
        step_params={"recipe": recipe, **_settings.evaluation.get(recipe, {})},
        inputs_from=inputs_from,
        dataset=DATASET,
        **kwargs,
    )
