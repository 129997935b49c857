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
from dpu_operator.world import Apply, Condition, Obj, Plan, Truth
from dpu_shared.errors import UserError

_JUDGED = ("TenantObjectsSynced", "NodesMapped", "VersionAligned", "TenantCredentialsValid")
"""What can be judged without a cluster that runs. The others tell of machines and pods."""


def main(arguments: argparse.Namespace) -> int:
    """Print the objects. Returns 3 where something is in the way of the DPUs."""
    plan = _plan(arguments)
    problems = _problems(plan)
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
    for condition in problems:
        print(f"{condition.type}={condition.status} {condition.reason}: {condition.message}", file=sys.stderr)  # noqa: T201
    if not any(obj["kind"] == "DaemonSet" for obj in plan.desired):
        first = problems[0].message if problems else "The tenant is not usable as it is."
        raise UserError("No ovnkube-node can be rendered for this tenant.", first)
    return 3 if problems else 0


def _plan(arguments: argparse.Namespace) -> Plan:
    if bool(arguments.filename) != bool(arguments.tenant):
        raise UserError("Either -f or --tenant is missing.", "Give both, or none for the example.")
    with importlib.resources.as_file(importlib.resources.files("dpu_operator") / "examples") as examples:
        config = folder.config_of(Path(arguments.filename) if arguments.filename else examples / "ovnkubeconfig.yaml")
        tenant_objects = folder.load(Path(arguments.tenant) if arguments.tenant else examples / "tenant-4.20")
        infra_dir = Path(arguments.infra) if arguments.infra else None if arguments.tenant else examples / "infra"
        infra_objects = folder.load(infra_dir) if infra_dir else {}
    images = related_images(os.environ)
    if not arguments.tenant:
        images = {"agent": "example.com/dpu-agent@sha256:" + 64 * "0", **images}
    tenant = folder.tenant_world(tenant_objects, namespace=config["spec"]["tenantNamespace"])
    infra = folder.infra_world(config, infra_objects, images=images, now=dt.datetime.now(dt.UTC))
    tree = load_tree(os.environ)
    plan = planning.plan(infra, tenant, tree=tree)
    # Judged as if it were applied: that nothing is written yet is no news to somebody who asks what would be.
    applied = {step.ref: step.object for step in plan.steps if isinstance(step, Apply)}
    after = planning.plan(dataclasses.replace(infra, live={**infra.live, **applied}), tenant, tree=tree)
    return dataclasses.replace(plan, conditions=after.conditions)


def _problems(plan: Plan) -> list[Condition]:
    return [c for c in plan.conditions if c.type in _JUDGED and c.status is not Truth.TRUE]


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, so that scripts and configuration can be read."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _yaml(obj: Obj) -> str:
    text: str = yaml.dump(obj, Dumper=_Dumper, sort_keys=False, width=120)
    return text
