"""Whether a run is needed, and when it may start. (That 30 days end in one run: tests/dags/test_backfill.py.)"""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowSkipException

from pinloom.airflow.gate import NewsGate

SOURCE, PRODUCT = Asset("source"), Asset("product")


class Events(list):
    """Stands for Airflow's accessor: newest first when asked so."""

    def ascending(self, ascending: bool) -> "Events":
        return Events(sorted(self, key=lambda event: event.timestamp, reverse=not ascending))

    def limit(self, n: int) -> "Events":
        return Events(self[:n])


def event(day: int, **extra: str) -> SimpleNamespace:
    return SimpleNamespace(timestamp=datetime(2017, 11, day, tzinfo=UTC), extra=extra)


def poke(
    source=(), product=(), run_type: str = "asset_triggered", under_way: int = 0, day: int = 30, events=None, **options
):
    counts = {"upstream": under_way, "other": 0}
    context = {
        "dag_run": SimpleNamespace(run_type=run_type, run_after=datetime(2017, 11, day, tzinfo=UTC)),
        "ti": SimpleNamespace(get_dr_count=lambda dag_id, states: counts[dag_id]),
        "inlet_events": {SOURCE: Events(source), PRODUCT: Events(product), **(events or {})},
    }
    with DAG("dag"):
        gate = NewsGate(task_id="news", upstream=["other", "upstream"], source=SOURCE, product=PRODUCT, **options)
    return gate.poke(context)


NOV_2 = datetime(2017, 11, 2, tzinfo=UTC).isoformat()


def test_it_waits_for_what_is_under_way_upstream():
    assert not poke([event(1)], under_way=1).is_done


def test_it_hands_on_the_newest_result_and_what_that_covers():
    answer = poke([event(1, result="old"), event(2, result="new", dataset="shop")], [event(1, covers="before")])
    assert answer.is_done
    assert answer.xcom_value == {"covers": NOV_2, "result": "new", "dataset": "shop"}


@pytest.mark.parametrize("run_type", ["asset_triggered", "scheduled"])
def test_a_run_without_news_is_skipped(run_type):
    with pytest.raises(AirflowSkipException, match="nothing new"):
        poke([event(1), event(2)], [event(3, covers=NOV_2)], run_type)


def test_an_older_product_that_covered_more_does_not_count():
    assert poke([event(1), event(2)], [event(3, covers=NOV_2), event(4, covers="before")]).is_done


def test_the_first_product_has_nothing_to_be_compared_with():
    assert poke([event(2)]).xcom_value == {"covers": NOV_2, "result": "", "dataset": ""}


def test_a_run_by_the_clock_is_skipped_before_there_is_anything():
    with pytest.raises(AirflowSkipException, match="no 'source' yet"):
        poke(run_type="scheduled")


def test_a_manual_run_goes_at_once_and_reads_the_latest():
    answer = poke([event(2, result="new", dataset="shop")], [event(3, covers=NOV_2)], "manual", under_way=1)
    assert answer.is_done
    assert answer.xcom_value == {"covers": NOV_2, "result": "", "dataset": ""}


def test_news_that_came_while_the_product_was_made_is_no_reason_to_wait():
    assert poke([event(1), event(9)], [event(10, covers="before")], day=8).is_done


def test_what_lasts_is_not_made_again_for_every_news():
    made, news, lasts = [event(3, covers="before")], [event(1), event(9)], timedelta(days=20)
    with pytest.raises(AirflowSkipException, match="younger than 20 days"):
        poke(news, made, day=22, lasts=lasts)
    assert poke(news, made, day=23, lasts=lasts).is_done
    assert poke(news, [], day=9, lasts=lasts).is_done


@pytest.mark.parametrize("run_type", ["manual", "scheduled"])
def test_the_clock_and_the_user_do_not_wait_for_what_lasts(run_type):
    made, news = [event(3, covers="before")], [event(1), event(9)]
    assert poke(news, made, run_type, day=22, lasts=timedelta(days=20)).is_done


@pytest.mark.parametrize("run_type", ["asset_triggered", "scheduled"])
def test_what_stands_beside_must_be_there_and_is_news_too(run_type):
    base = Asset("base")

    def beside(events, product=()):
        return poke([event(1, result="features")], product, run_type, beside=[base], events={base: Events(events)})

    with pytest.raises(AirflowSkipException, match="no 'base' yet"):
        beside([])
    answer = beside([event(2, result="base")]).xcom_value
    assert answer["result"] == "features"
    made = [event(3, covers=answer["covers"])]
    with pytest.raises(AirflowSkipException, match="nothing new"):
        beside([event(2)], made)
    assert beside([event(2), event(4)], made).is_done


@pytest.mark.parametrize(("interval", "mode"), [(2.0, "poke"), (60.0, "reschedule")])
def test_it_gives_its_worker_back_only_between_looks_far_apart(interval, mode):
    """Rescheduled within seconds, a sensor meets the scheduler's late news of its last look and is taken for lost."""
    with DAG("dag"):
        gate = NewsGate(task_id="news", upstream=[], source=SOURCE, product=PRODUCT, poke_interval=interval)
    assert gate.mode == mode
