"""Item vectors through the step on a planted log: the page says the manifest's numbers, plain loops say the same."""

import numpy as np
import polars as pl
import pytest

from components.errors import UserError
from components.evaluation.related import spread
from pinloom.evaluation.related import Scale
from pinloom.evaluation.vectors import Tables, open_model, search_of, vectors_of
from tests.platform.evaluation import shelved
from tests.platform.lake.examples import mirrored
from tests.platform.reporting.pages import Page

RIVALS = {"compact", "content", "co-occurrence", "damped co-occurrence", "walk", "followers", "popularity"}
FEW = {"resamples": 10, "max_pairs": 100}


@pytest.fixture(scope="module")
def page(vector_lab) -> Page:
    return read(vector_lab, vector_lab.evaluated)


def read(lab, manifest) -> Page:
    return Page(lab.lake.read_bytes(manifest.file("report", "report.html")).decode())


@pytest.fixture(scope="module")
def tables(vector_lab) -> Tables:
    return Tables.of(vector_lab.lake, vector_lab.evaluated)


@pytest.fixture(scope="module")
def vectors(vector_lab, tables) -> np.ndarray:
    return vectors_of(open_model(vector_lab.lake, vector_lab.trained), tables.catalogue)


def test_the_model_is_opened_from_any_store(vector_lab, vectors, tables, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lake = mirrored(vector_lab.lake)
    there = lake.manifest(vector_lab.trained.uri.replace(vector_lab.lake.root, lake.root))
    np.testing.assert_array_equal(vectors_of(open_model(lake, there), tables.catalogue), vectors)


def found(metrics: dict, key: str) -> list[float]:
    section, who, *metric = key.split(".", 2)
    value = metrics[section][who]
    return value[metric[0]] if metric else value


def test_the_page_shows_the_numbers_of_the_manifest(vector_lab, page):
    shown = {k.split(".")[0] for k in page.cells}
    assert shown == {"headline", "lift", "matched", "slices"}
    for key, cell in page.cells.items():
        assert cell == pytest.approx(found(vector_lab.evaluated.metrics, key), abs=2e-6), key


def test_every_rival_is_compared_in_every_section(vector_lab):
    metrics = vector_lab.evaluated.metrics
    assert set(metrics["lift"]) == RIVALS
    for section in ("headline", "matched"):
        assert set(metrics[section]) == {"pinsage", *RIVALS}, section
    assert set(metrics["slices"]["all pairs"]) == {"pinsage", *RIVALS}


def test_hits_and_ranks_are_those_of_a_plain_sort(vector_lab, tables, vectors):
    """The slow twin: sort all items for each pair, look for the positive."""
    pairs = tables.pairs("test")
    places = []
    for query, positive in pairs.select("query", "positive").iter_rows():
        order = [i for i in np.argsort(-(vectors @ vectors[query]), kind="stable") if i not in (0, query)]
        places.append(order.index(positive) + 1)
    weight = pairs["weight"].to_numpy().astype(float)
    headline = vector_lab.evaluated.metrics["headline"]["pinsage"]
    for k in (10, 20):
        expected = np.average(np.array(places) <= k, weights=weight)
        assert headline[f"hit@{k}"][0] == pytest.approx(expected, abs=2e-3)
    assert headline["mrr"][0] == pytest.approx(np.average(1 / np.array(places), weights=weight), abs=2e-3)


def test_the_right_one_is_matched_with_items_chosen_about_as_often(vector_lab, tables, vectors):
    train = tables.pairs("train")
    chosen = np.bincount(train["positive"], train["weight"], len(vectors))
    above, total = 0.0, 0.0
    for query, positive, weight in tables.pairs("test").select("query", "positive", "weight").iter_rows():
        alike = np.flatnonzero(np.floor(np.log2(chosen)) == np.floor(np.log2(chosen[positive])))
        others = [i for i in alike if i not in (0, query, positive)]
        score = vectors @ vectors[query]
        if len(alike) >= 20:
            above += weight * np.mean([score[positive] > score[i] for i in others])
            total += weight
    metrics = vector_lab.evaluated.metrics
    assert metrics["matched_pairs"] <= metrics["pairs"]
    assert metrics["matched"]["pinsage"]["beaten"][0] == pytest.approx(above / total, abs=2e-3)


def test_what_was_planted_is_found_where_popularity_says_nothing(vector_lab):
    metrics = vector_lab.evaluated.metrics
    gate = metrics["gate"]
    assert metrics["lift"]["content"][gate][1] > 0
    assert metrics["lift"]["popularity"][gate][1] > 0
    assert metrics["matched"]["pinsage"]["beaten"][1] > 0.6
    assert metrics["matched"]["popularity"]["beaten"][0] == pytest.approx(0.5, abs=0.1)


def test_intervals_hold_their_estimates_and_differences_are_paired(vector_lab):
    metrics = vector_lab.evaluated.metrics
    for who, by_metric in metrics["lift"].items():
        for name, (gain, low, high) in by_metric.items():
            ours, theirs = metrics["headline"]["pinsage"][name], metrics["headline"][who][name]
            assert low <= gain <= high
            assert gain == pytest.approx(ours[0] - theirs[0], abs=2e-6)


def test_the_bootstrap_draws_users(vector_lab, tables):
    users = tables.pairs("test")["user_hash"].n_unique()
    metrics = vector_lab.evaluated.metrics
    assert metrics["units"] == users < metrics["pairs"]
    assert metrics["unit"] == "users"


def test_cold_items_are_those_on_no_board_before_the_split(vector_lab, tables):
    kept = shelved.boards().filter(pl.col("timestamp").dt.date() < tables.until)["item_id"]
    warm = np.zeros(len(tables.items), bool)
    warm[tables.items.rows(kept)] = True
    pairs = tables.pairs("test")
    counted = vector_lab.evaluated.metrics["slice_pairs"]
    assert counted["cold query"] == (~warm[pairs["query"].to_numpy()]).sum() > 0
    assert counted["cold positive"] == (~warm[pairs["positive"].to_numpy()]).sum() > 0
    both = warm[pairs["query"].to_numpy()] & warm[pairs["positive"].to_numpy()]
    assert counted["neither cold"] == both.sum()


def test_scores_say_where_each_pair_stands_for_everybody(vector_lab):
    scores, metrics = vector_lab.scores, vector_lab.evaluated.metrics
    assert scores.height == metrics["pairs"]
    for who in ("pinsage", *RIVALS):
        hit = np.clip((20 - scores[f"above/{who}"]) / scores[f"equal/{who}"], 0, 1)
        assert np.average(hit, weights=scores["weight"]) == pytest.approx(
            metrics["headline"][who]["hit@20"][0], abs=1e-6
        )


def test_similarity_is_that_of_random_items(vector_lab, tables, vectors):
    said = vector_lab.evaluated.metrics["similarity"]
    assert said["pinsage"]["kurtosis"] == pytest.approx(spread(vectors).kurtosis, abs=1e-3)
    assert said["content"]["kurtosis"] == pytest.approx(spread(tables.items.vectors).kurtosis, abs=1e-3)


def test_there_are_a_map_and_ten_neighbourhoods_by_title(vector_lab, page, tables):
    text = vector_lab.lake.read_bytes(vector_lab.evaluated.file("report", "report.html")).decode()
    assert text.count('<article class="case">') == 10
    assert text.count("chosen next</span>") == 10
    assert sum(str(title) in page.text for title in tables.items.title[1:]) > 10
    for category in ("wool", "linen", "silk", "felt"):
        assert category in page.text
    assert "t-SNE" in page.text


def test_the_page_asks_the_network_for_nothing(page):
    assert page.links
    assert all(link.startswith("#") for link in page.links), page.links


def test_a_run_is_evaluated_on_what_it_read_wherever_the_pointers_are_now(vector_lab):
    other = vector_lab.beside("graph", {"until": "2026-01-10"})
    pointer = vector_lab.lake.require("graph")
    vector_lab.lake.advance("graph", lambda _: other)
    again = vector_lab.evaluate()
    vector_lab.lake.advance("graph", lambda _: pointer)
    assert again.uri == vector_lab.evaluated.uri
    assert again.inputs["graph"]["uri"] == vector_lab.trained.inputs["graph"]["uri"] != other.uri


def test_a_graph_with_edges_of_the_split_is_refused(vector_lab):
    graph = vector_lab.beside("graph", {"until": "2026-02-04"})
    near = vector_lab.beside("neighbourhoods", shelved.WALK, graph=graph)
    train = vector_lab.run("on-a-late-graph", graph=graph, neighbourhoods=near)
    with pytest.raises(UserError, match="holds edges up to 2026-02-04, the test split begins on 2026-02-02") as e:
        vector_lab.step("evaluate", {"recipe": "pinsage"}, train=train)
    assert "until=2026-02-02" in e.value.remedy


def test_a_graph_up_to_the_split_is_taken(vector_lab):
    graph = vector_lab.beside("graph", {"until": "2026-02-02"})
    near = vector_lab.beside("neighbourhoods", shelved.WALK, graph=graph)
    train = vector_lab.run("on-a-full-graph", graph=graph, neighbourhoods=near)
    assert len(search_of(Tables.of(vector_lab.lake, train), "test").pairs) == vector_lab.evaluated.metrics["pairs"]


@pytest.mark.parametrize(("user", "on_one_board"), [(pl.col("user_hash"), False), (pl.lit(0, pl.Int32), True)])
def test_a_graph_of_before_pairs_were_named_shows_by_their_users_whether_they_are_of_boards(
    vector_lab, tables, user, on_one_board
):
    graph, key = tables.graph, f"unnamed-{on_one_board}"
    writer = vector_lab.lake.writer("graph", key, "pairs", "0")
    for split in ("train", "validation", "test"):
        writer.parquet(f"{split}.parquet", tables.pairs(split).with_columns(user_hash=user), partition=split)
    metrics = {name: value for name, value in graph.metrics.items() if name != "pairs_of"}
    outputs = {**graph.outputs, "pairs": writer.output()}
    old = vector_lab.lake.publish(graph.model_copy(update={"key": key, "metrics": metrics, "outputs": outputs}))
    train = vector_lab.run(key, graph=old)
    assert search_of(Tables.of(vector_lab.lake, train), "test").together == on_one_board


def test_a_split_that_stopped_the_training_is_called_so(vector_lab, page):
    assert "later than anything that PinSage learned from" in page.text
    text = read(vector_lab, vector_lab.evaluate(split="validation", **FEW)).text
    assert "which flatters it" in text
    assert "later than anything" not in text


def test_a_split_without_pairs_is_answered(vector_lab):
    graph = vector_lab.lake.manifest(vector_lab.trained.inputs["graph"]["uri"])
    pairs = graph.output("pairs")
    kept = pairs.model_copy(update={"files": tuple(f for f in pairs.files if f.partition != "test")})
    outputs = {**graph.outputs, "pairs": kept}
    cut = vector_lab.lake.publish(graph.model_copy(update={"key": "no-test-pairs", "outputs": outputs}))
    with pytest.raises(UserError, match="no pairs of split 'test'") as e:
        vector_lab.step("evaluate", {"recipe": "pinsage"}, train=vector_lab.run("no-test-pairs", graph=cut))
    assert "ingest the split's days" in e.value.remedy


def test_each_ablation_asked_for_is_a_row_of_the_report(vector_lab):
    names = ("Table 1: max pooling", "Table 4: T = 10", "cross-entropy loss")
    manifest = vector_lab.evaluate(ablations=names, **FEW)
    # The subject itself has that loss: nothing is to be compared.
    assert set(manifest.metrics["ablation_lift"]) == set(names[:2])
    page = read(vector_lab, manifest)
    assert "PinSage itself is: cross-entropy loss." in page.text
    ours = manifest.metrics["ablations"]["pinsage"]["hit@20"][0]
    for name in names[:2]:
        theirs, difference = manifest.metrics["ablations"][name], manifest.metrics["ablation_lift"][name]
        assert difference["hit@20"][0] == pytest.approx(ours - theirs["hit@20"][0], abs=2e-6)
        assert page.cells[f"ablation_lift.{name}.hit@20"] == pytest.approx(difference["hit@20"], abs=2e-6)


def test_short_vectors_made_another_way_stand_beside_the_subjects(vector_lab):
    manifest = vector_lab.evaluate(ablations=("projection by PCA",), **FEW)
    assert set(manifest.metrics["headline"]) == {"pinsage", *RIVALS, "compact, PCA"}
    assert set(manifest.metrics["ablation_lift"]) == {"projection by PCA"}
    # Another row may shorten by PCA too, of vectors that were learned otherwise.
    both = vector_lab.evaluate(ablations=("projection by PCA", "the paper's objective"), **FEW)
    assert both.metrics["headline"] == manifest.metrics["headline"]
    text = read(vector_lab, manifest).text
    assert "The same, shortened" in text
    assert "Shortened by PCA" in text


def test_run_again_nothing_is_computed(vector_lab):
    assert vector_lab.evaluate().uri == vector_lab.evaluated.uri


@pytest.mark.parametrize(
    ("items", "ks", "mrr"),
    [(5_000_000, (10, 50, 500), 100), (92_000, (10, 50, 500), 100), (4_000, (10, 50, 200), 8), (30, (1,), 1)],
)
def test_what_counts_as_high_scales_with_the_catalogue(items, ks, mrr):
    assert Scale.of(items) == Scale(ks, mrr)
