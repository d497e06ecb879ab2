"""The Ray Serve application: one deployment, so that a request, its history and its candidates meet in one process.

No `from __future__ import annotations` here: Serve looks at the builder's annotation as it is.
"""

import os
from typing import Any

from fastapi import FastAPI
from ray import serve

from pinloom.serving.config import AppArgs


class Gateway:
    """A replica: loads what it serves when it starts and refuses to start when the parts do not fit together."""

    def __init__(self, args: AppArgs) -> None:
        import torch

        from pinloom.serving.service import RankingService

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self._args = args
        self._service = RankingService.load(args)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from pinloom.serving.gateway import create_app

        return create_app(self._service, self._args.key_sha256)


ATTEMPTS = 2
"""Starts of a replica before a deployment has failed: what does not load will not load the third time."""


def build(args: AppArgs) -> Any:
    """The application builder that the configuration names. Returns a Serve application."""
    gateway = serve.deployment(name=Gateway.__name__, max_constructor_retry_count=ATTEMPTS)
    return gateway(serve.ingress()(Gateway)).bind(args)
