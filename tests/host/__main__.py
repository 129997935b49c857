"""`python -m tests.host`: the virtual DPU for people."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from dpu_shared.host_config import PATH, HostConfig
from tests.host import build, terminal
from tests.host.vm import BRIDGE_ADDRESS, HOST_ADDRESS, KNOBS, WIRE_ADDRESS, DpuVm
from tests.lab.errors import LabError

WELCOME = f"""
A virtual BlueField-2, and you are root on its ARM side. To leave and end it: Ctrl-]

  dpu-agent status                             what the agent says (its log: journalctl -fu dpu-agent)
  devlink dev eswitch show pci/0000:03:00.0    the card (devlink port; lspci; ovs-vsctl show)
  ip netns exec host ping {WIRE_ADDRESS}           from the host ({HOST_ADDRESS}) through the card to the wire; br-ex is {BRIDGE_ADDRESS}
  echo 2 >{KNOBS}/0000:03:00.0/host_vfs     turn a knob; tests/host/module/README.md lists them
  reboot                                       the disk stays; the card is out afterwards: insmod /opt/dpu/virtual_bluefield.ko
"""
BARE = """
The virtual DPU as every test gets it, and you are root on it. To leave and end it: Ctrl-]

  insert the card: insmod /opt/dpu/virtual_bluefield.ko
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status is 0 for done, 1 for not done and 2 for a wrong command line."""
    top = argparse.ArgumentParser(
        prog="python -m tests.host", description="A virtual BlueField-2 DPU, without any hardware."
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("build", help="make what is missing: minutes from nothing, else a second")
    verbs.add_parser("up", help="a DPU with card, br-ex and running agent, and a root shell on its serial console")
    verbs.add_parser("shell", help="the same machine with nothing inserted, configured or started")
    chosen = top.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if chosen.verb == "build":
            found = build.parts()
            print(f"dpu-lab: the virtual DPU is ready ({found.saved})", file=sys.stderr)
            return 0
        return _interactive(whole=chosen.verb == "up")
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _interactive(*, whole: bool) -> int:
    if not sys.stdin.isatty():
        print("error: This wants a terminal to put you on the DPU's console. Run it in one.", file=sys.stderr)
        return 2
    with DpuVm() as vm:
        began = time.monotonic()
        if whole:
            _furnish(vm)
        rows, columns = terminal.size()
        vm.sh(f"stty -F /dev/ttyS0 rows {rows} cols {columns}")
        seconds = vm.started_in + time.monotonic() - began
        print(f"dpu-lab: up in {seconds:.0f} s{WELCOME if whole else BARE}", file=sys.stderr)
        terminal.join(vm.serial)
    return 0


def _furnish(vm: DpuVm) -> None:
    """As the MachineConfig and OpenShift leave a DPU: configuration, br-ex, the agent as a unit."""
    _say("inserting the card, laying its cables")
    vm.insert_card()
    vm.wire_side()
    vm.host_side()
    _say("making br-ex")
    vm.bridge()
    _say("starting the agent")
    vm.write(PATH, HostConfig().to_json())
    vm.service("dpu-agent", "exec dpu-agent run")


def _say(what: str) -> None:
    print(f"dpu-lab: {what}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
