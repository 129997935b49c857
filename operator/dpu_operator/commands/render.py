"""`dpu-operator render`: observe and plan from folders, and print."""

import argparse
import dataclasses
import datetime as dt
import importlib.resources
import json
import os
import sys
from pathlib import Path

import yaml

from dpu_operator import plan as planning
from dpu_operator.observe import folder
from dpu_operator.observe.images import related_images
from dpu_operator.observe.tree import load_tree
from dpu_operator.plan.machineconfig import ROLE_LABEL
from dpu_operator.world import MACHINE_CONFIG_POOL, Apply, Condition, Obj, Plan, Ref, Truth
from dpu_shared.errors import UserError

_JUDGED = ("TenantObjectsSynced", "NodesMapped", "VersionAligned", "TenantCredentialsValid")
"""What can be judged without a cluster that runs. The others tell of machines and pods."""

_NO_DIGEST = "sha256:" + 64 * "0"
"""Of the images that nobody has named: what is shown is complete in shape, and can't be taken for the real one."""


def main(arguments: argparse.Namespace) -> int:
    """Print the objects. Returns 3 where something is in the way of the DPUs."""
    plan = _plan(arguments)
    problems = _problems(plan, arguments)
    if arguments.output == "json":
        shown = {
            "objects": list(plan.desired),
            "conditions": [{"type": c.type, "status": str(c.status), "reason": c.reason, "message": c.message}
                           for c in plan.conditions],
            "facts": dict(plan.facts),
        }  # fmt: skip
        print(json.dumps(shown, indent=2))  # noqa: T201  # the command's output
    else:
        sys.stdout.writelines(f"---\n{_yaml(obj)}" for obj in plan.desired)
    if not any(obj["kind"] == "DaemonSet" for obj in plan.desired):
        raise _unusable(plan)
    for condition in problems:
        print(f"{condition.type}={condition.status} {condition.reason}: {condition.message}", file=sys.stderr)  # noqa: T201
    return 3 if problems else 0


def _unusable(plan: Plan) -> UserError:
    """The two sentences of OvnKubeReady that say why there is no DaemonSet."""
    message = next(c.message for c in plan.conditions if c.type == "OvnKubeReady")
    problem, _, remedy = message.partition(". ")[2].partition(". ")
    return UserError(f"{problem.rstrip('.')}.", remedy or "See the conditions with -o json.")


def _plan(arguments: argparse.Namespace) -> Plan:
    if bool(arguments.filename) != bool(arguments.tenant):
        raise UserError("Either -f or --tenant is missing.", "Give both, or none for the example.")
    with importlib.resources.as_file(importlib.resources.files("dpu_operator") / "examples") as examples:
        config = folder.config_of(Path(arguments.filename) if arguments.filename else examples / "ovnkubeconfig.yaml")
        tenant_objects = folder.load(Path(arguments.tenant) if arguments.tenant else examples / "tenant-4.20")
        infra_dir = Path(arguments.infra) if arguments.infra else None if arguments.tenant else examples / "infra"
        infra_objects = folder.load(infra_dir) if infra_dir else _assumed(config)
    images = {"agent": f"example.com/dpu-agent@{_NO_DIGEST}", **related_images(os.environ)}
    if not infra_dir:
        images = {"ovnkube": f"example.com/ovnkube@{_NO_DIGEST}", **images}
    tenant = folder.tenant_world(tenant_objects, namespace=config["spec"]["tenantNamespace"])
    infra = folder.infra_world(config, infra_objects, images=images, now=dt.datetime.now(dt.UTC))
    tree = load_tree(os.environ)
    plan = planning.plan(infra, tenant, tree=tree)
    # Judged as if it were applied: that nothing is written yet is no news to somebody who asks what would be.
    applied = {step.ref: step.object for step in plan.steps if isinstance(step, Apply)}
    after = planning.plan(dataclasses.replace(infra, live={**infra.live, **applied}), tenant, tree=tree)
    return dataclasses.replace(plan, conditions=after.conditions)


def _assumed(config: Obj) -> dict[Ref, Obj]:
    """A pool as it usually is, where nothing of the infra cluster is given."""
    name = config["spec"]["poolName"]
    roles = [{"key": ROLE_LABEL, "operator": "In", "values": ["worker", name]}]
    spec = {
        "machineConfigSelector": {"matchExpressions": roles},
        "nodeSelector": {"matchLabels": {f"node-role.kubernetes.io/{name}": ""}},
    }
    kind = MACHINE_CONFIG_POOL
    pool = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}
    return {Ref(kind, None, name): pool}


def _problems(plan: Plan, arguments: argparse.Namespace) -> list[Condition]:
    """What is in the way, as far as it can be told from what was given."""
    unknown = ("NodesMapped",) if arguments.tenant and not arguments.infra else ()
    judged = [c for c in plan.conditions if c.type in _JUDGED and c.type not in unknown]
    return [c for c in judged if c.status is not Truth.TRUE]


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, so that scripts and configuration can be read."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _yaml(obj: Obj) -> str:
    text: str = yaml.dump(obj, Dumper=_Dumper, sort_keys=False, width=120)
    return text
