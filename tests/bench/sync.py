"""From a tenant's change to its copy: quiet, and under a burst. The operator and the floor take turns."""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.bench import process
from tests.bench.figures import Change, lags, percentile, ratio, summary
from tests.bench.scene import say
from tests.bench.sides import CA, CONFIG, Side

LOST = 10.0
"""Seconds after which a copy is given up; it counts as that long."""
PAUSES = (0.05, 0.25)
"""Between two samples at random, so that they fall into no rhythm with what anybody does by the clock."""
RATE = 20
SETTLE = 3.0
"""Seconds between two bursts: what the one before has set going is done then."""

Raw = dict[str, Any]


def sync(operator: Side, floor: Side, *, samples: int, rng: random.Random) -> tuple[Raw, Raw]:
    """The figures of single changes, and what they are made of.

    A sample begins when the bench starts to send the change and ends when its own watch in infra has the copy: the
    tenant's write and the two API servers are in it for both sides, and so what differs is the copier alone. The raw
    figures have the same from the tenant's answer on, which leaves the bench's own write out.
    """
    sides = [operator, floor]
    whole: dict[str, list[float]] = {side.name: [] for side in sides}
    behind: dict[str, list[float]] = {side.name: [] for side in sides}
    lost: dict[str, int] = {side.name: 0 for side in sides}
    for side in sides:
        side.wake()
    warm_up, load = 10, process.machine_ticks()
    for turn in range(samples + warm_up):
        # Who goes first is random too: the first of a pair wakes a processor that the second finds awake.
        for side in rng.sample(sides, 2):
            change = side.change(CONFIG)
            at = side.seen(CONFIG, change, timeout=LOST)
            if at is None:
                lost[side.name] += 1
                at = change.sent + LOST
            if turn >= warm_up:
                whole[side.name].append(at - change.sent)
                behind[side.name].append(at - change.answered)
            time.sleep(rng.uniform(*PAUSES))
        if turn % 50 == 49:
            say(f"sync: {turn + 1} of {samples + warm_up} pairs")
    figures = {f"sync_ratio_p{each}": _ratio(whole, each) for each in (50, 99)}
    raw = {
        **{name: {**summary(values), "lost": lost[name]} for name, values in whole.items()},
        "from_the_answer": {
            **{name: summary(values) for name, values in behind.items()},
            **{f"ratio_p{each}": _ratio(behind, each) for each in (50, 99)},
        },
        "machine_busy_percent": process.busy_percent(load),
    }
    return figures, raw


def _ratio(values: dict[str, list[float]], percent: float) -> float:
    return ratio(percentile(values["operator"], percent), percentile(values["floor"], percent))


def burst(
    operator: Side, floor: Side, *, pids: dict[str, int], requests: Callable[[], dict[str, int]], seconds: float
) -> tuple[Raw, Raw]:
    """The figures of 20 changes a second, on one object and alternating over two.

    The two sides run one after the other: a burst is about who is left behind, and two at once would be each other's
    load. The worse of the two bursts counts on each side.

    Args:
        operator: the operator's side.
        floor: the floor's side.
        pids: of the two copiers.
        requests: what the operator has asked of infra since the last call.
        seconds: the length of each burst.

    """
    raw: Raw = {}
    worst: dict[str, float] = {}
    busiest: dict[str, float] = {}
    for pattern, sources in (("one_object", (CONFIG,)), ("two_objects", (CONFIG, CA))):
        for side in (floor, operator):
            say(f"burst: {RATE} changes/s for {seconds:g} s, {pattern.replace('_', ' ')}, {side.name}")
            time.sleep(SETTLE)
            requests()
            found, p99, cpu = _one_burst(side, sources, pid=pids[side.name], seconds=seconds)
            raw.setdefault(pattern, {})[side.name] = found
            if side is operator:
                found["requests"] = requests()
            worst[side.name] = max(p99, worst.get(side.name, 0.0))
            busiest[side.name] = max(cpu, busiest.get(side.name, 0.0))
    figures = {
        "burst_ratio_p99": ratio(worst["operator"], worst["floor"]),
        "burst_cpu_percent": round(busiest["operator"], 1),
    }
    raw["floor_cpu_percent"] = round(busiest["floor"], 1)
    return figures, raw


def _one_burst(side: Side, sources: Sequence[str], *, pid: int, seconds: float) -> tuple[Raw, float, float]:
    changes: dict[str, list[Change]] = {source: [] for source in sources}
    side.wake()
    load = process.machine_ticks()
    cpu_before, began = process.cpu_seconds(pid), time.monotonic()
    for turn in range(int(seconds * RATE)):
        wait = began + turn / RATE - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        source = sources[turn % len(sources)]
        changes[source].append(side.change(source))
    ended = time.monotonic()
    arrived = [side.seen(source, made[-1], timeout=LOST) for source, made in changes.items()]
    given_up = time.monotonic()
    cpu = (process.cpu_seconds(pid) - cpu_before) / (given_up - began) * 100
    late: list[float] = []
    written = 0
    for source, made in changes.items():
        sightings = side.sightings(source, began)
        late += lags(made, sightings, given_up=given_up)
        written += len(sightings)
    count = sum(map(len, changes.values()))
    raw = {
        **summary(late),
        "written": written,
        "changes_per_second": round(count / (ended - began), 1),
        "cpu_percent": round(cpu, 1),
        "last_arrived": None not in arrived,
        "machine_busy_percent": process.busy_percent(load),
    }
    return raw, percentile(late, 99), cpu
