"""What the demo prints once the endpoint answers: rankings, what one action changes, the lift table, time, places."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import yaml

from components.contract import midnight
from pinloom.lake import Lake, Manifest
from pinloom.serving.smoke import Endpoint
from pinloom.settings import Settings

USERS = 2
K = 5
REPORTS = ("transact", "pinfm_ranker", "pinfm", "pinsage")
"""Recipes whose evaluation is worth a look."""


def show_rankings(lake: Lake, endpoint: Endpoint, positive: str) -> None:
    """Recommendations for some users; then one takes an action, and the same question is asked again.

    All as of the end of the log: years later, as today may be, its users would be strangers.
    """
    users, moment = _sample_users(lake), _after_the_log(lake)
    at = (moment + timedelta(minutes=1)).isoformat()
    found = {user: _recommend(endpoint, user, at) for user in users[:USERS]}
    for user, items in found.items():
        _title(f"POST /v1/recommendations  user {user}")
        _print_items(items)
    user = users[0]
    _show_related(endpoint, found[user][0])
    taken = found[user][-1]
    action = {
        "event_id": f"demo-{uuid4().hex}",
        "user_id": user,
        "item_id": taken["item_id"],
        "action": positive,
        "timestamp": moment.isoformat(),
    }
    endpoint.call("POST", "/v1/actions", [action])
    _title(f"POST /v1/actions  user {user}: {positive} {taken['title'] or taken['item_id']}; the next ranking knows")
    _print_items(_recommend(endpoint, user, at))


def _after_the_log(lake: Lake) -> datetime:
    """A moment that no snapshot and no ingested day has, and that is not ahead of now."""
    as_of = midnight(date.fromisoformat(str(lake.require("online").metrics["as_of"])))
    return min(as_of + timedelta(minutes=30), datetime.now(UTC))


def _show_related(endpoint: Endpoint, item: dict[str, Any]) -> None:
    found = endpoint.call("GET", f"/v1/items/{quote(item['item_id'], safe='')}/related?k={K}")
    _title(f"GET /v1/items/{item['item_id']}/related  {item['title'] or ''}")
    _print_items(found["related"])


def _recommend(endpoint: Endpoint, user: str, at: str) -> list[dict[str, Any]]:
    body = {"user_id": user, "k": K, "at": at}
    found: list[dict[str, Any]] = endpoint.call("POST", "/v1/recommendations", body)["ranked"]
    return found


def _print_items(items: list[dict[str, Any]]) -> None:
    for place, item in enumerate(items, start=1):
        what = (item["title"] or "")[:50]
        print(f"  {place}. {item['score']:.4f}  {item['item_id']:>12}  {item['category'] or '':16.16}  {what}")


def _sample_users(lake: Lake) -> list[str]:
    config = yaml.safe_load(lake.read_bytes(lake.require("serving").file("deployment", "serve.yaml")))
    users: list[str] = config["applications"][0]["args"]["sample_users"]
    return users


def show_lift(lake: Lake, recipe: str) -> None:
    """HIT@3 of the run, its rivals and its ablations, with the paired differences, by bootstrap intervals."""
    measured = lake.require(f"evaluations/{recipe}").metrics
    subject, n = measured["subject"], measured["requests"]
    _title(f"HIT@3 on {n} later requests (95% bootstrap intervals); '{subject}' minus the other in the last column")
    lift = measured["ablation_lift"] | measured["lift"]
    for ranker, found in (measured["headline"] | measured["ablations"]).items():
        difference = lift.get(ranker, {}).get("hit@3")
        print(f"  {ranker:12} {_interval(found['hit@3'])}   {_interval(difference, signed=True) if difference else ''}")


def _interval(found: list[float], signed: bool = False) -> str:
    value, low, high = (f"{x:+.4f}" if signed else f"{x:.4f}" for x in found)
    return f"{value} [{low}, {high}]"


def show_time(lake: Lake, jobs: Iterable[tuple[str, float, str]], total_s: float) -> None:
    """Of each job's task, from its start to its end: the steps' own work, and everything else.

    Args:
        jobs: task, seconds, URI of the job's result.
    """
    _title("Where the time went")
    startup = whole = 0.0
    for task, seconds, uri in jobs:
        result = json.loads(lake.read_bytes(uri))
        spent = {name: s for name, s in result["seconds"].items() if name != "startup"}
        work = {name: max(0.0, s - _waited(lake, result["manifests"][name])) for name, s in spent.items()}
        startup, whole = startup + seconds - sum(work.values()), whole + seconds
        steps = "  ".join(f"{name} {s:.0f}" for name, s in work.items())
        print(f"  {task:32} start-up {seconds - sum(work.values()):3.0f} s   {steps}")
    print(f"  start-up is {startup / max(whole, 1e-9):.0%} of the tasks' time; the whole demo took {total_s:.0f} s")


def _waited(lake: Lake, uri: str) -> float:
    """Seconds until a distributed step's workers were up: start-up too (of a run before, where nothing was to do)."""
    return float(lake.manifest(uri).metrics.get("startup_s", 0.0))


def show_places(lake: Lake, settings: Settings, urls: Mapping[str, str]) -> None:
    _title("Places")
    key = settings.serving.api_key
    for name, url in urls.items():
        print(f"  {name:12} {url}")
    print(f"  key          {key.get_secret_value() if key else 'none'}  (Authorization: Bearer …)")
    print(f"  MLflow       mlflow ui --backend-store-uri {settings.mlflow}")
    for name, manifest, output in (
        *((recipe, lake.latest(f"evaluations/{recipe}"), "report") for recipe in REPORTS),
        ("Data Docs", lake.latest("validated"), "report"),
    ):
        if manifest is not None:
            print(f"  {name:12} {_page(manifest, output)}")


def _page(manifest: Manifest, output: str) -> str:
    pages = [uri for uri in manifest.output(output).uris if uri.endswith(".html")]
    return min(pages, key=len)


def _title(text: str) -> None:
    print(f"\n{text}")
