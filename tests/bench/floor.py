"""The floor: the leanest client that does the operator's job, as a process of its own.

`copy` keeps one watch on the tenant and one connection to infra, and answers each event by one server-side apply. It
plans nothing, checks nothing and knows no failure: whatever the operator takes on top of it is the price of being one.
`apply` performs writes in sequence when told to, and tells how long each took.

    python -m tests.bench.floor < lines of JSON

The first line is the configuration. The process ends with its standard input, so that it never outlives the bench.
"""

import json
import os
import sys
import threading
import time
from typing import Any

from tests.bench.wire import APPLY, Connection
from tests.lab.kubeconfig import Access

MANAGER = "dpu-bench-floor"
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def copy(tenant: Connection, infra: Connection, config: dict[str, Any]) -> None:
    """Copy each object at each event, for ever.

    Args:
        tenant: to watch.
        infra: to write.
        config: `watch` is the target of the watch, `copies` maps a name there to the target of the copy's apply.

    """
    copies: dict[str, str] = config["copies"]
    for _, line in tenant.watch(config["watch"]):
        event = json.loads(line)
        source = event["object"]
        target = copies.get(source["metadata"]["name"])
        if target is None or event["type"] not in {"ADDED", "MODIFIED"}:
            continue
        name = target.partition("?")[0].rpartition("/")[2]
        wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": source["data"]}
        infra.request("PATCH", target, _encode(wanted).encode(), APPLY)


def apply(infra: Connection) -> None:
    """For each line, a list of [target, object]: apply them one after another, answer with the seconds of each."""
    for line in sys.stdin:
        writes = [(target, _encode(item).encode()) for target, item in json.loads(line)]
        # a connection that has slept is no warm one
        infra.request("GET", "/version")
        took = []
        for target, body in writes:
            before = time.monotonic()
            infra.request("PATCH", target, body, APPLY)
            took.append(time.monotonic() - before)
        print(json.dumps(took), flush=True)


def main() -> None:
    """Read the configuration, connect, say that we are ready, and work."""
    config = json.loads(sys.stdin.readline())
    infra = Connection(Access.read(config["infra"]), agent=MANAGER)
    infra.request("GET", "/version")
    if config["mode"] == "apply":
        print("ready", flush=True)
        apply(infra)
        return
    tenant = Connection(Access.read(config["tenant"]), agent=MANAGER)
    threading.Thread(target=_end_with_input, daemon=True).start()
    print("ready", flush=True)
    copy(tenant, infra, config)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
