"""Recommendations: what the retrievers propose, ranked."""

import pytest

from tests.platform.serving.asking import AT, rank, recommend, scores


def test_recommendations_are_the_best_of_what_the_retrievers_propose(client):
    ranking = recommend(client, k=5, at=AT)
    assert len(ranking["ranked"]) == 5
    assert {r["source"] for r in ranking["ranked"]} <= {"popularity", "content_neighbours"}
    assert all(r["title"] == r["item_id"].replace("-", " number ") for r in ranking["ranked"])
    everything = rank(client, candidates=[r["item_id"] for r in ranking["ranked"]], at=AT)
    assert scores(ranking) == pytest.approx(scores(everything), abs=1e-6)


def test_seen_items_are_left_out_on_request(client, service):
    seen = {service.items.ids[i] for i in service.user_state("user-0", None).history.item.tolist()}
    assert seen & set(scores(recommend(client, k=50)))
    assert not seen & set(scores(recommend(client, k=50, exclude_seen=True)))


def test_a_newcomer_gets_what_is_popular(client):
    ranking = recommend(client, user="nobody", k=3)
    assert ranking["unknown_user"] is True
    assert {r["source"] for r in ranking["ranked"]} == {"popularity"}


def test_the_model_never_scores_more_than_the_served_maximum(client, service):
    sizes = []
    service.loaded.artifact.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    service.max_candidates = 12
    assert len(recommend(client, k=10)["ranked"]) == 10
    assert sizes == [12]
