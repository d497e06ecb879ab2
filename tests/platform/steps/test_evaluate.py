"""The step on a planted log: what it publishes, that the page says the manifest's numbers, and what a mistake meets."""

import json

import numpy as np
import polars as pl
import pytest

from components.errors import UserError
from components.models.ranker import load_ranker
from tests.platform.reporting.pages import Page


@pytest.fixture(scope="module")
def page(lab) -> Page:
    return Page(lab.lake.read_bytes(lab.evaluated.file("report", "report.html")).decode())


def found(metrics: dict, key: str) -> list[float]:
    """The number of the manifest's metrics that a cell's key names."""
    section, ranker, *metric = key.split(".", 2)
    value = metrics[section][ranker]
    return value[metric[0]] if metric else value


def test_the_page_shows_the_numbers_of_the_manifest(lab, page):
    shown = {k: v for k, v in page.cells.items() if not k.startswith("slices.")}
    assert {k.split(".")[0] for k in shown} == {"headline", "lift", "heads", "matched", "full", "diversity"}
    for key, cell in shown.items():
        repeated = key.startswith("heads.") and ".hit@3" in key
        if not repeated:
            assert cell == pytest.approx(found(lab.evaluated.metrics, key), abs=2e-6), key


def test_every_rival_is_compared_in_every_section(lab):
    rivals = {"noseq", "tree", "personal", "popularity"}
    metrics = lab.evaluated.metrics
    assert set(metrics["lift"]) == rivals
    for section in ("headline", "heads", "matched", "full", "diversity"):
        assert set(metrics[section]) == {"transact", *rivals}, section
    assert set(metrics["slices"]["all"]) == {"transact", *rivals}


def test_intervals_hold_their_estimates_and_differences_are_paired(lab):
    metrics = lab.evaluated.metrics
    for section in ("headline", "lift", "heads", "matched", "full"):
        for by_metric in metrics[section].values():
            for value, low, high in by_metric.values():
                assert low <= value <= high
    for rival, by_metric in metrics["lift"].items():
        for name, (gain, low, high) in by_metric.items():
            ours, theirs = metrics["headline"]["transact"][name], metrics["headline"][rival][name]
            assert gain == pytest.approx(ours[0] - theirs[0], abs=2e-6)
            assert high - low < (ours[2] - ours[1]) + (theirs[2] - theirs[1])


def test_hits_are_those_of_a_plain_loop_over_the_scores(lab):
    """The slow twin: sort each request, count what was chosen among the first three."""
    hits = []
    for _, request in lab.scores.group_by("request_id"):
        chosen = (request["labels"] & 1).to_numpy()
        if chosen.any():
            hits.append(chosen[np.argsort(-request["score/transact"].to_numpy(), kind="stable")[:3]].sum())
    assert lab.evaluated.metrics["headline"]["transact"]["hit@3"][0] == pytest.approx(np.mean(hits), abs=1e-6)


def test_scores_are_those_of_the_artifact_in_the_declared_utilities(lab):
    combined = lab.scores["probability/buy"] - 0.5 * lab.scores["probability/hide"]
    np.testing.assert_allclose(lab.scores["score/transact"], combined, atol=1e-6)
    assert lab.scores["probability/buy"].is_between(0, 1).all()


def test_what_was_planted_is_found(lab):
    headline = lab.evaluated.metrics["headline"]
    assert headline["transact"]["hit@3"][0] > lab.evaluated.metrics["chance"] * 1.5
    assert lab.evaluated.metrics["lift"]["popularity"]["hit@3"][1] > 0, "everybody buys from one category"
    assert headline["transact"]["hit@3/hide"][2] < headline["popularity"]["hit@3/hide"][1], "hides sink"


def test_the_ablation_differs_in_the_sequence_alone(lab):
    folder = lab.lake.local_path(lab.evaluated.file("ablation", "artifact.json")).parent
    without = load_ranker(folder)
    subject = load_ranker(lab.lake.local_path(lab.trained.file("artifact", "artifact.json")).parent)
    changed = {f for f in vars(subject.config) if getattr(subject.config, f) != getattr(without.config, f)}
    assert changed == {"sequence"}
    assert without.config.sequence == "none"
    assert (without.vectors, without.schema) == (subject.vectors, subject.schema)


def test_the_ablation_of_a_run_of_earlier_defaults_differs_in_the_sequence_alone(lab):
    """Defaults are today's; what the run was trained with is in its artifact."""
    params = {**lab.trained.params, "flavour": "default", "overrides": {}}
    train = lab.lake.publish(lab.trained.model_copy(update={"key": "earlier-defaults", "params": params}))
    manifest = lab.step("evaluate", {"resamples": 10, "max_requests": 20, "full_requests": 0}, train=train)
    configs = [
        json.loads(lab.lake.read_bytes(m.file(output, "artifact.json")))["config"]
        for m, output in ((train, "artifact"), (manifest, "ablation"))
    ]
    assert configs[1] == {**configs[0], "sequence": "none"}


def test_the_ablation_takes_as_many_rows_a_step_as_all_workers_did(lab):
    train = lab.lake.publish(
        lab.trained.model_copy(update={"key": "two-workers", "params": {**lab.trained.params, "workers": 2}})
    )
    small = {"resamples": 10, "max_requests": 20, "full_requests": 0}
    manifest = lab.step("evaluate", small, train=train)
    without = load_ranker(lab.lake.local_path(manifest.file("ablation", "artifact.json")).parent)
    subject = load_ranker(lab.lake.local_path(lab.trained.file("artifact", "artifact.json")).parent)
    assert without.config.requests_per_batch == 2 * subject.config.requests_per_batch


def test_each_ablation_asked_for_is_a_row_of_the_report(lab):
    few = {"ablation": False, "resamples": 10, "max_requests": 30, "full_requests": 0}
    names = ("Table 4: read-out max_pool", "append fusion")
    manifest = lab.step("evaluate", {**few, "ablations": names}, train=lab.trained)
    assert set(manifest.metrics["ablation_lift"]) == set(names)
    page = Page(lab.lake.read_bytes(manifest.file("report", "report.html")).decode())
    ours = manifest.metrics["ablations"]["transact"]["hit@3"][0]
    for name in names:
        theirs, difference = manifest.metrics["ablations"][name], manifest.metrics["ablation_lift"][name]
        assert difference["hit@3"][0] == pytest.approx(ours - theirs["hit@3"][0], abs=2e-6)
        for metric in ("hit@3", "auc/buy"):
            assert page.cells[f"ablation_lift.{name}.{metric}"] == pytest.approx(difference[metric], abs=2e-6)


def test_an_ablation_that_the_recipe_does_not_have_is_answered_with_those_it_has(lab):
    with pytest.raises(UserError, match="no ablation 'read-out'") as e:
        lab.step("evaluate", {"ablations": ("read-out",), "full_requests": 0}, train=lab.trained)
    assert "append fusion" in e.value.remedy


def test_without_the_ablation_the_other_rivals_stay(lab):
    small = {"ablation": False, "resamples": 10, "max_requests": 30, "full_requests": 0}
    manifest = lab.step("evaluate", small, train=lab.trained)
    assert set(manifest.metrics["lift"]) == {"tree", "personal", "popularity"}
    assert manifest.metrics["requests"] == 30
    assert manifest.metrics["full"] == {}
    text = Page(lab.lake.read_bytes(manifest.file("report", "report.html")).decode()).text
    assert "Everything that could have been shown" not in text
    assert "no sequence" not in text


def test_the_full_rankings_hold_every_item(lab):
    assert lab.evaluated.metrics["full_candidates"] == 60
    full = lab.evaluated.metrics["full"]["transact"]
    assert full["recall@10"][0] <= full["recall@50"][0] <= 1
    assert full["hit@3"][0] <= full["hit@10"][0]


def test_slices_divide_what_was_chosen(lab, page):
    slices = lab.evaluated.metrics["slices"]
    chosen = lab.evaluated.metrics["slice_chosen"]
    assert chosen["core users"] + chosen["other users"] == chosen["all"] == lab.evaluated.metrics["chosen"]
    assert chosen["chosen before by the user"] + chosen["new to the user"] == chosen["all"]
    weeks = [n for n in chosen if n.startswith("week ")]
    assert len(weeks) >= 1
    assert sum(chosen[w] for w in weeks) == chosen["all"]
    for name, by_ranker in slices.items():
        for ranker, interval in by_ranker.items():
            assert page.cells[f"slices.{name}.{ranker}"] == pytest.approx(interval, abs=2e-6)


def test_the_page_asks_the_network_for_nothing(page):
    assert page.links
    assert all(link.startswith("#") for link in page.links), page.links


def test_the_page_says_which_item_vectors_the_ranker_reads(lab, page):
    assert lab.features.metrics["vectors"] in page.text


def test_the_page_says_what_the_exposures_are(lab, page):
    assert "inferred exposures" not in page.text
    contract = lab.spec.contract.model_copy(update={"exposures": "inferred"})
    inferred = type(lab)(
        lab.settings, lab.lake, lab.features, lab.scratch, lab.spec.model_copy(update={"contract": contract})
    )
    small = {"ablation": False, "resamples": 10, "max_requests": 30, "full_requests": 0}
    manifest = inferred.step("evaluate", small, train=lab.trained)
    text = Page(lab.lake.read_bytes(manifest.file("report", "report.html")).decode()).text
    assert "inferred exposures" in text


def test_a_split_that_the_ranker_was_stopped_by_is_called_so(lab, page):
    assert "all later than anything the ranker learned from" in page.text
    small = {"ablation": False, "resamples": 10, "full_requests": 0, "split": "validation"}
    manifest = lab.step("evaluate", small, train=lab.trained)
    text = Page(lab.lake.read_bytes(manifest.file("report", "report.html")).decode()).text
    assert "which flatters it" in text
    assert "all later than" not in text


def test_run_again_nothing_is_computed(lab):
    again = lab.step("evaluate", {"resamples": 200}, train=lab.trained)
    assert again.uri == lab.evaluated.uri
    assert lab.lake.latest("evaluations/transact").uri == lab.evaluated.uri


def test_a_split_without_rows_is_answered(lab):
    rows = lab.features.output("examples")
    kept = rows.model_copy(update={"files": tuple(f for f in rows.files if f.partition != "test")})
    outputs = {**lab.features.outputs, "examples": kept}
    cut = lab.lake.publish(lab.features.model_copy(update={"key": "no-test", "outputs": outputs}))
    with pytest.raises(UserError, match="no examples of split 'test'") as e:
        lab.step("evaluate", {"ablation": False}, train=lab.trained, features=cut)
    assert "covers the split's dates" in e.value.remedy


def test_an_unknown_parameter_is_answered_with_those_that_exist(lab):
    with pytest.raises(UserError, match="spilt") as e:
        lab.step("evaluate", {"spilt": "test"}, train=lab.trained)
    assert "max_requests" in e.value.remedy


def test_scores_name_request_user_and_item(lab):
    rows = pl.scan_parquet([lab.lake.local_path(u) for u in lab.features.output("examples").partition("test")])
    candidates = rows.select(pl.col("candidate_item").list.len().sum()).collect().item()
    assert lab.scores.height == candidates == lab.evaluated.metrics["rows"]
    assert lab.scores.select("request_id", "item").is_unique().all()
