"""The command line: exit codes, two sentences, and nothing heavy for a dry run."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpu_agent import cli, replay
from dpu_agent.commands import rooms as real_rooms
from dpu_agent.world import World
from dpu_shared.errors import UserError
from dpu_shared.host_config import Mode
from tests.unit.agent import worlds as w

HEAVY = ("fastapi", "uvicorn", "pydantic", "starlette", "prometheus_client", "http.client", "asyncio", "ssl")


def portless() -> World:
    return w.without_port(w.healthy(), "br-ex", "c1pf0hpf")


def report_only() -> World:
    world = portless()
    config = world.configuration.current
    assert config is not None
    return replace(world, configuration=replace(world.configuration, current=replace(config, mode=Mode.REPORT_ONLY)))


def observation(tmp_path: Path, world: World) -> str:
    path = tmp_path / "dpu.json"
    path.write_text(replay.to_json(world))
    return str(path)


@pytest.mark.parametrize(
    ("world", "code"),
    [
        pytest.param(w.healthy(), 0, id="nothing to do"),
        pytest.param(portless(), 2, id="changes needed"),
        pytest.param(report_only(), 2, id="changes needed and held"),
        pytest.param(replace(w.healthy(), platform=w.SERVER), 1, id="a problem that no step mends"),
    ],
)
def test_the_exit_code_of_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str], world: World, code: int) -> None:
    assert cli.main(["plan", "--from", observation(tmp_path, world)]) == code
    assert cli.main(["plan", "--from", observation(tmp_path, world), "-o", "json"]) == code
    out, err = capsys.readouterr()
    assert out
    assert err == ""


def test_a_plan_reads_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(replay.to_json(portless()).encode())))
    assert cli.main(["plan", "--from", "-", "-o", "json"]) == 2
    assert [step["name"] for step in json.loads(capsys.readouterr().out)["steps"]] == ["AddPort"]


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b'{"schemaVersion": 1}'])
def test_a_bad_observation_is_two_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "dpu.json"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["plan", "--from", str(path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["fly"], ["plan"], ["apply", "--stage", "never"], ["apply", "--retry-for", "-1"], ["apply", "--retry-for", "x"],
        ["apply", "--retry-for", "nan"], ["status", "--nothing"], ["observe", "-o", "yaml"],
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_never_taken_for_changes_needed(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "--help" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--listen", "0.0.0.0:9917"], "reachable from other machines"),
        (["status", "--listen", "here"], "names no port"),
        (["apply", "--dry-run", "--host-root", "/nowhere"], "/nowhere is no folder"),
    ],
)
def test_a_users_mistake_has_two_sentences_and_no_traceback(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert cli.main(arguments) == 1
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 2


def test_a_defect_of_ours_is_no_traceback_unless_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_text: str) -> World:
        raise KeyError("ours")

    monkeypatch.setattr(replay, "from_json", broken)
    arguments = ["plan", "--from", observation(tmp_path, w.healthy())]
    assert cli.main(arguments) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main([*arguments, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(_text: str) -> World:
        raise KeyboardInterrupt

    monkeypatch.setattr(replay, "from_json", interrupted)
    assert cli.main(["plan", "--from", observation(tmp_path, w.healthy())]) == 130


@pytest.mark.parametrize("command", [[], ["run"], ["apply"], ["status"], ["observe"], ["plan"]])
def test_every_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert "exit codes:" in capsys.readouterr().out


def test_the_observation_of_this_machine_can_be_planned_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["observe", "-o", "json"]) == 0
    path = tmp_path / "dpu.json"
    path.write_text(capsys.readouterr().out)
    code = cli.main(["plan", "--from", str(path)])
    planned = capsys.readouterr().out
    assert cli.main(["apply", "--dry-run"]) == code
    assert capsys.readouterr().out == planned


def test_the_machine_is_let_go_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    from dpu_agent.host import real

    class Ovsdb:
        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(real, "machine", lambda _root: type("M", (), {"ovsdb": Ovsdb()})())
    with pytest.raises(UserError), real_rooms.this_machine(Path("/")):
        raise UserError("It is so.", "Do that.")
    assert closed == [True]


def run(*arguments: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "dpu_agent.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


def test_a_dry_run_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom dpu_agent import cli\ncli.main(['apply', '--dry-run'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    heavy = set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))
    # python's ovs brings ssl, and pyroute2 asyncio.
    assert heavy <= {"ssl", "asyncio"}


def test_the_module_of_the_command_imports_next_to_nothing() -> None:
    code = "import sys\nimport dpu_agent.cli\nprint([n for n in sys.modules if n.startswith(('dpu_', 'ovs', 'pyr', 'asy'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    names = json.loads(done.stdout.replace("'", '"'))
    assert sorted(names) == ["dpu_agent", "dpu_agent.address", "dpu_agent.cli", "dpu_shared", "dpu_shared.errors"]


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "dpu_agent.cli", "plan", "--from", observation(tmp_path, w.healthy())],
            stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_dry_run_writes_nothing_anywhere(tmp_path: Path) -> None:
    done = run("apply", "--dry-run", "--host-root", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_applying_on_another_machine_writes_nothing_either(tmp_path: Path) -> None:
    done = run("apply", "--host-root", str(tmp_path), "-o", "json", "--retry-for", "0")
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert (result["kind"], result["done"], result["ready"]) == ("Result", [], False)
    assert list(tmp_path.iterdir()) == []
