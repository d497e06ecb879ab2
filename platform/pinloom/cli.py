"""`pinloom …`: every command explains itself, and prints one JSON object with `--json`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.errors import UserError

PROCESS_START = time.time()


def _key_values(pairs: list[str], what: str) -> dict[str, str]:
    wrong = [p for p in pairs if "=" not in p]
    if wrong:
        raise UserError(f"--{what} {wrong[0]} has no '='", f"write --{what} name=value")
    return dict(p.split("=", 1) for p in pairs)


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def command_step(args: argparse.Namespace) -> dict[str, Any]:
    from pinloom.steps.job import run_job

    params = {k: _scalar(v) for k, v in _key_values(args.param, "param").items()}
    return run_job(
        args.names,
        params=params,
        inputs=_key_values(args.input, "input"),
        dataset=args.dataset,
        result_uri=args.result,
        inputs_from=args.inputs_from,
        started=PROCESS_START,
    )


def command_ingest(args: argparse.Namespace) -> dict[str, Any]:
    args.names = ["ingest", "validate"]
    return command_step(args)


def command_steps(args: argparse.Namespace) -> dict[str, Any]:
    from pinloom.steps.base import MODULES

    return {"steps": sorted(MODULES)}


def command_generate(args: argparse.Namespace) -> dict[str, Any]:
    from pinloom.datasets.synthetic import generate

    return generate(args.actions, args.out, args.seed)


def command_gc(args: argparse.Namespace) -> dict[str, Any]:
    from pinloom.lake.gc import collect

    return collect(dry_run=args.dry_run, dataset=args.dataset)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--dataset", help="shipped data set or path of a YAML (default: PINLOOM_DATASET)")


def _step_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="parameter of the step")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=URI", help="manifest to read")
    parser.add_argument(
        "--inputs-from",
        action="append",
        default=[],
        metavar="URI",
        help="result of an earlier job: its manifests become inputs by name",
    )
    parser.add_argument("--result", metavar="URI", help="write the manifests that this job published to this URI")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pinloom", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], dict[str, Any]], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        _common(sub)
        return sub

    step = add("step", command_step, "run one or more steps in this process, each publishing a manifest")
    step.add_argument("names", nargs="+", help="steps in order; see `pinloom steps`")
    _step_arguments(step)
    ingest = add("ingest", command_ingest, "bring a log into the lake: ingest and validate")
    _step_arguments(ingest)
    add("steps", command_steps, "list the steps")
    generate = add("generate", command_generate, "write a synthetic log with planted structure, and its YAML")
    generate.add_argument("--actions", type=int, default=100_000, help="rows of the log, impressions included")
    generate.add_argument("--out", type=Path, required=True, help="new folder")
    generate.add_argument("--seed", type=int, default=0, help="the same seed writes the same log")
    gc = add("gc", command_gc, "delete files that no pointer or registry alias reaches")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    return parser


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, default=str))
        return
    for key, value in result.items():
        print(f"{key}: {json.dumps(value, indent=1, default=str) if isinstance(value, dict | list) else value}")


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        _print(args.run(args), args.json)
    except UserError as e:
        if args.json:
            print(json.dumps({"error": e.problem, "remedy": e.remedy}))
        print(f"pinloom: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
