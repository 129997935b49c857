"""SIGKILL after each single write of a first reconcile: the next start ends where an undisturbed run ends."""

import asyncio
import json
import re
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from aiohttp import web

from dpu_operator.world import HASH_ANNOTATION
from tests.cluster import health
from tests.cluster.spaces import machine_config, resource, settled, spaces, statuses, told, writes_since
from tests.lab import audit
from tests.lab.client import Object, kind_of, name_of
from tests.lab.controlplane import ControlPlane
from tests.lab.errors import LabError
from tests.lab.stage import CONFIG, Stage
from tests.lab.waiting import eventually
from tests.lab.writegate import WriteGate

MOST = 60
"""Writes of a first reconcile at most; it makes 25 to 30, depending on how the pool's answers fall together."""
SPACES = [f"crash-{number:02}" for number in range(MOST)]
AT_ONCE = 6
"""Resources that are created together: more would slow each other down, and then report what they do not know yet."""
_SPACE = re.compile(r"/namespaces/(crash-\d\d)/|/machineconfigs/99-(crash-\d\d)-")

Write = tuple[str, str]
"""Method and path."""


def space_of(path: str) -> str:
    """The space that a write is for; '' for none of ours."""
    found = _SPACE.search(path)
    return (found[1] or found[2]) if found else ""


class QuotaGate(WriteGate):
    """Counts the writes for each space by itself and holds them by its number: crash-07 gets 7.

    So one operator can be killed once, and has then been killed after 0, 1, 2, … writes: the resources share nothing
    that is written.
    """

    def __init__(self, cluster: ControlPlane, token: str) -> None:
        super().__init__(cluster, token)
        self.done: defaultdict[str, list[Write]] = defaultdict(list)
        """The writes that were let through and answered, by space."""
        self.held: set[str] = set()
        self._let_in: Counter[str] = Counter()

    def stopped(self, space: str) -> bool:
        """Whether all that it may write is written, and more is held."""
        return space in self.held and len(self.done[space]) == int(space[-2:])

    def _counts(self, request: web.Request) -> bool:
        return False  # by the class above; it is done here

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        space = space_of(request.path) if super()._counts(request) else ""
        if not space:
            return await super()._handle(request)
        if self._let_in[space] >= int(space[-2:]):
            self.held.add(space)
            await asyncio.Event().wait()  # until its sender is dead
        self._let_in[space] += 1
        answer = await super()._handle(request)
        self.done[space].append((request.method, request.path))
        return answer


@pytest.fixture
def rooms(idle: Stage) -> Iterator[ExitStack]:
    """Closes the spaces that were opened on it."""
    with ExitStack() as opened:
        yield opened


def test_killed_after_any_single_write_the_next_start_converges_and_rewrites_nothing(
    idle: Stage, rooms: ExitStack, tmp_path: Path
) -> None:
    stopped, whole = killed_after_each_write(idle, rooms, tmp_path)
    assert {space: len(writes) for space, writes in stopped.items()} == {space: int(space[-2:]) for space in stopped}
    assert int(whole[-2:]) > 20, "fewer writes than objects, status and Events"

    restarted = audit.now()
    idle.process.start()
    for space in [*stopped, whole]:
        idle.wait(lambda space=space: settled(idle, space), f"{space} to settle", timeout=60)  # type: ignore[misc]

    expected = made(idle, whole)
    for space in stopped:
        with suppress(LabError):
            eventually(lambda space=space: made(idle, space) == expected, "the last report", timeout=5)  # type: ignore[misc]
        assert made(idle, space) == expected, f"{space} is not as an undisturbed run leaves it"
    log, user = idle.lab.infra.audit_log, idle.account.user
    after = [
        (each.verb, urllib.parse.urlsplit(each.uri).path) for each in audit.writes(log, user=user, since=restarted)
    ]
    assert not [write for write in after if space_of(write[1]) == whole], "what was finished is written again"
    before = [write for writes in stopped.values() for write in writes]
    count = Counter(path for _, path in before + after if is_object(path))
    assert not [path for path, times in count.items() if times > 1], "what was right is written again"
    assert {verb for verb, _ in after} == {"patch", "create"}


def test_a_restart_of_a_settled_operator_writes_nothing_at_all(idle: Stage) -> None:
    health.bring_up(idle)
    before, mark = statuses(idle), audit.now()
    idle.process.restart()
    assert writes_since(idle, mark, before) == []


def killed_after_each_write(stage: Stage, rooms: ExitStack, folder: Path) -> tuple[dict[str, list[Write]], str]:
    """A resource in each space, until there are some that were not held before they were finished; then SIGKILL.

    Returns the writes that were let through by space, and the space of an undisturbed run.
    """
    with QuotaGate(stage.lab.infra, stage.account.token()) as gate:
        gated = Stage(stage.lab, folder)
        gated.account.write_kubeconfig(gated.kubeconfig, gate.access())
        gated.process.start()
        try:
            for first in range(0, MOST, AT_ONCE):
                batch = SPACES[first : first + AT_ONCE]
                rooms.enter_context(spaces(stage, batch))
                for space in batch:
                    stage.lab.infra.admin.create(resource(space))
                for space in batch:
                    gated.wait(lambda space=space: gate.stopped(space) or finished(gated, space), f"{space} to stop")  # type: ignore[misc]
                undisturbed = [space for space in batch if space not in gate.held]
                if undisturbed:
                    break
        finally:
            gated.process.kill()
        assert undisturbed, f"a first reconcile makes {MOST} writes or more: raise MOST"
        return {space: list(gate.done[space]) for space in SPACES if space in gate.held}, undisturbed[0]


def finished(stage: Stage, space: str) -> bool:
    """Whether nothing is left to be written."""
    return settled(stage, space) and told(stage, space)


def is_object(path: str) -> bool:
    """Whether an object of ours is written there, or the finalizer: neither a status nor an Event."""
    return not path.endswith(("/status", "/events"))


def made(stage: Stage, space: str) -> str:
    """Everything in a space and its MachineConfig, and the status, as text in which spaces cannot be told apart."""
    admin = stage.lab.infra.admin
    items = [item for kind in health.MADE_KINDS for item in admin.list(kind, space)]
    items += [item for item in admin.list(health.MACHINE_CONFIG) if name_of(item) == machine_config(space)]
    items += admin.list(CONFIG, space)
    bare = [_bare(item) for item in sorted(items, key=lambda item: (kind_of(item), name_of(item)))]
    text = json.dumps(bare, indent=1, sort_keys=True).replace(space, "SPACE")
    return re.sub(r"rendered-SPACE-[0-9a-f]{32}", "RENDERED", text)


def _bare(item: Object) -> Object:
    """Without what differs between two objects that were made alike: identity, versions, times, hashes over these."""
    dropped = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation")
    meta = {key: value for key, value in item["metadata"].items() if key not in dropped}
    notes = {key: value for key, value in meta.get("annotations", {}).items() if key != HASH_ANNOTATION}
    meta |= {"annotations": notes, "ownerReferences": [each | {"uid": ""} for each in meta.get("ownerReferences", [])]}
    conditions = [each | {"lastTransitionTime": ""} for each in item.get("status", {}).get("conditions", [])]
    status = {"status": item["status"] | {"conditions": conditions}} if "status" in item else {}
    return {**item, "metadata": meta, **status}
