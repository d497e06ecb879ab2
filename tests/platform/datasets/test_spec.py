"""What is wrong with a YAML is said before any file is opened."""

import pytest

from components.errors import UserError
from pinloom.datasets import load_dataset
from tests.platform.datasets.logs import CONTRACT, WIDE, declare, without


def test_shipped_data_sets_load():
    for name in ("completejourney", "kuairand_pure"):
        assert load_dataset(name).name == name


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(UserError, match=r"no data set 'movies'[\s\S]*completejourney, kuairand_pure"):
        load_dataset("movies")


def test_broken_yaml_names_the_line(tmp_path):
    (tmp_path / "x.yaml").write_text("contract: {name: [")
    with pytest.raises(UserError, match=r"is not YAML[\s\S]*line 1"):
        load_dataset(str(tmp_path / "x.yaml"))


def test_a_yaml_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text("- a\n")
    with pytest.raises(UserError, match="holds list, not a mapping"):
        load_dataset(str(tmp_path / "x.yaml"))


def test_an_unknown_field_is_named(tmp_path):
    with pytest.raises(UserError, match=r"source.tables.actions.0.feedbacks: Extra inputs"):
        declare(tmp_path, {"actions": {**WIDE, "feedbacks": {}}})


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"actions": {**WIDE, "columns": {"user_id": "uid"}}}, r"actions: item_id is not mapped: .*`columns`"),
        ({"actions": without(WIDE, "time")}, r"actions: timestamp is not mapped: .*`time`"),
        (
            {"actions": {**without(WIDE, "time"), "columns": {"user_id": "u", "item_id": "i", "timestamp": "ms"}}},
            r"columns.timestamp: a time needs its unit",
        ),
        (
            {"actions": {**WIDE, "columns": {"user_id": "u", "itemid": "i"}}},
            r"itemid: not a column of actions \(event_id",
        ),
        (
            {"actions": {**WIDE, "feedback": {"clicked": "is_click"}}},
            r"feedback.clicked: 'clicked' is not in the vocabulary of \S+ \(impression, click, like, hate\)",
        ),
        ({"actions": {**WIDE, "every_row": ["view"]}}, r"every_row: 'view' is not in the vocabulary"),
        (
            {"actions": {**WIDE, "ratings": [{"column": "stars", "action": "love", "at_least": 4}]}},
            r"ratings.0.action: 'love' is not in the vocabulary",
        ),
        ({"actions": {**WIDE, "ratings": [{"column": "stars", "action": "like"}]}}, r"give at_least, below or both"),
        ({"actions": without(WIDE, "feedback", "every_row")}, r"say what happened in each row in one way"),
        ({"actions": {**WIDE, "constants": {"action": "click"}}}, r"say what happened in each row in one way"),
        ({"actions": {**WIDE, "action_values": {"1": "click"}}}, r"action_values needs columns.action"),
        ({"actions": {**WIDE, "numeric_features": {"x": "stars"}}}, r"features belong to tables items and users"),
        ({"actions": WIDE, "videos": WIDE}, r"no table 'videos': actions, items, users, boards, requests"),
        ({"items": {"files": "i.csv", "columns": {"item_id": "i"}}}, r"no mapping of 'actions'"),
        (
            {"actions": WIDE, "items": {"files": "i.csv", "columns": {"item_id": "i"}, "every_row": ["click"]}},
            r"items: feedback, ratings, every_row and action_values belong to table actions",
        ),
    ],
)
def test_a_wrong_mapping_is_answered_with_field_and_expectation(tmp_path, tables, said):
    with pytest.raises(UserError, match=said):
        declare(tmp_path, tables)


def test_a_feature_that_nothing_fills_is_named(tmp_path):
    items = {"files": "i.csv", "columns": {"item_id": "i"}, "categorical_features": {"color": "c"}}
    with pytest.raises(UserError, match=r"features.crosses: .* fills 'colour' \(there are: category, color, title\)"):
        declare(tmp_path, {"actions": WIDE, "items": items}, features={"crosses": ["colour"]})


def test_reader_and_tables_exclude_each_other(tmp_path):
    with pytest.raises(UserError, match="either a reader or tables"):
        declare(tmp_path, {}, source={"reader": "a:B", "tables": {"actions": WIDE}})


@pytest.mark.parametrize(
    ("promotion", "said"),
    [
        ({"metric": "hitt@3"}, "promotion.metric: there is no metric 'hitt@3': use hit@K"),
        ({"metric": "auc/purchase"}, r"there is no metric 'auc/purchase'.*heads: click, like, hate"),
        ({"confidence": 95}, "promotion.confidence: Input should be less than 1"),
        ({"resamples": 0}, "promotion.resamples: Input should be greater than or equal to 1"),
        ({"delta": -1}, "promotion.delta: Input should be greater than or equal to 0"),
        ({"deltas": {"sequence": -1}}, "promotion.deltas.sequence: Input should be greater than or equal to 0"),
        ({"deltas": {"ranker": 0.1}}, r"promotion.deltas.ranker.*: Input should be 'vectors' or 'sequence'"),
    ],
)
def test_a_gate_that_could_not_decide_is_answered_at_load(tmp_path, promotion, said):
    with pytest.raises(UserError, match=said):
        declare(tmp_path, {"actions": WIDE}, promotion=promotion)


def test_a_kind_without_a_delta_of_its_own_has_the_rankers(tmp_path):
    gate = declare(tmp_path, {"actions": WIDE}, promotion={"delta": 0.2, "deltas": {"sequence": 0.0}}).promotion
    assert [gate.of_kind(kind).delta for kind in ("ranker", "vectors", "sequence")] == [0.2, 0.2, 0.0]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"label_weights": {"clack": {}}}, r"label_weights: there is no head 'clack' .there are: click, like, hate\)"),
        ({"label_weights": {"click": {"lik": 2}}}, r"label_weights.click: no action 'lik' .*like, hate, no_action"),
        (
            {"user_weights": {"land": {"x": 2}}},
            r"user_weights: no mapping of users fills 'land' .there are: country.",
        ),
    ],
)
def test_a_weight_of_what_is_not_there_is_named(tmp_path, weights, said):
    users = {"files": "u.csv", "columns": {"user_id": "u"}, "categorical_features": {"country": "c"}}
    with pytest.raises(UserError, match=said):
        declare(tmp_path, {"actions": WIDE, "users": users}, contract=CONTRACT | weights)


def test_weights_of_what_is_there_load(tmp_path):
    users = {"files": "u.csv", "columns": {"user_id": "u"}, "categorical_features": {"country": "c"}}
    weights = {"label_weights": {"click": {"like": 2, "no_action": 0.5}}, "user_weights": {"country": {"x": 2}}}
    spec = declare(
        tmp_path, {"actions": WIDE, "users": users}, contract=CONTRACT | weights, promotion={"metric": "auc/like"}
    )
    assert spec.contract.user_weights == {"country": {"x": 2.0}}
