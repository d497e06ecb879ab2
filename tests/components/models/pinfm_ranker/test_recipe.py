"""PinFM fine-tuned through its recipe: what an artifact keeps, what is refused, what is learned."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from components.errors import UserError
from components.models.pinfm_ranker.config import ABLATIONS, PinFMRankerConfig
from components.models.ranker import load_ranker
from components.nn.hashed import HashedTables
from components.recipe import Rank, make_recipe
from tests.components.models.pinfm_ranker.conftest import ALONE, pretrained, write_base
from tests.components.models.transact.test_recipe import trained


@pytest.mark.parametrize("change", [{}, {"base": "none"}, {"pinfm_fusion": "lite_last"}, {"sequence": "none"}], ids=str)
def test_an_artifact_scores_like_the_model_and_needs_no_base(make, change, tmp_path):
    recipe = make(**change)
    torch.manual_seed(0)
    model = recipe.build_model().eval()
    recipe.export(model, tmp_path)
    artifact = load_ranker(tmp_path)
    assert artifact.config == recipe.config
    assert set(artifact.model.sequences) == set(model.sequences)
    batch = next(recipe.validation_batches(Rank()))
    torch.testing.assert_close(artifact.score(batch)[0], torch.sigmoid(model(batch)).detach(), rtol=0, atol=1e-6)


def test_two_modules_stand_side_by_side(make):
    both, transact, pinfm = (make(**c).build_model() for c in ({}, {"base": "none"}, {"sequence": "none"}))
    assert set(both.sequences) == {"actions", "pinfm"}
    widths = [m.cross.layers[0].in_features for m in (both, transact, pinfm)]
    none = make(**ABLATIONS["noseq"]).build_model().cross.layers[0].in_features
    assert widths[0] - none == widths[1] - none + widths[2] - none


def test_served_weights_stay_in_the_file_that_replicas_share(make, tmp_path):
    recipe = make()
    recipe.export(recipe.build_model().eval(), tmp_path)
    table = load_ranker(tmp_path).model.modules_by_name["pinfm"].base.table.weight
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    spans = [[int(end, 16) for end in line[0].split("-")] for line in mapped]
    assert any(first <= table.data_ptr() < last for first, last in spans)


@pytest.mark.parametrize(("bits", "most"), [(8, 0.003), (4, 0.05)])
@torch.no_grad()
def test_a_quantised_table_is_mapped_and_scores_almost_alike(make, tmp_path, bits, most):
    """Rows of 8 values: a row is 12 bytes in int8 and 8 in int4, instead of 32."""
    recipe = make(table_bits=bits)
    torch.manual_seed(0)
    model = recipe.build_model().eval()
    recipe.export(model, tmp_path)
    table = model.modules_by_name["pinfm"].base.table
    assert (tmp_path / "rows.npy").stat().st_size - 128 == len(table.weight) * (8 * bits // 8 + 4)
    artifact = load_ranker(tmp_path)
    loaded = artifact.model.modules_by_name["pinfm"].base.table
    assert len(loaded.weight) == 0
    key = torch.tensor([*range(1, 50), -1])
    exact, packed = table(key), loaded(key)
    assert 0 < float((packed - exact).norm() / exact.norm()) < (0.1 if bits == 4 else 0.01)
    assert not packed[-1].any()
    batch = next(recipe.validation_batches(Rank()))
    apart = (artifact.score(batch)[0] - torch.sigmoid(model(batch))).abs()
    assert 0 < float(apart.max()) < most


def test_a_trained_table_is_quantised_without_training_again(make, tmp_path):
    torch.manual_seed(0)
    model = make().build_model().eval()
    make().export(model, tmp_path / "float")
    make(table_bits=8).export_again(tmp_path / "float", tmp_path / "again")
    with_bits = make(table_bits=8)
    quantised = with_bits.build_model().eval()
    quantised.load_state_dict(model.state_dict())
    with_bits.export(quantised, tmp_path / "int8")
    again, direct = (load_ranker(tmp_path / name) for name in ("again", "int8"))
    batch = next(with_bits.validation_batches(Rank()))
    assert again.config.table_bits == 8
    torch.testing.assert_close(again.score(batch)[0], direct.score(batch)[0], rtol=0, atol=0)
    with pytest.raises(UserError, match="do not fit its description"):
        make(table_bits=4).export_again(tmp_path / "int8", tmp_path / "twice")


def test_weights_that_do_not_fit_the_description_are_refused(make, tmp_path):
    recipe = make()
    recipe.export(recipe.build_model(), tmp_path)
    said = json.loads((tmp_path / "artifact.json").read_text())
    said["config"]["graph"] = "vector"
    (tmp_path / "artifact.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match=r"do not fit its description: sequences\.pinfm\.token"):
        load_ranker(tmp_path)


def test_a_base_of_another_version_inside_an_artifact_is_refused(make, tmp_path):
    recipe = make()
    recipe.export(recipe.build_model(), tmp_path)
    said = json.loads((tmp_path / "artifact.json").read_text())
    said["config"]["pinfm"]["depth"] = 3
    (tmp_path / "artifact.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match=r"does not know: pinfm\.depth"):
        load_ranker(tmp_path)


@pytest.mark.parametrize("bits", [32, 8])
def test_a_replica_draws_no_table_of_its_own(make, tmp_path, monkeypatch, bits):
    recipe = make(table_bits=bits)
    recipe.export(recipe.build_model(), tmp_path)
    monkeypatch.setattr(HashedTables, "draw", lambda *_: pytest.fail("a table was drawn"))
    module = load_ranker(tmp_path).model.modules_by_name["pinfm"]
    assert not any(p.is_meta for p in module.parameters())


def test_a_base_from_scratch_is_another_one_by_the_run_s_seed(with_base):
    tables = [
        make_recipe("pinfm_ranker", replace(with_base, seed=seed), "debug", {"base": "scratch"}).build_model()
        for seed in (1, 1, 2)
    ]
    one, again, other = (m.modules_by_name["pinfm"].base.table.weight for m in tables)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_rows_that_the_base_was_pretrained_on_are_left_out(with_base, tmp_path):
    rows = pl.read_parquet(with_base.files("examples/train"))["timestamp"].cast(pl.Int64)
    until = int(rows.sort()[len(rows) // 2])
    inputs = replace(with_base, tables={**with_base.tables, "artifact": write_base(tmp_path, trained_until=until)})
    for base in ("tuned", "none"):
        some = make_recipe("pinfm_ranker", inputs, "debug", {"unseen_rows": True, "base": base})
        seen = torch.cat([b.sequence.request_time_U for b in some.train_batches(Rank())])
        assert int(seen.min()) >= until
        assert sum(map(len, some.pieces)) == len(rows) - len(rows) // 2
        assert some.summary != make_recipe("pinfm_ranker", inputs, "debug").summary
    everything = make_recipe("pinfm_ranker", inputs, "debug")
    assert min(int(b.sequence.request_time_U.min()) for b in everything.train_batches(Rank())) < until


def test_a_base_that_has_seen_every_row_leaves_none(with_base, tmp_path):
    end = round(with_base.contract.splits.interval("train")[1].timestamp() * 1e6)
    inputs = replace(with_base, tables={**with_base.tables, "artifact": write_base(tmp_path, trained_until=end)})
    with pytest.raises(UserError, match="no row is unseen"):
        make_recipe("pinfm_ranker", inputs, "debug", {"unseen_rows": True})


def test_a_base_with_other_actions_is_refused(with_base, tmp_path):
    files = write_base(tmp_path)
    said = json.loads((tmp_path / "artifact.json").read_text())
    (tmp_path / "artifact.json").write_text(json.dumps({**said, "actions": ["save", "buy", "impression"]}))
    inputs = replace(with_base, tables={**with_base.tables, "artifact": files})
    with pytest.raises(UserError, match="the base knows the actions save, buy, impression"):
        make_recipe("pinfm_ranker", inputs, "debug")


def test_the_sizes_are_those_of_the_base(with_base, tmp_path):
    inputs = replace(with_base, tables={**with_base.tables, "artifact": write_base(tmp_path, dim=16, rows=77)})
    recipe = make_recipe("pinfm_ranker", inputs, "debug")
    assert recipe.config.pinfm.dim == 16
    assert recipe.build_model().modules_by_name["pinfm"].base.table.rows == 77


WRONG = [
    {"base": "best"},
    {"pinfm_fusion": "late"},
    {"graph": "token"},
    {"module_loss": 0.0},
    {"table_bits": 2},
    {"dropout_7d": 1.0},
    {"dropout_28d": -0.1},
    {"random_candidates": 2.0},
    {"slots": 2},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_choice_is_refused(wrong):
    with pytest.raises(UserError):
        PinFMRankerConfig(**wrong)


@pytest.mark.scale
def test_where_histories_say_which_items_are_alike_the_pretrained_base_finds_what_scratch_does_not(with_base, tmp_path):
    """Only the history tells what a user likes, and by ids alone: neither TransAct nor the items' vectors are there."""
    inputs = pretrained(with_base, tmp_path)
    tuned, slow, scratch = (
        trained(make_recipe("pinfm_ranker", inputs, "debug", {**ALONE, "base": base, "pinfm_learning_rate": rate}))[1]
        for base, rate in (("tuned", 1.0), ("tuned", 0.1), ("scratch", 1.0))
    )
    assert tuned["hit@3/save"] > 1.5
    assert slow["hit@3/save"] > scratch["hit@3/save"] + 0.2
    assert scratch["hit@3/save"] < 0.8
