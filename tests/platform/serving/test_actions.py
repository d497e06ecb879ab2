"""Actions: known to the next ranking, landed for the next ingest, once each, all or none."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pinloom.lake import Lake
from pinloom.steps import landed
from tests.platform.serving.asking import AT, action, post, rank, scores


@pytest.fixture(autouse=True)
def own_lake(service, tmp_path):
    """Each test lands in a lake of its own."""
    service.loaded = replace(service.loaded, lake=Lake(f"file://{tmp_path}/lake"))


def landed_events(service) -> list[str]:
    days = landed.days(service.loaded.lake)
    if not days:
        return []
    rows = pl.concat(landed.read(service.loaded.lake, days[0], days[-1] + timedelta(days=1), 1.0))
    return sorted(rows["event_id"])


def test_the_next_ranking_of_the_user_knows_them_and_nobody_else_s_changes(client):
    before, other = rank(client, at=AT), rank(client, user="user-1", at=AT)
    answer = post(client, action("a", "felt-1"), action("b", "felt-1"))
    assert answer == {"accepted": 2, "new_in_history": 2, "unknown_items": []}
    assert scores(rank(client, at=AT)) != scores(before)
    assert rank(client, user="user-1", at=AT) == other


def test_an_action_of_this_instant_is_in_the_next_ranking(client, service):
    now = datetime.now(UTC) + timedelta(milliseconds=500)
    post(client, action("now", "felt-3", timestamp=now.isoformat()))
    newest = service.user_state("user-0", None).history.item[0]
    assert service.items.ids[int(newest)] == "felt-3"


def test_a_newcomer_s_first_action_makes_a_known_user(client):
    assert rank(client, user="newcomer")["unknown_user"] is True
    post(client, action("first", user="newcomer"))
    assert rank(client, user="newcomer")["unknown_user"] is False


def test_the_same_event_counts_once_and_lands_once(client, service):
    post(client, action("a"))
    after = rank(client, at=AT)
    assert post(client, action("a"))["new_in_history"] == 0
    assert post(client, action("a", "felt-1"), action("b", "felt-2"))["new_in_history"] == 1
    assert landed_events(service) == ["a", "b"]
    post(client, action("b", "felt-2"))
    assert scores(rank(client, at=AT)) != scores(after)
    assert len(service.user_state("user-0", None).history.before(2**62, 16_000)) == len(
        set(service.user_state("user-0", None).history.event.tolist())
    )


def test_they_are_landed_with_the_columns_of_the_contract(client, service):
    post(client, action("a", surface="shelf", value=1.5, session_id="s", request_id="r"))
    (day,) = landed.days(service.loaded.lake)
    (rows,) = landed.read(service.loaded.lake, day, day + timedelta(days=1), 1.0)
    assert rows.row(0, named=True) == {
        **action("a", surface="shelf", value=1.5, session_id="s", request_id="r"),
        "timestamp": datetime(2026, 2, 20, 12, tzinfo=UTC),
        "sampling_probability": None,
    }


def test_an_exposure_is_landed_but_enters_no_history(client, service):
    before = rank(client, at=AT)
    assert post(client, action("seen", name="seen"))["new_in_history"] == 0
    assert landed_events(service) == ["seen"]
    assert rank(client, at=AT) == before


def test_an_action_on_an_item_that_the_snapshot_lacks_is_kept_and_named(client, service):
    assert post(client, action("a", "brand-new"))["unknown_items"] == ["brand-new"]
    assert landed_events(service) == ["a"]


def test_a_refused_batch_stores_nothing(client, service):
    before = rank(client, at=AT)
    answer = client.post("/v1/actions", json=[action("a"), action("b", name="stare")])
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "[1].action"
    assert error["remedy"] == "one of: buy, hide, seen"
    assert landed_events(service) == []
    assert rank(client, at=AT) == before


def test_fifty_concurrent_posts_for_one_user_keep_fifty(client, service):
    before = len(service.user_state("user-0", None).history)
    moment = datetime(2026, 2, 20, tzinfo=UTC)
    with ThreadPoolExecutor(25) as pool:
        posts = [action(f"e{i}", timestamp=(moment + timedelta(seconds=i)).isoformat()) for i in range(50)]
        list(pool.map(lambda a: post(client, a), posts))
    assert len(service.user_state("user-0", None).history) == before + 50
    assert len(landed_events(service)) == 50


def test_a_time_before_the_data_sets_earliest_day_is_refused(client, service):
    answer = client.post("/v1/actions", json=[action("a", timestamp="1970-01-20T00:00:00Z")])
    assert answer.status_code == 422
    assert "before 2000-01-01" in answer.text
    assert landed_events(service) == []
