"""observe → plan → apply → report, for one OVNKubeConfig, for as long as it lives."""

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from dpu_operator import plan as planning
from dpu_operator.apply.copier import Copier
from dpu_operator.apply.executor import Failure, execute
from dpu_operator.kube.client import Cluster, ClusterError
from dpu_operator.observe import credentials
from dpu_operator.observe.infra import InfraFeed, NamespaceFeed
from dpu_operator.observe.shelf import is_older
from dpu_operator.observe.tenant import TenantFeed
from dpu_operator.plan import mirrors
from dpu_operator.plan.diff import is_ours
from dpu_operator.plan.machineconfig import Tree
from dpu_operator.plan.objects import text_at
from dpu_operator.report import events, logs, status
from dpu_operator.world import (
    CONFIG_MAP,
    EVENT,
    MACHINE_CONFIG,
    OVN_KUBE_CONFIG,
    SECRET,
    UNSEEN,
    Apply,
    Credential,
    InfraWorld,
    Kind,
    LinkState,
    Obj,
    Plan,
    Ref,
    Sight,
    Step,
    TenantKey,
    TenantWorld,
)

logger = logging.getLogger(__name__)

PAUSE = 0.1
"""Seconds between two reconciles: several objects that change together are planned together."""
PAUSE_AFTER_COPY = 2.0
"""Seconds without a change that was copied the short way, before what is derived from copies (a rollout) is planned."""
COPYING_LIMIT = 10.0
"""Seconds after which it is planned although the changes do not end."""
PATIENCE = 15.0
"""Seconds to wait for first answers before judging without them: a restart should not report Unknown in between, and many
tenants on busy processors take some seconds to answer. A server that is known to be away is not waited for."""
RETRY_CAP = 30.0
"""Seconds between two tries of writes that fail."""


class Surroundings(Protocol):
    """What a session shares with the others; the fleet has it."""

    cluster: Cluster
    infra: InfraFeed
    configs: dict[str, Obj]
    images: Mapping[str, str]
    tree: Tree
    clock: Callable[[], dt.datetime]


class Session:
    """The reconcile loop of one resource, with all that it watches.

    Args:
        fleet: what it shares with the other resources.
        uid: of its OVNKubeConfig.

    """

    def __init__(self, fleet: Surroundings, uid: str) -> None:
        self._fleet = fleet
        self._uid = uid
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._looking = True
        self._copying_since = 0.0
        self._settles_at = 0.0
        self._ended = 0.0
        self._started = self._time()
        self._namespace = NamespaceFeed(
            fleet.cluster, self._config["metadata"]["namespace"], link=fleet.infra.link, on_change=self._infra_changed
        )
        self._copier = Copier(fleet.cluster, wrote=self._wrote)
        self._credential = Credential()
        self._tenant: TenantFeed | None = None
        self._tenant_since = self._started
        self._before_tenant = TenantWorld()
        self._copies: dict[TenantKey, Ref] = {}
        self._failures = 0
        self._closed = False
        self._written: Obj | None = None

    @property
    def _config(self) -> Obj:
        return self._fleet.configs[self._uid]

    @property
    def _deleting(self) -> bool:
        return bool(self._config["metadata"].get("deletionTimestamp"))

    @property
    def title(self) -> str:
        """`namespace/name`, as the log has it."""
        meta = self._config["metadata"]
        return f"{meta['namespace']}/{meta['name']}"

    def wake(self) -> None:
        """Something that this resource looks at has changed; it does not wait for a flood of copies to end."""
        self._urgent.set()
        self._wake.set()

    async def run(self, until: Awaitable[Any]) -> None:
        """Reconcile whenever something changes, until told to stop."""
        logs.resource.set(self.title)
        stop = asyncio.ensure_future(until)
        delay: float | None = 0.0
        try:
            while not (stop.done() or self._closed):
                await self._sleep(stop, delay)
                if not (stop.done() or self._closed):
                    delay = await self._turn()
        finally:
            stop.cancel()
            # The namespace's watches stay: a removal still looks at what is there.
            await self._copier.close()
            if self._tenant is not None:
                await self._tenant.close()

    @staticmethod
    def _time() -> float:
        """Seconds that only go forward; the clock on the wall is for what people read."""
        return asyncio.get_running_loop().time()

    async def _sleep(self, stop: "asyncio.Future[Any]", delay: float | None) -> None:
        """Wait to be woken, at most `delay` seconds, then long enough that changes which belong together are there."""
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({woken, stop}, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        pause = 0.0 if self._looking else PAUSE - (self._time() - self._ended)
        if pause > 0:
            await asyncio.wait({stop}, timeout=pause)
        await self._let_copies_settle(stop)
        self._wake.clear()

    async def _let_copies_settle(self, stop: "asyncio.Future[Any]") -> None:
        """While copies go the short way, the plan that they wake waits: it would only be in the way of the next."""
        urgent = asyncio.ensure_future(self._urgent.wait())
        try:
            while not (stop.done() or urgent.done()) and (rest := self._settles_at - self._time()) > 0:
                await asyncio.wait({stop, urgent}, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
        finally:
            urgent.cancel()
        self._urgent.clear()
        self._copying_since = self._settles_at = 0.0

    async def _turn(self) -> float | None:
        """One reconcile. Returns after how many seconds to look again if nothing wakes us."""
        try:
            try:
                return await self._reconcile()
            finally:
                self._ended = self._time()
        except ClusterError as error:
            logger.warning("The infra API server does not take our report: %s", error)
        except Exception:
            # A defect of ours must not end the loop of this resource, nor be silent.
            logger.exception("This reconcile failed. Please report it; it is tried again.")
        self._failures += 1
        return min(RETRY_CAP, 2.0 ** min(self._failures, 10) / 2)

    # observe

    async def _refresh_tenant(self) -> None:
        """Follow the kubeconfig Secret: a new content ends the old watches, a refused one keeps what was seen last."""
        spec = self._config["spec"]
        name = spec["kubeConfigFile"]
        reading = credentials.read(self._namespace.get(SECRET, name), name=name)
        if reading.credential.seen is Sight.UNSEEN:
            return
        self._credential = reading.credential
        namespace = spec.get("tenantNamespace", "openshift-ovn-kubernetes")
        feed = self._tenant
        same_place = feed is not None and feed.namespace == namespace
        if feed and reading.access and feed.access.fingerprint == reading.access.fingerprint and same_place:
            return
        if feed:
            # Another namespace's objects are no answer for this one.
            self._before_tenant = self._tenant_world() if same_place else TenantWorld()
            self._tenant = None
            await feed.close()
        if reading.access:
            self._tenant = TenantFeed(reading.access, namespace=namespace, on_change=self._tenant_changed)
            self._tenant_since = self._time()

    def _tenant_world(self) -> TenantWorld:
        """What the watches know, and where they know nothing yet, what the ones before them knew."""
        before = self._before_tenant
        if self._tenant is None:
            return TenantWorld(
                credential=self._credential,
                link=before.link if self._credential.usable else TenantWorld().link,
                objects=before.objects,
                nodes=before.nodes,
                nodes_sight=before.nodes_sight,
            )
        now = self._tenant.world(self._credential)
        older = {k: seen for k, seen in before.objects.items() if now.seen(k).sight is Sight.UNSEEN}
        fresh_nodes = now.nodes_sight is not Sight.UNSEEN
        return TenantWorld(
            credential=now.credential,
            link=now.link,
            objects={**now.objects, **older},
            nodes=now.nodes if fresh_nodes else before.nodes,
            nodes_sight=now.nodes_sight if fresh_nodes else before.nodes_sight,
        )

    async def _infra_world(self) -> InfraWorld:
        fleet, config = self._fleet, self._config
        spec = config["spec"]
        pool = fleet.infra.pools.get(spec["poolName"])
        ours = planning.machine_config_name(spec["poolName"])
        machine_config = await fleet.infra.machine_config(ours)
        rendered = UNSEEN
        if name := text_at(pool.object, "spec", "configuration", "name"):
            rendered = await fleet.infra.rendered(name)
        live = dict(self._namespace.live())
        if machine_config.object:
            live[Ref(MACHINE_CONFIG, None, ours)] = machine_config.object
        node_secret = spec.get("nodeKubeConfigFile")
        return InfraWorld(
            config=config,
            others=tuple(other for uid, other in fleet.configs.items() if uid != self._uid),
            pool=pool,
            node_credential=(
                credentials.read(self._namespace.get(SECRET, node_secret), name=node_secret).credential
                if node_secret
                else self._credential
            ),
            env_overrides=self._namespace.get(CONFIG_MAP, "env-overrides"),
            nodes=tuple(fleet.infra.nodes),
            nodes_sight=Sight.PRESENT if fleet.infra.nodes.complete else fleet.infra.nodes.sight,
            rendered=rendered,
            live=live,
            # To a removal only the MachineConfig counts: a namespace that is being deleted may no longer be readable.
            live_complete=machine_config.settled and (self._namespace.complete or self._deleting),
            unreadable=self._namespace.refused(),
            infra_ovnkube=fleet.infra.ovnkube.get("ovnkube-node", "openshift-ovn-kubernetes"),
            images=fleet.images,
            now=fleet.clock(),
        )

    def _observed_enough(self) -> float:
        """0, or for how many seconds it is still worth waiting for first answers."""
        now = self._time()
        if not (self._fleet.infra.settled and self._namespace.settled):
            return max(0.0, PATIENCE - (now - self._started))
        feed = self._tenant
        if feed is None or feed.settled or feed.link.state in (LinkState.DOWN, LinkState.REFUSED):
            return 0.0
        return max(0.0, PATIENCE - (now - self._tenant_since))

    # plan, apply, report

    async def _reconcile(self) -> float | None:
        if self._deleting:
            return None  # else what `remove` takes away would be written again
        await self._refresh_tenant()
        if wait := self._observed_enough():
            self._looking = True
            return wait
        self._looking = False
        infra, tenant = await self._infra_world(), self._tenant_world()
        plan = planning.plan(infra, tenant, tree=self._fleet.tree)
        self._watch_more(plan)
        if wait := self._observed_enough():
            return wait  # what this topology needs besides is asked for just now
        failures: tuple[Failure, ...] = ()
        if plan.steps:
            failures = await self._execute(plan)
            infra, tenant = await self._infra_world(), self._tenant_world()
            plan = planning.plan(infra, tenant, tree=self._fleet.tree)
            self._watch_more(plan)
        await self._report(planning.with_failures(plan, tuple(f.sentence for f in failures)), infra.config)
        if failures:
            self._failures += 1
            return min(RETRY_CAP, 2.0 ** min(self._failures, 10) / 2)
        self._failures = 0
        return None if plan.wake_at is None else max(1.0, (plan.wake_at - self._fleet.clock()).total_seconds())

    def _watch_more(self, plan: Plan) -> None:
        """The topology decides which further tenant objects are needed, and which copies can go the short way."""
        if self._tenant is not None:
            self._tenant.want(plan.tenant_keys)
        self._copies = {key: ref for key, ref in plan.copies.items() if ref in self._namespace.live()}

    async def _execute(self, plan: Plan) -> tuple[Failure, ...]:
        return await execute(plan.steps, cluster=self._fleet.cluster, wrote=self._wrote, outdated=self._outdated)

    def _outdated(self, step: Step) -> bool:
        """A copy whose tenant object has changed since the plan: the newer one is on its way already."""
        if not isinstance(step, Apply) or not step.source_version:
            return False
        key = next((key for key, ref in self._copies.items() if ref == step.ref), None)
        current = self._tenant_world().object(key) if key else None
        return current is not None and current["metadata"].get("resourceVersion") != step.source_version

    def _wrote(self, ref: Ref, obj: Obj | None) -> None:
        if ref.kind is MACHINE_CONFIG:
            self._fleet.infra.machine_configs.wrote(ref, obj)
        else:
            self._namespace.wrote(ref, obj)

    async def _report(self, plan: Plan, config: Obj) -> None:
        """Write what was judged of the resource as it was then; by now there may be a newer generation."""
        now, meta = self._fleet.clock(), config["metadata"]
        # Our own write may not have come back by the watch yet.
        newest = self._written if self._written is not None and is_older(config, self._written) else config
        before = newest.get("status") or {}
        after = status.status_of(plan, before=before, generation=meta.get("generation", 0), now=now)
        if after == {key: before.get(key) for key in after}:
            return
        ref = Ref(OVN_KUBE_CONFIG, meta["namespace"], meta["name"])
        self._written = await self._fleet.cluster.merge_patch(ref, {"status": after}, subresource="status")
        changed = status.changed_conditions(plan, before)
        for condition in changed:
            logger.info("%s=%s %s: %s", condition.type, condition.status, condition.reason, condition.message)
        await asyncio.gather(*(self._post(events.event_for(condition, config, now)) for condition in changed))

    async def _post(self, event: Obj) -> None:
        try:
            await self._fleet.cluster.create(EVENT, event["metadata"]["namespace"], event)
        except ClusterError as error:
            logger.warning("An Event could not be written; the status has the same. (%s)", error)

    async def remove(self) -> str:
        """One step of removal, for a resource that is being deleted. Returns '' when done, else what it waits for."""
        logs.resource.set(self.title)
        if not self._fleet.infra.settled:
            return "Waiting for the infra API server's first answers."
        infra = await self._infra_world()
        plan, waits_for = planning.removal(infra)
        failures = await self._execute(plan)
        if waits_for:
            try:
                await self._report(planning.with_failures(plan, tuple(f.sentence for f in failures)), infra.config)
            except ClusterError as error:
                logger.warning("The status could not be written: %s", error)
        return failures[0].sentence if failures else waits_for

    # wake-ups

    def _infra_changed(self, kind: Kind) -> None:
        if kind != CONFIG_MAP:  # the echo of a copy may come before the answer to its write
            self._urgent.set()
        self._wake.set()

    def _tenant_changed(self, key: TenantKey | None, obj: Obj | None) -> None:
        ref = self._copies.get(key) if key else None
        if key and ref and obj and self._is_ours(ref) and not mirrors.malformed(key, obj):
            config = self._config
            uid = text_at(self._namespace.get(ref.kind, ref.name).object, "metadata", "uid")
            self._copier.offer(ref, lambda: planning.copy_step(key, obj, ref, config, uid=uid))
            now = self._time()
            self._copying_since = self._copying_since or now
            self._settles_at = min(now + PAUSE_AFTER_COPY, self._copying_since + COPYING_LIMIT)
        elif key is None:
            self._urgent.set()  # the link, or a node: no copy
        self._wake.set()

    def _is_ours(self, ref: Ref) -> bool:
        """Whether what is there now is ours; since the last plan somebody may have put something in its place."""
        live = self._namespace.get(ref.kind, ref.name).object
        return live is not None and is_ours(live, self.title)

    async def close(self) -> None:
        """End the loop, the watches and the writes of this resource."""
        self._closed = True
        self._urgent.set()
        self.wake()
        await self._copier.close()
        if self._tenant is not None:
            await self._tenant.close()
        await self._namespace.close()


def utc_now() -> dt.datetime:
    """The clock of the running operator."""
    return dt.datetime.now(dt.UTC)
