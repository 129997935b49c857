"""What a kubelet leaves on a machine: its kubeconfig, and the certificate that it renews by switching a symlink."""

import base64
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.kubeconfig import Access
from tests.lab.pki import Pair

CURRENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"


@dataclass
class KubeletFiles:
    """The kubelet's files under a folder that stands for the machine's root."""

    root: Path
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def kubeconfig(self) -> Path:
        return self.root / "var/lib/kubelet/kubeconfig"

    def join(self, access: Access, **changes: Any) -> None:
        """As after joining; `changes` are of the kubeconfig's cluster."""
        if access.pair is not None:
            self.renew(access.pair)
        cluster = {"server": access.server, "certificate-authority-data": base64.b64encode(access.ca.encode()).decode()}
        self.write(cluster | changes, {"client-certificate": CURRENT, "client-key": CURRENT})

    def write(self, cluster: dict[str, Any], user: dict[str, Any], name: str = "default-auth") -> None:
        """The kubeconfig, with the names that a kubelet gives."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "default-cluster", "cluster": cluster}],
            "contexts": [{"name": "default-context", "context": {"cluster": "default-cluster", "user": name}}],
            "current-context": "default-context",
            "users": [{"name": name, "user": user}],
        }
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.write_text(json.dumps(document, indent=1))

    def renew(self, pair: Pair) -> None:
        """A new certificate, its key in the same file; the symlink is absolute, and replaced at once."""
        folder = self.root / "var/lib/kubelet/pki"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"kubelet-client-{next(self._numbers)}.pem"
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(pair.cert + pair.key)
        link = folder / "new"
        link.symlink_to(f"/var/lib/kubelet/pki/{name}")
        link.rename(folder / Path(CURRENT).name)
