"""An infra cluster where everything is well, to be broken in one way by each test."""

import copy
import dataclasses
import datetime as dt
from collections.abc import Callable

from dpu_operator.plan import machineconfig as mc
from dpu_operator.world import InfraWorld, Obj, Ref, Seen, Sight
from dpu_shared.host_config import HostConfig

NOW = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC)
ROLE = "machineconfiguration.openshift.io/role"
NODE_LABEL = "node-role.kubernetes.io/dpu"
IMAGE = "registry.example.com/dpu-agent@sha256:" + "a1" * 32
TREE: mc.Tree = {
    "/etc/systemd/system/dpu-agent.service": mc.TreeFile(
        0o644, b"[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    ),
    "/usr/local/bin/dpu-agent": mc.TreeFile(0o755, b"#!/bin/sh\nexit 0\n"),
}
TARGET = "rendered-dpu-1"
OLD = "rendered-dpu-0"


def seen(obj: Obj) -> Seen:
    return Seen(Sight.PRESENT, obj)


def config(name: str = "cluster", namespace: str = "tenant-1", pool: str = "dpu", **metadata: str) -> Obj:
    born = {"creationTimestamp": "2026-11-01T00:00:00Z", "uid": f"uid-{namespace}-{name}"}
    return {
        "apiVersion": "dpu.openshift.io/v1",
        "kind": "OVNKubeConfig",
        "metadata": {"name": name, "namespace": namespace, **born, **metadata},
        "spec": {"kubeConfigFile": "tenant-kubeconfig", "poolName": pool},
    }


def ours(infra: InfraWorld | None = None, host: HostConfig | None = None) -> Obj:
    world = infra or InfraWorld(config=config())
    return mc.machine_config(world, tree=TREE, host_config=host or HostConfig(), agent_image=IMAGE)


def configuration(name: str, *sources: str) -> Obj:
    return {"name": name, "source": [{"kind": "MachineConfig", "name": source} for source in sources]}


def pool(name: str = "dpu") -> Obj:
    carried = configuration(TARGET, "00-worker", f"99-{name}-dpu-network-operator")
    return {
        "metadata": {"name": name, "generation": 3},
        "spec": {
            "machineConfigSelector": {
                "matchExpressions": [{"key": ROLE, "operator": "In", "values": ["worker", name]}]
            },
            "nodeSelector": {"matchLabels": {NODE_LABEL: ""}},
            "configuration": carried,
        },
        "status": {
            "observedGeneration": 3,
            "machineCount": 3,
            "updatedMachineCount": 3,
            "degradedMachineCount": 0,
            "configuration": carried,
            "conditions": [{"type": "Updated", "status": "True"}, {"type": "RenderDegraded", "status": "False"}],
        },
    }


def node(name: str, current: str = TARGET, desired: str = TARGET, state: str = "Done", **more: str) -> Obj:
    prefix = "machineconfiguration.openshift.io/"
    marks = {f"{prefix}currentConfig": current, f"{prefix}desiredConfig": desired, f"{prefix}state": state}
    return {
        "metadata": {"name": name, "labels": {NODE_LABEL: ""}, "annotations": {**marks, **more}},
        "status": {"nodeInfo": {"bootID": f"boot-{name}"}},
    }


def rendered(*configs: Obj, name: str = TARGET) -> Obj:
    """What the machine-config-operator makes of some MachineConfigs: merged, and in a newer Ignition version."""
    files = [file for each in configs for file in each["spec"]["config"]["storage"]["files"]]
    units = [unit for each in configs for unit in each["spec"]["config"]["systemd"]["units"]]
    other = {"path": "/etc/motd", "mode": 420, "contents": {"source": "data:,hello", "compression": ""}}
    merged = {"ignition": {"version": "3.5.0"}, "storage": {"files": [other, *files]}, "systemd": {"units": units}}
    return {"metadata": {"name": name}, "spec": {"config": merged}}


def well() -> InfraWorld:
    """Applied everywhere."""
    mine = ours()
    return InfraWorld(
        config=config(),
        pool=seen(pool()),
        nodes=tuple(node(f"dpu-{i}") for i in range(3)),
        nodes_sight=Sight.PRESENT,
        rendered=seen(rendered(mine)),
        live={mc.ref_of(InfraWorld(config=config())): mine},
        live_complete=True,
        now=NOW,
    )


def edited(infra: InfraWorld, edit: Callable[[Obj], object]) -> InfraWorld:
    """The same with a changed pool."""
    changed = copy.deepcopy(infra.pool.object)
    assert changed is not None
    edit(changed)
    return dataclasses.replace(infra, pool=seen(changed))


def with_live(infra: InfraWorld, obj: Obj | None) -> InfraWorld:
    """The same with another MachineConfig of our name, or none."""
    live: dict[Ref, Obj] = {} if obj is None else {mc.ref_of(infra): obj}
    return dataclasses.replace(infra, live=live)
