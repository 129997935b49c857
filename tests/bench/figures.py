"""The arithmetic of the bench: percentiles, lags and ratios. Pure, so that it can be tested without a cluster."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A change that the bench made: which number it wrote, and when it began to send and had the answer."""

    number: int
    sent: float
    answered: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """A moment at which the copy was seen with a number."""

    at: float
    number: int


@dataclass(frozen=True, slots=True)
class Target:
    """What the project promised for a figure."""

    limit: float
    strict: bool = False
    """Whether the limit itself is a miss already (`under` instead of `at most`)."""

    def met(self, value: float) -> bool:
        """Whether a figure is as good as promised."""
        return value < self.limit if self.strict else value <= self.limit


OPERATOR: Mapping[str, Target] = {
    "sync_ratio_p50": Target(1.5),
    "sync_ratio_p99": Target(1.8),
    "burst_ratio_p99": Target(5),
    "burst_cpu_percent": Target(15),
    "first_apply_ratio": Target(2),
    "idle_requests_per_minute.infra": Target(2),
    "idle_requests_per_minute.tenant": Target(0.5),
    "rss_mib_1_tenant": Target(120, strict=True),
    "rss_mib_20_tenants": Target(200, strict=True),
    "rest_cpu_percent": Target(0.2, strict=True),
}
AGENT: Mapping[str, Target] = {
    "dry_run_ms": Target(300, strict=True),
    "dry_run_ratio": Target(3),
    "rest_rss_mib": Target(64, strict=True),
    "rest_cpu_percent": Target(0.1, strict=True),
    "port_back_ratio": Target(3),
}


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least so many percent are not above (nearest rank).

    No interpolation: what is reported was measured, and of 200 samples p99 is the third worst.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no samples, no percentile")
    # the rounding keeps 99 % of 200 at 198, which in floats is a little more
    rank = math.ceil(round(percent * len(ordered) / 100, 9))
    return ordered[max(rank, 1) - 1]


def lags(changes: Sequence[Change], sightings: Sequence[Sighting], *, given_up: float) -> list[float]:
    """For each change of one object, the seconds from its sending until the copy showed it, or a later one.

    That is how far a reader of the copy is behind the truth; a change that was skipped because a newer one came
    counts until the newer one is seen. One that was never seen counts until `given_up`, so that losing the last
    change cannot look better than being late with it.
    """
    pending = sorted(changes, key=lambda change: change.number)
    found: list[float] = []
    for sighting in sorted(sightings, key=lambda sighting: sighting.at):
        while len(found) < len(pending) and pending[len(found)].number <= sighting.number:
            found.append(sighting.at - pending[len(found)].sent)
    return found + [given_up - change.sent for change in pending[len(found) :]]


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """What a series of durations looks like, in milliseconds."""
    return {
        "count": len(seconds),
        "p50_ms": ms(percentile(seconds, 50)),
        "p90_ms": ms(percentile(seconds, 90)),
        "p99_ms": ms(percentile(seconds, 99)),
        "max_ms": ms(max(seconds)),
    }


def ms(seconds: float) -> float:
    """Milliseconds, to a hundredth."""
    return round(seconds * 1000, 2)


def ratio(measured: float, floor: float) -> float:
    """How many times the floor; a floor of nothing is a defect of the bench."""
    if floor <= 0:
        raise ValueError("the floor took no time, so there is nothing to compare with")
    return round(measured / floor, 2)


def per_minute(count: float, seconds: float) -> float:
    """A rate by the minute."""
    return round(count * 60 / seconds, 2)


def verdicts(figures: Mapping[str, object], targets: Mapping[str, Target]) -> dict[str, str]:
    """For each figure that was measured: `met`, or by how much not."""
    found: dict[str, str] = {}
    for name, target in targets.items():
        value: object = figures
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, int | float):
            sign = "under" if target.strict else "at most"
            found[name] = "met" if target.met(value) else f"missed: {value:g}, to be {sign} {target.limit:g}"
    return found
