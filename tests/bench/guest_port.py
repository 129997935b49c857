"""In the guest: how long the host PF representor's port is away when somebody removes it, against adding one by hand.

Both sides end at the same event of one and the same OVSDB monitor: the Interface has an ofport above 0. Prints one JSON
object: seconds of each side.
"""

import json
import socket
import subprocess
import sys
import time
from typing import Any

PORT, OTHER, BRIDGE = "c1pf0hpf", "c1pf1hpf", "br-ex"
LIMIT = 60.0


class Monitor:
    """Tells when an interface comes, goes, and is opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect("/run/openvswitch/db.sock")
        self._socket.settimeout(LIMIT)
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._names: dict[str, str] = {}
        self.open: set[str] = set()
        columns = {"Interface": {"columns": ["name", "ofport"]}}
        self._send({"method": "monitor", "params": ["Open_vSwitch", None, columns], "id": 1})
        self._take(self._message()["result"])

    def until(self, name: str, *, there: bool) -> float:
        """The moment at which the interface is open, or no longer is."""
        while (name in self.open) is not there:
            message = self._message()
            if message.get("method") == "echo":
                self._send({"result": message["params"], "error": None, "id": message["id"]})
            elif message.get("method") == "update":
                self._take(message["params"][1])
        return time.monotonic()

    def _take(self, tables: dict[str, Any]) -> None:
        for uuid, row in tables.get("Interface", {}).items():
            if "new" in row:
                name, ofport = row["new"]["name"], row["new"]["ofport"]
                self._names[uuid] = name
                (self.open.add if isinstance(ofport, int) and ofport > 0 else self.open.discard)(name)
            else:
                self.open.discard(self._names.pop(uuid, ""))

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode())

    def _message(self) -> dict[str, Any]:
        while True:
            try:
                message, end = self._decoder.raw_decode(self._text)
            except ValueError:
                self._text += self._socket.recv(1 << 16).decode()
            else:
                self._text = self._text[end:].lstrip()
                return message  # type: ignore[no-any-return]


def main() -> None:
    monitor, count = Monitor(), int(sys.argv[1])
    times: dict[str, list[float]] = {"agent": [], "bare": []}
    monitor.until(PORT, there=True)
    for _ in range(count):
        subprocess.run(["ovs-vsctl", "--no-wait", "del-port", BRIDGE, PORT], check=True)
        lost = monitor.until(PORT, there=False)
        times["agent"].append(monitor.until(PORT, there=True) - lost)
        began = time.monotonic()
        subprocess.run(["ovs-vsctl", "add-port", BRIDGE, OTHER], check=True)
        times["bare"].append(monitor.until(OTHER, there=True) - began)
        subprocess.run(["ovs-vsctl", "del-port", BRIDGE, OTHER], check=True)
        monitor.until(OTHER, there=False)
        time.sleep(0.5)  # the agent has looked at that as well, and rests
    json.dump(times, sys.stdout)


main()
