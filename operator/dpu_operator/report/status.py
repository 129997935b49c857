"""The status of an OVNKubeConfig, from a plan and the status before."""

import datetime as dt

from dpu_operator.world import Condition, Obj, Plan, kind_of


def status_of(plan: Plan, *, before: Obj, generation: int, now: dt.datetime) -> Obj:
    """The whole status. A condition keeps its lastTransitionTime as long as its status stays the same."""
    known = {c["type"]: c for c in before.get("conditions", [])}
    conditions = [_condition(c, known.get(c.type), generation, now) for c in plan.conditions]
    counts = plan.counts
    return {
        "observedGeneration": generation,
        "conditions": conditions,
        "dpus": {
            "total": counts.total,
            "mapped": counts.mapped,
            "configured": counts.configured,
            "unwell": list(counts.unwell[:20]),
        },
        "relatedObjects": [_related(obj) for obj in plan.desired if obj["kind"] in _WORTH_A_LOOK],
        **{key: _fit(plan.facts.get(key) or before.get(key, ""), limit) for key, limit in _FACTS.items()},
    }


MESSAGE_LIMIT = 4096
_FACTS = {"topology": 64, "tenantVersion": 256, "image": 1024}
"""The longest text that the CRD takes. Some of it is a tenant's, which must not be able to block the whole status."""


def _fit(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


_WORTH_A_LOOK = ("DaemonSet", "MachineConfig")
"""The copies and settings are many, and the conditions name them when something is wrong with one."""


def _related(obj: Obj) -> Obj:
    kind, meta = kind_of(obj), obj["metadata"]
    where = {"namespace": meta["namespace"]} if kind.namespaced else {}
    return {"group": kind.group, "resource": kind.plural, **where, "name": meta["name"]}


def _condition(condition: Condition, before: Obj | None, generation: int, now: dt.datetime) -> Obj:
    same = before is not None and before.get("status") == str(condition.status)
    since = before["lastTransitionTime"] if same and before else now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": condition.type,
        "status": str(condition.status),
        "reason": condition.reason,
        "message": _fit(condition.message, MESSAGE_LIMIT),
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }


def changed_conditions(plan: Plan, before: Obj) -> tuple[Condition, ...]:
    """The conditions whose status or reason is news. A message alone (a count that moves) is none."""
    known = {c["type"]: (c.get("status"), c.get("reason")) for c in before.get("conditions", [])}
    return tuple(c for c in plan.conditions if known.get(c.type) != (str(c.status), c.reason))
