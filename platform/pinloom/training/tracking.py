"""The MLflow run of a training: made once per step key, fed while it trains, closed with its artifacts."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinloom.lake import Manifest
from pinloom.registry import Registry


@dataclass
class Tracker:
    """One run. Values of a step that the run already has are left alone: a resumed loop repeats some."""

    registry: Registry
    run_id: str
    _newest: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, registry: Registry, key: str, recipe: str, params: dict[str, Any], data: Manifest) -> Tracker:
        """The run of step `key`, with the manifest `data` that it learns from as its data set."""
        from mlflow.entities import Dataset, DatasetInput

        tags = {"pinloom.recipe": recipe, "pinloom.features": data.uri}
        run_id = registry.ensure_run(key, f"train-{recipe}", tags, params)
        source = json.dumps({"uri": data.uri})
        learned_from = Dataset(data.step, data.content_hash(), "pinloom manifest", source)
        registry.client.log_inputs(run_id, [DatasetInput(learned_from)])
        return cls(registry, run_id, _steps_logged(registry, run_id))

    def log(self, points: list[dict[str, float]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = []
        for point in points:
            step = int(point["step"])
            for name, value in point.items():
                name = _mlflow_name(name)
                if name != "step" and step > self._newest.get(name, -1):
                    self._newest[name] = step
                    metrics.append(Metric(name, value, now, step))
        for begin in range(0, len(metrics), 1000):
            self.registry.client.log_batch(self.run_id, metrics=metrics[begin : begin + 1000])

    def artifacts(self, *files: Path) -> None:
        for file in files:
            self.registry.client.log_artifact(self.run_id, str(file))

    def end(self, status: str) -> None:
        """'FINISHED' or 'FAILED'."""
        self.registry.client.set_terminated(self.run_id, status)


def _mlflow_name(name: str) -> str:
    """MLflow knows no `hit@3`: `hit_at_3`."""
    return re.sub(r"[^\w\-./ ]", "_", name.replace("@", "_at_"))


def _steps_logged(registry: Registry, run_id: str) -> dict[str, int]:
    names = registry.client.get_run(run_id).data.metrics
    return {n: max(m.step for m in registry.client.get_metric_history(run_id, n)) for n in names}
