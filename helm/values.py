"""From the comments of the chart's values.yaml: its closed JSON schema, and the table of docs/kubernetes-values.md.

python helm/values.py writes both; tests/helm holds the three together.

Above a key, `# -- text` describes it; "(free" in the text leaves its content to Kubernetes or KubeRay. Behind a key,
`# one of: a | b` lists what it may be, and `# @map` says that the entries of a map have names of the user's choice and
the fields of the first one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "pinloom"
TABLE = Path(__file__).parents[1] / "docs" / "kubernetes-values.md"
KEY = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<rest>.*)$")
HEAD = """# Values of the chart

Made by `python helm/values.py` from the comments of [values.yaml](../helm/pinloom/values.yaml).

| value | default | |
|---|---|---|
"""


@dataclass(frozen=True)
class Note:
    """What the comments say of one key."""

    text: str
    one_of: tuple[str, ...] = ()
    is_map: bool = False

    @property
    def free(self) -> bool:
        return "(free" in self.text


def notes(text: str) -> dict[tuple[str, ...], Note]:
    """The note of each key that has one, by its path."""
    found: dict[tuple[str, ...], Note] = {}
    path: list[tuple[int, str]] = []
    said: list[str] = []
    for line in text.splitlines():
        if line.strip().startswith("# -- "):
            said.append(line.strip().removeprefix("# -- "))
        elif match := KEY.match(line):
            indent = len(match["indent"])
            path = [*((i, k) for i, k in path if i < indent), (indent, match["key"])]
            choice = re.search(r"# one of: (.*)$", match["rest"])
            if said:
                found[tuple(k for _, k in path)] = Note(
                    " ".join(said), tuple(choice[1].split(" | ")) if choice else (), "# @map" in match["rest"]
                )
            said = []
    return found


def schema_of(value: Any, path: tuple[str, ...], said: dict[tuple[str, ...], Note]) -> dict[str, Any]:
    note = said.get(path, Note(""))
    about = {"description": note.text} if note.text else {}
    if note.one_of:
        return {**about, "type": "string", "enum": list(note.one_of)}
    if note.free:
        return {**about, "type": "array" if isinstance(value, list) else "object"}
    if isinstance(value, dict):
        fields = {key: schema_of(v, (*path, key), said) for key, v in value.items()}
        if note.is_map:
            # The schema of an entry holds for every name.
            return {**about, "type": "object", "additionalProperties": next(iter(fields.values()))}
        return {**about, "type": "object", "properties": fields, "additionalProperties": False}
    kinds: dict[type, dict[str, Any]] = {
        bool: {"type": "boolean"},
        int: {"type": "integer", "minimum": 0},
        float: {"type": "number", "minimum": 0},
        str: {"type": "string"},
    }
    return {**about, **kinds[type(value)]}


def schema(values: dict[str, Any], said: dict[tuple[str, ...], Note]) -> dict[str, Any]:
    root = schema_of(values, (), said)
    # Helm hands `global` to every chart that another one contains.
    root["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "pinloom", **root}


def leaves(
    value: Any, path: tuple[str, ...], said: dict[tuple[str, ...], Note]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that a user may set, in the order of the file."""
    if isinstance(value, dict) and not said.get(path, Note("")).free:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key), said)
    else:
        yield path, value


def table(values: dict[str, Any], said: dict[tuple[str, ...], Note]) -> str:
    rows = []
    for path, default in leaves(values, (), said):
        note = said.get(path, Note(""))
        shown = json.dumps(default).replace("|", "\\|")
        choices = f" One of {', '.join(f'`{c}`' for c in note.one_of)}." if note.one_of else ""
        rows.append(f"| `{'.'.join(path)}` | `{shown}` | {note.text.replace('|', chr(92) + '|')}{choices} |\n")
    return HEAD + "".join(rows)


def main() -> None:
    text = (CHART / "values.yaml").read_text()
    values, said = yaml.safe_load(text), notes(text)
    (CHART / "values.schema.json").write_text(json.dumps(schema(values, said), indent=1) + "\n")
    TABLE.write_text(table(values, said))


if __name__ == "__main__":
    main()
