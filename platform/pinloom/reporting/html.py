"""Templates to one self-contained HTML page."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jinja2


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("pinloom.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, content: dict[str, Any]) -> str:
    """Render `<template>.html.j2`; a name that the content does not give is an error."""
    return _environment().get_template(f"{template}.html.j2").render(content)
