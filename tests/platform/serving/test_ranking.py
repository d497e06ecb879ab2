"""Rankings: complete, best first, repeatable, of the past alone, and equal to the offline scores."""

from tests.platform.serving import planted

CANDIDATES = [f"{c}-{i}" for c in planted.CATEGORIES for i in range(5)]


def rank(client, user="user-0", candidates=None, **fields):
    answer = client.post("/v1/rank", json={"user_id": user, "candidates": candidates or CANDIDATES, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_candidate_comes_back_once_best_first_with_its_place(client):
    ranked = rank(client)["ranked"]
    assert [CANDIDATES[r["index"]] for r in ranked] == [r["item_id"] for r in ranked]
    assert sorted(r["index"] for r in ranked) == list(range(len(CANDIDATES)))
    scores = [r["score"] for r in ranked]
    assert scores == sorted(scores, reverse=True)
