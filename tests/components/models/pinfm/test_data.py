"""Histories as segments, and what predicts what: against loops that say it one event at a time."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.contract import Contract, Ties
from components.errors import UserError
from components.history.keys import key
from components.models.pinfm.config import PinFMConfig
from components.models.pinfm.data import SegmentCollator
from components.models.pinfm.negatives import ItemCounts
from components.models.pinfm.segments import Cut, Segments, events_of
from components.models.pinfm.steps import Steps
from components.models.source import ParquetSource
from components.recipe import Rank

HIDE, SAVE = 2, 1
LISTS = {"item_key": pl.Int64, "action": pl.Int16, "surface": pl.Int32, "timestamp": pl.Int64}


def contract(ties: Ties = Ties.UNORDERED) -> Contract:
    return Contract.model_validate(
        {
            "name": "c",
            "actions": [{"name": "save", "role": "positive"}, {"name": "hide", "role": "negative"}],
            "ties": ties,
            "splits": {"burn_in": "2020-01-01", "validation": "2020-02-01", "test": "2020-03-01", "end": "2020-04-01"},
        }
    )


def histories(users: list[list[tuple[int, int, int]]]) -> pl.DataFrame:
    """Each user a list of (item, action, time), oldest first; stored newest first. The surface is item + 1."""
    rows = [
        {
            "user_id": f"u{n}",
            "item_key": [e[0] for e in reversed(events)],
            "action": [e[1] for e in reversed(events)],
            "surface": [e[0] + 1 for e in reversed(events)],
            "timestamp": [e[2] for e in reversed(events)],
        }
        for n, events in enumerate(users)
    ]
    return pl.DataFrame(rows, schema={"user_id": pl.String, **{n: pl.List(t) for n, t in LISTS.items()}})


event = st.tuples(st.integers(1, 8), st.sampled_from([SAVE, SAVE, HIDE]), st.integers(0, 9))
logs = st.lists(st.lists(event, max_size=25).map(lambda es: sorted(es, key=lambda e: e[2])), max_size=5)


def plain_segments(users, stop, length, most):
    """[(user key, events oldest first)]: from the newest event backwards, `length` at a time."""
    found = []
    for n, events in enumerate(users):
        left = [e for e in events if e[2] < stop][-most:]
        while len(left) > 1:
            found.append((key(f"u{n}"), left[-length:]))
            left = left[:-length]
    return found


@given(logs, st.integers(0, 10), st.integers(2, 6), st.integers(2, 20))
@settings(max_examples=50, deadline=None)
def test_segments_are_cut_from_the_newest_event_backwards(users, stop, length, most):
    cut = Cut(stop, length, most)(histories(users).to_arrow())
    found = [
        (row["user"], list(zip(row["item_key"], row["action"], row["timestamp"], strict=True)))
        for row in cut.to_pylist()
    ]
    assert all(row["surface"] == [k + 1 for k in row["item_key"]] for row in cut.to_pylist())
    expected = plain_segments(users, stop, length, most)
    assert sorted(found) == sorted((u, list(s)) for u, s in expected)


def plain_steps(events, ties):
    """[[place of each event of a step]]."""
    steps: list[list[int]] = []
    for n, e in enumerate(events):
        if steps and ties is Ties.UNORDERED and events[steps[-1][0]][2] == e[2]:
            steps[-1].append(n)
        else:
            steps.append([n])
    return steps


def plain_pairs(segments, ties, window, downstream):
    """Section 3.2 as it is written, over steps: {loss: {(source event, target event)}} by place in all segments."""
    found: dict[str, list[tuple[int, int]]] = {"ntl": [], "mtl": [], "ftl": []}
    begin = 0
    for events in segments:
        steps = plain_steps(events, ties)
        for s, step in enumerate(steps):
            ahead = steps[s + 1 : s + 1 + window]
            positives = [[p for p in later if events[p][1] == SAVE] for later in ahead]
            source = begin + step[-1]
            if positives:
                items = {events[p][0]: p for p in reversed(positives[0])}
                found["ntl"] += [(source, begin + p) for p in items.values()]
            found["mtl"] += [(source, begin + p) for later in positives for p in later]
            if downstream - 1 in step and len(events) > downstream:
                found["ftl"] += [(begin + downstream - 1, begin + p) for later in positives for p in later]
        begin += len(events)
    return found


def steps_of(segments, ties) -> Steps:
    flat = [e for s in segments for e in s]
    number = np.repeat(np.arange(len(segments)), [len(s) for s in segments])
    item, action, time = (np.array([e[c] for e in flat], np.int64) for c in range(3))
    return Steps.of(number, item, time, action == SAVE, ties)


segments_of = st.lists(
    st.lists(event, min_size=2, max_size=20).map(lambda es: sorted(es, key=lambda e: e[2])), max_size=4
)


@given(segments_of.filter(bool), st.sampled_from(list(Ties)), st.integers(1, 4), st.integers(1, 8))
@example([[(1, 1, 0), (1, 1, 0), (8, 1, 0), (2, 1, 0), (1, 1, 0), (1, 1, 0)]], Ties.ORDERED, 1, 1)
@settings(max_examples=60, deadline=None)
def test_each_loss_predicts_what_the_paper_says_of_steps(segments, ties, window, downstream):
    steps = steps_of(segments, ties)
    expected = plain_pairs(segments, ties, window, downstream)
    rng = np.random.default_rng(0)
    found = {
        "ntl": steps.next_token(),
        "mtl": steps.multi_token(window, 0, rng),
        "ftl": steps.future_token(window, downstream),
    }
    for name, pairs in found.items():
        assert sorted(zip(pairs.source, pairs.target, strict=True)) == sorted(expected[name]), name
        sources = {s for s, _ in expected[name]}
        for source in sources:
            assert pairs.weight[pairs.source == source].sum() == pytest.approx(1 / len(sources))


@given(segments_of.filter(bool), st.sampled_from(list(Ties)), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_picked_targets_are_of_the_window_and_every_step_that_has_any_picks(segments, ties, window, picks):
    allowed = set(plain_pairs(segments, ties, window, 1)["mtl"])
    pairs = steps_of(segments, ties).multi_token(window, picks, np.random.default_rng(0))
    assert set(zip(pairs.source, pairs.target, strict=True)) <= allowed
    assert sorted(pairs.source) == sorted(s for s in {s for s, _ in allowed} for _ in range(picks))


def test_picks_are_drawn_evenly():
    steps = steps_of([[(1, SAVE, 0), *((n, SAVE, 1 + n % 3) for n in range(2, 8))]], Ties.ORDERED)
    pairs = steps.multi_token(6, 20_000, np.random.default_rng(0))
    counts = np.bincount(pairs.target[pairs.source == 0], minlength=7)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / 20_000, 1 / 6, atol=0.01)


USERS = [
    [(1, SAVE, 0), (2, SAVE, 0), (3, SAVE, 1), (4, HIDE, 2), (1, SAVE, 3)],
    [(5, SAVE, 0), (3, SAVE, 1)],
    [(6, SAVE, 0), (7, SAVE, 1), (5, SAVE, 1)],
]


def collated(exclude: bool = True, users=USERS, **changes):
    config = PinFMConfig(length=5, downstream=1, window=2, picks=0, exclude_same_user=exclude, **changes)
    counts = ItemCounts(np.arange(1, 9), np.array([4, 1, 2, 0, 2, 1, 1, 1]))
    segments = Cut(10, 5, 100)(histories(users).to_arrow())
    return segments, SegmentCollator(config, contract(), counts)(segments, np.random.default_rng(0))


def test_a_batch_holds_every_event_in_its_place():
    segments, batch = collated()
    for u, row in enumerate(segments.to_pylist()):
        n = len(row["item_key"])
        assert batch.length_U[u] == n
        assert batch.key_N[batch.event_UL[u, :n]].tolist() == row["item_key"]
        assert batch.action_UL[u, :n].tolist() == row["action"]
        assert batch.surface_UL[u, :n].tolist() == row["surface"]
        assert not batch.action_UL[u, n:].any()


def test_candidates_are_the_positives_of_the_batch():
    _, batch = collated()
    assert batch.key_N[batch.candidate_C].tolist() == [1, 2, 3, 5, 6, 7]


def item_of_source(batch):
    return batch.key_N[batch.event_UL.flatten()[batch.source_P]]


@pytest.mark.parametrize("exclude", [True, False])
def test_what_a_user_chose_anywhere_in_the_batch_is_no_negative_to_the_user(exclude):
    segments, batch = collated(exclude)
    bought = {
        row["user"]: {k for k, a in zip(row["item_key"], row["action"], strict=True) if a == SAVE}
        for row in segments.to_pylist()
    }
    candidates = batch.key_N[batch.candidate_C].tolist()
    for p, source in enumerate(batch.source_P.tolist()):
        hidden = {k for k, own in zip(candidates, batch.own_OC[batch.owner_P[p]].tolist(), strict=True) if own}
        leads_to = {
            candidates[t] for s, t in zip(batch.source_K.tolist(), batch.target_K.tolist(), strict=True) if s == p
        }
        assert hidden == (bought[segments["user"][source // 5].as_py()] if exclude else leads_to)
        assert leads_to <= hidden


def test_the_chance_of_being_a_negative_is_that_of_a_batch_of_that_many_positives():
    _, batch = collated()
    share = torch.tensor([4, 1, 2, 2, 1, 1]) / 12
    torch.testing.assert_close(batch.log_q_C.exp(), (1 - (1 - share) ** 9).float())
    assert not collated(log_q=False)[1].log_q_C.any()


def test_what_is_unknown_is_read_and_neither_predicted_nor_a_negative():
    segments, batch = collated(users=[[(1, SAVE, 0), (-1, SAVE, 1), (-1, SAVE, 2), (3, SAVE, 3)]])
    assert batch.key_N[batch.event_UL[0, :4]].tolist() == segments["item_key"][0].as_py() == [1, -1, -1, 3]
    assert batch.key_N[batch.candidate_C].tolist() == [1, 3]
    assert set(item_of_source(batch).tolist()) == {-1}
    share = torch.tensor([4, 2]) / 12
    torch.testing.assert_close(batch.log_q_C.exp(), (1 - (1 - share) ** 2).float())


def test_what_is_unknown_is_not_counted(tmp_path):
    histories([[(1, SAVE, 0), (-1, SAVE, 1), (-1, SAVE, 2), (3, SAVE, 3)]]).write_parquet(tmp_path / "h.parquet")
    counts = Segments.of([str(tmp_path / "h.parquet")], Cut(9, 4, 9), [SAVE]).counts
    assert (counts.key_I.tolist(), counts.count_I.tolist()) == ([1, 3], [1, 1])


def test_a_log_in_which_nothing_known_was_chosen_is_refused(tmp_path):
    histories([[(-1, SAVE, 0), (1, HIDE, 1), (2, SAVE, 9)]]).write_parquet(tmp_path / "h.parquet")
    with pytest.raises(UserError, match="no user has a positive action on a known item before 1970-01-01"):
        Segments.of([str(tmp_path / "h.parquet")], Cut(9, 4, 9), [SAVE])


def test_losses_without_weight_have_no_pairs():
    _, batch = collated(multi_token=0.0, future_token=0.0)
    assert set(batch.loss_K.tolist()) == {0}


def test_no_event_at_or_after_the_stop_is_read_and_every_segment_once(tmp_path):
    rng = np.random.default_rng(3)
    users = [
        sorted(
            [(int(rng.integers(1, 9)), SAVE, int(rng.integers(20))) for _ in range(rng.integers(0, 30))],
            key=lambda e: e[2],
        )
        for _ in range(60)
    ]
    histories(users).write_parquet(tmp_path / "h.parquet", row_group_size=7)
    cut = Cut(15, 4, 20)
    found = Segments.of([str(tmp_path / "h.parquet")], cut, [SAVE])
    expected = plain_segments(users, 15, 4, 20)
    assert sum(map(len, found.pieces)) == len(expected)
    assert found.first == min(e[2] for _, s in expected for e in s)
    every = np.array([e[0] for _, s in expected for e in s])
    assert dict(zip(found.counts.key_I.tolist(), found.counts.count_I.tolist(), strict=True)) == {
        k: int((every == k).sum()) for k in np.unique(every).tolist()
    }

    def source(rank: Rank) -> ParquetSource:
        columns = ["user_id", *LISTS]
        return ParquetSource(
            [], columns, lambda rows, rng: rows, batch=3, rank=rank, seed=1, shuffle=10, pieces=lambda _: found.pieces
        )

    def seen(rank: Rank, epoch: int):
        given_out = source(rank)
        given_out.set_epoch(epoch)
        return [tuple(s) for rows in given_out for s in rows["timestamp"].to_pylist()]

    assert max(t for s in seen(Rank(), 0) for t in s) < 15
    assert len(seen(Rank(), 0)) == len(expected) // 3 * 3
    assert seen(Rank(), 0) != seen(Rank(), 1)
    assert seen(Rank(), 2) == seen(Rank(), 2)
    parts = [seen(Rank(r, 2), 0) for r in range(2)]
    assert len(parts[0]) == len(parts[1])


def test_histories_without_anyone_are_no_segments():
    assert len(Cut(10, 5, 100)(histories([[], [(1, SAVE, 0)]]).to_arrow())) == 0
    assert events_of(Cut(10, 5, 100)(histories([]).to_arrow()), "action").tolist() == []
