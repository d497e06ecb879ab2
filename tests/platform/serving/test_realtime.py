"""A body that breaks the contract is refused as a whole, naming each field and the remedy."""

from datetime import UTC, date, datetime, timedelta

import pytest

from components.contract import Contract
from pinloom.serving.realtime import Refused, check
from pinloom.serving.schemas import Action

CONTRACT = Contract.model_validate(
    {
        "name": "shop",
        "actions": [{"name": "buy", "role": "positive"}, {"name": "seen", "role": "impression"}],
        "ties": "ordered",
        "splits": {"burn_in": "2026-01-01", "validation": "2026-02-01", "test": "2026-02-08", "end": "2026-02-15"},
    }
)
EARLIEST = date(2020, 1, 1)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def action(name: str = "buy", timestamp: datetime = NOW) -> Action:
    return Action(event_id="e", user_id="u", item_id="i", action=name, timestamp=timestamp)


def problems(actions: list[Action]):
    with pytest.raises(Refused) as caught:
        check(actions, CONTRACT, EARLIEST, NOW)
    return caught.value.problems


def test_every_word_of_the_vocabulary_passes():
    check([action("buy"), action("seen")], CONTRACT, EARLIEST, NOW)


def test_an_unknown_action_names_its_place_and_the_vocabulary():
    (found,) = problems([action(), action("stare")])
    assert found.field == "[1].action"
    assert "'stare'" in found.problem
    assert found.remedy == "one of: buy, seen"


def test_the_future_is_refused_beyond_the_clock_skew():
    check([action(timestamp=NOW + timedelta(milliseconds=900))], CONTRACT, EARLIEST, NOW)
    (found,) = problems([action(timestamp=NOW + timedelta(seconds=2))])
    assert found.field == "[0].timestamp"
    assert "future" in found.problem


def test_the_time_before_the_log_is_refused():
    check([action(timestamp=datetime(2020, 1, 1, tzinfo=UTC))], CONTRACT, EARLIEST, NOW)
    (found,) = problems([action(timestamp=datetime(2019, 12, 31, 23, 59, 59, tzinfo=UTC))])
    assert found.field == "[0].timestamp"
    assert "before 2020-01-01" in found.problem
    assert "validation.earliest" in found.remedy


def test_long_lists_of_problems_are_cut():
    assert len(problems([action("stare")] * 50)) == 20
