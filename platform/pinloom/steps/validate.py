"""`validate`: what landed is judged row by row and published as the table `actions`, or the run stops and says why."""

from __future__ import annotations

from pinloom.lake import Manifest
from pinloom.lake.table import merge_partitions
from pinloom.steps.base import Step, StepContext
from pinloom.validation.days import DATED, covered

PARTITIONED = (*DATED, "quarantine")
WHOLE = ("items", "users")


def run(ctx: StepContext) -> None:
    # Great Expectations takes seconds to import: not when the manifest exists already.
    from pinloom.validation.gate import validate

    validate(ctx)


def commit(ctx: StepContext, manifest: Manifest) -> None:
    """Put the days of `manifest` into the table `actions`; days of its interval without rows leave it."""
    merge_partitions(
        ctx.lake,
        "actions",
        manifest,
        partitioned=PARTITIONED,
        whole=WHOLE,
        covers=covered(ctx.input("ingest")) | set(WHOLE),
        now=ctx.now,
    )


STEP = Step(
    name="validate",
    version=2,
    run=run,
    inputs={"ingest": "landed"},
    reads=("contract.actions", "contract.ties", "contract.buckets", "validation"),
    commit=commit,
)
