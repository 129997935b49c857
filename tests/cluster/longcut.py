"""A tenant that stays cut off for two minutes, beside whatever else is tested meanwhile."""

import os
import time
from types import TracebackType
from typing import Self

from tests.cluster import health, spaces
from tests.lab.client import Object
from tests.lab.kubeconfig import Access
from tests.lab.ports import free_port
from tests.lab.proxy import ProxyThread
from tests.lab.stage import Stage

SECONDS = float(os.environ.get("DPU_TEST_CUT_SECONDS", "120"))
"""How long; the variable is for whoever works on a test and does not want to wait."""
SPACE = "tenant-cut"


class LongCut:
    """A resource of its own, that reaches the tenant through a proxy of its own."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        port = free_port()
        self._proxy = ProxyThread(port, stage.lab.tenant.ports.api)
        # By certificate: a test revokes the account behind the tokens.
        authority = stage.lab.tenant.authority
        user = authority.client(stage.lab.credentials.certificate_user, ())
        kubeconfig = Access(f"https://127.0.0.1:{port}", authority.cert, user).kubeconfig("longcut", "tenant")
        self._spaces = spaces.spaces(stage, [SPACE], kubeconfig)
        self._began: float | None = None
        self.operator = 0
        """The pid of the operator that saw the cut."""
        self.before: dict[str, tuple[str, str]] = {}
        """What the operator had made when the cut began: uid and resourceVersion of each object."""

    def begin(self) -> None:
        """Cut, once all is copied; no more than once."""
        if self._began is not None:
            return
        self._stage.lab.infra.admin.create(spaces.resource(SPACE))
        self._stage.wait(lambda: spaces.settled(self._stage, SPACE), "the second resource to settle", 60)
        self.operator = self._pid()
        self.before = self.made()
        self._proxy.set("cut")
        self._began = time.monotonic()

    def wait(self) -> None:
        """Wait until it has lasted long enough."""
        assert self._began is not None
        time.sleep(max(0.0, self._began + SECONDS - time.monotonic()))

    def mend(self) -> None:
        """The network is whole again."""
        self._proxy.set("pass")

    def made(self) -> dict[str, tuple[str, str]]:
        """What the operator has made in the namespace now, but for the DaemonSet's status."""
        admin = self._stage.lab.infra.admin
        found = {}
        for kind, name in health.made(self._stage, SPACE):
            item = admin.get(kind, name, SPACE)
            found[f"{kind} {name}"] = (item["metadata"]["uid"], _version(item))
        return found

    def same_operator(self) -> bool:
        """Whether the operator that saw the cut is the one that runs."""
        return self._stage.process.alive() and self.operator == self._pid()

    def _pid(self) -> int:
        return self._stage.process.process.pid if self._stage.process.process else 0

    def __enter__(self) -> Self:
        self._spaces.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spaces.__exit__(None, None, None)
        self._proxy.close()


def _version(item: Object) -> str:
    meta = item["metadata"]
    return str(meta["generation"] if item["kind"] == "DaemonSet" else meta["resourceVersion"])
