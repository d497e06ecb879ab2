"""The gate for item vectors, on planted places and on real weights; alias and pointer as for rankers."""

import json

import polars as pl
import pytest

from components.errors import UserError
from tests.platform.evaluation import shelved

FIRST, LAST = pl.lit(1), pl.lit(400)
POPULAR = pl.col("above/popularity") + pl.col("equal/popularity")
GATE = "hit@20"


def as_trained(recipe: str = "pinsage") -> pl.Expr:
    """Where the weights of the lab's run place the positives; they tie with nothing."""
    return pl.col(f"above/{recipe}") + 1


def decision(lab, manifest) -> dict:
    return json.loads(lab.lake.read_bytes(manifest.file("decision", "decision.json")))


def champion_of(lab, recipe: str) -> str:
    found = lab.lake.latest(f"champions/{recipe}")
    return found.key if found else ""


def crowned(lab, recipe: str, **inputs) -> None:
    lab.challenge(recipe, "first", FIRST, lab.run(f"{recipe}-first", **inputs))
    assert lab.step("promote", {"recipe": recipe}).metrics["promoted"]


def test_the_runs_own_evaluation_leads_to_a_first_champion(vector_lab):
    vector_lab.lake.advance("evaluations/pinsage", lambda _: vector_lab.evaluated)
    found = vector_lab.step("promote", {"recipe": "pinsage"}).metrics
    gate = found["comparisons"][0]
    assert found["promoted"]
    assert gate["metric"] == GATE == vector_lab.evaluated.metrics["gate"]
    assert gate["challenger"]["value"] == pytest.approx(
        vector_lab.evaluated.metrics["headline"]["pinsage"][GATE][0], abs=1e-6
    )
    assert found["asked"].endswith("pairs")
    assert champion_of(vector_lab, "pinsage") == "base"
    _, uri = vector_lab.registry.alias("pinsage", "champion")
    assert vector_lab.lake.manifest(uri).key == "base"


@pytest.mark.parametrize(("recipe", "rank"), [("blind", LAST), ("bestsellers", POPULAR)])
def test_a_first_champion_must_beat_the_stronger_of_content_and_popularity(vector_lab, recipe, rank):
    vector_lab.challenge(recipe, "first", rank)
    found = vector_lab.step("promote", {"recipe": recipe}).metrics
    headline = vector_lab.evaluated.metrics["headline"]
    stronger = max(("content", "popularity"), key=lambda who: headline[who][GATE][0])
    assert found["rival"].startswith(stronger)
    assert not found["promoted"]
    assert f"must beat {found['rival']}" in found["reason"]
    assert champion_of(vector_lab, recipe) == ""
    assert vector_lab.registry.alias(recipe, "champion") is None


def test_a_worse_challenger_is_kept_out_with_the_reason(vector_lab):
    crowned(vector_lab, "worse-vectors")
    vector_lab.challenge("worse-vectors", "second", LAST)
    manifest = vector_lab.step("promote", {"recipe": "worse-vectors"})
    found = decision(vector_lab, manifest)
    assert not found["promoted"]
    assert found["rival"] == "champion"
    assert champion_of(vector_lab, "worse-vectors") == "worse-vectors-first"
    page = vector_lab.lake.read_bytes(manifest.file("decision", "decision.html")).decode()
    assert "Not promoted" in page
    assert "960 pairs" in page


def test_an_equal_challenger_is_promoted(vector_lab):
    """The champion, whose weights are the same, is scored again and places every pair alike."""
    crowned(vector_lab, "equal-vectors")
    vector_lab.challenge("equal-vectors", "second", as_trained())
    found = decision(vector_lab, vector_lab.step("promote", {"recipe": "equal-vectors"}))
    assert found["comparisons"][0]["gain"]["value"] == pytest.approx(0, abs=2e-3)
    assert found["promoted"]
    assert champion_of(vector_lab, "equal-vectors") == "equal-vectors-second"


def test_the_champion_keeps_its_own_kind_of_walks(vector_lab):
    """On the same graph it is scored by the gate as by its own evaluation."""
    near = vector_lab.beside("neighbourhoods", {**shelved.WALK, "walks": 3, "length": 2, "seed": 8})
    champion = vector_lab.run("own-walks-first", neighbourhoods=near)
    own = vector_lab.step("evaluate", {"recipe": "pinsage", "resamples": 10}, train=champion)
    theirs = vector_lab.evaluated.metrics["headline"]["pinsage"][GATE][0]
    assert own.metrics["headline"]["pinsage"][GATE][0] != pytest.approx(theirs, abs=1e-3)
    crowned(vector_lab, "own-walks", neighbourhoods=near)
    vector_lab.challenge("own-walks", "second", FIRST)
    found = decision(vector_lab, vector_lab.step("promote", {"recipe": "own-walks"}))
    assert found["comparisons"][0]["rival"]["value"] == pytest.approx(
        own.metrics["headline"]["pinsage"][GATE][0], abs=2e-3
    )


def test_the_champion_is_judged_on_the_graph_of_the_challenger(vector_lab):
    """As it would be served: on a graph of long ago it would lose for its age."""
    early = vector_lab.beside("graph", {"until": "2026-01-08"})
    near = vector_lab.beside("neighbourhoods", shelved.WALK, graph=early)
    crowned(vector_lab, "aged", graph=early, neighbourhoods=near)
    vector_lab.challenge("aged", "second", FIRST)
    found = decision(vector_lab, vector_lab.step("promote", {"recipe": "aged"}))
    today = vector_lab.evaluated.metrics["headline"]["pinsage"][GATE][0]
    assert found["comparisons"][0]["rival"]["value"] == pytest.approx(today, abs=2e-3)


def test_a_split_inside_the_training_window_is_refused(vector_lab):
    evaluated = vector_lab.challenge("seen-vectors", "first", FIRST, split="validation")
    with pytest.raises(UserError, match=r"validation split .* lies inside what the challenger learned from") as e:
        vector_lab.step("promote", {"recipe": "seen-vectors"}, evaluate=evaluated)
    assert "graph of earlier days" in e.value.remedy
    assert vector_lab.registry.alias("seen-vectors", "champion") is None


def test_a_champion_whose_graph_reaches_into_the_split_is_refused(vector_lab):
    crowned(vector_lab, "reaching")
    late = vector_lab.beside("graph", {"until": "2026-02-05"})
    champion = vector_lab.run("reaching-late", graph=late)
    version = vector_lab.registry.register("reaching", champion)
    vector_lab.registry.move_alias("reaching", "champion", version, "by hand")
    vector_lab.challenge("reaching", "second", FIRST)
    with pytest.raises(UserError, match="lies inside what the champion learned from"):
        vector_lab.step("promote", {"recipe": "reaching"})
