"""Kubernetes Events for conditions that changed, on the resource that they are about."""

import datetime as dt

from dpu_operator.plan.conditions import MOVING
from dpu_operator.world import FIELD_MANAGER, Condition, Obj, Truth

_GOOD_WHEN_FALSE = ("TenantClusterApiServerUnreachable", "Degraded", "Progressing")


def is_bad(condition: Condition) -> bool:
    """Whether a person should look at this: the polarity of each condition type, and no work that goes on as it should."""
    if condition.status is Truth.UNKNOWN or condition.reason in MOVING:
        return False
    return (condition.status is Truth.TRUE) == (condition.type in _GOOD_WHEN_FALSE) and condition.type != "Progressing"


def event_for(condition: Condition, config: Obj, now: dt.datetime) -> Obj:
    """A core/v1 Event; its message is the condition's sentence (the API server takes at most 1,024 bytes)."""
    meta = config["metadata"]
    message = f"{condition.type}={condition.status}: {condition.message}"
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": config["apiVersion"],
            "kind": config["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "type": "Warning" if is_bad(condition) else "Normal",
        "reason": condition.reason,
        "message": message.encode()[:1024].decode(errors="ignore"),
        "source": {"component": FIELD_MANAGER},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
