"""A stand-in for OpenShift's machine-config-operator and the daemons on its nodes. It lives in the lab only.

It holds no state but two kinds of timers (the render delay, a node's update): everything else is read from the API, so
it can be ended and started at any time. Its orders are in a ConfigMap of its own, out of the way of what the operator
under test watches; `Control` writes them.
"""

import argparse
import contextlib
import json
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.lab import mco_rules as rules
from tests.lab.client import ApiError, Client, Object, name_of
from tests.lab.informer import Informer, Trouble
from tests.lab.kubeconfig import Access

NAMESPACE = "openshift-machine-config-operator"
ORDERS = "dpu-lab-mco"
POOL = f"{rules.PREFIX}/v1/MachineConfigPool"
CONFIG = f"{rules.PREFIX}/v1/MachineConfig"


@dataclass(frozen=True)
class Orders:
    """What the stand-in was told to do. The delays are short; OpenShift's are 5 s to render and minutes to update."""

    render_delay: float = 0.3
    update_seconds: float = 0.3
    reboot: bool = True
    stall: tuple[str, ...] = ()
    degrade: tuple[tuple[str, str], ...] = ()
    render_fail: tuple[tuple[str, str], ...] = ()

    @classmethod
    def read(cls, config_map: Object | None) -> "Orders":
        """From the ConfigMap; what isn't there has its default."""
        told: dict[str, Any] = {key: json.loads(value) for key, value in ((config_map or {}).get("data") or {}).items()}
        for key in ("degrade", "render_fail"):
            told[key] = tuple((told.get(key) or {}).items())
        told["stall"] = tuple(told.get("stall") or ())
        return cls(**told)


class Control:
    """Orders to the stand-in, given through the API: `stall`, `degrade`, `render_fail`, `resume`, `timing`."""

    def __init__(self, admin: Client) -> None:
        self._admin = admin

    def stall(self, pool: str) -> None:
        """The pool's nodes start an update and never finish it."""
        self._tell(stall=[pool])

    def degrade(self, node: str, reason: str = "content mismatch for file /etc/lab") -> None:
        """A node says that it is Degraded."""
        self._tell(degrade={node: reason})

    def render_fail(self, pool: str, message: str = "the lab was told to fail") -> None:
        """The pool can't be rendered any more."""
        self._tell(render_fail={pool: message})

    def timing(self, *, render_delay: float = 0.3, update_seconds: float = 0.3) -> None:
        """How long rendering waits and a node's update takes."""
        self._tell(render_delay=render_delay, update_seconds=update_seconds)

    def resume(self) -> None:
        """Forget every order: stalled updates go on, degraded nodes recover."""
        self._admin.apply(_orders({}))

    def pause(self, pool: str, *, paused: bool = True) -> None:
        """Pause a pool as its owner would: in its spec."""
        self._admin.patch(POOL, pool, {"spec": {"paused": paused}})

    def _tell(self, **orders: Any) -> None:
        known = self._admin.find("v1/ConfigMap", ORDERS, NAMESPACE) or {}
        data = dict(known.get("data") or {}) | {key: json.dumps(value) for key, value in orders.items()}
        self._admin.apply(_orders(data))


def _orders(data: dict[str, str]) -> Object:
    metadata = {"name": ORDERS, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


class MachineConfigOperator:
    """The loop: woken by changes, it compares what is with what shall be and takes the next steps."""

    def __init__(self, access: Access) -> None:
        self._client = Client(access, field_manager="machine-config-operator")
        self._watcher = Client(access)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._due: dict[tuple[str, str], float] = {}
        watch = self._watcher
        self._pools = Informer(watch, POOL, self._wake.set)
        self._configs = Informer(watch, CONFIG, self._wake.set)
        self._nodes = Informer(watch, "v1/Node", self._wake.set)
        self._told = Informer(watch, "v1/ConfigMap", self._wake.set, namespace=NAMESPACE)
        self._informers = (self._pools, self._configs, self._nodes, self._told)
        self._thread = threading.Thread(target=self.run, name="dpu-lab-mco", daemon=True)

    def start(self) -> None:
        """Run in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._wake.set()
        for informer in self._informers:
            informer.stop()
        self._watcher.close()
        for informer in self._informers:
            informer.join()
        self._thread.join(5)
        self._client.close()
        self._watcher.close()

    def run(self) -> None:
        """The loop itself."""
        for informer in self._informers:
            informer.start()
        for informer in self._informers:
            while not informer.synced.wait(0.2) and not self._stop.is_set():
                pass
        while not self._stop.is_set():
            self._wake.clear()
            troubled = False
            try:
                self.look()
            except Trouble as error:
                if self._stop.is_set():
                    return
                troubled = True
                print(f"mco: {error}, trying again", file=sys.stderr, flush=True)
            soonest = min(self._due.values(), default=time.monotonic() + 30)
            self._wake.wait(0.2 if troubled else max(0.01, soonest - time.monotonic()))

    def look(self) -> None:
        """One pass over all pools and nodes."""
        orders = Orders.read(self._told.items().get(ORDERS))
        pools = self._pools.items()
        self._due = {key: when for key, when in self._due.items() if key[1] in pools or key[0] in self._nodes.items()}
        for name, nodes in rules.members(pools, self._nodes.items()).items():
            error = self._render(pools[name], orders)
            pool = self._pools.items().get(name)
            if pool is not None:
                moved = self._move(pool, nodes, orders)
                self._report(pool, moved, error)

    # -- the renderer -------------------------------------------------------------------------------------------

    def _render(self, pool: Object, orders: Orders) -> str | None:
        """Move `spec.configuration`, after the render delay; the error, where it can't be rendered."""
        name = name_of(pool)
        configs = rules.sources(pool, self._configs.items())
        told = dict(orders.render_fail).get(name)
        errors = [f"{name_of(each)}: {why}" for each in configs if (why := rules.problem(each))]
        if told or errors or not configs:
            return told or (errors[0] if errors else "no MachineConfigs found matching its selector")
        target = rules.rendered(pool, configs)
        wanted = rules.configuration(target, configs)
        if pool["spec"].get("configuration") == wanted:
            self._due.pop(("render", name), None)
            return None
        if not self._passed(("render", name), orders.render_delay):
            return None
        with contextlib.suppress(ApiError):  # it exists already: same name, same content
            self._client.create(target)
        self._pools.put(self._client.patch(POOL, name, {"spec": {"configuration": wanted}}))
        del self._due["render", name]
        return None

    # -- the nodes ----------------------------------------------------------------------------------------------

    def _move(self, pool: Object, nodes: list[Object], orders: Orders) -> list[Object]:
        """Take each node's next step; the nodes as they are then."""
        target = rules.target_of(pool)
        moved = [self._step(item, target, name_of(pool), orders) for item in nodes]
        if target is None or pool["spec"].get("paused"):
            return moved
        room = rules.room(pool, moved)
        for index, item in enumerate(moved):
            behind = rules.annotations(item).get(rules.DESIRED) != target
            if behind and room > 0 and not rules.node_unavailable(item):
                moved[index] = self._note(item, {rules.DESIRED: target})
                room -= 1
        return moved

    def _step(self, item: Object, target: str | None, pool: str, orders: Orders) -> Object:
        """What the daemon on one node does next."""
        notes = rules.annotations(item)
        current, desired, state = notes.get(rules.CURRENT), notes.get(rules.DESIRED), notes.get(rules.STATE)
        told = dict(orders.degrade).get(name_of(item))
        if told is not None:
            wanted = {rules.STATE: "Degraded", rules.REASON: told}
            return item if notes.items() >= wanted.items() else self._note(item, wanted)
        if current is None or desired is None:
            # A machine boots with its pool's configuration already on it.
            return self._note(item, _done(target), cordon=False) if target else item
        if state in rules.Failing:
            return self._note(item, {rules.STATE: "Done" if current == desired else "Working", rules.REASON: ""})
        if current == desired:
            return item
        if state != "Working":
            drain = {
                f"{rules.PREFIX}/desiredDrain": f"drain-{desired}",
                f"{rules.PREFIX}/lastAppliedDrain": f"drain-{desired}",
            }
            return self._note(item, {rules.STATE: "Working"} | drain, cordon=True)
        if pool in orders.stall or not self._passed((name_of(item), pool), orders.update_seconds):
            return item
        del self._due[name_of(item), pool]
        if orders.reboot:
            boot = {"status": {"nodeInfo": {"bootID": str(uuid.uuid4())}}}
            self._client.patch("v1/Node", name_of(item), boot, subresource="status")
        return self._note(item, _done(desired), cordon=False)

    def _note(self, item: Object, notes: dict[str, str], *, cordon: bool | None = None) -> Object:
        patch: Object = {"metadata": {"annotations": notes}}
        if cordon is not None:
            patch["spec"] = {"unschedulable": True if cordon else None}
        answer = self._client.patch("v1/Node", name_of(item), patch)
        self._nodes.put(answer)
        return answer

    def _report(self, pool: Object, nodes: list[Object], error: str | None) -> None:
        fresh = rules.status(pool, nodes, error)
        known = pool.get("status") or {}
        if any(known.get(key) != value for key, value in fresh.items()):
            self._pools.put(self._client.patch(POOL, name_of(pool), {"status": fresh}, subresource="status"))

    def _passed(self, timer: tuple[str, str], seconds: float) -> bool:
        due = self._due.setdefault(timer, time.monotonic() + seconds)
        return time.monotonic() >= due


def _done(target: str) -> dict[str, str]:
    uncordon = f"uncordon-{target}"
    return {
        rules.CURRENT: target, rules.DESIRED: target, rules.STATE: "Done", rules.REASON: "",
        f"{rules.PREFIX}/desiredDrain": uncordon, f"{rules.PREFIX}/lastAppliedDrain": uncordon,
    }  # fmt: skip


def pool(name: str, node_selector: Object, roles: list[str]) -> Object:
    """A MachineConfigPool."""
    selector: Object = {"matchExpressions": [{"key": rules.ROLE, "operator": "In", "values": roles}]}
    if roles == ["worker"]:
        selector = {"matchLabels": {rules.ROLE: "worker"}}
    return {
        "apiVersion": f"{rules.PREFIX}/v1",
        "kind": "MachineConfigPool",
        "metadata": {"name": name},
        "spec": {"machineConfigSelector": selector, "nodeSelector": node_selector},
    }


def furnish(admin: Client) -> None:
    """What every OpenShift cluster has: the pool `worker` with a config, and what the lab adds: the pool `dpu`."""
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    admin.apply(
        {
            "apiVersion": f"{rules.PREFIX}/v1",
            "kind": "MachineConfig",
            "metadata": {"name": "00-worker", "labels": {rules.ROLE: "worker"}},
            "spec": {
                "config": {
                    "ignition": {"version": "3.5.0"},
                    "storage": {"files": [{"path": "/etc/lab-worker", "mode": 420, "contents": {"source": "data:,"}}]},
                }
            },
        }
    )
    admin.apply(pool("worker", {"matchLabels": {"node-role.kubernetes.io/worker": ""}}, ["worker"]))
    admin.apply(pool("dpu", {"matchLabels": {"node-role.kubernetes.io/dpu-worker": ""}}, ["worker", "dpu"]))


def main(argv: list[str]) -> None:
    """`python -m tests.lab.mco --kubeconfig FILE`: the stand-in as a process of its own."""
    parser = argparse.ArgumentParser(prog="tests.lab.mco")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    access = Access.read(yaml.safe_load(parser.parse_args(argv).kubeconfig.read_text()))
    MachineConfigOperator(access).run()


if __name__ == "__main__":
    main(sys.argv[1:])
