"""`python -m tests.bench`: the project's figures, measured; the last line of standard output is one JSON object."""

import argparse
import gc
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from tests.bench import agent, first, process, rest, sync
from tests.bench.figures import AGENT, OPERATOR, verdicts
from tests.bench.scene import Scene, say
from tests.bench.sides import Side
from tests.lab.errors import LabError

AGENT_PARTS = ("dry-run", "rest", "port")
OPERATOR_PARTS = ("first", "sync", "burst", "idle", "tenants")
"""In this order: what needs a fresh operator first, what leaves most behind last."""
PARTS = (*AGENT_PARTS, *OPERATOR_PARTS)

Raw = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and leave nothing behind; a missed target is a figure, a part that broke is exit code 1."""
    options = _parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if options.realtime:
            first_in_line()
        result = measure(options.only, quick=options.quick) | {"realtime": options.realtime}
    except KeyboardInterrupt:
        say("interrupted; everything that was started has been ended")
        return 130
    except LabError as error:
        print(f"error: {error.problem}\n{error.remedy}", file=sys.stderr)
        return 1
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    for program, found in result["targets"].items():
        for name, verdict in found.items():
            say(f"{program}: {name}: {verdict}")
    print(json.dumps(result))
    return 1 if result["broken"] else 0


def first_in_line() -> None:
    """Let this process and all its children run before whatever else wants the processors.

    Percentiles of a millisecond say nothing on a machine whose processors are never free. Both sides and both clusters
    are children, so that none of them gains on another.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError as error:
        raise LabError(
            f"No realtime scheduling: {error.strerror}.", "Run as root, or leave --realtime away."
        ) from error


def measure(parts: list[str], *, quick: bool) -> Raw:
    """Bring up what these parts need, and measure them; one that breaks takes only its own figures away."""
    began, load = time.monotonic(), process.machine_ticks()
    results = {"agent": Result(), "operator": Result()}
    for part in AGENT_PARTS:
        if part in parts:
            results["agent"].take(part, lambda part=part: AGENT_MEASURES[part](quick=quick))  # type: ignore[misc]
    if set(parts) & set(OPERATOR_PARTS):
        with Scene() as scene:
            for part in OPERATOR_PARTS:
                if part in parts:
                    scene.awake()
                    take = results["operator"].take
                    if not take(part, lambda part=part: MEASURES[part](scene, quick=quick)):  # type: ignore[misc]
                        scene.keep_logs()
    return {
        "operator": {**results["operator"].figures, "raw": results["operator"].raw},
        "agent": {**results["agent"].figures, "raw": results["agent"].raw},
        "targets": {
            "operator": verdicts(results["operator"].figures, OPERATOR),
            "agent": verdicts(results["agent"].figures, AGENT),
        },
        "quick": quick,
        "parts": [each for each in PARTS if each in parts],
        "broken": results["operator"].broken | results["agent"].broken,
        "took_seconds": round(time.monotonic() - began),
        "machine": {
            "cpus": os.cpu_count(),
            "python": sys.version.split()[0],
            "busy_percent": process.busy_percent(load),
        },
    }


@dataclass
class Result:
    """One program's figures, what they are made of, and which parts broke."""

    figures: Raw = field(default_factory=dict)
    raw: Raw = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def take(self, part: str, do: Callable[[], tuple[Raw, Raw]]) -> bool:
        """Measure one part; whatever broke it, the others are still worth having."""
        # A collection of the bench's own garbage must not fall into somebody's sample.
        gc.collect()
        gc.disable()
        try:
            found, self.raw[part] = do()
            self.figures |= found
        except Exception as error:  # noqa: BLE001 - see above
            traceback.print_exc()
            self.broken[part] = f"{type(error).__name__}: {error}".partition("\n")[0][:500]
            return False
        finally:
            gc.enable()
        return True


def _dry_run(*, quick: bool) -> tuple[Raw, Raw]:
    return agent.dry_run(samples=5 if quick else 25)


def _agent_rest(*, quick: bool) -> tuple[Raw, Raw]:
    return agent.rest(seconds=30 if quick else 300)


def _port_back(*, quick: bool) -> tuple[Raw, Raw]:
    return agent.port_back(samples=5 if quick else 50)


AGENT_MEASURES: Mapping[str, Callable[..., tuple[Raw, Raw]]] = {
    "dry-run": _dry_run,
    "rest": _agent_rest,
    "port": _port_back,
}


def _first(scene: Scene, *, quick: bool) -> tuple[Raw, Raw]:
    with scene.writer() as writer:
        return first.first_apply(scene, writer, samples=3 if quick else 10)


def _sync(scene: Scene, *, quick: bool) -> tuple[Raw, Raw]:
    rng = random.Random(time.time_ns())
    with _two_sides(scene) as (operator, floor, _):
        return sync.sync(operator, floor, samples=50 if quick else 250, rng=rng)


def _burst(scene: Scene, *, quick: bool) -> tuple[Raw, Raw]:
    with _two_sides(scene) as (operator, floor, copier):
        pids = {"operator": scene.pid, "floor": copier.pid}
        counter = scene.request_counter()
        return sync.burst(operator, floor, pids=pids, requests=counter, seconds=15 if quick else 60)


@contextmanager
def _two_sides(scene: Scene) -> Iterator[tuple[Side, Side, process.Floor]]:
    """The operator and the copying floor, both in service."""
    scene.ensure_tenant()
    with scene.floor() as copier, scene.side("operator") as operator, scene.side("floor") as floor:
        yield operator, floor, copier


def _idle(scene: Scene, *, quick: bool) -> tuple[Raw, Raw]:
    return rest.idle(scene, seconds=60 if quick else 300)


def _tenants(scene: Scene, *, quick: bool) -> tuple[Raw, Raw]:
    return rest.tenants(scene, seconds=20 if quick else 60)


class Measure(Protocol):
    """One part: its figures, and what they are made of."""

    def __call__(self, scene: Scene, *, quick: bool) -> tuple[Raw, Raw]: ...


MEASURES: Mapping[str, Measure] = {
    "first": _first,
    "sync": _sync,
    "burst": _burst,
    "idle": _idle,
    "tenants": _tenants,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure the operator on two real control planes against the leanest client that does its job, and the agent"
        " on this machine and in the virtual DPU."
        " Progress goes to standard error; the last line of standard output is one JSON object.",
    )
    parser.add_argument(
        "--only", type=_parts, default=list(PARTS), metavar="PART,…", help=f"of {', '.join(PARTS)}; default: all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer samples and shorter waits: no figure to quote, and the JSON says so"
    )
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="run all of it before anything else on this machine (SCHED_RR; needs root): for a machine that others use",
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
