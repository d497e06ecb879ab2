"""A pretrained PinFM through evaluate and promote on a planted log: its page says the manifest's numbers, plain loops
say the same."""

import json

import numpy as np
import polars as pl
import pytest

from components.contract import Role
from components.errors import UserError
from components.evaluation.next_items import ask
from pinloom.evaluation.scoring import open_items
from pinloom.evaluation.sequence import learned, questions_of, scorer_of
from tests.platform.reporting.pages import Page

RIVALS = {"popularity", "personal", "followers", "content"}
# Where nothing comes again, as here, a model that begins by copying is slow to forget.
SMALL = {"epochs": 10, "window": 2, "rows": 2000, "copy": 0.0}
FEW = {"resamples": 20, "max_questions": 150}


@pytest.fixture(scope="module")
def trained(vector_lab):
    return vector_lab.train("pinfm-base", recipe="pinfm", **SMALL)


@pytest.fixture(scope="module")
def evaluate(vector_lab, trained):
    def run(train=trained, **params):
        return vector_lab.step("evaluate", {"recipe": "pinfm", **params}, train=train)

    return run


@pytest.fixture(scope="module")
def evaluated(evaluate):
    return evaluate(resamples=200)


@pytest.fixture(scope="module")
def questions(vector_lab):
    return questions_of(vector_lab.lake, vector_lab.features, vector_lab.spec.contract, "test", 5_000)


@pytest.fixture(scope="module")
def items(vector_lab):
    return open_items(vector_lab.lake, vector_lab.features)


def read(lab, manifest) -> Page:
    return Page(lab.lake.read_bytes(manifest.file("report", "report.html")).decode())


def test_the_page_shows_the_numbers_of_the_manifest(vector_lab, evaluated):
    page = read(vector_lab, evaluated)
    assert {k.split(".")[0] for k in page.cells} == {"headline", "lift", "slices"}
    for key, cell in page.cells.items():
        section, who, *metric = key.split(".", 2)
        said = evaluated.metrics[section][who]
        assert cell == pytest.approx(said[metric[0]], abs=2e-6), key
    assert all(link.startswith("#") for link in page.links), page.links


def test_every_rival_is_compared(evaluated):
    assert set(evaluated.metrics["lift"]) == RIVALS
    assert set(evaluated.metrics["headline"]) == {"pinfm", *RIVALS}
    assert set(evaluated.metrics["slices"]["all"]) == {"pinfm", *RIVALS}


def test_recall_and_mrr_are_those_of_a_plain_sort(vector_lab, trained, evaluated, questions, items):
    scores = scorer_of(vector_lab.lake, trained, questions, items)(np.arange(len(questions)))
    recalls: dict[int, list[float]] = {10: [], 100: []}
    reciprocal = []
    for q, row in enumerate(scores):
        chosen = set(questions.item_P[questions.question_P == q].tolist())
        order = [i for i in np.argsort(-row, kind="stable").tolist() if i != 0]
        for k, values in recalls.items():
            values.append(len(chosen & set(order[:k])) / len(chosen))
        reciprocal.append(1 / (1 + min(order.index(i) for i in chosen)))
    headline = evaluated.metrics["headline"]["pinfm"]
    assert headline["recall@10"][0] == pytest.approx(np.mean(recalls[10]), abs=1e-6)
    assert headline["recall@100"][0] == pytest.approx(np.mean(recalls[100]), abs=1e-6)
    assert headline["mrr"][0] == pytest.approx(np.mean(reciprocal), abs=1e-6)


def test_what_was_planted_is_found_where_popularity_says_nothing(evaluated):
    """Three of a day's four purchases follow another of the same topic, of twenty items."""
    lift = evaluated.metrics["lift"]
    assert lift["popularity"]["recall@10"][1] > 0.1
    assert lift["personal"]["recall@10"][1] > 0.1


def test_parts_are_of_all_chosen_items(evaluated):
    counted = evaluated.metrics["slice_chosen"]
    assert counted["all"] == evaluated.metrics["chosen"]
    assert counted["had before"] + counted["new to the user"] == counted["all"]


def test_a_split_that_chose_the_epoch_is_called_so(vector_lab, evaluated, evaluate):
    assert "later than anything that PinFM learned from" in read(vector_lab, evaluated).text
    assert "which flatters it" in read(vector_lab, evaluate(split="validation", **FEW)).text


def test_a_run_says_what_it_learned_from(vector_lab, trained):
    span, contract = learned(vector_lab.lake, trained), vector_lab.spec.contract
    events = pl.read_parquet(vector_lab.lake.local_paths(vector_lab.features.output("histories")))[
        "timestamp"
    ].explode()
    assert round(span.first.timestamp() * 1e6) == events.min()
    assert span.last < contract.splits.interval("test")[0]
    assert (contract.splits.interval("test")[0] - span.last).total_seconds() < 1


def test_an_ablation_asked_for_is_a_row_of_the_report(vector_lab, evaluate):
    manifest = evaluate(ablations=("next-token loss alone",), **FEW)
    gain = manifest.metrics["ablation_lift"]["next-token loss alone"]["recall@10"]
    ours, theirs = (manifest.metrics["ablations"][who]["recall@10"][0] for who in ("pinfm", "next-token loss alone"))
    assert gain[0] == pytest.approx(ours - theirs, abs=2e-6)
    assert read(vector_lab, manifest).cells["ablation_lift.next-token loss alone.recall@10"] == pytest.approx(
        gain, abs=2e-6
    )


def test_a_split_without_anyone_is_answered(vector_lab):
    contract = vector_lab.spec.contract
    files = [str(p) for p in vector_lab.lake.local_paths(vector_lab.features.output("histories"))]
    assert len(ask(files, contract, (0, 1), 10)) == 0
    late = contract.model_copy(update={"splits": contract.splits.model_copy(update={"test": contract.splits.end})})
    with pytest.raises(UserError, match="no positive action in the test split"):
        questions_of(vector_lab.lake, vector_lab.features, late, "test", 10)


def challenge(lab, trained, evaluated, key: str) -> None:
    """The newest evaluation is that of another run with the same weights."""
    run = lab.lake.publish(trained.model_copy(update={"key": key}))
    change = {"key": key, "inputs": {**evaluated.inputs, "train": lab.ref(run)}}
    published = lab.lake.publish(evaluated.model_copy(update=change))
    lab.lake.advance("evaluations/pinfm", lambda _: published)


def decide(lab) -> dict:
    manifest = lab.step("promote", {"recipe": "pinfm"})
    return json.loads(lab.lake.read_bytes(manifest.file("decision", "decision.json")))


def test_a_first_champion_beats_popularity_and_an_equal_one_follows_it(vector_lab, trained, evaluated):
    vector_lab.lake.advance("evaluations/pinfm", lambda _: evaluated)
    first = decide(vector_lab)
    assert first["promoted"]
    assert (first["rival"], first["comparisons"][0]["metric"]) == ("popularity", "recall@10")
    assert first["asked"] == f"{evaluated.metrics['questions']:,} moments".replace(",", "\u202f")
    assert vector_lab.lake.latest("champions/pinfm").key == "pinfm-base"
    challenge(vector_lab, trained, evaluated, "pinfm-again")
    second = decide(vector_lab)
    assert second["rival"] == "champion"
    assert second["comparisons"][0]["gain"]["value"] == pytest.approx(0, abs=1e-6)
    assert second["promoted"]


def test_every_store_gives_the_same_decision(vector_lab, trained, evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = vector_lab.in_memory(tmp_path)
    there = elsewhere.lake.manifest(trained.uri.replace(vector_lab.lake.root, elsewhere.lake.root))
    again = elsewhere.step("evaluate", {"recipe": "pinfm", "resamples": 200, "seed": 1}, train=there)
    assert again.uri.startswith("memory://")
    for metric, (value, *_) in evaluated.metrics["headline"]["pinfm"].items():
        assert again.metrics["headline"]["pinfm"][metric][0] == pytest.approx(value, abs=1e-6)
    assert decide(elsewhere)["promoted"]


def test_a_split_that_was_learned_from_decides_nothing(vector_lab, trained, evaluate):
    challenge(vector_lab, trained, evaluate(split="validation", **FEW), "pinfm-seen")
    with pytest.raises(UserError, match=r"validation split .* lies inside what the challenger learned from"):
        vector_lab.step("promote", {"recipe": "pinfm"})


def test_only_positive_actions_are_asked_about(vector_lab, questions):
    """Everything that a user bought at a moment, and nothing that was only seen."""
    contract = vector_lab.spec.contract
    assert contract.indices(Role.POSITIVE) == [1]
    start, stop = contract.splits.interval("test")
    log = pl.read_parquet(vector_lab.lake.local_paths(vector_lab.lake.require("actions").output("actions")))
    bought = log.filter(pl.col("action") == "buy", pl.col("timestamp").is_between(start, stop, closed="left"))
    assert len(questions) == bought.select("user_id", "timestamp").n_unique()
    assert len(questions.item_P) == bought.select("user_id", "timestamp", "item_id").n_unique()
