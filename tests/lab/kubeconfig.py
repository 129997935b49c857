"""Kubeconfigs of the lab: everything embedded, so that one file (or one Secret key) is the whole of it."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from tests.lab.pki import Pair


@dataclass(frozen=True)
class Access:
    """How to reach an API server as somebody: its address, whom to trust, and either a certificate or a token."""

    server: str
    ca: str
    pair: Pair | None = None
    token: str | None = None

    @classmethod
    def read(cls, config: dict[str, Any]) -> "Access":
        """From a kubeconfig that `kubeconfig` wrote."""
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        pair = None
        if "client-certificate-data" in user:
            pair = Pair(_plain(user["client-certificate-data"]), _plain(user["client-key-data"]))
        return cls(cluster["server"], _plain(cluster["certificate-authority-data"]), pair, user.get("token"))

    def at(self, server: str) -> "Access":
        """The same identity at another address, such as a proxy's."""
        return Access(server, self.ca, self.pair, self.token)

    def kubeconfig(self, user: str = "user", cluster: str = "lab", namespace: str | None = None) -> str:
        """The kubeconfig as text (JSON, which is YAML)."""
        if self.pair is not None:
            who = {"client-certificate-data": _b64(self.pair.cert), "client-key-data": _b64(self.pair.key)}
        elif self.token is not None:
            who = {"token": self.token}
        else:
            who = {}
        context = {"cluster": cluster, "user": user} | ({"namespace": namespace} if namespace else {})
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": cluster, "cluster": {"server": self.server, "certificate-authority-data": _b64(self.ca)}}
            ],
            "users": [{"name": user, "user": who}],
            "contexts": [{"name": "lab", "context": context}],
            "current-context": "lab",
        }
        return json.dumps(config, indent=1) + "\n"


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _plain(text: str) -> str:
    return base64.b64decode(text).decode()
