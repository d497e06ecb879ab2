"""A step that reads and writes Parquet, a report and a table runs the same on every store."""

from tests.platform.validation.shop import action, land, read, table, validate


def test_the_gate_runs_on_any_store(lake):
    landed = land(lake, {"actions": table("actions", map(action, range(20)))}, days=(0, 2))
    manifest = validate(lake, landed)
    assert read(lake, manifest, "actions")["event_id"].n_unique() == 20
    assert lake.read_bytes(manifest.file("report", "index.html")).startswith(b"<!doctype html>")
    assert lake.require("actions").output("actions") == manifest.output("actions")
    assert validate(lake, landed) == manifest
