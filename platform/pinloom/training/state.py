"""Where a run stands, and its checkpoint on disk.

A checkpoint is local state of one run, not an artifact: weights are safetensors, the rest is JSON, and what only torch
can write (optimisers, random state) is read with `weights_only=True`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.errors import UserError
from components.nn.hashed import own_weights
from components.recipe import Optimization, Rank, unwrap
from pinloom.training.ranks import own_weights_of, weights_of

ANEW = "delete this run's checkpoints (`ray_results` beside the lake), or give another `seed`: it then trains anew"


@dataclass
class RunState:
    """What a run knows of itself besides tensors.

    Attributes:
        epoch: the epoch that runs or comes next, from 0.
        step: batches trained on so far.
        best: best value of the recipe's monitor, None before the first validation; `best_epoch` its epoch.
        stale: validations since then.
        curve: points {"step", "epoch", "train/…" or "validation/…"} so far.
        work_s, wait_s: seconds in training steps, and waiting for their batches.
        data_wait_share: wait_s / (work_s + wait_s) of the rank that waited most; known at the end.
        metrics: validation metrics of the best epoch.
        started_at: Unix time at which the last attempt's process was up and began with its data.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = -1
    stale: int = 0
    finished: bool = False
    stopped_early: bool = False
    curve: list[dict[str, float]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    work_s: float = 0.0
    wait_s: float = 0.0
    data_wait_share: float = 0.0
    started_at: float = 0.0


@dataclass
class Training:
    """All that changes while training.

    Attributes:
        position: state of the batch source inside the running epoch; None at an epoch's start.
        best: weights of the best epoch: on rank 0 all, on others those that are sharded.
        config: the recipe's hyper-parameters, for a checkpoint to be refused that has others.
    """

    model: nn.Module
    optimizations: list[Optimization]
    config: Mapping[str, Any] = field(default_factory=dict)
    run: RunState = field(default_factory=RunState)
    position: dict[str, Any] | None = None
    best: dict[str, Tensor] | None = None


def save(folder: Path, training: Training, rank: Rank) -> None:
    """Write this rank's part: rank 0 the shared state, each rank its place in the data, its random state and its rows
    of what is sharded."""
    sharded = _own_state(training)
    own = {"position": training.position, "torch": torch.get_rng_state(), **sharded}
    if rank.device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(rank.device)
    torch.save(own, folder / f"rank-{rank.rank}.pt")
    if rank.rank != 0:
        return
    save_file(_without(weights_of(training.model), sharded["weights"]), folder / "model.safetensors")
    if training.best is not None:
        save_file(_without(training.best, sharded["weights"]), folder / "best.safetensors")
    states = [_optimization_state(o) for o in training.optimizations]
    shared = [None if number in sharded["optimizations"] else state for number, state in enumerate(states)]
    torch.save(shared, folder / "optimizations.pt")
    (folder / "run.json").write_text(
        json.dumps({"world": rank.world, "config": training.config, **asdict(training.run)})
    )


def restore(folder: Path, training: Training, rank: Rank) -> None:
    """Bring `training` to the checkpoint. The run must have as many ranks as wrote it.

    Raises:
        UserError: another version of the code wrote it: names what differs.
    """
    raw = json.loads((folder / "run.json").read_text())
    world, config = raw.pop("world"), raw.pop("config", {})
    if world != rank.world:
        raise RuntimeError(f"the checkpoint in {folder} was written by {world} ranks, this run has {rank.world}")
    _refuse("its configuration has", config, json.loads(json.dumps(training.config)))
    _refuse("its state has", *(dict.fromkeys(state, "a value") for state in (raw, asdict(RunState()))))
    training.run = RunState(**raw)
    own = torch.load(folder / f"rank-{rank.rank}.pt", weights_only=True)
    weights, model = {**load_file(folder / "model.safetensors"), **own["weights"]}, unwrap(training.model)
    _refuse("its weights have the shape", _shapes(weights), _shapes(model.state_dict()))
    model.load_state_dict(weights)
    training.best = own["best"]
    if rank.rank == 0 and (folder / "best.safetensors").exists():
        training.best = {**load_file(folder / "best.safetensors"), **(own["best"] or {})}
    states = torch.load(folder / "optimizations.pt", map_location=rank.device, weights_only=True)
    for number, (optimization, state) in enumerate(zip(training.optimizations, states, strict=True)):
        _load_optimization(optimization, own["optimizations"].get(number, state))
    training.position = own["position"]
    torch.set_rng_state(own["torch"])
    if rank.device.type == "cuda":
        torch.cuda.set_rng_state(own["cuda"], rank.device)


def _refuse(what: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """
    Raises:
        UserError: the two differ.
    """
    absent = object()
    for name in sorted(there.keys() | here.keys()):
        old, new = there.get(name, absent), here.get(name, absent)
        if old != new:
            said = ["none" if value is absent else value for value in (old, new)]
            raise UserError(
                "the checkpoint that this run would go on from was written by another version: "
                f"{what} {name} = {said[0]}, now {said[1]}",
                ANEW,
            )


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in weights.items()}


def _own_state(training: Training) -> dict[str, Any]:
    """This rank's rows of what is sharded: weights, those of the best epoch (None before there is one), optimisers."""
    model = unwrap(training.model)
    own = own_weights(model)
    sharded = {id(p) for name, p in model.named_parameters() if name in own}
    steps = {
        number: _optimization_state(o)
        for number, o in enumerate(training.optimizations)
        if any(id(p) in sharded for group in o.optimizer.param_groups for p in group["params"])
    }
    best = None if training.best is None else {name: t for name, t in training.best.items() if name in own}
    return {"weights": own_weights_of(training.model), "best": best, "optimizations": steps}


def _without(weights: dict[str, Tensor], sharded: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in weights.items() if name not in sharded}


def _optimization_state(optimization: Optimization) -> dict[str, Any]:
    scheduler = optimization.scheduler
    return {
        "optimizer": optimization.optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler else None,
    }


def _load_optimization(optimization: Optimization, state: dict[str, Any]) -> None:
    optimization.optimizer.load_state_dict(state["optimizer"])
    if optimization.scheduler:
        optimization.scheduler.load_state_dict(state["scheduler"])
