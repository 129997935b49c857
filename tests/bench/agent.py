"""The agent's figures: a dry run as a person calls it, the service at rest, and a port that is lost and comes back.

The first two run on this machine, against a real ovsdb-server and a PCI bus without a card. The third needs a card, and so
the virtual DPU; both sides of its ratio are measured there, in turns.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench import process
from tests.bench.figures import percentile, ratio, summary
from tests.bench.scene import say
from tests.host import dpu
from tests.host.vm import DpuVm
from tests.lab import places, processes
from tests.lab.ports import free_port
from tests.lab.waiting import eventually
from tests.wire.ovs_server import OvsServer

SETTLE = 20.0
GUEST_SCRIPT = Path(__file__).with_name("guest_port.py")

Raw = dict[str, Any]


@contextlib.contextmanager
def _database() -> Iterator[OvsServer]:
    """A real ovsdb-server in a folder of its own; the agent finds it by OVS_RUNDIR, as Open vSwitch's programs do."""
    with tempfile.TemporaryDirectory(prefix="dpu-bench-") as folder:
        server = OvsServer(Path(folder))
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.kill()


def dry_run(*, samples: int) -> tuple[Raw, Raw]:
    """Whole processes, in turns: the dry run, and an interpreter that imports pyroute2, which it can't do without."""
    say(f"dry run: {samples} times, caches warm")
    agent = [str(Path(sys.executable).with_name("dpu-agent")), "apply", "--dry-run", "-o", "json"]
    floor = [sys.executable, "-c", "import pyroute2"]
    times: dict[str, list[float]] = {"agent": [], "floor": []}
    with _database() as server:
        environment = os.environ | {"OVS_RUNDIR": str(server.folder)}
        for number in range(samples + 2):
            for side, command in (("agent", agent), ("floor", floor)):
                began = time.monotonic()
                ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                took = time.monotonic() - began
                if side == "agent":
                    seen = json.loads(ended.stdout)
                    assert not any(each["what"] == "ovsdb" for each in seen["unseen"]), seen["unseen"]
                if number >= 2:  # the first ones warm the caches
                    times[side].append(took)
    own, other = percentile(times["agent"], 50), percentile(times["floor"], 50)
    figures = {"dry_run_ms": round(own * 1000), "dry_run_ratio": ratio(own, other)}
    return figures, {side: summary(each) for side, each in times.items()}


def rest(*, seconds: float) -> tuple[Raw, Raw]:
    """The service with nothing to do: its resident set at the end, and its processor time meanwhile."""
    with _database() as server:
        port = free_port()
        agent = processes.start(
            "dpu-agent",
            [str(Path(sys.executable).with_name("dpu-agent")), "run", "--listen", str(port)],
            server.folder,
            env={"OVS_RUNDIR": str(server.folder)},
            cwd=places.REPOSITORY,
        )
        try:
            eventually(lambda: b"dpu_agent_state" in _get(port, "/metrics"), "the agent to answer", timeout=60)
            say(f"agent at rest: settling for {SETTLE:g} s, then {seconds:g} s")
            time.sleep(SETTLE)
            before, began = process.cpu_seconds(agent.pid), time.monotonic()
            time.sleep(seconds)
            cpu = (process.cpu_seconds(agent.pid) - before) / (time.monotonic() - began) * 100
            figures = {"rest_rss_mib": process.resident_mib(agent.pid), "rest_cpu_percent": round(cpu, 3)}
            return figures, {"peak_mib": process.resident_mib(agent.pid, "VmHWM"), "seconds": seconds}
        finally:
            agent.stop()


def port_back(*, samples: int) -> tuple[Raw, Raw]:
    """In the virtual DPU: from the loss of the representor's port until ovs-vswitchd has opened it again.

    The bare side is one `ovs-vsctl add-port`, from its start until the same moment.
    """
    say("a lost port: starting the virtual DPU")
    with DpuVm() as vm:
        dpu.configure(vm)
        vm.insert_card()
        assert dpu.apply(vm, "--stage early --retry-for 30").rc == 0
        vm.bridge()
        vm.sh(
            "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true && systemctl restart openvswitch-switch",
            timeout=120,
        )
        dpu.start(vm)
        dpu.ready(vm)
        vm.write("/run/guest_port.py", GUEST_SCRIPT.read_text())
        say(f"a lost port: {samples} times, and {samples} times by hand")
        found = json.loads(vm.sh(f"python3 /run/guest_port.py {samples}", timeout=60 + samples * 10))
    figures = {"port_back_ratio": ratio(percentile(found["agent"], 50), percentile(found["bare"], 50))}
    return figures, {side: summary(each) for side, each in found.items()}


def _get(port: int, path: str) -> bytes:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except OSError:
        return b""
    finally:
        connection.close()
