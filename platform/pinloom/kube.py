"""The Kubernetes API over plain REST: the few calls that jobs and serving need, without a client library.

In a pod everything is found by itself; elsewhere `PINLOOM_KUBERNETES__URL` may be that of `kubectl proxy`.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from pinloom.settings import KubernetesSettings

POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeError(RuntimeError):
    """The API server answered, but not with what was asked for.

    Attributes:
        status: HTTP status; 0 without an answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class KubeUnreachable(KubeError):
    """No answer: there may be one in a moment."""


class KubeApi:
    """One namespace of one cluster.

    Args:
        settings: where it is; what is not given is the pod's own.
        timeout_s: of one request.

    Raises:
        KubeError: not in a pod, and no URL is configured.
    """

    def __init__(self, settings: KubernetesSettings, timeout_s: float = 10.0) -> None:
        self.url = (settings.url or _own_url()).rstrip("/")
        self.namespace = settings.namespace or _own("namespace") or "default"
        self.timeout_s = timeout_s
        self._token_file = settings.token_file or (None if settings.url else POD / "token")
        self._session = requests.Session()
        ca_file = settings.ca_file or (None if settings.url else POD / "ca.crt")
        self._session.verify = str(ca_file) if ca_file else True

    def ray(self, plural: str, name: str = "") -> str:
        """Path of KubeRay's objects of one kind, or of one of them."""
        return f"/apis/ray.io/v1/namespaces/{self.namespace}/{plural}/{name}".rstrip("/")

    def core(self, plural: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/{plural}/{name}".rstrip("/")

    def get(self, path: str, **params: Any) -> Any:
        """The object, or None when there is none."""
        response = self._request("GET", path, params=params)
        return None if response.status_code == HTTPStatus.NOT_FOUND else response.json()

    def text(self, path: str, **params: Any) -> str:
        """A log; '' when there is none yet."""
        response = self._request("GET", path, params=params, also=(HTTPStatus.BAD_REQUEST,))
        return response.text if response.ok else ""

    def create(self, path: str, body: dict[str, Any]) -> bool:
        """True when this call made it, False when the name is taken.

        Raises:
            KubeError: refused; 404 means that the cluster does not know the kind.
        """
        response = self._request("POST", path, json=body, also=(HTTPStatus.CONFLICT,))
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise KubeError(f"the cluster does not know {path}: {_words(response)}", response.status_code)
        return response.status_code != HTTPStatus.CONFLICT

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """JSON merge patch. Returns the object, or None when there is none.

        Raises:
            KubeError: 409 when `metadata.resourceVersion` is given and no longer the newest.
        """
        headers = {"Content-Type": "application/merge-patch+json"}
        response = self._request("PATCH", path, json=body, headers=headers)
        return None if response.status_code == HTTPStatus.NOT_FOUND else response.json()

    def delete(self, path: str) -> None:
        """Ask for its end, and that of what it owns; nothing when there is none."""
        self._request("DELETE", path, json={"propagationPolicy": "Background"})

    def _request(self, method: str, path: str, also: tuple[int, ...] = (), **kwargs: Any) -> requests.Response:
        headers = {**kwargs.pop("headers", {}), **self._auth()}
        try:
            response = self._session.request(
                method, self.url + path, headers=headers, timeout=self.timeout_s, allow_redirects=False, **kwargs
            )
        except (requests.ConnectionError, requests.Timeout) as e:
            raise KubeUnreachable(f"no Kubernetes API answers at {self.url}: {type(e).__name__}") from e
        status = response.status_code
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
            raise KubeUnreachable(f"the Kubernetes API at {self.url} is busy ({status})", status)
        if not response.ok and status not in (HTTPStatus.NOT_FOUND, *also):
            raise KubeError(f"Kubernetes answered {method} {path} with {status}: {_words(response)}", status)
        return response

    def _auth(self) -> dict[str, str]:
        # Read each time: Kubernetes replaces a pod's token every hour.
        return {"Authorization": f"Bearer {self._token_file.read_text().strip()}"} if self._token_file else {}


def _own(name: str) -> str:
    path = POD / name
    return path.read_text().strip() if path.exists() else ""


def _own_url() -> str:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise KubeError("this is no pod of a Kubernetes cluster, and PINLOOM_KUBERNETES__URL is not set")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _words(response: requests.Response) -> str:
    """The `message` of the `Status` that Kubernetes answers with."""
    try:
        return str(response.json()["message"])[-2000:]
    except (ValueError, KeyError, TypeError):
        return response.text.strip()[-2000:]
