"""One shard of `embed`, in this process or in a Ray task on any machine that reaches the lake."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.models.pinsage.artifact import load_pinsage
from components.models.pinsage.catalogue import Catalogue
from components.models.pinsage.inference import Inference, Phase
from components.models.pinsage.model import PinSage
from pinloom.lake import Lake
from pinloom.lake.manifest import digest
from pinloom.training.job import LakeTables


class LakeShards:
    """Arrays as immutable files of a folder of the lake."""

    def __init__(self, lake: Lake, folder: str) -> None:
        self.lake, self.folder = lake, folder

    def has(self, name: str) -> bool:
        return self.lake.exists(self._uri(name))

    def put(self, name: str, array: NDArray[Any]) -> None:
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        self.lake.create(self._uri(name), content.getvalue())

    def get(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.lake.local_path(self._uri(name)), mmap_mode="r")
        return array

    def _uri(self, name: str) -> str:
        return f"{self.folder}/{name}.npy"


@dataclass(frozen=True)
class EmbedJob:
    """What travels to the tasks; each process opens it once.

    Attributes:
        features, graph, neighbourhoods, train: URIs of manifests.
        folder: where shards lie.
        size: items of a shard.
    """

    lake_root: str
    features: str
    graph: str
    neighbourhoods: str
    train: str
    folder: str
    size: int

    @property
    def lake(self) -> Lake:
        return Lake(self.lake_root)

    @property
    def artifact(self) -> Path:
        """Local folder of the trained model."""
        return self.lake.local_folder(self.lake.manifest(self.train).output("artifact"))

    @property
    def version(self) -> str:
        """Of the vectors: the weights name the function, whatever graph it reads."""
        files = self.lake.manifest(self.train).output("artifact").files
        return f"pinsage-{digest(sorted(f.sha256 for f in files))[:16]}"

    @property
    def inference(self) -> Inference:
        # Kept by the process, not by the job: it must not travel.
        return _opened(self)


@lru_cache(maxsize=2)
def _opened(job: EmbedJob) -> Inference:
    lake = job.lake
    manifests = [lake.manifest(uri) for uri in (job.features, job.graph, job.neighbourhoods)]
    tables = LakeTables(job.lake_root, *manifests)
    model: PinSage = load_pinsage(job.artifact)
    catalogue = Catalogue.load(tables.__getitem__).as_read_by(model.config)
    return Inference(model, catalogue, LakeShards(lake, job.folder), job.size)


def embed_shard(work: tuple[EmbedJob, Phase], shard: int) -> None:
    """One shard of one phase."""
    job, phase = work
    job.inference.work(phase, shard)
