"""The operator at rest: what it asks for, what it holds, what it burns."""

import re
import time
from collections import Counter
from typing import Any

from tests.bench import process
from tests.bench.figures import per_minute
from tests.bench.scene import TENANT, Scene, say
from tests.bench.trail import Entry, begun

SETTLE = 30.0
TENANTS = 20
SLICE = 10.0
"""Seconds between two looks whether the operator lives."""

Raw = dict[str, Any]


def idle(scene: Scene, *, seconds: float) -> tuple[Raw, Raw]:
    """Requests a minute with one tenant, from the audit logs.

    Every request counts, answered or refused; a watch counts when it starts. Watches are renewed about twice an hour,
    so that five minutes may see none of it: the raw figures add what the open watches will cost by the hour.
    """
    scene.ensure_tenant()
    trails = scene.trails()
    everything: dict[str, list[Entry]] = {name: trail.whole() for name, (trail, _) in trails.items()}
    _wait(SETTLE, "idle: settling", scene)
    since = time.time()
    _wait(seconds, "idle: counting requests", scene)
    until = time.time()
    figures: Raw = {}
    raw: Raw = {"seconds": round(until - since)}
    for name, (trail, user) in trails.items():
        entries = trail.read()
        window = begun(entries, user, since, until)
        figures[name] = per_minute(len(window), until - since)
        watches = _open_watches([*everything[name], *entries], user, until)
        renewals = sum(60 / length for length in watches)
        others = sum(entry.verb != "watch" for entry in window)
        raw[name] = {
            "requests": len(window),
            "what": dict(Counter(f"{entry.verb} {entry.resource or entry.uri}" for entry in window)),
            "open_watches": len(watches),
            "per_minute_in_the_long_run": round(per_minute(others, until - since) + renewals, 2),
        }
    return {"idle_requests_per_minute": figures}, raw


def _open_watches(entries: list[Entry], user: str, now: float) -> list[int]:
    """The lengths, in seconds, that the user's open watches were asked for."""
    seen: Counter[str] = Counter(entry.audit_id for entry in entries if entry.user == user and entry.verb == "watch")
    lengths: list[int] = []
    for entry in entries:
        told = re.search(r"timeoutSeconds=(\d+)", entry.uri)
        # a watch's second line is its end
        if seen[entry.audit_id] == 1 and entry.code < 300 and told and entry.received + int(told[1]) > now:
            lengths.append(int(told[1]))
    return lengths


def tenants(scene: Scene, *, seconds: float) -> tuple[Raw, Raw]:
    """Memory with one tenant and with twenty, and CPU at rest with one."""
    scene.ensure_tenant()
    _wait(SETTLE, "tenants: settling with one", scene)
    pid = scene.pid
    before, began = process.cpu_seconds(pid), time.monotonic()
    _wait(seconds, "tenants: at rest with one", scene)
    cpu = (process.cpu_seconds(pid) - before) / (time.monotonic() - began) * 100
    one = process.resident_mib(pid)
    raw: Raw = {"peak_mib_1_tenant": process.resident_mib(pid, "VmHWM"), "cpu_ticks_in_window": round(cpu * seconds)}

    say(f"tenants: {TENANTS - 1} more")
    spaces = [TENANT, *(scene.further_tenant(number) for number in range(2, TENANTS + 1))]
    for space in spaces:
        scene.wait_served(space, timeout=180)
    _wait(SETTLE, f"tenants: settling with {TENANTS}", scene)
    before, began = process.cpu_seconds(pid), time.monotonic()
    _wait(seconds, f"tenants: at rest with {TENANTS}", scene)
    busy = (process.cpu_seconds(pid) - before) / (time.monotonic() - began) * 100
    raw |= {
        "rest_cpu_percent_20_tenants": round(busy, 3),
        "peak_mib_20_tenants": process.resident_mib(pid, "VmHWM"),
    }
    figures = {
        "rss_mib_1_tenant": one,
        "rss_mib_20_tenants": process.resident_mib(pid),
        "rest_cpu_percent": round(cpu, 3),
    }
    return figures, raw


def _wait(seconds: float, what: str, scene: Scene) -> None:
    """Sleep, as long as the operator lives."""
    say(f"{what}, {seconds:g} s")
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, SLICE))
        _ = scene.pid
    scene.awake()
