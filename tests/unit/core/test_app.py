"""kopf's wiring: its settings, and handlers that do nothing but wake a reconciler."""

import asyncio
import base64
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import kopf
import pytest

from dpu_operator import app
from dpu_operator.kube.access import Access
from dpu_operator.world import FINALIZER, OVN_KUBE_CONFIG
from tests.unit.core.worlds import example_config

wired: Any = app
"""The handlers with the arguments that they use; kopf's types ask for all."""


class Fleet:
    """Notes what it is told."""

    def __init__(self, waits_for: str = "") -> None:
        self.told: list[Any] = []
        self.waits_for = waits_for

    def saw(self, config: Any) -> None:
        self.told.append(("saw", config))

    async def gone(self, uid: str) -> None:
        self.told.append(("gone", uid))

    async def run(self, uid: str, until: Any) -> None:
        await until
        self.told.append(("run", uid))

    async def remove(self, uid: str) -> str:
        self.told.append(("remove", uid))
        return self.waits_for

    async def close(self) -> None:
        self.told.append("closed")


def memo(fleet: Fleet | None = None, **more: Any) -> Any:
    return SimpleNamespace(fleet=fleet, **more)


def settings() -> kopf.OperatorSettings:
    made = kopf.OperatorSettings()
    app.configure(made)
    return made


def test_whatever_kopf_writes_on_a_users_object_bears_our_own_domain() -> None:
    persistence = settings().persistence
    assert persistence.finalizer == FINALIZER
    body = kopf.Body({"metadata": {"annotations": {}}, "spec": {"a": 1}})
    patch = kopf.Patch({})
    progress: Any = {"started": "x", "stopped": None, "delayed": None, "retries": 1, "success": False, "failure": False}
    persistence.progress_storage.store(key=kopf.HandlerId("remove"), record=progress, body=body, patch=patch)
    names = list(patch["metadata"]["annotations"])
    assert names
    assert all(name.startswith("dpu.openshift.io/") for name in names)


def test_kopf_keeps_no_copy_of_the_spec_and_sees_no_change() -> None:
    storage = settings().persistence.diffbase_storage
    body, patch = kopf.Body({"metadata": {}, "spec": {"a": 1}}), kopf.Patch({})
    storage.store(body=body, patch=patch, essence=storage.build(body=body))
    assert not patch
    assert storage.fetch(body=body) == storage.build(body=body)


def test_kopf_neither_peers_nor_scans_nor_posts_log_lines() -> None:
    made = settings()
    assert made.peering.standalone
    assert made.scanning.disabled
    assert not made.posting.enabled
    assert made.watching.server_timeout == 1800
    assert made.watching.inactivity_timeout is not None


def test_no_number_of_refusals_ends_the_operator() -> None:
    """kopf gives up, and ends, when its backoffs do: an API server that starts may refuse for minutes."""
    backoffs: Any = settings().networking.error_backoffs
    first = list(itertools.islice(backoffs, 1000))
    assert len(first) == 1000
    assert first[0] < 0.5
    assert max(first) <= 5
    assert list(itertools.islice(backoffs, 1000)) == first, "each request begins anew"


def test_each_cause_has_its_handler_and_only_our_resource_is_watched() -> None:
    handlers = [
        *wired.registry._watching.get_all_handlers(),
        *wired.registry._indexing.get_all_handlers(),
        *wired.registry._spawning.get_all_handlers(),
        *wired.registry._changing.get_all_handlers(),
    ]
    assert sorted(str(handler.id) for handler in handlers) == ["gone", "reconcile", "remove", "saw"]
    for handler in handlers:
        selector = handler.selector
        assert selector is not None
        assert (selector.group, selector.version, selector.any_name) == (
            OVN_KUBE_CONFIG.group,
            OVN_KUBE_CONFIG.version,
            OVN_KUBE_CONFIG.plural,
        )


async def test_a_resource_that_was_seen_is_handed_on_as_plain_data_without_managed_fields() -> None:
    config = example_config()
    config["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    fleet, body = Fleet(), kopf.Body(cast("Any", config))
    await wired.saw(memo=memo(fleet), body=body)
    ((_, seen),) = fleet.told
    assert type(seen) is dict
    assert type(seen["metadata"]) is dict
    assert seen == example_config()


@pytest.mark.parametrize("kind", [None, "ADDED", "MODIFIED", "DELETED"])
async def test_only_a_deletion_makes_a_resource_gone(kind: str | None) -> None:
    fleet = Fleet()
    await wired.gone(memo=memo(fleet), type=kind, uid="u")
    assert fleet.told == ([("gone", "u")] if kind == "DELETED" else [])


async def test_the_loop_of_a_resource_ends_when_kopf_says_so() -> None:
    fleet, stop = Fleet(), asyncio.Event()
    task = asyncio.create_task(wired.reconcile(memo=memo(fleet), uid="u", stopped=stop))
    await asyncio.sleep(0)
    assert not task.done()
    stop.set()
    async with asyncio.timeout(5):
        await task
    assert fleet.told == [("run", "u")]


@pytest.mark.parametrize(("retry", "delay"), [(0, 1.0), (1, 2.0), (4, 30.0), (99, 30.0)])
async def test_a_removal_that_waits_is_looked_at_again_ever_more_rarely(retry: int, delay: float) -> None:
    with pytest.raises(kopf.TemporaryError, match="The pool") as caught:
        await wired.remove(memo=memo(Fleet("The pool is not rid of it.")), uid="u", retry=retry)
    assert caught.value.delay == delay


async def test_a_removal_that_is_done_lets_the_finalizer_go() -> None:
    fleet = Fleet()
    await wired.remove(memo=memo(fleet), uid="u", retry=0)
    assert fleet.told == [("remove", "u")]


async def test_startup_makes_the_fleet_and_cleanup_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    monkeypatch.setattr(
        app, "Fleet", lambda access, **more: fleet if (access, more) == ("a", {"images": 1, "tree": 2}) else None
    )
    shared = memo(access="a", images=1, tree=2)
    await wired.startup(memo=shared, settings=kopf.OperatorSettings())
    assert shared.fleet is fleet
    await wired.cleanup(memo=shared)
    assert fleet.told == ["closed"]


def decoded(data: Any) -> str:
    return base64.b64decode(data).decode()


def test_kopf_gets_the_same_account(tmp_path: Path) -> None:
    by_token = wired.login(memo=memo(access=Access(server="https://s", ca_pem="CA", token="t")))
    assert by_token is not None
    assert (by_token.server, by_token.token, decoded(by_token.ca_data)) == ("https://s", "t", "CA")
    assert by_token.certificate_data is None
    certificate = Access(server="https://s", ca_pem="CA", client_cert_pem="C", client_key_pem="K")
    by_certificate = wired.login(memo=memo(access=certificate))
    assert by_certificate is not None
    assert (decoded(by_certificate.certificate_data), decoded(by_certificate.private_key_data)) == ("C", "K")
    assert by_certificate.token is None


def test_a_token_that_the_kubelet_renewed_is_read_again_at_the_next_login(tmp_path: Path) -> None:
    path = tmp_path / "token"
    shared = memo(access=Access(server="https://s", ca_pem="CA", token_file=str(path)))
    for token in ("one", "two"):
        path.write_text(f"{token}\n", encoding="utf-8")
        info = wired.login(memo=shared)
        assert info is not None
        assert info.token == token


def test_run_is_one_operator_for_the_whole_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {}

    async def operator(**arguments: Any) -> None:
        said.update(arguments)

    monkeypatch.setattr(kopf, "operator", operator)
    access = Access(server="https://s", ca_pem="CA")
    app.run(access=access, images={"agent": "i"}, tree={}, liveness="http://0.0.0.0:1/x")
    assert (said["registry"], said["clusterwide"], said["liveness_endpoint"]) == (
        app.registry,
        True,
        "http://0.0.0.0:1/x",
    )
    assert (said["memo"].access, said["memo"].images) == (access, {"agent": "i"})
