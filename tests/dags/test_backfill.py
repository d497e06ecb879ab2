"""Backfill by day under the real scheduler; its jobs are probes in the real Ray."""

from collections import Counter
from datetime import date

import pytest

from tests.airflow_fixtures import Scheduler, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]
DAGS = ("ingest", "features", "train_pinsage", "train_transact")


def test_thirty_days_of_backfill_cause_one_retraining(airflow: Scheduler):
    airflow.unpause(*DAGS)
    before = len(airflow.traces())
    airflow.backfill("ingest", date(2017, 11, 1), date(2017, 11, 30), max_active_runs=30)
    until(
        lambda: airflow.runs("train_transact") and airflow.idle(),
        1000,
        "the backfill and all that it causes",
        airflow.check_alive,
    )
    airflow.pause(*DAGS)

    jobs = airflow.traces()[before:]
    assert Counter(" ".join(job["steps"]) for job in jobs) == {
        "ingest validate": 30,
        "features": 1,
        "graph neighbourhoods": 1,
        "graph neighbourhoods embed index materialize": 1,
        "embed": 1,  # on the graph before the splits
        "train": 2,  # PinSage and TransAct
        "evaluate promote": 2,
    }
    days = sorted(job["params"]["start"] for job in jobs if job["steps"][0] == "ingest")
    assert days == [f"2017-11-{day:02d}" for day in range(1, 31)]
    first_features = next(n for n, job in enumerate(jobs) if job["steps"][0] == "features")
    assert all(job["steps"][0] == "ingest" for job in jobs[:first_features]), "features waited for every day"
    assert {run["state"] for dag_id in DAGS for run in airflow.runs(dag_id)} == {"success"}
