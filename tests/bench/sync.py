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

    Both sides run in the same minute, half a period apart, each on objects of its own: whatever else the machine does
    then falls on both. (One after the other, on a machine that is not ours alone, it was the ratio of two loads.) The
    figure is the worse of the two bursts' ratios; it is never below that of the two sides' worst p99, which is in the
    raw figures.

    Args:
        operator: the operator's side.
        floor: the floor's side.
        pids: of the two copiers.
        requests: what the operator has asked of infra since the last call.
        seconds: the length of each burst.

    """
    raw: Raw = {}
    worst = {"operator": 0.0, "floor": 0.0}
    busiest = {"operator": 0.0, "floor": 0.0}
    ratios: list[float] = []
    for pattern, sources in (("one_object", (CONFIG,)), ("two_objects", (CONFIG, CA))):
        say(f"burst: {RATE} changes/s for {seconds:g} s, {pattern.replace('_', ' ')}")
        time.sleep(SETTLE)
        requests()
        load = process.machine_ticks()
        bursts = [Burst(side, sources, pids[side.name]) for side in (floor, operator)]
        _drive(bursts, seconds=seconds)
        raw[pattern] = {each.side.name: each.told(seconds) for each in bursts}
        raw[pattern] |= {"operator_requests": requests(), "machine_busy_percent": process.busy_percent(load)}
        found = {each.side.name: percentile(each.late, 99) for each in bursts}
        ratios.append(ratio(found["operator"], found["floor"]))
        for each in bursts:
            name = each.side.name
            worst[name] = max(worst[name], found[name])
            busiest[name] = max(busiest[name], each.cpu_percent)
    figures = {
        "burst_ratio_p99": max(ratios),
        "burst_cpu_percent": round(busiest["operator"], 1),
    }
    raw["ratio_of_the_worst_p99"] = ratio(worst["operator"], worst["floor"])
    return figures, raw


class Burst:
    """One side's part of a burst, from now on."""

    def __init__(self, side: Side, sources: Sequence[str], pid: int) -> None:
        self.side = side
        self.late: list[float] = []
        self.cpu_percent = 0.0
        self._sources = sources
        self._pid = pid
        self._changes: dict[str, list[Change]] = {source: [] for source in sources}
        self._written = 0
        self._arrived = True
        side.wake()
        self._began, self._cpu = time.monotonic(), process.cpu_seconds(pid)

    def change(self, turn: int) -> None:
        """Change the next object."""
        source = self._sources[turn % len(self._sources)]
        self._changes[source].append(self.side.change(source))

    def finish(self) -> None:
        """Wait for the last copies, and reckon how late each was."""
        for source, made in self._changes.items():
            self._arrived &= self.side.seen(source, made[-1], timeout=LOST) is not None
        given_up = time.monotonic()
        self.cpu_percent = (process.cpu_seconds(self._pid) - self._cpu) / (given_up - self._began) * 100
        for source, made in self._changes.items():
            sightings = self.side.sightings(source, self._began)
            self.late += lags(made, sightings, given_up=given_up)
            self._written += len(sightings)

    def told(self, seconds: float) -> Raw:
        """The raw figures."""
        return {
            **summary(self.late),
            "written": self._written,
            "changes_per_second": round(len(self.late) / seconds, 1),
            "cpu_percent": round(self.cpu_percent, 1),
            "last_arrived": self._arrived,
        }


def _drive(bursts: Sequence[Burst], *, seconds: float) -> None:
    """Change at the rate for so long; who is late catches up, since a burst does not wait for anybody."""
    began, share = time.monotonic(), 1 / RATE / len(bursts)
    for turn in range(int(seconds * RATE)):
        for place, each in enumerate(bursts):
            wait = began + turn / RATE + place * share - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            each.change(turn)
    for each in bursts:
        each.finish()
