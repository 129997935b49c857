"""One control plane: etcd and kube-apiserver, on the infra side also kube-controller-manager and kube-scheduler.

Its own parts reach the API server directly. Whoever the lab hands a kubeconfig to goes through the lab's proxy, so
that the network between them can be broken without breaking the cluster.
"""

import json
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab import binaries, pki, places, processes
from tests.lab.client import Client
from tests.lab.errors import LabError
from tests.lab.kubeconfig import Access
from tests.lab.ports import free_port
from tests.lab.proxy import Proxy, ProxyRemote, ProxyThread
from tests.lab.waiting import eventually

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/readyz*", "/livez*", "/metrics"]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class Ports:
    """The loopback ports of a cluster."""

    proxy: int
    api: int
    etcd: int
    etcd_peer: int
    controllers: int
    scheduler: int
    kwok: int

    @classmethod
    def choose(cls) -> "Ports":
        """All of them, free now."""
        return cls(*(free_port() for _ in range(7)))


class ControlPlane:
    """A cluster in a folder. Its methods start and end the programs; its files say everything else."""

    def __init__(self, name: str, folder: Path, *, controllers: bool, detach: bool = False) -> None:
        self.name = name
        self.folder = folder
        self.controllers = controllers
        self.detach = detach
        self.ports = self._ports()
        self.authority = self._authority("ca")
        self.other_authority = self._authority("other-ca")
        self.url = f"https://127.0.0.1:{self.ports.proxy}"
        self.direct_url = f"https://127.0.0.1:{self.ports.api}"
        self.admin = Client(self.access("dpu-lab-admin", ("system:masters",), direct=True))
        self.proxy: Proxy | None = None

    # -- identities ---------------------------------------------------------------------------------------------

    def access(self, user: str, groups: tuple[str, ...] = (), *, direct: bool = False) -> Access:
        """A client certificate for anybody, through the proxy unless `direct`."""
        server = self.direct_url if direct else self.url
        return Access(server, self.trust(), self.authority.client(user, groups))

    def node_access(self, name: str) -> Access:
        """A kubelet's identity, straight to the API server."""
        return Access(self.direct_url, self.trust(), self.authority.node(name))

    def trust(self) -> str:
        """The CA bundle of the lab's own clients: also the authority that `swap-ca` serves with."""
        return self.authority.cert + self.other_authority.cert

    @property
    def serving(self) -> str:
        """The name of the certificate that the API server serves with: "server", or "other-server" after a swap."""
        noted = self.folder / "serving"
        return noted.read_text() if noted.exists() else "server"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, one JSON object a line, each there when its request is answered."""
        return self.folder / "audit.log"

    @property
    def admin_kubeconfig(self) -> Path:
        """cluster-admin through the proxy."""
        return self.folder / "admin.kubeconfig"

    @property
    def direct_kubeconfig(self) -> Path:
        """cluster-admin past the proxy: for looking around while the network is broken."""
        return self.folder / "direct.kubeconfig"

    # -- life ---------------------------------------------------------------------------------------------------

    def start_etcd(self) -> None:
        """Start etcd; do not wait."""
        self._write_files()
        url, peer = f"http://127.0.0.1:{self.ports.etcd}", f"http://127.0.0.1:{self.ports.etcd_peer}"
        # No fsync: nothing here outlives the machine, and a laptop's disk would be the slowest part.
        self._start("etcd", [
            binaries.path("etcd"), "--name=lab", f"--data-dir={self.folder / 'etcd'}", "--unsafe-no-fsync",
            f"--listen-client-urls={url}", f"--advertise-client-urls={url}", f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=lab={peer}", "--log-level=warn",
            # As kubeadm sets it: without it a quiet API server has no progress to tell, and sends no bookmarks.
            "--watch-progress-notify-interval=5s",
        ])  # fmt: skip

    def wait_etcd(self) -> None:
        """Wait until etcd says it is healthy."""
        url = f"http://127.0.0.1:{self.ports.etcd}/health"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def healthy() -> bool:
            with opener.open(url, timeout=2) as answer:
                return bool(answer.status == 200)

        self._until("etcd", healthy, "healthy")

    def start_api(self, serving: str | None = None) -> None:
        """Start kube-apiserver with the named serving certificate, by default the last one; do not wait."""
        made = self.folder / "pki"
        serving = serving or self.serving
        (self.folder / "serving").write_text(serving)
        self._start("kube-apiserver", [
            binaries.path("kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{self.ports.etcd}",
            "--bind-address=127.0.0.1", f"--secure-port={self.ports.api}", "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true",
            f"--tls-cert-file={made / serving}.crt", f"--tls-private-key-file={made / serving}.key",
            f"--cert-dir={made}", f"--client-ca-file={made / 'ca.crt'}", "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={made / 'accounts.key'}",
            f"--service-account-signing-key-file={made / 'accounts.key'}",
            f"--audit-policy-file={self.folder / 'audit-policy.json'}", f"--audit-log-path={self.audit_log}",
            # blocking: a test that reads the log right after a request finds it there.
            "--audit-log-mode=blocking",
            # Watches are asked to end when the server does; without it a restart waits for them.
            "--shutdown-watch-termination-grace-period=300ms", "--profiling=false",
        ])  # fmt: skip

    def wait_api(self, timeout: float = 60) -> None:
        """Wait until /readyz says ok."""
        self._until("kube-apiserver", self.admin.ready, "ready", timeout)

    def start_controllers(self) -> None:
        """Start the controllers and the scheduler, where this cluster has them."""
        if not self.controllers:
            return
        made, config = self.folder / "pki", self.folder / "controllers.kubeconfig"
        common = [
            f"--kubeconfig={config}", f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1", "--leader-elect=false", "--kube-api-qps=300", "--kube-api-burst=600",
            "--profiling=false",
        ]  # fmt: skip
        self._start("kube-controller-manager", [
            binaries.path("kube-controller-manager"), *common, f"--secure-port={self.ports.controllers}",
            f"--cert-dir={made}", "--use-service-account-credentials=true",
            f"--service-account-private-key-file={made / 'accounts.key'}", f"--root-ca-file={made / 'ca.crt'}",
            f"--cluster-signing-cert-file={made / 'ca.crt'}", f"--cluster-signing-key-file={made / 'ca.key'}",
        ])  # fmt: skip
        self._start("kube-scheduler", [
            binaries.path("kube-scheduler"), *common, f"--secure-port={self.ports.scheduler}", f"--cert-dir={made}",
        ])  # fmt: skip

    def start_proxy(self) -> None:
        """Start the proxy: a thread here, or a process that outlives us."""
        if not self.detach:
            self.proxy = ProxyThread(self.ports.proxy, self.ports.api)
            return
        control = self.folder / "proxy.sock"
        self._start("proxy", [
            sys.executable, "-m", "tests.lab.proxy", "--listen", str(self.ports.proxy),
            "--target", str(self.ports.api), "--control", str(control),
        ], cwd=places.REPOSITORY)  # fmt: skip
        self.proxy = ProxyRemote(self.ports.proxy, control)
        self._until("proxy", control.exists, "there")

    def attach(self) -> None:
        """Use the proxy process that an earlier `dpu-lab up` started."""
        self.proxy = ProxyRemote(self.ports.proxy, self.folder / "proxy.sock")

    def restart_api(self, serving: str | None = None) -> None:
        """End kube-apiserver and start it again on its old data; ready when this returns."""
        self.stop_program("kube-apiserver")
        self.start_api(serving)
        self.wait_api()

    def stop_program(self, name: str) -> None:
        """End one program of this cluster."""
        for process in processes.remembered(self.folder):
            if process.name == name:
                process.stop()

    def stop(self) -> None:
        """End everything: who talks first, the API server next, etcd last."""
        if self.proxy is not None:
            self.proxy.close()
        self.admin.close()
        last = {"kube-apiserver": 1, "etcd": 2}
        for process in sorted(processes.remembered(self.folder), key=lambda each: last.get(each.name, 0)):
            process.stop()

    def program(self, name: str) -> processes.Process:
        """One of its running programs."""
        for process in processes.remembered(self.folder):
            if process.name == name and process.alive():
                return process
        raise LabError(f"{name} of the {self.name} cluster is not running.", self._why(name))

    def network(self) -> Proxy:
        """The proxy, once there is one."""
        if self.proxy is None:
            raise LabError(f"The {self.name} cluster has no proxy yet.", "Start the lab first: `dpu-lab up`.")
        return self.proxy

    # -- files --------------------------------------------------------------------------------------------------

    def _start(self, name: str, argv: list[str], cwd: Path | None = None) -> None:
        processes.start(name, argv, self.folder, detach=self.detach, cwd=cwd)

    def _until(self, name: str, probe: Callable[[], bool], state: str, timeout: float = 60) -> None:
        """Wait for a program, but not for one that has ended."""

        def probe_the_living() -> bool:
            self.program(name)
            return probe()

        what = f"{name} of the {self.name} cluster to be {state}"
        eventually(
            probe_the_living, what, timeout=timeout, every=0.03, retry=(OSError,), on_timeout=lambda: self._why(name)
        )

    def _why(self, name: str) -> str:
        log = self.folder / f"{name}.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        return f"The end of {log}:\n" + "\n".join(text.splitlines()[-8:])

    def _ports(self) -> Ports:
        file = self.folder / "ports.json"
        if file.exists():
            return Ports(**json.loads(file.read_text()))
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = Ports.choose()
        file.write_text(json.dumps(asdict(ports)))
        return ports

    def _authority(self, name: str) -> pki.Authority:
        made = self.folder / "pki"
        if not (made / f"{name}.crt").exists():
            pki.Authority.make(f"dpu-lab {self.name} {name}").write(made, name)
        pair = pki.Authority.read(made, name)
        return pki.Authority(pair.cert, pair.key)

    def _write_files(self) -> None:
        made = self.folder / "pki"
        if (made / "accounts.key").exists():
            return
        self.folder.chmod(0o700)
        self.authority.server().write(made, "server")
        self.other_authority.server().write(made, "other-server")
        (made / "accounts.key").write_text(pki.signing_key())
        (self.folder / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))
        masters = ("system:masters",)
        for file, access in (
            (self.admin_kubeconfig, self.access("dpu-lab-admin", masters)),
            (self.direct_kubeconfig, self.access("dpu-lab-admin", masters, direct=True)),
            (self.folder / "controllers.kubeconfig", self.access("dpu-lab-controllers", masters, direct=True)),
            (self.folder / "kwok.kubeconfig", self.access("dpu-lab-kwok", masters, direct=True)),
            (self.folder / "mco.kubeconfig", self.access("dpu-lab-mco", masters, direct=True)),
        ):
            file.touch(mode=0o600)
            file.write_text(access.kubeconfig())
