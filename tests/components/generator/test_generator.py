"""What is planted is there."""

from datetime import date

import polars as pl
import pytest

from components.generator import Catalogue, People, World, simulate

WORLD = World(actions=200_000, seed=7)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(WORLD)


@pytest.fixture(scope="module")
def people() -> People:
    return People(WORLD, 0)


@pytest.fixture(scope="module")
def log(catalogue, people) -> pl.DataFrame:
    return simulate(WORLD, catalogue, people, 0)


@pytest.fixture(scope="module")
def shown(log, catalogue, people) -> pl.DataFrame:
    """Impressions with their actions, the item's topic and what the topic was to the user."""
    acted = log.filter(pl.col("action") != "impression").select("request", "item", "action", done=pl.lit(True))
    acted = acted.unique().pivot("action", index=["request", "item"], values="done")
    frame = log.filter(pl.col("action") == "impression").join(acted, on=["request", "item"], how="left")
    frame = frame.join(catalogue.frame().select("item", "topic", "created_ms", "quality"), on="item")
    frame = frame.join(people.frame(), on="user").with_columns(pl.col("click", "save", "hide").fill_null(False))
    phase = (pl.col("time_ms") - WORLD.start_ms + pl.col("offset_ms")) // (WORLD.phase_days * 86_400_000)
    liked = (pl.col("tastes").list.get(phase) == pl.col("topic")) | (
        pl.col("tastes").list.get(phase + 1) == pl.col("topic")
    )
    return frame.with_columns(liked=liked, disliked=pl.col("topic").is_in(pl.col("dislikes")))


def rate(frame, action):
    return frame[action].mean()


def test_the_log_has_about_the_actions_asked_for(log):
    assert log.height == pytest.approx(WORLD.actions, rel=0.02)
    assert set(log["action"]) == {"impression", "click", "save", "hide"}


def test_interests_are_clicked_and_saved_more(shown):
    liked, other = shown.filter("liked"), shown.filter(~pl.col("liked"), ~pl.col("disliked"))
    assert rate(liked, "click") == pytest.approx(0.45, abs=0.03)
    assert rate(other, "click") == pytest.approx(0.06, abs=0.01)
    assert rate(liked, "save") > 10 * rate(other, "save")


def test_dislikes_are_hidden_consistently(shown):
    assert rate(shown.filter("disliked"), "hide") == pytest.approx(0.5, abs=0.03)
    assert rate(shown.filter(~pl.col("disliked")), "hide") < 0.02


def test_interests_drift(shown):
    """A topic that was left behind is clicked like any other, though it was liked before."""
    ever = pl.col("topic").is_in(pl.col("tastes"))
    left = shown.filter(ever, ~pl.col("liked"))
    assert left.height > 1000
    assert rate(left, "click") < 0.12


def test_better_items_are_clicked_more(shown):
    liked = shown.filter("liked")
    best, worst = liked.filter(pl.col("quality") > 0.8), liked.filter(pl.col("quality") < 0.2)
    assert rate(best, "click") > 1.3 * rate(worst, "click")


def test_items_arrive_over_time_and_none_is_shown_before(shown, catalogue):
    assert (shown["time_ms"] >= shown["created_ms"]).all()
    new = (catalogue.created > WORLD.start_ms).mean()
    assert new == pytest.approx(0.5, abs=0.05)


def test_actions_follow_their_impression_at_a_time_of_their_own(log):
    first = log.filter(pl.col("action") == "impression").select("request", "item", began="time_ms")
    later = log.filter(pl.col("action") != "impression").join(first, on=["request", "item"])
    assert later.select((pl.col("time_ms") - pl.col("began")).is_between(1_000, 59_999)).to_series().all()
    acted = log.filter(pl.col("action") != "impression")
    assert acted.select("user", "time_ms").unique().height > 0.999 * acted.height


def test_sessions_hold_one_to_three_requests_of_equal_size(log):
    impressions = log.filter(pl.col("action") == "impression")
    assert set(impressions.group_by("request").len()["len"]) == {WORLD.impressions_per_request}
    requests = impressions.group_by("session").agg(pl.col("request").n_unique())
    assert set(requests["request"]) == {1, 2, 3}


def test_a_bucket_depends_on_seed_and_number_only(log):
    again = simulate(WORLD, Catalogue(WORLD), People(WORLD, 0), 0)
    assert again.equals(log)
    other = World(actions=200_000, seed=8)
    assert not simulate(other, Catalogue(other), People(other, 0), 0).equals(log)


def test_buckets_share_no_user_and_hold_the_whole():
    world = World(actions=50_000, users_per_bucket=60)
    catalogue = Catalogue(world)
    logs = [simulate(world, catalogue, People(world, b), b) for b in range(world.buckets)]
    users = [set(part["user"]) for part in logs]
    assert world.buckets == 4
    assert sum(map(len, users)) == len(set.union(*users)) <= world.users
    assert sum(part.height for part in logs) == pytest.approx(50_000, rel=0.05)


def test_sizes_of_the_largest_world_stay_bounded_per_bucket():
    world = World(actions=100_000_000)
    assert world.buckets == 80
    assert world.sessions / world.buckets * 2 * world.impressions_per_request < 2_000_000
    assert world.items == 1_000_000


def test_too_few_topics_are_refused():
    with pytest.raises(ValueError, match="too few"):
        People(World(actions=1000, topics=6), 0)


def test_days_of_the_world():
    assert World(actions=1000).day(0.5) == date(2024, 1, 31)
