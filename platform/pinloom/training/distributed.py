"""The loop on Ray Train: N workers, killed ones replaced, the curve told to the driver while it runs."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.recipe import Rank, Recipe
from pinloom.settings import Settings, TrainingSettings
from pinloom.training.loop import Loop, LoopOptions, Refused
from pinloom.training.state import RunState
from pinloom.training.storage import Storage

log = logging.getLogger("pinloom.training")

Points = list[tuple[dict[str, float], int]]
"""Points of the curve, each with the run's total of steps."""


class RayHost:
    """A Ray Train worker's surroundings: checkpoints through `ray.train.report`, points into a queue."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    def keep(self, folder: Path, run: RunState) -> None:
        import ray.train

        ray.train.report({"step": run.step}, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def tell(self, point: dict[str, float], total_steps: int) -> None:
        # Not waited for: a curve that nobody reads must not hold up training.
        self._queue.actor.put.remote((point, total_steps))


def _work(config: dict[str, Any]) -> RunState | Refused:
    """What each worker runs. A refusal is returned: raised, Ray Train would try it again."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    try:
        return Loop(config["build"](), rank, config["options"], RayHost(config["queue"])).run()
    except Refused as e:
        return e


@dataclass(frozen=True)
class Trained:
    """Outcome of a distributed run.

    Attributes:
        run: rank 0's final state.
        checkpoint: Ray's last checkpoint; holds the folder `artifact`.
    """

    run: RunState
    checkpoint: Any

    def download(self, folder: Path) -> Path:
        """Local folder of the artifact."""
        return Path(self.checkpoint.to_directory(folder)) / "artifact"


def run_distributed(
    build: Callable[[], Recipe[Any]],
    *,
    name: str,
    storage: Storage,
    settings: Settings,
    workers: int | None = None,
    watch: Callable[[Points], None] = lambda points: None,
) -> Trained:
    """Train the recipe that `build` makes on each worker; a run of the same `name` and `storage` is resumed.

    This process must be connected to Ray. `watch` gets the new points of the curve, in a thread of its own.

    Raises:
        UserError: the cluster has no room for the workers within `settings.ray.schedule_timeout_s`, or the recipe
            refused its data.
        ray.train.TrainingFailedError: workers failed more than `settings.training.max_failures` times.
    """
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.queue import Queue

    chosen = settings.training
    count = chosen.workers if workers is None else workers
    _set_environment(settings)
    queue = Queue(actor_options={"num_cpus": 0})
    trainer = TorchTrainer(
        _work,
        train_loop_config={"build": build, "options": loop_options(chosen), "queue": queue},
        torch_config=TorchConfig(backend="nccl" if chosen.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=count, use_gpu=chosen.use_gpu, resources_per_worker=_resources(chosen)
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage.path,
            storage_filesystem=storage.filesystem,
            failure_config=ray.train.FailureConfig(max_failures=chosen.max_failures, controller_failure_limit=0),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": _thread_caps(chosen.threads_per_worker)},
        ),
    )
    with _watching(queue, watch):
        result = _fit(trainer, count, settings)
    outcome = result.return_value
    if isinstance(outcome, Refused):
        raise outcome
    return Trained(outcome, result.checkpoint)


def loop_options(chosen: TrainingSettings) -> LoopOptions:
    return LoopOptions(
        threads=chosen.threads_per_worker,
        prefetch=chosen.prefetch_batches,
        bf16=chosen.bf16,
        checkpoint_steps=chosen.checkpoint_steps,
    )


def _set_environment(settings: Settings) -> None:
    """What Ray Train reads from the driver's environment only."""
    import ray

    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(settings.ray.schedule_timeout_s)
    if len(ray.nodes()) == 1:
        # The watcher is one more process per run, and waits for other nodes to be taken away.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


def _resources(chosen: TrainingSettings) -> dict[str, float]:
    gpus = {"GPU": chosen.gpus_per_worker} if chosen.use_gpu else {}
    return {"CPU": chosen.cpus_per_worker, **gpus}


def _thread_caps(threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
    return dict.fromkeys(names, str(threads))


def _fit(trainer: Any, workers: int, settings: Settings) -> Any:
    import ray.train
    from ray.train.v2._internal.exceptions import InsufficientClusterResourcesError, WorkerGroupStartupTimeoutError

    try:
        with _own_interrupt():
            return trainer.fit()
    except ray.train.ControllerError as e:
        if isinstance(e.controller_failure, WorkerGroupStartupTimeoutError | InsufficientClusterResourcesError):
            raise _no_room(workers, settings) from e
        raise
    except ray.train.WorkerGroupError as e:
        for failure in e.worker_failures.values():
            cause = getattr(failure, "_base_exc", failure)
            if isinstance(cause, UserError):
                raise cause from e
        raise


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Put back what Ctrl-C does: Ray Train leaves a handler behind that aborts a run which is over, and swallows it."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _no_room(workers: int, settings: Settings) -> UserError:
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    wanted = _resources(settings.training)
    each = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    has = ", ".join(f"{total.get(n, 0):g} {n} of which {free.get(n, 0):g} free" for n in wanted)
    return UserError(
        f"{workers} training workers with {each} each could not be scheduled within "
        f"{settings.ray.schedule_timeout_s:g} s: the cluster has {has}",
        "wait for what holds them, ask for less (PINLOOM_TRAINING__WORKERS, PINLOOM_TRAINING__CPUS_PER_WORKER), "
        "or give the cluster more (PINLOOM_RAY__LOGICAL_CPUS on a laptop)",
    )


@contextmanager
def _watching(queue: Any, watch: Callable[[Points], None]) -> Iterator[None]:
    """Hand the queue's points to `watch` about twice a second until the block ends."""
    done = threading.Event()
    thread = threading.Thread(target=_drain, args=(queue, watch, done), name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        queue.shutdown(force=True)


def _drain(queue: Any, watch: Callable[[Points], None], done: threading.Event) -> None:
    while True:
        last = done.wait(0.5)
        if points := queue.get_nowait_batch(queue.qsize()):
            try:
                watch(points)
            except Exception:
                # Whoever watches must not end the training that is watched.
                log.exception("the curve could not be shown or recorded at this moment")
        if last:
            return
