"""What a person on a DPU's console is told, also when next to nothing works, and what a bad configuration file changes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpu_agent.config import LAST_GOOD
from dpu_shared.host_config import PATH
from dpu_shared.steps import Disruption
from tests.host.dpu import (
    Said,
    command,
    configure,
    configured,
    dry_run,
    get,
    nudge,
    pings,
    ports,
    quick_start,
    ready,
    said,
    sets,
    status,
    stop,
)
from tests.host.vm import DpuVm

REPRESENTOR = "c1pf0hpf"


@pytest.fixture(scope="module")
def fresh(shared_dpu_vm: DpuVm) -> DpuVm:
    """A DPU that booted, with its configuration; nothing has been done yet."""
    vm = shared_dpu_vm
    vm.insert_card()
    vm.wire_side()
    vm.host_side()
    configure(vm, disruption=Disruption.LINK_FLAP)
    vm.bridge()
    return vm


@pytest.fixture(scope="module")
def done(fresh: DpuVm) -> DpuVm:
    """The same DPU as configured; no agent runs."""
    configured(fresh)
    pings(fresh)
    return fresh


@pytest.fixture
def dark(request: pytest.FixtureRequest) -> Iterator[DpuVm]:
    """Open vSwitch and the management network are down; there never was a kubelet or an API server."""
    vm: DpuVm = request.getfixturevalue(request.param)
    vm.sh("systemctl stop ovsdb-server; ip link set oob_net0 down")
    yield vm
    vm.sh("ip link set oob_net0 up; systemctl start ovsdb-server ovs-vswitchd")


def everything(vm: DpuVm) -> str:
    """All that an agent could have changed."""
    return vm.sh(f"""sha256sum /etc/openvswitch/conf.db {PATH} $(ls {LAST_GOOD} 2>/dev/null)
        find /etc/udev /run/udev/rules.d /run/systemd/system /var/lib -newer /etc/openvswitch/conf.db 2>/dev/null | sort
        ip -brief link; ip -brief address; ip route; devlink port; devlink dev eswitch show pci/0000:03:00.0""")


def elsewhere(text: str, folder: Path) -> Said:
    """`dpu-agent plan` of that observation, on this machine."""
    file = folder / "dpu.json"
    file.write_text(text)
    command = [sys.executable, "-m", "dpu_agent.cli", "plan", "--from", str(file), "-o", "json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return Said(result.returncode, json.loads(result.stdout), result.stderr)


def sentences(answer: Said) -> list[str]:
    """What is wrong and what to do, of all problems and of what could not be seen."""
    told = [*answer.document["problems"], *answer.document["unseen"]]
    return [sentence for one in told for sentence in (one["message"], one["hint"])]


def test_a_dpu_that_needs_changes_gets_the_same_plan_elsewhere(fresh: DpuVm, tmp_path: Path) -> None:
    here = dry_run(fresh)
    assert here.rc == 2
    assert "SetSwitchdev 0000:03:00.0" in here.steps
    there = elsewhere(fresh.sh("dpu-agent observe -o json"), tmp_path)
    assert there == Said(2, here.document, "")


@pytest.mark.parametrize("dark", ["fresh"], indirect=True)
def test_with_the_switch_and_the_network_down_a_dry_run_tells_what_it_sees_and_what_not(dark: DpuVm) -> None:
    before, asked = everything(dark), sets(dark)
    answer = dry_run(dark)
    assert answer.rc == 2
    assert "OvsUnavailable" in answer.reasons
    # Who uses p0 can't be seen now, but the whole of the eswitches is.
    assert {"SetSwitchdev 0000:03:00.0", "SetSwitchdev 0000:03:00.1"} <= {*answer.steps, *answer.held}
    assert not [step for step in answer.steps if step.startswith(("AddPort", "SetOffload"))]
    assert [one["what"] for one in answer.document["unseen"]] == ["ovsdb"]
    assert all(sentence.endswith(".") for sentence in sentences(answer))
    text = dark.run("dpu-agent apply --dry-run")
    assert text.rc == 2
    assert answer.document["unseen"][0]["message"] in text.stdout
    assert answer.document["unseen"][0]["hint"] in text.stdout
    assert text.stderr == ""
    assert (everything(dark), sets(dark)) == (before, asked)


def test_without_an_agent_the_status_is_what_a_look_shows(done: DpuVm) -> None:
    answer = said(done, "status")
    assert (answer.rc, answer.document["source"], answer.document["state"]) == (0, "observation", "Ready")
    text = done.run("dpu-agent status")
    assert (text.rc, text.stderr) == (0, "")
    assert text.stdout.startswith("Ready (AsConfigured)\n  The DPU is as configured.\n")
    assert "No agent runs here; this is what a look at the machine shows now." in text.stdout


def test_a_dpu_as_configured_gets_the_same_plan_elsewhere(done: DpuVm, tmp_path: Path) -> None:
    here = dry_run(done)
    assert (here.rc, here.steps, here.held) == (0, [], [])
    there = elsewhere(command(done, "observe -o json").stdout, tmp_path)
    assert there == Said(0, here.document, "")


@pytest.mark.parametrize("dark", ["done"], indirect=True)
def test_what_a_dpu_as_configured_says_in_the_dark(dark: DpuVm, tmp_path: Path) -> None:
    before, asked = everything(dark), sets(dark)
    here = dry_run(dark)
    assert (here.rc, here.steps, here.held, here.reasons) == (1, [], [], ["OvsUnavailable"])
    assert all(sentence.endswith(".") for sentence in sentences(here))
    observation = command(dark, "observe -o json")
    assert observation.rc == 0
    assert elsewhere(observation.stdout, tmp_path) == Said(1, here.document, "")
    now = said(dark, "status")
    assert (now.rc, now.document["state"], now.document["reason"]) == (1, "Degraded", "OvsUnavailable")
    text = command(dark, "status").stdout
    assert text.startswith("Degraded (OvsUnavailable)\n")
    assert here.document["problems"][0]["message"] in text
    assert here.document["problems"][0]["hint"] in text
    assert (everything(dark), sets(dark)) == (before, asked)


@pytest.fixture(scope="module")
def agent(done: DpuVm) -> DpuVm:
    """With the service running."""
    quick_start(done)
    ready(done)
    return done


def test_with_an_agent_the_status_is_what_that_says(agent: DpuVm) -> None:
    answer = said(agent, "status")
    assert (answer.rc, answer.document["source"], answer.document["state"]) == (0, "agent", "Ready")
    assert answer.document["heartbeatAgeSeconds"] >= 0
    text = command(agent, "status")
    assert text.rc == 0
    assert "The running agent says so; its loop last got on " in text.stdout


def kept(vm: DpuVm, reason: str, sentence: str) -> None:
    """The agent tells of the file, and does what the last good configuration says."""
    document = status(vm, lambda document: document["reason"] == reason, f"the reason {reason}")
    assert document["state"] == "Degraded"
    answer = get(vm, "/readyz")
    assert answer.code == 503
    assert answer.body.startswith(sentence)
    assert "The last good configuration stays in force." in answer.body
    vm.sh(f"ovs-vsctl --no-wait del-port br-ex {REPRESENTOR}")
    vm.sh(f"ovs-vsctl --timeout=60 wait-until interface {REPRESENTOR} 'ofport>=1'", timeout=90)
    assert REPRESENTOR in ports(vm)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            f"sed -i s/LinkFlap/Everything/ {PATH}",
            f"{PATH} is not valid: the host configuration has a value of maxDisruption",
        ),
        (f"echo '{{' >{PATH}", f"{PATH} is not valid: the host configuration is no JSON."),
    ],
    ids=["no-such-value", "no-JSON"],
)
def test_an_invalid_configuration_changes_nothing_and_the_last_good_one_stays_in_force(
    agent: DpuVm, change: str, sentence: str
) -> None:
    good, asked = agent.read(LAST_GOOD), sets(agent)
    agent.sh(change)
    nudge(agent)
    kept(agent, "ConfigInvalid", sentence)
    assert (agent.read(LAST_GOOD), sets(agent)) == (good, asked)
    configure(agent, disruption=Disruption.LINK_FLAP)
    nudge(agent)
    ready(agent)


def test_without_a_configuration_the_last_good_one_stays_in_force_also_after_a_restart(agent: DpuVm) -> None:
    good, asked = agent.read(LAST_GOOD), sets(agent)
    stop(agent)
    agent.sh(f"rm {PATH}")
    quick_start(agent)
    kept(agent, "ConfigMissing", "There is no configuration file on this machine.")
    assert (agent.read(LAST_GOOD), sets(agent)) == (good, asked)
