"""The smoke test's patience: a deployment that is slow at first is asked again, a wrong one is not."""

from __future__ import annotations

from typing import Any

import pytest

from pinloom.serving import smoke
from pinloom.serving.smoke import Endpoint, SmokeFailed, smoke_test
from pinloom.settings import ServingSettings

RANKED = {"ranked": [{"item_id": "a", "score": 0.5, "heads": {"click": 0.5}}]}


class Answers(Endpoint):
    """Gives the answers of each path in turn; an error is raised, the last one stays."""

    def __init__(self, **answers: list[Any]) -> None:
        super().__init__("http://nowhere", ServingSettings())
        self._answers = {"models": [[{"deployment": "new"}]], "recommendations": [RANKED], "rank": [RANKED], **answers}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answers = self._answers[path.removeprefix("/v1/")]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(smoke, "POLL_S", 0.01)


def test_old_replicas_and_slow_first_answers_are_waited_for():
    late = SmokeFailed("POST /v1/rank answered 408")
    old = [{"deployment": "old"}]
    endpoint = Answers(
        models=[old, old, [{"deployment": "new"}]], recommendations=[late, RANKED], rank=[late, late, RANKED]
    )
    smoke_test(endpoint, "new", "user", settle_s=10.0)


def test_without_time_to_settle_the_first_answer_counts():
    with pytest.raises(SmokeFailed, match="old answers instead of new"):
        smoke_test(Answers(models=[[{"deployment": "old"}], [{"deployment": "new"}]]), "new", "user")
    with pytest.raises(SmokeFailed, match="408"):
        smoke_test(Answers(rank=[SmokeFailed("408"), RANKED]), "new", "user")


def test_a_score_that_is_not_finite_is_not_asked_for_again():
    wrong = {"ranked": [{"item_id": "a", "score": float("nan"), "heads": {}}]}
    with pytest.raises(SmokeFailed, match="not finite"):
        smoke_test(Answers(rank=[wrong, RANKED]), "new", "user", settle_s=10.0)
