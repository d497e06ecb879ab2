"""DAGs of the tests: one job that does as it is told, in the ways in which a job may be run."""

from datetime import timedelta

from airflow.sdk import DAG, Asset

from pinloom.airflow.operator import RayJobOperator

PROBE = Asset("probe")
PARAMS = {"wait_for": "", "exit": 0, "say": ""}


def probe(**kwargs):
    return RayJobOperator(
        task_id="probe",
        steps=["probe"],
        step_params={name: f"{{{{ params.{name} }}}}" for name in PARAMS},
        retries=kwargs.pop("retries", 2),
        retry_delay=timedelta(seconds=1),
        **kwargs,
    )


with DAG("probe", schedule=None, params=PARAMS, max_active_runs=8):
    probe(outlets=[PROBE])

with DAG("probe_downstream", schedule=[PROBE]):
    RayJobOperator(task_id="probe", steps=["downstream"])

with DAG("probe_in_time", schedule=None, params=PARAMS):
    probe(execution_timeout=timedelta(seconds=10), retries=0)

with DAG("probe_too_big", schedule=None, params=PARAMS):
    probe(cpus=1000, pending_timeout_s=4)
