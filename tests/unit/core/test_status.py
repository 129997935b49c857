"""The status, the Events and the polarity of conditions."""

import datetime as dt
import json
import re
from functools import cache
from typing import Any

import pytest
import yaml

from dpu_operator.report.events import event_for, is_bad
from dpu_operator.report.status import changed_conditions, status_of
from dpu_operator.world import Condition, Counts, Obj, Plan, TenantKey, Truth
from tests.unit.core.test_conditions_turn import TURNS, broken
from tests.unit.core.test_folder import CRD
from tests.unit.core.worlds import GOOD, NAMESPACE, example_config, healthy

EARLY = dt.datetime(2026, 5, 20, 12, 0, 0, 123456, tzinfo=dt.UTC)
LATER = EARLY + dt.timedelta(hours=1)


def condition(
    status: str = "True", reason: str = "Ready", message: str = "All is well.", kind: str = "OvnKubeReady"
) -> Condition:
    return Condition(kind, Truth(status), reason, message)


def plan(*conditions: Condition, **more: object) -> Plan:
    return Plan(steps=(), conditions=conditions, **more)  # type: ignore[arg-type]


def status(*conditions: Condition, before: Obj | None = None, now: dt.datetime = EARLY, generation: int = 1) -> Obj:
    return status_of(plan(*conditions), before=before or {}, generation=generation, now=now)


def test_a_condition_is_written_with_everything_that_the_api_asks_for() -> None:
    (written,) = status(condition(), generation=7)["conditions"]
    assert written == {
        "type": "OvnKubeReady",
        "status": "True",
        "reason": "Ready",
        "message": "All is well.",
        "lastTransitionTime": "2026-05-20T12:00:00Z",
        "observedGeneration": 7,
    }


@pytest.mark.parametrize(
    ("after", "since"),
    [
        (condition(), "2026-05-20T12:00:00Z"),
        (condition(reason="Other", message="Other."), "2026-05-20T12:00:00Z"),
        (condition("False"), "2026-05-20T13:00:00Z"),
        (condition("Unknown"), "2026-05-20T13:00:00Z"),
    ],
)
def test_the_time_of_the_transition_stays_as_long_as_the_status_does(after: Condition, since: str) -> None:
    (written,) = status(after, before=status(condition()), now=LATER)["conditions"]
    assert written["lastTransitionTime"] == since
    assert (written["reason"], written["message"]) == (after.reason, after.message)


def test_a_new_type_begins_now_and_one_that_is_no_longer_judged_goes() -> None:
    before = status(condition(kind="Old"))
    after = status(condition(kind="New"), before=before, now=LATER)
    assert [(c["type"], c["lastTransitionTime"]) for c in after["conditions"]] == [("New", "2026-05-20T13:00:00Z")]


def test_the_same_plan_gives_the_same_status_however_late() -> None:
    before = status(condition(), condition("False", kind="Degraded"))
    assert status(condition(), condition("False", kind="Degraded"), before=before, now=LATER) == before


def test_the_generation_is_that_which_was_judged() -> None:
    after = status(condition(), before=status(condition()), generation=2)
    assert after["observedGeneration"] == 2
    assert after["conditions"][0]["observedGeneration"] == 2


def test_counts_are_counts_and_at_most_twenty_names() -> None:
    names = tuple(f"dpu-{n}" for n in range(50))
    written = status_of(plan(counts=Counts(50, 40, 30, names)), before={}, generation=1, now=EARLY)
    assert written["dpus"] == {"total": 50, "mapped": 40, "configured": 30, "unwell": list(names[:20])}


def test_a_fact_that_is_not_known_now_stays_what_it_was() -> None:
    known = status_of(plan(facts={"topology": "central", "image": "i"}), before={}, generation=1, now=EARLY)
    assert (known["topology"], known["image"], known["tenantVersion"]) == ("central", "i", "")
    later = status_of(plan(facts={"topology": "", "image": "j"}), before=known, generation=1, now=EARLY)
    assert (later["topology"], later["image"]) == ("central", "j")


def test_a_whole_status_is_small() -> None:
    """A resource is at most 1.5 MiB, and a status is written again whenever one word of it changes."""
    world = healthy()
    world.report()
    assert set(world.config["status"]) >= {
        "observedGeneration", "conditions", "dpus", "topology", "tenantVersion", "image",
    }  # fmt: skip
    assert len(json.dumps(world.config["status"])) < 8000
    assert [c["type"] for c in world.config["status"]["conditions"]] == list(GOOD)


def misfits(value: Any, schema: Obj, path: str = "status") -> list[str]:
    """Where a value is not as a CRD's schema wants it."""
    match schema["type"]:
        case "object":
            fields = schema["properties"]
            found = [f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value]
            found += [f"{path}.{name} is unknown" for name in value if name not in fields]
            return found + [m for k, v in value.items() if k in fields for m in misfits(v, fields[k], f"{path}.{k}")]
        case "array":
            found = [f"{path} is too long"] if len(value) > schema.get("maxItems", 10**6) else []
            return found + [m for n, v in enumerate(value) for m in misfits(v, schema["items"], f"{path}[{n}]")]
        case "string":
            good = isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**6)
            good = good and (value in schema["enum"] if "enum" in schema else True)
            return (
                [] if good and re.fullmatch(schema.get("pattern", ".*"), value, re.DOTALL) else [f"{path} does not fit"]
            )
        case "integer":
            return [] if isinstance(value, int) and value >= 0 else [f"{path} does not fit"]
    raise AssertionError(schema)


@cache
def crd_status() -> Obj:
    (crd,) = yaml.safe_load_all(CRD.read_text(encoding="utf-8"))
    schema: Obj = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return schema


@pytest.mark.parametrize("number", range(len(TURNS)))
def test_the_status_of_every_world_is_one_that_the_crd_takes(number: int) -> None:
    written = status_of(broken(number), before={}, generation=1, now=EARLY)
    assert misfits(written, crd_status()) == []


def test_a_tenants_texts_cannot_make_the_status_one_that_the_crd_refuses() -> None:
    world = healthy()
    for key in (TenantKey.NODE_DAEMON_SET, TenantKey.DPU_HOST_DAEMON_SET):
        long = {"release.openshift.io/version": "4.20.3-" + "x" * 200_000}
        world.edit_tenant(key, lambda obj, long=long: obj["metadata"]["annotations"].update(long))  # type: ignore[misc]
    world.report()
    assert misfits(world.config["status"], crd_status()) == []
    assert world.config["status"]["tenantVersion"].endswith("…")
    huge = status(condition(message="x" * 100_000), now=EARLY)
    assert misfits(huge, crd_status()) == []
    facts = status_of(plan(facts={"image": "i" * 5000, "topology": "t" * 500}), before={}, generation=1, now=EARLY)
    assert misfits(facts, crd_status()) == []


@pytest.mark.parametrize(
    ("after", "news"),
    [
        (condition(), False),
        (condition(message="Another count."), False),
        (condition(reason="Other"), True),
        (condition("False"), True),
        (condition("Unknown"), True),
        (condition(kind="New"), True),
    ],
)
def test_an_event_is_for_another_status_or_reason_and_not_for_another_message(*, after: Condition, news: bool) -> None:
    assert changed_conditions(plan(after), status(condition())) == ((after,) if news else ())


def test_at_first_every_condition_is_news() -> None:
    made = healthy().plan()
    assert changed_conditions(made, {}) == made.conditions


# Events


@pytest.mark.parametrize(
    ("kind", "good"),
    [(kind, status == "True") for kind, status in GOOD.items() if kind != "Progressing"],
)
def test_each_condition_has_its_polarity(*, kind: str, good: bool) -> None:
    assert is_bad(condition("False", kind=kind)) is good
    assert is_bad(condition("True", kind=kind)) is not good
    assert is_bad(condition("Unknown", kind=kind)) is False


@pytest.mark.parametrize("status", ["True", "False", "Unknown"])
def test_progress_is_never_bad(status: str) -> None:
    assert is_bad(condition(status, kind="Progressing")) is False


def test_a_rollout_is_no_warning_and_what_stops_it_is() -> None:
    assert is_bad(condition("False", kind="OvnKubeReady", reason="RollingOut")) is False
    assert is_bad(condition("False", kind="OvnKubeReady", reason="SomePodsNotReady")) is True


def test_nothing_is_bad_in_a_healthy_world() -> None:
    assert not [c for c in healthy().plan().conditions if is_bad(c)]


def event(c: Condition) -> Obj:
    return event_for(c, example_config(), EARLY)


def test_an_event_is_about_its_resource_and_has_the_conditions_sentence() -> None:
    made = event(condition("False", "NoPodReady", "None of 3 pods is ready."))
    assert made["message"] == "OvnKubeReady=False: None of 3 pods is ready."
    assert (made["type"], made["reason"]) == ("Warning", "NoPodReady")
    assert made["involvedObject"] == {
        "apiVersion": "dpu.openshift.io/v1",
        "kind": "OVNKubeConfig",
        "name": "cluster",
        "namespace": NAMESPACE,
        "uid": "uid-of-the-resource",
    }
    assert made["metadata"] == {"generateName": "cluster.", "namespace": NAMESPACE}
    assert made["firstTimestamp"] == made["lastTimestamp"] == "2026-05-20T12:00:00Z"


def test_good_news_are_normal() -> None:
    assert event(condition())["type"] == "Normal"
    assert event(condition("False", kind="TenantClusterApiServerUnreachable"))["type"] == "Normal"
    assert event(condition("True", kind="TenantClusterApiServerUnreachable"))["type"] == "Warning"


@pytest.mark.parametrize("letter", ["x", "ä", "漢", "🙂"])
def test_an_events_message_is_at_most_1024_bytes_and_cut_between_letters(letter: str) -> None:
    message = event(condition(message=letter * 3000))["message"]
    assert 1000 < len(message.encode()) <= 1024
    assert set(message.removeprefix("OvnKubeReady=True: ")) == {letter}
