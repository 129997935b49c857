"""The command `dpu-lab`: what it says without a lab, and everything that it does with one."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import binaries, cli, places, processes
from tests.lab.client import ApiError, Client
from tests.lab.kubeconfig import Access
from tests.lab.lab import DPUS
from tests.lab.tenant import NAMESPACE
from tests.lab.waiting import eventually

VERBS = ("build", "up", "status", "kubectl", "break", "mend", "logs", "down")


# -- without a lab --------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place where no lab is."""
    monkeypatch.setenv("DPU_LAB_DIR", str(tmp_path / "lab"))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / "lab"


def test_help_teaches_each_verb(nothing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for verb in VERBS:
        assert re.search(rf"^    {verb} +\w+ \w+", text, re.MULTILINE), verb
        with pytest.raises(SystemExit, match=r"^0$"):
            cli.main([verb, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: dpu-lab {verb}")
    assert "a first look around:" in text
    assert "exit codes:" in text


def test_help_of_break_names_each_way(nothing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["break", "--help"])
    text = capsys.readouterr().out
    for what, ways in cli.WAYS.items():
        assert f"{what}: {' | '.join(ways)}" in text


@pytest.mark.parametrize(
    "line",
    ["status", "status -o json", "kubectl infra get nodes", "break tenant-api cut", "break pool stall", "mend", "down"],
)
def test_without_a_lab_it_says_so_in_two_sentences(
    line: str, nothing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(rf"dpu-lab: No lab is running in {re.escape(str(nothing))}\. [A-Z][^.]+\.\n", said.err)


def test_other_errors_are_two_sentences_too(nothing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("logs infra/etcd", f"up --tenant {nothing}/nowhere"):
        assert cli.main(line.split()) == 1
        assert re.fullmatch(r"dpu-lab: [A-Z/].*\. [A-Z].*\.\n", capsys.readouterr().err), line
    assert cli.main(["logs"]) == 0, "no log yet, and that is no error"


@pytest.mark.parametrize(
    "line", ["", "explode", "kubectl", "kubectl moon get nodes", "break", "break moon cut", "mend moon", "status -o yaml"]
)  # fmt: skip
def test_a_wrong_command_line_ends_with_2(line: str, nothing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main(line.split())
    assert "usage: dpu-lab" in capsys.readouterr().err


def test_a_way_that_does_not_fit_is_answered_with_those_that_do(
    nothing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for what, ways in cli.WAYS.items():
        assert cli.main(["break", what, "explode"]) == 2
        assert capsys.readouterr().err.endswith(f"Choose one of: {', '.join(ways)}.\n")


def test_the_script_runs_from_any_folder(tmp_path: Path) -> None:
    assert (places.REPOSITORY / ".venv/bin/python").exists(), "There is no .venv. Run `make setup`."
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/__init__.py").write_text("raise SystemExit('a folder that is called tests as well')")
    link = tmp_path / "dpu-lab"
    link.symlink_to(places.LAB / "dpu-lab")
    ran = subprocess.run([link, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("usage: dpu-lab")


# -- with a lab -----------------------------------------------------------------------------------------------------


@dataclass
class Command:
    """`dpu-lab` on a lab of its own."""

    folder: Path

    def __call__(self, line: str, code: int = 0) -> str:
        """What it prints on standard output, or on standard error where it shall fail."""
        argv = [sys.executable, "-P", "-m", "tests.lab", *shlex.split(line)]
        env = {**os.environ, "DPU_LAB_DIR": str(self.folder), "PYTHONPATH": str(places.REPOSITORY)}
        ran = subprocess.run(argv, cwd=self.folder.parent, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == code, f"{line}: {ran.stdout}{ran.stderr}"
        return ran.stderr if code else ran.stdout

    def status(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self("status -o json"))
        return facts

    def mode(self, cluster: str) -> str:
        return str(self.status()["clusters"][cluster]["proxy"]["mode"])

    def client(self, kubeconfig: Path) -> Client:
        return Client(Access.read(json.loads(kubeconfig.read_text())), timeout=1)

    def left(self) -> list[str]:
        """Command lines of what still runs: all of it names the folder, or has it in its environment."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"DPU_LAB_DIR={self.folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has ended, or is somebody else's
                continue
        return found


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Command]:
    """One that is not up yet; nothing of it may be left, however the test ends."""
    binaries.find()
    command = Command(tmp_path / "lab")
    yield command
    for folder in ("tenant", "infra", "."):
        for process in processes.remembered(command.folder / folder):
            process.kill()
    assert command.left() == []


def test_a_lab_from_up_to_down(lab: Command) -> None:
    assert "The lab is up" in lab("up")
    assert len(lab.left()) == 10, "two of etcd, API server and proxy; controllers, scheduler, kwok and the mco"
    assert "A lab already runs" in lab("up", code=1)
    check_status(lab.status())
    assert [f"node/{name}" for name in DPUS] == lab("kubectl infra get nodes -o name").split()
    assert "node/dpu-host-0" in lab("kubectl tenant get nodes -o name").split()
    assert "NotFound" in lab("kubectl tenant get node moon", code=1)
    check_cables(lab)
    check_credential(lab)
    check_authority(lab)
    check_pool(lab)
    assert "infra/kube-apiserver" in lab("logs").split()
    assert len(lab("logs infra/kube-apiserver -n 3").splitlines()) == 3
    assert "The lab has ended." in lab("down")
    assert lab.left() == []
    assert "No lab is running" in lab("status", code=1)


def check_status(facts: Mapping[str, Any]) -> None:
    assert facts["pool"]["Updated"] == "True"
    for name, cluster in facts["clusters"].items():
        assert cluster["ready"], name
        assert (cluster["proxy"]["mode"], cluster["serving"]) == ("pass", "server")
        assert Path(cluster["kubeconfig"]).exists()
        for program in cluster["programs"].values():
            assert processes.start_time(program["pid"]) is not None


def check_cables(lab: Command) -> None:
    """One API refuses connections, the other is silent; the lab's own kubectl goes past both."""
    infra = lab.client(lab.folder / "infra/admin.kubeconfig")
    tenant = lab.client(lab.folder / "tenant/admin.kubeconfig")
    assert "still works" in lab("break infra-api cut")
    assert "nothing comes through" in lab("break tenant-api freeze")
    assert (lab.mode("infra"), lab.mode("tenant")) == ("cut", "freeze")
    with pytest.raises(ConnectionRefusedError):
        infra.get("v1/Node", "dpu-0")
    with pytest.raises(TimeoutError):
        tenant.get("v1/Node", "dpu-host-0")
    assert lab("kubectl infra get node dpu-0 -o name") == "node/dpu-0\n"
    lab("mend infra-api")
    lab("mend tenant-api")
    infra.get("v1/Node", "dpu-0")
    tenant.get("v1/Node", "dpu-host-0")
    infra.close()
    tenant.close()


def check_credential(lab: Command) -> None:
    """The file from `up` works, is refused after `revoke`, and has a new token after `mend`."""
    file = lab.folder / "tenant/operator.kubeconfig"
    revoked = lab.client(file)
    lab("break credential revoke")
    with pytest.raises(ApiError, match="401"):
        revoked.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    revoked.close()
    lab("mend credential")
    good = lab.client(file)
    good.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    good.close()


def check_authority(lab: Command) -> None:
    client = lab.client(lab.folder / "tenant/operator.kubeconfig")
    lab("break ca swap")
    assert lab.status()["clusters"]["tenant"]["serving"] == "other-server"
    with pytest.raises(OSError, match="certificate verify failed"):
        client.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    lab("mend ca")
    client.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    client.close()


def check_pool(lab: Command) -> None:
    assert "dpu-1 says that it is Degraded: on fire" in lab('break pool degrade --node dpu-1 --message "on fire"')
    eventually(lambda: lab.status()["pool"]["NodeDegraded"] == "True", "the pool to be degraded", every=0.5)
    assert "Everything is whole again." in lab("mend")
    eventually(lambda: lab.status()["pool"]["Updated"] == "True", "the pool to recover", every=0.5)
