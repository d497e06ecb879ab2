"""Rankings: complete, best first, repeatable, of the past alone."""

import numpy as np
import pytest

from tests.platform.serving import planted
from tests.platform.serving.asking import AT, CANDIDATES, action, post, rank, scores

UTILITIES = planted.SPEC.contract.head_utility


# -- the answer ----------------------------------------------------------------------------------


def test_every_candidate_comes_back_once_best_first_with_its_place(client):
    ranked = rank(client)["ranked"]
    assert [CANDIDATES[r["index"]] for r in ranked] == [r["item_id"] for r in ranked]
    assert sorted(r["index"] for r in ranked) == list(range(len(CANDIDATES)))
    assert list(scores({"ranked": ranked}).values()) == sorted(scores({"ranked": ranked}).values(), reverse=True)


def test_the_score_is_the_utility_of_the_heads_probabilities(client):
    for r in rank(client)["ranked"]:
        assert set(r["heads"]) == set(UTILITIES)
        assert all(0 < p < 1 for p in r["heads"].values())
        assert r["score"] == pytest.approx(sum(UTILITIES[h] * p for h, p in r["heads"].items()), abs=1e-6)


def test_two_identical_requests_get_identical_scores(client):
    assert rank(client, at=AT) == rank(client, at=AT)


def test_all_candidates_are_scored_in_one_model_call(client, service):
    calls = []
    service.loaded.artifact.model.register_forward_hook(lambda *_: calls.append(1))
    many = [f"{CANDIDATES[i % len(CANDIDATES)]}" for i in range(2000)]
    assert len(rank(client, candidates=many)["ranked"]) == 2000
    assert len(calls) == 1


def test_a_candidate_scores_the_same_in_whatever_company(client):
    together = scores(rank(client, at=AT))
    for item in CANDIDATES[:4]:
        assert scores(rank(client, candidates=[item], at=AT))[item] == pytest.approx(together[item], abs=1e-6)


def test_the_surface_of_a_candidate_comes_before_that_of_the_request(client):
    mixed = rank(client, candidates=["silk-1", {"item_id": "silk-2", "surface": "shelf"}], surface="window", at=AT)
    shelf = rank(client, candidates=["silk-2"], surface="shelf", at=AT)
    window = rank(client, candidates=["silk-1"], surface="window", at=AT)
    assert scores(mixed) == pytest.approx({**scores(shelf), **scores(window)}, abs=1e-6)


# -- who and what is unknown ---------------------------------------------------------------------


def test_an_unknown_user_is_ranked_as_a_newcomer_and_flagged(client):
    nobody, other = rank(client, user="nobody", at=AT), rank(client, user="nobody-else", at=AT)
    assert nobody["unknown_user"] is True
    assert rank(client)["unknown_user"] is False
    assert scores(nobody) == scores(other)
    assert np.isfinite(list(scores(nobody).values())).all()


def test_an_unknown_item_is_scored_as_unseen_and_flagged(client):
    ranked = rank(client, candidates=["silk-1", "never-heard-of", "nor-this"])["ranked"]
    by_id = {r["item_id"]: r for r in ranked}
    assert {i for i, r in by_id.items() if r["unknown"]} == {"never-heard-of", "nor-this"}
    assert by_id["never-heard-of"]["score"] == by_id["nor-this"]["score"]
    assert np.isfinite(by_id["nor-this"]["score"])


# -- time ----------------------------------------------------------------------------------------


def test_a_ranking_as_of_a_past_moment_does_not_know_what_came_later_or_at_it(client):
    at = "2026-02-20T12:00:00Z"
    before = rank(client, at=at)
    post(client, action("at", timestamp=at), action("later", "silk-2", timestamp="2026-02-21T00:00:00Z"))
    assert scores(rank(client, at=at)) == scores(before)
    assert scores(rank(client, at="2026-02-20T12:00:00.000001Z")) != scores(before)


def test_a_user_is_unknown_before_the_first_action(client):
    assert rank(client, at="2025-12-31T00:00:00Z")["unknown_user"] is True


def test_without_a_moment_all_that_is_known_counts(client, service):
    assert (
        service.user_state("user-0", None).history.timestamp[0] == service.loaded.online.history("user-0").timestamp[0]
    )
