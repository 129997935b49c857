"""Everything that a measurement needs: the lab, the operator's process under its own account, tenants, and the floor.

All of them reach the API servers directly. The lab's proxy is there to be broken; left in, it would add the same
milliseconds to both sides and flatter every ratio.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests.bench import process
from tests.bench.sides import COPIES, Side
from tests.bench.trail import Trail, begun
from tests.lab import kwok, mco
from tests.lab.client import Object
from tests.lab.credentials import mint
from tests.lab.kubeconfig import Access
from tests.lab.lab import DPUS, POOL, Lab
from tests.lab.operator_run import namespace
from tests.lab.stage import CONFIG, Stage, config
from tests.lab.tenant import NAMESPACE as OVN_NAMESPACE
from tests.lab.waiting import eventually

TENANT = "tenant-1"
"""The first tenant's namespace in infra."""
RESOURCE = "cluster"
"""The name of every OVNKubeConfig."""
FLOOR = "bench-floor"
"""The floor's namespace, in both clusters."""
WRITER = "bench-writer"
"""Where the floor writes what the operator writes at a first apply."""
HOSTS = ("dpu-host-0", "dpu-host-1", "dpu-host-2")
TENANT_NODE = "dpu.openshift.io/tenant-node"


def say(text: str) -> None:
    """Progress, to standard error: the last line of standard output belongs to the figures."""
    print(f"bench: {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Scene:
    """The lab with a running operator. `with Scene() as scene` starts and ends all of it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dpu-bench-"))
        self.lab = Lab(self.folder / "lab")
        self.infra, self.tenant = self.lab.infra, self.lab.tenant
        self.admin = self.infra.admin
        self.stage = Stage(self.lab, self.folder, env=_more_environment())
        self._end = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.enter_context(self.lab)
            stack.callback(self._stop_operator)
            say(f"both clusters are up ({max(self.lab.timings.steps.values()):.0f} s)")
            self.stage.install()
            account = self.stage.account
            account.write_kubeconfig(self.stage.kubeconfig, account.access(self.infra.direct_url))
            self.furnish(TENANT)
            for dpu, host in zip(DPUS, HOSTS, strict=True):
                self._map(dpu, host)
            self.stage.process.start()
            self._end = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    @property
    def pid(self) -> int:
        """Of the operator's process, which must be alive."""
        running = self.stage.process.process
        if running is None or not running.alive():
            raise RuntimeError(f"The operator has ended. {self.last_words()}")
        return running.pid

    def keep_logs(self) -> None:
        """Let the logs outlive a failure: the scene's folder goes."""
        kept = Path(tempfile.gettempdir()) / "dpu-bench-logs"
        shutil.rmtree(kept, ignore_errors=True)
        for log in self.folder.rglob("*.log"):
            if log.name != "audit.log":
                place = kept / log.relative_to(self.folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(log, place)
        say(f"the logs are kept in {kept}")

    def last_words(self) -> str:
        """The end of the operator's log, for a message."""
        return f"The operator says:\n{self.stage.process.text()[-3000:]}"

    def awake(self) -> None:
        """After a long wait: drop connections that the API servers have dropped meanwhile (they keep them 90 s)."""
        self.admin.close()
        self.tenant.admin.close()

    # -- tenants ------------------------------------------------------------------------------------------------

    def furnish(self, space: str) -> None:
        """A tenant's namespace in infra as its administrator leaves it, up to the resource itself."""
        self.stage.tenant_namespace(space, self.lab.credentials.kubeconfig(server=self.tenant.direct_url))

    def further_tenant(self, number: int) -> str:
        """One more namespace, pool and DPU, and a resource for them, all for the same tenant cluster."""
        space = f"tenant-{number}"
        label = {f"bench.invalid/{space}": ""}
        self.furnish(space)
        dpu, address = f"{space}-dpu", f"198.51.100.{100 + number}"
        kwok.add_nodes(self.admin, [kwok.node(dpu, address, {"network.operator.openshift.io/dpu": "", **label})])
        self._map(dpu, HOSTS[number % len(HOSTS)])
        self.admin.apply(mco.pool(space, {"matchLabels": label}, ["worker", space]))
        self.create(space, pool=space)
        return space

    def create(self, space: str = TENANT, *, pool: str = POOL) -> Object:
        """The OVNKubeConfig of a tenant."""
        return self.admin.create(config(space, RESOURCE, poolName=pool))

    def resource(self, space: str = TENANT) -> Object | None:
        """The OVNKubeConfig of a tenant as it is now, or None."""
        return self.admin.find(CONFIG, RESOURCE, space)

    def ensure_tenant(self) -> None:
        """The first tenant's resource, in service."""
        if self.resource() is None:
            self.create()
        self.wait_served(TENANT)

    def wait_served(self, space: str, *, timeout: float = 90) -> None:
        """Wait until a tenant's objects are synced and its DPUs run them."""
        wanted = ("TenantObjectsSynced", "OvnKubeReady", "MachineConfigApplied")

        def served() -> bool:
            _ = self.pid
            found = self.stage.conditions(space, RESOURCE)
            return all(found.get(each, {}).get("status") == "True" for each in wanted)

        def why() -> str:
            return f"Its conditions are {json.dumps(self.stage.conditions(space, RESOURCE))}. {self.last_words()}"

        eventually(served, f"{', '.join(wanted)} of {space}", timeout=timeout, on_timeout=why)

    def _map(self, dpu: str, host: str) -> None:
        self.admin.patch("v1/Node", dpu, {"metadata": {"annotations": {TENANT_NODE: host}}})

    # -- the two sides ------------------------------------------------------------------------------------------

    def floor(self) -> process.Floor:
        """The copying floor, with sources of the same content as the operator's; its first copies are there."""
        for cluster, verbs in ((self.tenant, ["get", "list", "watch"]), (self.infra, ["get", "create", "patch"])):
            namespace(cluster.admin, FLOOR)
            for item in _account(FLOOR, verbs):
                cluster.admin.apply(item)
        for name in COPIES:
            source = self.tenant.admin.get("v1/ConfigMap", name, OVN_NAMESPACE)
            metadata = {"name": name, "namespace": FLOOR}
            self.tenant.admin.apply({**source, "metadata": metadata})
        base = f"/api/v1/namespaces/{FLOOR}/configmaps"
        started = process.Floor(
            {
                "mode": "copy",
                "tenant": self._token(self.tenant.direct_url, self.tenant.authority.cert, tenant=True),
                "infra": self._token(self.infra.direct_url, self.infra.authority.cert, tenant=False),
                "watch": f"{base}?watch=true&timeoutSeconds=36000",
                "copies": {name: f"{base}/{copy}?fieldManager=bench&force=true" for name, copy in COPIES.items()},
            }
        )
        for copy in COPIES.values():
            eventually(lambda copy=copy: self.admin.find("v1/ConfigMap", copy, FLOOR), f"the floor's {copy}")  # type: ignore[misc]
        return started

    def writer(self) -> process.Floor:
        """The floor that writes in sequence, as an account that may write anything."""
        namespace(self.admin, WRITER)
        who = {"name": WRITER, "namespace": WRITER}
        self.admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": who})
        self.admin.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": WRITER},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "ServiceAccount", **who}],
            }
        )
        token = mint(self.admin, WRITER, WRITER)
        access = Access(self.infra.direct_url, self.infra.authority.cert, token=token)
        return process.Floor({"mode": "apply", "infra": json.loads(access.kubeconfig())})

    def side(self, name: str) -> Side:
        """The bench's own view of `operator` or `floor`."""
        user = ("dpu-bench", ("system:masters",))
        return Side(
            name,
            tenant=self.tenant.access(*user, direct=True),
            infra=self.infra.access(*user, direct=True),
            source_namespace=FLOOR if name == "floor" else OVN_NAMESPACE,
            copy_namespace=FLOOR if name == "floor" else TENANT,
        )

    # -- looking ------------------------------------------------------------------------------------------------

    def trails(self) -> dict[str, tuple[Trail, str]]:
        """The audit log of each cluster from now on, and the operator's user there."""
        return {
            "infra": (Trail(self.infra.audit_log), self.stage.account.user),
            "tenant": (Trail(self.tenant.audit_log), self.lab.credentials.token_user),
        }

    def request_counter(self) -> Callable[[], dict[str, int]]:
        """A function that counts what the operator has asked of infra since its last call."""
        trail, user = Trail(self.infra.audit_log), self.stage.account.user

        def count() -> dict[str, int]:
            entries = begun(trail.read(), user, 0, time.time())
            return dict(Counter(f"{each.verb} {each.resource}" for each in entries).most_common())

        return count

    def owned(self, space: str) -> list[Object]:
        """What the operator has made in a namespace."""
        kinds = ("v1/ConfigMap", "v1/Secret", "v1/ServiceAccount", "apps/v1/DaemonSet")
        found = [item for kind in kinds for item in self.admin.list(kind, space)]
        found += self.admin.list("rbac.authorization.k8s.io/v1/RoleBinding", space)
        return [item for item in found if "ownerReferences" in item["metadata"]]

    def _token(self, server: str, ca: str, *, tenant: bool) -> Any:
        admin = self.tenant.admin if tenant else self.admin
        return json.loads(Access(server, ca, token=mint(admin, FLOOR, FLOOR)).kubeconfig())

    def _stop_operator(self) -> None:
        if self.stage.process.alive():
            self.stage.process.terminate()


def _account(name: str, verbs: list[str]) -> list[Object]:
    """A ServiceAccount that may do just this to the ConfigMaps of its namespace."""
    meta = {"name": name, "namespace": name}
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": meta,
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": name}],
        },
    ]


def _more_environment() -> dict[str, str]:
    """Variables for the operator's interpreter, from `BENCH_OPERATOR_ENV` (`A=1,B=2`): to profile it where it is slow."""
    pairs = os.environ.get("BENCH_OPERATOR_ENV", "")
    return dict(pair.split("=", 1) for pair in pairs.split(",") if "=" in pair)
