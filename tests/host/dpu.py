"""The agent in the virtual DPU: its configuration, its commands as a script uses them, and what it answers."""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dpu_agent.address import PORT
from dpu_agent.config import LAST_GOOD
from dpu_agent.world import OFFLOAD_MARK
from dpu_shared.host_config import PATH, HostConfig, Mode, Offload
from dpu_shared.steps import Disruption
from tests.host.guestagent import Result
from tests.host.paths import GUEST
from tests.host.vm import BRIDGE_ADDRESS, HOST_ADDRESS, KNOBS, WIRE_ADDRESS, DpuVm
from tests.lab.waiting import eventually

UNIT = "agent"
"""The transient unit in which `start` runs the agent; not the product's own name, which other tests install."""
PID, LOG = "/run/agent.pid", "/run/agent.log"
"""In the guest: the agent that `launch` started, and what it said."""
WARM = 9900
"""The port of `guest/warm.py`, in the guest."""
SERVER = GUEST / "warm.py"
SOON = 60.0
"""Seconds after which what is waited for counts as never: an emulated guest on a crowded machine is slow."""

_NUDGE = "udevadm trigger --action=change /sys/class/net/p1"

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """What a command of the agent said with `-o json`."""

    rc: int
    document: Document
    stderr: str

    @property
    def steps(self) -> list[str]:
        """The steps to do, each by its name and arguments (`SetSwitchdev 0000:03:00.0`)."""
        return [short(step) for step in self.document["steps"]]

    @property
    def held(self) -> list[str]:
        """The steps that are needed and not done."""
        return [short(step) for step in self.document["held"]]

    @property
    def done(self) -> list[str]:
        """The steps that this `apply` has done.

        Not those for a netdev that still has the kernel's name: the agent was quicker than udev, which was about to do the same.
        """
        done = [short(step) for step in self.document["done"]]
        return [step for step in done if not step.startswith("TriggerUdev eth")]

    @property
    def reasons(self) -> list[str]:
        """The reasons of the problems."""
        return [str(problem["reason"]) for problem in self.document["problems"]]


def short(step: Document) -> str:
    """A step as one line: its name and its arguments' values."""
    return " ".join([step["name"], *(str(value) for value in step["arguments"].values() if value is not None)])


def configure(
    vm: DpuVm,
    *,
    bridge: str = "br-ex",
    offload: Offload = Offload.ENABLED,
    disruption: Disruption = Disruption.NONE,
    mode: Mode = Mode.ENFORCE,
) -> HostConfig:
    """Write the host configuration, as the MachineConfig does."""
    config = HostConfig(bridge=bridge, hardware_offload=offload, max_disruption=disruption, mode=mode)
    vm.write(PATH, config.to_json())
    return config


def unconfigure(vm: DpuVm) -> None:
    """Take the configuration away, and the agent's memory of a good one."""
    vm.sh(f"rm -f {PATH} {LAST_GOOD}")


def command(vm: DpuVm, words: str, *, timeout: float = 120, setup: str = "") -> Result:
    """The agent's command, in a process forked from an interpreter that has imported it: see `guest/warm.py`.

    `vm.run("dpu-agent ...")` is the same and takes seconds longer; each kind of command is tested like that as well.
    `setup` is Python that this process runs first.
    """
    answer = _ask(vm, {"words": shlex.split(words), "setup": setup}, timeout=timeout)
    return Result(answer["rc"], answer["stdout"], answer["stderr"])


def said(vm: DpuVm, words: str, *, timeout: float = 120, setup: str = "") -> Said:
    """Run `dpu-agent WORDS -o json`; whatever it exits with, it must have written one JSON object."""
    result = command(vm, f"{words} -o json", timeout=timeout, setup=setup)
    assert result.stdout, f"`dpu-agent {words}` exited with {result.rc} and said only: {result.stderr}"
    return Said(result.rc, json.loads(result.stdout), result.stderr)


def begin(vm: DpuVm, words: str, *, log: str, setup: str = "") -> int:
    """Begin a command of the agent and go on; the process id. What it says goes to the guest's file `log`."""
    pid = _ask(vm, {"words": shlex.split(words), "setup": setup, "detach": True, "log": log}, timeout=60)["pid"]
    return int(pid)


def _ask(vm: DpuVm, request: Mapping[str, object], *, timeout: float) -> Any:
    line = shlex.quote(json.dumps(request))
    talk = f"exec 3<>/dev/tcp/127.0.0.1/{WARM} && printf '%s\\n' {line} >&3 && cat <&3"
    answer = vm.run(talk, timeout=timeout)
    if not answer.stdout and "Connection refused" in answer.stderr:
        vm.write("/run/warm.py", SERVER.read_text())
        vm.service("warm", f"exec python3 /run/warm.py {WARM}")
        answer = vm.run(
            f"until (: </dev/tcp/127.0.0.1/{WARM}) 2>/dev/null; do sleep 0.05; done; {talk}", timeout=timeout
        )
    assert answer.stdout, f"{request} had no answer: {answer.stderr} {vm.journal('warm')}"
    return json.loads(answer.stdout)


def dry_run(vm: DpuVm, words: str = "") -> Said:
    """`dpu-agent apply --dry-run`."""
    return said(vm, f"apply --dry-run {words}".strip())


def apply(vm: DpuVm, words: str = "--retry-for 0", *, timeout: float = 120) -> Said:
    """`dpu-agent apply`, by default without patience: what does not work at once is told at once."""
    return said(vm, f"apply {words}".strip(), timeout=timeout)


def configured(vm: DpuVm) -> Said:
    """`dpu-agent apply` that has to end with all as configured."""
    answer = apply(vm, "--retry-for 30")
    assert answer.rc == 0, answer.document["message"]
    assert answer.document["state"] == "Ready"
    return answer


def start(vm: DpuVm, words: str = "", *, environment: Mapping[str, str] | None = None) -> None:
    """Start `dpu-agent run` as a unit, and wait until it has looked at the machine once."""
    vm.service(UNIT, f"exec dpu-agent run {words}", environment=environment)
    status(vm, lambda document: True, "the agent's first look")


def launch(vm: DpuVm) -> None:
    """Start `dpu-agent run` quickly (see `command`), and go on; the guest's file `LOG` has what it says."""
    vm.sh(f"rm -f {LOG}")
    vm.write(PID, f"{begin(vm, 'run', log=LOG)}\n")


def quick_start(vm: DpuVm) -> None:
    """The same, and wait until it has looked at the machine once."""
    launch(vm)
    status(vm, lambda document: True, "the agent's first look")


def going(vm: DpuVm) -> None:
    """A machine without a card becomes a DPU as configured by the running agent, with both its sides and br-ex."""
    vm.insert_card()
    vm.wire_side()
    vm.host_side()
    configure(vm, disruption=Disruption.LINK_FLAP)
    vm.bridge()
    quick_start(vm)
    ready(vm)


def stop(vm: DpuVm) -> None:
    """End the agent by SIGTERM, if one runs, and wait for its end."""
    vm.sh(
        f"systemctl stop {UNIT} 2>/dev/null; [ -e {PID} ] || exit 0; pid=$(cat {PID}); rm {PID}; "
        "kill $pid 2>/dev/null || exit 0; for _ in $(seq 300); do [ -e /proc/$pid ] || exit 0; sleep 0.05; done; exit 1"
    )


@dataclass(frozen=True)
class Answer:
    """An answer of the agent's local HTTP; code 0 where nobody listens."""

    code: int
    body: str


def get(vm: DpuVm, path: str, *, timeout: float = 20) -> Answer:
    """One GET, by the guest's shell: the guest has no curl, and a Python costs it a second."""
    request = f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n"
    talk = f"exec 3<>/dev/tcp/127.0.0.1/{PORT} && printf {shlex.quote(request)} >&3 && cat <&3"
    text = vm.run(talk, timeout=timeout).stdout
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    return Answer(int(head.split()[1]) if head.startswith("HTTP/") else 0, body)


def status(vm: DpuVm, wanted: Callable[[Document], bool], what: str, *, timeout: float = SOON) -> Document:
    """The running agent's status, as soon as it is as wanted."""
    last: list[Answer] = []

    def ask() -> Document | None:
        answer = get(vm, "/status")
        last[:] = [answer]
        document = json.loads(answer.body) if answer.code == 200 else None
        return document if document is not None and wanted(document) else None

    return eventually(ask, what, timeout=timeout, every=0.1, on_timeout=lambda: f"The last answer was {last}.")


def ready(vm: DpuVm, *, timeout: float = SOON) -> Document:
    """The running agent's status, as soon as it says Ready."""
    return status(vm, lambda document: bool(document["ready"]), "the agent to say Ready", timeout=timeout)


def metric(vm: DpuVm, line: str) -> float:
    """A sample of the running agent's metrics by its name and labels; 0 where there is none."""
    found = [text for text in get(vm, "/metrics").body.splitlines() if text.startswith(f"{line} ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


def grows(vm: DpuVm, line: str, than: float | None = None) -> None:
    """Until a sample of the metrics is more than it was, by default than it is now."""
    before = metric(vm, line) if than is None else than
    eventually(lambda: metric(vm, line) > before, f"{line} to be more than {before:g}", timeout=SOON)


def nudge(vm: DpuVm) -> None:
    """Wake the agent, by an event of a netdev that says nothing of what there is to see."""
    vm.sh(_NUDGE)


def look(vm: DpuVm) -> None:
    """Have the running agent look at the machine as it is now: the first turn that ends may have begun before, hence two."""
    vm.sh(f"""turns() {{
            exec 3<>/dev/tcp/127.0.0.1/{PORT}
            printf 'GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3
            grep --text '^dpu_agent_turns_total ' <&3
        }}
        for _ in 1 2; do
            before=$(turns)
            {_NUDGE}
            while [ "$(turns)" = "$before" ]; do sleep 0.05; done
        done""")


def sets(vm: DpuVm) -> list[int]:
    """How often each function was asked for a mode."""
    return [int(count) for count in vm.sh(f"cat {KNOBS}/*/sets").split()]


def modes(vm: DpuVm) -> list[str]:
    """Each function's mode, as the card has it."""
    return vm.sh(f"cat {KNOBS}/*/mode").split()


def ports(vm: DpuVm, bridge: str = "br-ex") -> list[str]:
    """The ports of a bridge, sorted."""
    return sorted(vm.sh(f"ovs-vsctl list-ports {bridge}").split())


COLUMNS: Mapping[str, tuple[str, ...]] = {
    "Open_vSwitch": ("bridges", "other_config", "external_ids"),
    "Bridge": ("name", "ports", "datapath_type", "other_config", "external_ids"),
    "Port": ("name", "interfaces", "other_config", "external_ids"),
    "Interface": ("name", "type", "options", "other_config", "external_ids"),
}
"""What configures Open vSwitch, and not what ovs-vswitchd notes and counts."""


def database(vm: DpuVm) -> str:
    """The rows of Open vSwitch's database, each with its identity."""
    operations = [
        {"op": "select", "table": table, "where": [], "columns": ["_uuid", *columns]}
        for table, columns in COLUMNS.items()
    ]
    request = json.dumps(["Open_vSwitch", *operations])
    answers = json.loads(vm.sh(f"ovsdb-client --timeout=15 query {shlex.quote(request)}"))
    rows = [sorted(json.dumps(row, sort_keys=True) for row in answer["rows"]) for answer in answers]
    return "\n".join(line for table in rows for line in table) + "\n"


def pings(vm: DpuVm) -> None:
    """Frames of the host's PF reach the DPU's bridge and the network behind its uplink, and theirs the host."""
    vm.sh(f"ip netns exec host ping -q -c 1 -W 10 {BRIDGE_ADDRESS}")
    vm.sh(f"ip netns exec host ping -q -c 3 -i 0.2 -W 10 {WIRE_ADDRESS}")
    vm.sh(f"ip netns exec wire ping -q -c 1 -W 10 {HOST_ADDRESS}")


def as_new(vm: DpuVm) -> DpuVm:
    """Undo what agents and tests did: no agent, card, configuration, rules, bridges, namespaces, and hw-offload not set.

    An ovs-vswitchd that has hw-offload in force keeps it: another start takes it ten times as long as all the rest here.
    """
    stop(vm)
    unconfigure(vm)
    vm.sh(f"""set -e
        for bridge in $(ovs-vsctl --timeout=15 list-br); do ovs-vsctl --timeout=15 del-br "$bridge"; done
        ovs-vsctl --timeout=15 --if-exists remove open_vswitch . other_config hw-offload -- remove open_vswitch . external_ids {OFFLOAD_MARK}
        for namespace in wire host; do ip netns del "$namespace" 2>/dev/null || true; done
        if [ -d {KNOBS} ]; then rmmod virtual_bluefield; fi
        rm -f /run/udev/rules.d/82-*.rules /etc/udev/rules.d/82-*.rules
        udevadm control --reload""")
    return vm
