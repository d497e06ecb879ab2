"""SASRec through evaluate and promote: the questions, rivals and page of every model of sequences."""

import json

import numpy as np
import pytest

from components.errors import UserError
from components.models.sasrec.recipe import SASRecRecipe
from pinloom.evaluation.scoring import open_items
from pinloom.evaluation.sequence import learned, questions_of, scorer_of
from tests.platform.evaluation.shelved import topic_of
from tests.platform.reporting.pages import Page

RIVALS = {"popularity", "personal", "followers", "content"}


@pytest.fixture(scope="module")
def trained(vector_lab):
    return vector_lab.train("sasrec-base", recipe="sasrec", epochs=40, dim=32, ffn=32, patience=None)


@pytest.fixture(scope="module")
def evaluated(vector_lab, trained):
    params = {"recipe": "sasrec", "resamples": 200, "ablations": ("uniform negatives",)}
    return vector_lab.step("evaluate", params, train=trained)


def test_its_page_shows_the_rivals_that_all_models_of_sequences_have(vector_lab, evaluated):
    page = Page(vector_lab.lake.read_bytes(evaluated.file("report", "report.html")).decode())
    assert set(evaluated.metrics["headline"]) == {"sasrec", *RIVALS}
    assert set(evaluated.metrics["ablation_lift"]) == {"uniform negatives"}
    assert "SASRec on" in page.text
    assert "later than anything that SASRec learned from" in page.text
    for who in RIVALS:
        shown, said = page.cells[f"lift.{who}.recall@10"], evaluated.metrics["lift"][who]["recall@10"]
        assert shown == pytest.approx(said, abs=2e-6)


def test_what_was_planted_is_learned(vector_lab, trained, evaluated):
    """Three of a day's four purchases follow another of the same topic, of twenty items."""
    assert evaluated.metrics["lift"]["popularity"]["recall@10"][1] > 0.1
    assert evaluated.metrics["lift"]["personal"]["recall@10"][1] > 0.1
    items = open_items(vector_lab.lake, vector_lab.features)
    questions = questions_of(vector_lab.lake, vector_lab.features, vector_lab.spec.contract, "test", 5_000)
    last = questions.events["item"][questions.end_Q - 1]
    highest = scorer_of(vector_lab.lake, trained, questions, items)(np.arange(len(questions))).argmax(1)
    same = [topic_of(items.ids[int(a)]) == topic_of(items.ids[int(b)]) for a, b in zip(last, highest, strict=True)]
    assert np.mean(same) > 0.8


def test_it_is_asked_what_pinfm_is_asked(vector_lab, evaluated):
    questions = questions_of(vector_lab.lake, vector_lab.features, vector_lab.spec.contract, "test", 5_000)
    assert evaluated.metrics["questions"] == len(questions)
    assert evaluated.metrics["gate"] == "recall@10"


def test_a_first_champion_beats_popularity(vector_lab, trained, evaluated):
    vector_lab.lake.advance("evaluations/sasrec", lambda _: evaluated)
    manifest = vector_lab.step("promote", {"recipe": "sasrec"})
    decision = json.loads(vector_lab.lake.read_bytes(manifest.file("decision", "decision.json")))
    assert decision["promoted"]
    assert decision["rival"] == "popularity"
    assert vector_lab.lake.latest("champions/sasrec").key == trained.key


def test_it_says_what_it_learned_from(vector_lab, trained):
    span, contract = learned(vector_lab.lake, trained), vector_lab.spec.contract
    assert span.first < contract.splits.interval("validation")[0]
    assert 0 < (contract.splits.interval("test")[0] - span.last).total_seconds() < 1


def test_a_split_that_chose_the_epoch_decides_nothing(vector_lab, trained):
    params = {"recipe": "sasrec", "resamples": 20, "max_questions": 50, "split": "validation"}
    other = vector_lab.lake.publish(trained.model_copy(update={"key": "sasrec-seen"}))
    vector_lab.step("evaluate", params, train=other)
    with pytest.raises(UserError, match=r"validation split .* lies inside what the challenger learned from"):
        vector_lab.step("promote", {"recipe": "sasrec"})


def test_an_ablation_that_cannot_be_is_left_out_with_a_warning(vector_lab, trained, monkeypatch, caplog):
    monkeypatch.setattr(SASRecRecipe, "ablations", {"another loss": {"loss": "hinge"}, "no layer": {"layers": 0}})
    params = {"recipe": "sasrec", "resamples": 20, "max_questions": 50, "ablations": ("all",), "seed": 1}
    manifest = vector_lab.step("evaluate", params, train=trained)
    assert set(manifest.metrics["ablation_lift"]) == {"no layer"}
    assert "the ablation 'another loss' is left out: loss is 'hinge'" in caplog.text
