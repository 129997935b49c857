"""`python -m tests.bench`: the project's figures, measured; the last line of standard output is one JSON object."""

import argparse
import gc
import json
import os
import random
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from tests.bench import first, rest, sync
from tests.bench.figures import verdicts
from tests.bench.scene import Scene, say
from tests.lab.errors import LabError

PARTS = ("first", "sync", "burst", "idle", "tenants")
"""In this order: what needs a fresh operator first, what leaves most behind last."""
RATIOS = {"sync", "burst"}

Raw = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and leave nothing behind; the exit code is 0 also where a target is missed."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        result = measure(options.only, quick=options.quick)
    except KeyboardInterrupt:
        say("interrupted; everything that was started has been ended")
        return 130
    except LabError as error:
        print(f"error: {error.problem}\n{error.remedy}", file=sys.stderr)
        return 1
    text = json.dumps(result)
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    for name, verdict in result["targets"].items():
        say(f"{name}: {verdict}")
    print(text)
    return 0


def measure(parts: list[str], *, quick: bool) -> Raw:
    """Bring everything up and measure these parts."""
    began = time.monotonic()
    figures: Raw = {}
    raw: Raw = {}
    with Scene() as scene:
        # A collection of the bench's own garbage must not fall into somebody's sample.
        gc.collect()
        gc.disable()
        for part in [each for each in PARTS if each in parts and each not in RATIOS | {"idle", "tenants"}]:
            say(f"{part} …")
            found, raw[part] = _first(scene, quick=quick)
            figures |= found
        if RATIOS & set(parts):
            found, more = _ratios(scene, parts, quick=quick)
            figures |= found
            raw |= more
        gc.enable()
        if "idle" in parts:
            found, raw["idle"] = rest.idle(scene, seconds=60 if quick else 300)
            figures |= found
        if "tenants" in parts:
            found, raw["tenants"] = rest.tenants(scene, seconds=20 if quick else 60)
            figures |= found
    return {
        "operator": {**figures, "raw": raw},
        "targets": verdicts(figures),
        "quick": quick,
        "parts": [each for each in PARTS if each in parts],
        "took_seconds": round(time.monotonic() - began),
        "machine": {"cpus": os.cpu_count(), "python": sys.version.split()[0], "load_1m": round(os.getloadavg()[0], 2)},
    }


def _first(scene: Scene, *, quick: bool) -> tuple[Raw, Raw]:
    with scene.writer() as writer:
        return first.first_apply(scene, writer, samples=3 if quick else 10)


def _ratios(scene: Scene, parts: list[str], *, quick: bool) -> tuple[Raw, Raw]:
    """What is a ratio to the copying floor, with the floor running."""
    scene.ensure_tenant()
    figures: Raw = {}
    raw: Raw = {}
    with ExitStack() as stack:
        floor = stack.enter_context(scene.floor())
        operator_side, floor_side = (stack.enter_context(scene.side(name)) for name in ("operator", "floor"))
        if "sync" in parts:
            say("sync …")
            found, raw["sync"] = sync.sync(
                operator_side, floor_side, samples=50 if quick else 250, rng=random.Random(time.time_ns())
            )
            figures |= found
        if "burst" in parts:
            pids = {"operator": scene.pid, "floor": floor.pid}
            found, raw["burst"] = sync.burst(
                operator_side, floor_side, pids=pids, requests=scene.request_counter(), seconds=15 if quick else 60
            )
            figures |= found
    return figures, raw


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure the operator on two real control planes against the leanest client that does its job."
        " Progress goes to standard error; the last line of standard output is one JSON object.",
    )
    parser.add_argument(
        "--only", type=_parts, default=list(PARTS), metavar="PART,…", help=f"of {', '.join(PARTS)}; default: all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer samples and shorter waits: no figure to quote, and the JSON says so"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write the JSON here, indented")
    return parser


def _parts(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(PARTS)}")
    return chosen


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
