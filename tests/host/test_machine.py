"""The machine around the card: that a test can rely on a clean DPU, on power loss, and on being told what is wrong."""

import dataclasses
import http.server
import threading
from pathlib import Path

import pytest

from tests.host import build
from tests.host.vm import HOST, DpuVm, GuestCommandError
from tests.lab.errors import LabError


def test_what_one_test_did_is_gone_for_the_next(dpu_vm: DpuVm) -> None:
    dpu_vm.insert_card()
    dpu_vm.write("/root/left-behind", "x")
    dpu_vm.bridge()
    dpu_vm.cold()
    assert dpu_vm.run("ls /root/left-behind").rc != 0
    assert dpu_vm.sh("devlink dev").strip() == ""
    assert dpu_vm.sh("ovs-vsctl list-br").strip() == ""


def test_a_power_loss_takes_the_memory_and_leaves_the_disk(dpu_vm: DpuVm) -> None:
    dpu_vm.insert_card()
    dpu_vm.bridge()
    dpu_vm.write("/root/kept", "x\n", mode=0o600)
    dpu_vm.write("/run/lost", "x\n")
    dpu_vm.sh("sync")
    before = dpu_vm.boot_id()
    dpu_vm.reset()
    assert dpu_vm.boot_id() != before
    assert dpu_vm.read("/root/kept") == "x\n"
    assert dpu_vm.sh("stat -c %a /root/kept; ls /run/lost 2>/dev/null | wc -l").split() == ["600", "0"]
    assert dpu_vm.sh("devlink dev").strip() == ""
    assert dpu_vm.sh("ovs-vsctl list-br").strip() == "br-ex", "OVS remembers its bridge"
    dpu_vm.insert_card(rules=None)
    assert dpu_vm.run("test -d /sys/class/net/p0").ok, "the rules are on the disk"


def test_commands_services_and_the_way_out(dpu_vm: DpuVm) -> None:
    result = dpu_vm.run("echo out; echo err >&2; exit 3")
    assert (result.rc, result.stdout, result.stderr) == (3, "out\n", "err\n")
    with pytest.raises(GuestCommandError, match="exited with 1"):
        dpu_vm.sh("false")
    with pytest.raises(LabError, match=r"did not end within 0\.5 s"):
        dpu_vm.run("sleep 30", timeout=0.5)
    dpu_vm.service("said", 'echo "$WORD"', environment={"WORD": "of all"})
    dpu_vm.sh("until journalctl -u said -o cat | grep -q 'of all'; do sleep 0.1; done", timeout=20)
    assert "of all" in dpu_vm.journal("said")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ask = f"import urllib.request as u; print(u.urlopen('http://{HOST}:{server.server_port}/', timeout=10).status)"
        assert dpu_vm.sh(f'python3 -c "{ask}"').strip() == "200"
        server.shutdown()


def test_a_machine_that_does_not_come_up_is_told_and_leaves_nothing(
    dpu_vm: DpuVm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dpu_vm.stop()
    broken = tmp_path / "root.qcow2"
    broken.write_text("this is no disk")
    real = build.Parts.restored
    monkeypatch.setattr(
        build.Parts, "restored", lambda parts, folder: dataclasses.replace(real(parts, folder), root=broken)
    )
    with pytest.raises(LabError, match=r"(?s)QEMU.*qcow2"):
        dpu_vm.start()
    assert not dpu_vm.running
