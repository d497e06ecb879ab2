"""How many numbers does one vector need to say what a user has again and again?

Nothing is trained. A state is the sum of random unit vectors of the user's newest items, plus popularity; the rival is
the same count of items kept exactly. Recall@10 on validation moments of the lake; one JSON line each.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

from benchmarks.pinfm.search import job_of
from components.evaluation.next_items import Ints, Questions, Scorer, recall
from components.models.pinfm.recipe import PinFMRecipe

WIDTHS = (64, 128, 256)


def exact(history: list[Ints], popular_N: np.ndarray) -> Scorer:
    def score(asked: Ints) -> np.ndarray:
        counted = np.stack([np.bincount(history[q], minlength=len(popular_N)) for q in asked])
        return (counted + 1e-3 * popular_N / popular_N.max()).astype(np.float32)

    return score


def squeezed(history: list[Ints], popular_N: np.ndarray, width: int) -> Scorer:
    vectors = np.random.default_rng(0).standard_normal((len(popular_N), width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    bias = np.log1p(popular_N).astype(np.float32)
    return lambda asked: np.stack([vectors[history[q]].sum(0) for q in asked]) @ vectors.T + bias


def measured(questions: Questions, scorer: Scorer) -> float:
    return round(float(recall(questions.places(scorer), questions.question_P, len(questions), 10).mean()), 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=600)
    args = parser.parse_args()
    recipe = job_of({"validation_queries": args.users}, 0)()
    assert isinstance(recipe, PinFMRecipe)
    asked, length = recipe.questions, recipe.config.length
    every = [asked.events["item"][a:b] for a, b in zip(asked.begin_Q, asked.end_Q, strict=True)]
    newest = [items[-length:] for items in every]
    popular = np.bincount(asked.events["item"], minlength=len(recipe.items)).astype(np.float64)
    print(json.dumps({"history": "all", "width": "exact", "recall@10": measured(asked, exact(every, popular))}))
    print(json.dumps({"history": length, "width": "exact", "recall@10": measured(asked, exact(newest, popular))}))
    for width in WIDTHS:
        found = measured(asked, squeezed(newest, popular, width))
        print(json.dumps({"history": length, "width": width, "recall@10": found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
