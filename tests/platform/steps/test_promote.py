"""The gate decides on planted scores; the alias of a real MLflow registry follows, whatever is done by hand."""

import json

import numpy as np
import polars as pl
import pytest

from components.errors import UserError
from components.models.artifact import OtherVersion
from pinloom.evaluation import rankers
from pinloom.evaluation.scoring import open_artifact
from pinloom.steps.base import load_step


def noisy(strength: float, seed: int = 0):
    """Final scores that know `strength` of what was chosen."""

    def score(scores: pl.DataFrame) -> pl.Series:
        rng = np.random.default_rng(seed)
        chosen = (scores["labels"] & 1).to_numpy()
        return pl.Series((strength * chosen + rng.random(scores.height)).astype(np.float32))

    return score


def as_trained(scores: pl.DataFrame) -> pl.Series:
    """What the champion, who has the same weights, scores."""
    return scores["score/transact"]


def champion_of(lab, recipe: str) -> str:
    found = lab.lake.latest(f"champions/{recipe}")
    return found.key if found else ""


def crowned(lab, recipe: str) -> None:
    """A first champion, whose weights are those of the lab's run."""
    lab.challenge(recipe, "first", noisy(5.0))
    assert lab.step("promote", {"recipe": recipe}).metrics["promoted"]


def decision(lab, manifest) -> dict:
    return json.loads(lab.lake.read_bytes(manifest.file("decision", "decision.json")))


def test_a_first_champion_must_beat_popularity(lab):
    lab.challenge("novice", "guess", noisy(0.0))
    refused = lab.step("promote", {"recipe": "novice"})
    assert not refused.metrics["promoted"]
    assert refused.metrics["rival"] == "popularity"
    assert lab.registry.alias("novice", "champion") is None
    assert champion_of(lab, "novice") == ""
    lab.challenge("novice", "oracle", noisy(5.0))
    promoted = lab.step("promote", {"recipe": "novice"})
    assert promoted.metrics["promoted"]
    assert "beats popularity" in promoted.metrics["reason"]
    assert champion_of(lab, "novice") == "novice-oracle"
    version, uri = lab.registry.alias("novice", "champion")
    assert lab.lake.manifest(uri).key == "novice-oracle"
    assert lab.registry.reason("novice", "champion", version) == promoted.metrics["reason"]


def test_a_better_challenger_is_promoted(lab):
    crowned(lab, "better")
    lab.challenge("better", "second", noisy(5.0, seed=1))
    found = decision(lab, lab.step("promote", {"recipe": "better"}))
    gate = found["comparisons"][0]
    assert found["promoted"]
    assert (gate["metric"], found["rival"]) == ("hit@3", "champion")
    assert gate["gain"]["low"] > 0
    assert champion_of(lab, "better") == "better-second"


def test_a_worse_challenger_is_kept_out_with_the_reason(lab):
    crowned(lab, "worse")
    lab.challenge("worse", "second", noisy(0.2))
    manifest = lab.step("promote", {"recipe": "worse"})
    found = decision(lab, manifest)
    assert not found["promoted"]
    assert found["comparisons"][0]["gain"]["low"] < -lab.spec.promotion.delta
    assert "Kept the champion (version 1)" in found["reason"]
    assert champion_of(lab, "worse") == "worse-first"
    tags = lab.registry.client.get_model_version(lab.registry.model("worse"), "2").tags
    assert tags["pinloom.decision"] == found["reason"]
    page = lab.lake.read_bytes(manifest.file("decision", "decision.html")).decode()
    assert "Not promoted" in page
    assert "lower bound is below" in page


def test_an_equal_challenger_is_promoted(lab):
    crowned(lab, "equal")
    lab.challenge("equal", "second", as_trained)
    found = decision(lab, lab.step("promote", {"recipe": "equal"}))
    assert found["comparisons"][0]["gain"] == {"value": 0, "low": 0, "high": 0}
    assert found["promoted"]
    assert champion_of(lab, "equal") == "equal-second"


def test_a_champion_of_another_version_of_the_code_gives_way_to_whom_beats_popularity(lab, monkeypatch):
    """Nobody could take its place otherwise."""
    crowned(lab, "old")
    lab.challenge("old", "second", noisy(0.2))

    def opened(lake, train):
        if train.key == "old-first":
            raise OtherVersion("artifact.json has format 1, this version reads format 2")
        return open_artifact(lake, train)

    monkeypatch.setattr(rankers, "open_artifact", opened)
    found = decision(lab, lab.step("promote", {"recipe": "old"}))
    assert found["reason"].startswith("The champion cannot be read: artifact.json has format 1")
    assert (found["rival"], found["promoted"]) == ("popularity", found["comparisons"][0]["gain"]["low"] > 0)
    assert champion_of(lab, "old") == ("old-second" if found["promoted"] else "old-first")


def test_a_hide_among_the_first_is_a_loss(lab):
    """The gain of a metric of which less is better is turned around."""
    crowned(lab, "hides")
    hides = (lab.scores["labels"] & 2) > 0
    lab.challenge("hides", "second", lambda s: as_trained(s) + 10 * hides.cast(pl.Float32))
    found = decision(lab, lab.step("promote", {"recipe": "hides"}))
    by_metric = {c["metric"]: c for c in found["comparisons"]}
    worse = by_metric["hit@3/hide"]
    assert worse["challenger"]["value"] > worse["rival"]["value"]
    assert worse["gain"]["high"] < 0


def test_run_again_nothing_changes(lab):
    crowned(lab, "again")
    before = lab.registry.alias("again", "champion")
    pointer = lab.lake.pointer_version("champions/again")
    manifest = lab.step("promote", {"recipe": "again"})
    assert "is the champion already" in manifest.metrics["reason"]
    assert lab.registry.alias("again", "champion") == before
    assert lab.lake.pointer_version("champions/again") == pointer
    assert len(lab.registry.versions("again")) == 1
    assert lab.step("promote", {"recipe": "again"}).uri == manifest.uri


def test_an_interrupted_promotion_is_finished_by_the_next_run(lab, monkeypatch):
    lab.challenge("cut", "first", noisy(5.0))
    step = load_step("promote")
    with monkeypatch.context() as patch:
        patch.setattr(type(lab.registry), "move_alias", _power_cut)
        with pytest.raises(ConnectionError):
            lab.step("promote", {"recipe": "cut"})
    assert lab.registry.alias("cut", "champion") is None
    published = len(list(lab.lake.fs.ls(lab.lake.path("manifests", step.name))))
    lab.step("promote", {"recipe": "cut"})
    assert champion_of(lab, "cut") == "cut-first"
    assert len(list(lab.lake.fs.ls(lab.lake.path("manifests", step.name)))) == published, "not decided anew"


def _power_cut(*args: object, **kwargs: object) -> None:
    raise ConnectionError("the registry is away")


def test_an_alias_moved_by_hand_is_heeded(lab):
    crowned(lab, "hand")
    second = lab.challenge("hand", "second", noisy(5.0, seed=1))
    lab.step("promote", {"recipe": "hand"})
    assert champion_of(lab, "hand") == "hand-second"
    lab.registry.move_alias("hand", "champion", "1", "rolled back by hand")
    lab.step("promote", {"recipe": "hand"}, evaluate=second)
    assert lab.registry.alias("hand", "champion")[0] == "1"
    assert champion_of(lab, "hand") == "hand-first", "the pointer follows"
    lab.challenge("hand", "third", as_trained)
    third = lab.step("promote", {"recipe": "hand"})
    assert lab.lake.manifest(third.metrics["champion"]).key == "hand-first", "and the next one is compared with it"


def test_a_version_that_was_replaced_does_not_come_back_by_itself(lab):
    crowned(lab, "once")
    first = lab.lake.latest("evaluations/once")
    lab.challenge("once", "second", noisy(5.0, seed=1))
    lab.step("promote", {"recipe": "once"})
    back = lab.step("promote", {"recipe": "once"}, evaluate=first)
    assert not back.metrics["promoted"]
    assert "was champion before" in back.metrics["reason"]
    assert champion_of(lab, "once") == "once-second"


def test_a_registry_that_lost_the_alias_gets_it_back(lab):
    crowned(lab, "lost")
    lab.registry.client.delete_registered_model_alias(lab.registry.model("lost"), "champion")
    lab.step("promote", {"recipe": "lost"})
    _, uri = lab.registry.alias("lost", "champion")
    assert lab.lake.manifest(uri).key == "lost-first"


def test_an_alias_on_a_foreign_version_is_refused(lab):
    lab.challenge("foreign", "first", noisy(5.0))
    client, model = lab.registry.client, lab.registry.model("foreign")
    client.create_registered_model(model)
    version = client.create_model_version(model, source="file:///elsewhere")
    client.set_registered_model_alias(model, "champion", version.version)
    with pytest.raises(UserError, match="no `train` step of this lake made it"):
        lab.step("promote", {"recipe": "foreign"})


def test_a_champion_that_appears_meanwhile_is_not_run_over(lab, monkeypatch):
    crowned(lab, "race")
    lab.challenge("race", "second", noisy(5.0, seed=1))
    other = lab.registry.register("race", lab.run("race-other"))
    promote, registry = load_step("promote"), type(lab.registry)
    register = registry.register

    def somebody_else(self, recipe, manifest):
        self.move_alias(recipe, "champion", other, "by somebody else")
        return register(self, recipe, manifest)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "register", somebody_else)
        with pytest.raises(UserError, match=r"became champion while version .* was compared with another"):
            lab.step(promote.name, {"recipe": "race"})
    assert lab.registry.alias("race", "champion")[0] == other


def test_a_split_inside_the_training_window_is_refused(lab):
    evaluated = lab.challenge("seen", "first", noisy(5.0), split="validation")
    with pytest.raises(UserError, match=r"the validation split .* lies inside what the challenger learned from") as e:
        lab.step("promote", {"recipe": "seen"}, evaluate=evaluated)
    assert "later split" in e.value.remedy
    assert lab.registry.alias("seen", "champion") is None


def test_a_split_inside_the_champions_window_is_refused(lab):
    crowned(lab, "late")
    rows = lab.features.output("examples")
    everything = rows.model_copy(
        update={"files": tuple(f.model_copy(update={"partition": "train"}) for f in rows.files)}
    )
    outputs = {**lab.features.outputs, "examples": everything}
    trained_later = lab.lake.publish(lab.features.model_copy(update={"key": "later", "outputs": outputs}))
    champion = lab.run("late-champion", features=trained_later)
    version = lab.registry.register("late", champion)
    lab.registry.move_alias("late", "champion", version, "trained on later days")
    lab.challenge("late", "second", noisy(5.0, seed=1))
    with pytest.raises(UserError, match="lies inside what the champion learned from"):
        lab.step("promote", {"recipe": "late"})


def test_a_metric_that_popularity_cannot_have_is_answered(lab):
    lab.challenge("loss", "first", noisy(5.0))
    rules = lab.spec.promotion.model_copy(update={"metric": "log_loss/buy"})
    other = type(lab)(
        lab.settings, lab.lake, lab.features, lab.scratch, lab.spec.model_copy(update={"promotion": rules})
    )
    with pytest.raises(UserError, match="needs probabilities"):
        other.step("promote", {"recipe": "loss"})
