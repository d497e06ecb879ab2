"""The one training loop. It runs any recipe, on one process or as one of many ranks, and knows no orchestrator."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from components.errors import UserError
from components.recipe import Rank, Recipe, unwrap
from pinloom.training.prefetch import Prefetcher
from pinloom.training.ranks import add_sums, agree, gather, means, own_weights_of, share_buffers, weights_of
from pinloom.training.state import RunState, Training, restore, save

CURVE_POINTS = 200
"""Points of the training curve over a whole run, beside those at checkpoints and epoch ends."""


@dataclass(frozen=True)
class LoopOptions:
    """How to run; what is learned is the recipe's.

    Attributes:
        threads: of torch, per process.
        prefetch: batches made ahead (0 = none, in the same thread).
        bf16: forward and loss under autocast to bfloat16.
        checkpoint_steps: besides every epoch's end; None = only there.
    """

    threads: int = 1
    prefetch: int = 4
    bf16: bool = False
    checkpoint_steps: int | None = None


class Host(Protocol):
    """What surrounds a loop: where checkpoints go and who watches."""

    def latest(self) -> AbstractContextManager[Path | None]:
        """Folder with the newest checkpoint of this run, None at its beginning."""
        ...

    def keep(self, folder: Path, run: RunState) -> None:
        """Keep what all ranks wrote into their `folder`; every rank calls it the same number of times."""
        ...

    def tell(self, point: dict[str, float], total_steps: int) -> None:
        """Rank 0's newest point of the curve. Must not block."""
        ...


class Refused(UserError):
    """A user's mistake found by all ranks at the same moment: trying again would find it again."""


class Loop:
    """One rank's training of one recipe, from the newest checkpoint to the exported artifact."""

    def __init__(self, recipe: Recipe[Any], rank: Rank, options: LoopOptions, host: Host) -> None:
        self._up = time.time()
        self.recipe, self.rank, self.options, self.host = recipe, rank, options, host
        self._window: dict[str, list[float]] = {}
        torch.set_num_threads(options.threads)
        self._together(self._set_up)

    def _together(self, work: Callable[[], None]) -> None:
        """Do what has no collectives; a user's mistake that any rank finds in it is answered by all of them.

        Raises:
            Refused: any rank found one.
        """
        problem = None
        try:
            work()
        except UserError as e:
            problem = e.problem, e.remedy
        refusals = [p for p in gather(problem, self.rank) if p is not None]
        if refusals:
            raise Refused(*refusals[0])

    def _set_up(self) -> None:
        self.source = self.recipe.train_batches(self.rank)
        if self.source.batches_per_epoch == 0:
            raise UserError("there are fewer training rows than one batch per worker", "lower the batch size")
        torch.manual_seed(self.recipe.inputs.seed)
        self.bare = self.recipe.build_model().to(self.rank.device)

    @property
    def total_steps(self) -> int:
        return self.recipe.epochs * self.source.batches_per_epoch

    def run(self) -> RunState:
        """Train to the end; the last checkpoint kept holds the folder `artifact`.

        Raises:
            Refused: no validation rows, the loss is not finite, or the checkpoint is of another version.
        """
        model = self.recipe.parallelize(self.bare, self.rank)
        optimizations = self.recipe.optimizations(model, self.total_steps)
        self.training = Training(model, optimizations, asdict(self.recipe.config))
        # Equal weights everywhere, different dropout.
        torch.manual_seed(self.recipe.inputs.seed * 100_003 + self.rank.rank + 1)
        self._together(self._restore)
        state = self.training.run
        state.started_at = self._up
        if state.curve and self.rank.rank == 0:
            self.host.tell(state.curve[-1], self.total_steps)
        while not state.finished:
            self._epoch()
            self._judge(self._validate())
            if not state.finished:
                self._checkpoint()
        state.data_wait_share = max(gather(state.wait_s / max(state.wait_s + state.work_s, 1e-9), self.rank))
        self._checkpoint()
        return state

    def _restore(self) -> None:
        with self.host.latest() as folder:
            if folder is not None:
                restore(folder, self.training, self.rank)

    # -- training --------------------------------------------------------------------------------

    def _epoch(self) -> None:
        state = self.training.run
        self.recipe.on_epoch(state.epoch)
        if self.training.position is None:
            self.source.set_epoch(state.epoch)
        else:
            self.source.load_state_dict(self.training.position)
        self.training.model.train()
        pin = self.rank.device.type == "cuda"
        with Prefetcher(self.source, self.options.prefetch, pin=pin) as batches:
            for batch in batches:
                began = time.perf_counter()
                self._step(batch)
                state.step += 1
                due = self._checkpoint_due()
                if due or state.step % self._curve_every == 0:
                    self._flush()
                state.work_s += time.perf_counter() - began
                state.wait_s += batches.waited
                if due:
                    self.training.position = batches.position
                    self._checkpoint()
        self._flush()
        self.training.position = None

    def _step(self, batch: Any) -> None:
        batch = batch.to(self.rank.device, non_blocking=True)
        for optimization in self.training.optimizations:
            optimization.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss, numbers = self.recipe.loss(self.training.model, batch)
        loss.backward()
        for optimization in self.training.optimizations:
            optimization.optimizer.step()
            if optimization.scheduler is not None:
                optimization.scheduler.step()
        values: dict[str, Any] = {"loss": loss.detach(), **numbers}
        add_sums(self._window, {name: (value, 1.0) for name, value in values.items()})

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.rank.device.type, dtype=torch.bfloat16, enabled=self.options.bf16)

    @property
    def _curve_every(self) -> int:
        return max(1, self.total_steps // CURVE_POINTS)

    def _flush(self) -> None:
        """One point of the training curve: means since the last one, over all ranks."""
        if not self._window:
            return
        values = means({name: [float(s), w] for name, (s, w) in self._window.items()}, self.rank)
        self._window = {}
        if not math.isfinite(values["loss"]):
            raise Refused(
                f"the loss of recipe '{self.recipe.name}' is {values['loss']} at step {self.training.run.step}",
                "lower its learning rate (`overrides`), or look for extreme values among the numeric features",
            )
        self._point({f"train/{name}": value for name, value in values.items()})

    def _point(self, values: dict[str, float]) -> None:
        state = self.training.run
        point = {"step": state.step, "epoch": state.epoch, **values}
        state.curve.append(point)
        if self.rank.rank == 0:
            self.host.tell(point, self.total_steps)

    # -- validation ------------------------------------------------------------------------------

    def _validate(self) -> dict[str, float]:
        model = unwrap(self.training.model)
        share_buffers(model, self.rank)
        model.eval()
        sums: dict[str, list[float]] = {}
        with torch.no_grad(), self._autocast():
            for batch in self.recipe.validation_batches(self.rank):
                add_sums(sums, self.recipe.measure(model, batch.to(self.rank.device, non_blocking=True)))
        values = means(sums, self.rank)
        if not math.isfinite(values.get(self.recipe.monitor, math.nan)):
            raise Refused(
                f"recipe '{self.recipe.name}' watches '{self.recipe.monitor}', which no validation row has",
                "check that the log reaches beyond the validation date in the data set's `splits`",
            )
        self._point({f"validation/{name}": value for name, value in values.items()})
        return values

    def _judge(self, values: dict[str, float]) -> None:
        """Best so far? Stop? Rank 0 decides."""
        state, value = self.training.run, values[self.recipe.monitor]
        sign = 1.0 if self.recipe.higher_is_better else -1.0
        if agree(state.best is None or sign * value > sign * state.best, self.rank):
            state.best, state.best_epoch, state.stale, state.metrics = value, state.epoch, 0, values
            keep = weights_of if self.rank.rank == 0 else own_weights_of
            self.training.best = keep(self.training.model)
        else:
            state.stale += 1
        patience = self.recipe.patience
        state.stopped_early = agree(patience is not None and state.stale >= patience, self.rank)
        state.epoch += 1
        state.finished = state.stopped_early or state.epoch >= self.recipe.epochs

    # -- checkpoints -----------------------------------------------------------------------------

    def _checkpoint_due(self) -> bool:
        every = self.options.checkpoint_steps
        return every is not None and self.training.run.step % every == 0

    def _checkpoint(self) -> None:
        with tempfile.TemporaryDirectory(prefix="pinloom-checkpoint-") as name:
            folder = Path(name)
            save(folder, self.training, self.rank)
            if self.training.run.finished:
                self._export(folder / "artifact")
            self.host.keep(folder, self.training.run)

    def _export(self, folder: Path) -> None:
        """Each rank what it alone holds, rank 0 the rest."""
        assert self.training.best is not None
        model = unwrap(self.training.model)
        model.load_state_dict(self.training.best, strict=self.rank.rank == 0)
        self.recipe.export_own(model.eval(), folder)
        if self.rank.rank == 0:
            folder.mkdir(exist_ok=True)
            self.recipe.export(model, folder)
