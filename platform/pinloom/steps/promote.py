"""`promote`: the challenger against the champion on the same questions; who is not worse carries the alias."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

from components.errors import UserError
from components.models.artifact import OtherVersion
from components.recipe import load_recipe
from pinloom.datasets import DatasetSpec
from pinloom.datasets.spec import PromotionSpec
from pinloom.evaluation.gate import Decision, decide
from pinloom.evaluation.kinds import kind_of
from pinloom.lake import Lake, Manifest
from pinloom.registry import Registry
from pinloom.reporting.decision import page
from pinloom.settings import Settings
from pinloom.steps.base import Params, Step, StepContext, World

log = logging.getLogger("pinloom.evaluation")

ALIAS = "champion"


class PromoteParams(Params):
    recipe: str = "transact"
    seed: int = 0


def follow_alias(params: PromoteParams, lake: Lake, settings: Settings, spec: DatasetSpec) -> PromoteParams:
    """Let the pointer name what the alias names: who moved it by hand in the registry is heeded.

    Raises:
        UserError: the alias names a version that no `train` step made.
    """
    named = Registry(settings, spec.name).alias(params.recipe, ALIAS)
    if named is not None:
        version, uri = named
        if not uri:
            raise UserError(
                f"version {version} carries the alias '{ALIAS}', but no `train` step of this lake made it",
                "give the alias to a version that has the tag `pinloom.manifest`",
            )
        train = lake.manifest(uri)
        lake.advance(_pointer(params), lambda _: train)
    return params


def complete(params: PromoteParams, world: World) -> PromoteParams:
    return follow_alias(params, world.lake, world.settings, world.spec)


def _pointer(params: PromoteParams) -> str:
    return f"champions/{params.recipe}"


def run(ctx: StepContext) -> None:
    decision = _decide(ctx)
    ctx.output("decision").bytes("decision.json", json.dumps(decision.to_json(), indent=1).encode())
    ctx.output("decision").bytes("decision.html", page(decision, ctx.spec.name, _rules(ctx), ctx.key).encode())
    ctx.metrics.update(decision.to_json())
    log.info(decision.reason)


def _decide(ctx: StepContext) -> Decision:
    challenger, champion = _challenger(ctx), ctx.inputs.get("champion")
    champion_uri = champion.uri if champion else ""
    if champion is not None and champion.key == challenger.key:
        reason = f"Nothing to decide: {_name(ctx, challenger)} is the champion already."
        return Decision(False, reason, challenger=challenger.uri, champion=champion_uri)
    if _promoted_before(ctx, challenger):
        reason = (
            f"Kept the champion: {_name(ctx, challenger)} was champion before and has been replaced since. A version "
            "is promoted once; to have it back, give it the alias by hand, or train again."
        )
        return Decision(False, reason, challenger=challenger.uri, champion=champion_uri)
    return _judge(ctx, challenger, champion)


def _challenger(ctx: StepContext) -> Manifest:
    return ctx.lake.manifest(ctx.input("evaluate").inputs["train"]["uri"])


def _promoted_before(ctx: StepContext, challenger: Manifest) -> bool:
    registry = Registry(ctx.settings, ctx.spec.name)
    version = registry.version_of(ctx.params.recipe, challenger)
    return bool(version and registry.reason(ctx.params.recipe, ALIAS, version))


def _name(ctx: StepContext, train: Manifest) -> str:
    version = Registry(ctx.settings, ctx.spec.name).version_of(ctx.params.recipe, train)
    return f"version {version}" if version else f"run {train.key}"


def _rules(ctx: StepContext) -> PromotionSpec:
    return ctx.spec.promotion.of_kind(load_recipe(_challenger(ctx).params["recipe"]).kind)


def _judge(ctx: StepContext, challenger: Manifest, champion: Manifest | None) -> Decision:
    contest_of, why = kind_of(challenger.params["recipe"]).contest, ""
    called = f"the champion ({_name(ctx, champion)})" if champion else ""
    try:
        contest = contest_of(ctx, challenger, champion)
    except OtherVersion as error:
        # A champion that this version cannot serve is none; else no version could ever take its place.
        if champion is None:
            raise
        contest, why = contest_of(ctx, challenger, None), f"The champion cannot be read: {error.problem}. "
    found = decide(contest, _rules(ctx), called, ctx.params.seed)
    return replace(
        found, reason=why + found.reason, challenger=challenger.uri, champion=champion.uri if champion else ""
    )


def commit(ctx: StepContext, manifest: Manifest) -> None:
    """Bring the alias to what was decided, unless somebody moved it since; the pointer follows the alias."""
    decision = json.loads(ctx.lake.read_bytes(manifest.file("decision", "decision.json")))
    registry, recipe = Registry(ctx.settings, ctx.spec.name), ctx.params.recipe
    version = registry.register(recipe, _challenger(ctx))
    if decision["challenger"] != decision["champion"]:
        registry.tag(recipe, version, "decision", decision["reason"])
    named = registry.alias(recipe, ALIAS)
    if decision["promoted"] and (named is None or named[0] != version):
        _promote(ctx, registry, decision, version, named)
    elif named is None and decision["champion"]:
        _restore(ctx, registry, decision["champion"])
    follow_alias(ctx.params, ctx.lake, ctx.settings, ctx.spec)


def _promote(
    ctx: StepContext, registry: Registry, decision: dict[str, str], version: str, named: tuple[str, str] | None
) -> None:
    if named is not None and registry.reason(ctx.params.recipe, ALIAS, version):
        log.warning("version %s was promoted before, and the alias is now on %s: left there", version, named[0])
        return
    if named is not None and named[1] != decision["champion"]:
        raise UserError(
            f"version {named[0]} became champion while version {version} was compared with another",
            "run `pinloom step promote` again: it compares with the new champion",
        )
    registry.move_alias(ctx.params.recipe, ALIAS, version, decision["reason"])


def _restore(ctx: StepContext, registry: Registry, champion: str) -> None:
    """The registry lost its alias: the champion of the lake gets it back."""
    version = registry.register(ctx.params.recipe, ctx.lake.manifest(champion))
    registry.move_alias(ctx.params.recipe, ALIAS, version, "Restored: the registry had lost the alias.")


STEP = Step(
    name="promote",
    version=1,
    run=run,
    params=PromoteParams,
    inputs={"evaluate": "evaluations/{recipe}", "champion": "champions/{recipe}?"},
    reads=("promotion", "contract"),
    advances="decisions/{recipe}",
    complete=complete,
    commit=commit,
)
