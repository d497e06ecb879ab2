"""Stands for `pinloom` as the command of a Ray job: leaves a trace, waits, fails, or writes its result, as told."""

import json
import os
import sys
import time
from pathlib import Path

from pinloom.cli import build_parser

HOME = Path(os.environ["PINLOOM_PROBE"])


def main() -> int:
    args = build_parser().parse_args(sys.argv[1:])
    params = dict(pair.split("=", 1) for pair in args.param)
    started = {"steps": args.names, "params": params, "inputs_from": args.inputs_from, "result": args.result}
    with (HOME / "started.jsonl").open("a") as trace:
        trace.write(json.dumps(started) + "\n")
    print("probe: started", flush=True)
    while (file := params.get("wait_for")) and not Path(file).exists():
        time.sleep(0.1)
    if code := int(params.get("exit", 0)):
        print(f"pinloom: {params['say']}\n  remedy: mend it", file=sys.stderr)
        return code
    result = Path(args.result.removeprefix("file://"))
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps({"manifests": {}}))
    print("probe: done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
