"""The files for the DPU, judged by systemd's own verifier and by shellcheck."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dpu_operator.observe.tree import CHECKOUT
from dpu_shared import host_config

UNIT = CHECKOUT / "etc" / "systemd" / "system" / "dpu-agent.service"
WRAPPER = CHECKOUT / "usr" / "local" / "bin" / "dpu-agent"
COMMANDS = ("/usr/bin/podman", "/bin/sh")


def run(*argv: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=env)


def verify(unit: Path, folder: Path) -> str:
    """What systemd says of a unit. Its commands are stubs: a laptop without podman has to give the same answer."""
    assert shutil.which("systemd-analyze"), "Install the package systemd, which has systemd-analyze."
    text = unit.read_text()
    for command in COMMANDS:
        stub = folder / Path(command).name
        stub.write_text("#!/bin/true\n")
        stub.chmod(0o755)
        text = text.replace(f"={command} ", f"={stub} ")
    copy = folder / unit.name
    copy.write_text(text)
    found = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", copy)
    return found.stdout + found.stderr + (f"exit status {found.returncode}" if found.returncode else "")


def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    assert verify(UNIT, tmp_path) == ""


@pytest.mark.parametrize(
    ("before", "after"),
    [("Type=notify", "Typ=notify"), ("Restart=always", "Restart=alwyas"), ("ExecStart=/", "ExecStart=no/")],
)
def test_systemd_would_have_found_a_mistake_though_its_exit_status_may_be_zero(
    tmp_path: Path, before: str, after: str
) -> None:
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    wrong = spoiled / UNIT.name
    wrong.write_text(UNIT.read_text().replace(before, after))
    assert verify(wrong, tmp_path) != ""


class Unit:
    """A unit file's words by section and key; a repeated key adds to the ones before."""

    def __init__(self, path: Path) -> None:
        self.values: dict[str, dict[str, list[str]]] = {}
        section = ""
        for line in path.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif "=" in line and not line.startswith("#"):
                key, value = line.split("=", 1)
                self.values.setdefault(section, {}).setdefault(key, []).extend(value.split())

    def words(self, section: str, key: str) -> list[str]:
        return self.values[section].get(key, [])


def test_nothing_of_the_boot_waits_for_the_agent() -> None:
    unit = Unit(UNIT)
    assert unit.words("Unit", "Before") == ["shutdown.target"]
    assert unit.words("Install", "WantedBy") == ["multi-user.target"]
    assert set(unit.values["Install"]) == {"WantedBy"}, "RequiredBy would make somebody fail with the agent"
    # systemd orders a target after what it wants, unless the wanted unit has no default dependencies.
    assert unit.words("Unit", "DefaultDependencies") == ["no"]
    assert {"sysinit.target", "basic.target"} <= set(unit.words("Unit", "After"))
    assert unit.words("Unit", "Conflicts") == ["shutdown.target"]


def test_the_agent_is_started_only_where_its_configuration_is_and_never_given_up() -> None:
    unit = Unit(UNIT)
    conditions = unit.words("Unit", "ConditionPathExists")
    assert host_config.PATH in conditions
    assert "/etc/dpu-network-operator/agent-image.env" in conditions
    assert unit.words("Unit", "StartLimitIntervalSec") == ["0"]
    assert unit.words("Service", "Restart") == ["always"]
    assert unit.words("Service", "TimeoutStartSec") != ["infinity"]


def test_shellcheck_has_nothing_to_say_about_the_console_wrapper() -> None:
    assert shutil.which("shellcheck"), "Install the package shellcheck."
    found = run("shellcheck", "--norc", WRAPPER)
    assert found.stdout + found.stderr == ""


def wrapper(tmp_path: Path, *arguments: str, running: bool, image: bool = True) -> subprocess.CompletedProcess[str]:
    """The wrapper with a podman that says how it was called."""
    settings = tmp_path / "agent-image.env"
    settings.write_text("DPU_AGENT_IMAGE=registry.example.com/dpu-agent@sha256:abc\n")
    podman = tmp_path / "podman"
    podman.write_text(
        '#!/bin/sh\ncase "$1 $2" in\n'
        f'"container inspect") echo {str(running).lower()};;\n"image exists") exit {0 if image else 1};;\n'
        '*) printf "<%s>" "$@";;\nesac\n'
    )
    podman.chmod(0o755)
    script = tmp_path / "dpu-agent"
    script.write_text(WRAPPER.read_text().replace("/etc/dpu-network-operator/agent-image.env", str(settings)))
    return run("sh", script, *arguments, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})


def test_the_wrapper_asks_the_running_agents_container(tmp_path: Path) -> None:
    assert wrapper(tmp_path, "apply", "--dry run", running=True).stdout == (
        "<exec><-i><dpu-agent><dpu-agent><apply><--dry run>"
    )


def test_the_wrapper_starts_a_container_of_its_own_when_the_agent_does_not_run(tmp_path: Path) -> None:
    said = wrapper(tmp_path, "status", running=False).stdout
    assert said.startswith("<run><--rm><-i><--pull=never>")
    assert said.endswith("<--entrypoint><dpu-agent><registry.example.com/dpu-agent@sha256:abc><status>")


def test_the_wrapper_says_what_is_missing_instead_of_pulling(tmp_path: Path) -> None:
    answer = wrapper(tmp_path, "status", running=False, image=False)
    assert answer.returncode == 1
    assert "is not on this machine yet. See: journalctl -u dpu-agent.service" in answer.stderr


def test_the_wrapper_says_so_on_a_machine_without_configuration(tmp_path: Path) -> None:
    answer = run("sh", WRAPPER, "status")
    assert answer.returncode == 1
    assert "This machine has no /etc/dpu-network-operator/agent-image.env." in answer.stderr
