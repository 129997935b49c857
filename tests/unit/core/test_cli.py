"""What a person sees who runs dpu-operator: help that teaches, two sentences for an error, and the documented exit codes."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dpu_operator import cli
from dpu_operator.observe import folder
from dpu_operator.world import TenantKey
from dpu_shared.errors import UserError
from tests.unit.core.test_folder import file, inspected
from tests.unit.core.worlds import EXAMPLES, TENANT_NAMESPACE
from tests.unit.hostile_kubeconfigs import b64

CONFIG = str(EXAMPLES / "ovnkubeconfig.yaml")
TENANT = str(EXAMPLES / "tenant-4.20")
INFRA = str(EXAMPLES / "infra")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RELATED_IMAGE_") or name == "KUBECONFIG"]:
        monkeypatch.delenv(name)


def run(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = int(str(end.code or 0))
    out = capsys.readouterr()
    return code, out.out, out.err


def two_sentences(error: str) -> bool:
    """One line that says what is wrong, one that says what to do."""
    lines = error.rstrip("\n").split("\n")
    return len(lines) == 2 and lines[0].startswith("error: ") and all(line.endswith(".") for line in lines)


def kinds(stream: str) -> list[str]:
    return [f"{obj['kind']}/{obj['metadata']['name']}" for obj in yaml.safe_load_all(stream)]


EVERYTHING = [
    "ServiceAccount/ovn-kubernetes-node",
    "RoleBinding/ovn-kubernetes-node-privileged",
    "ConfigMap/ovnkube-config",
    "ConfigMap/tenant-cluster-ca.crt",
    "ConfigMap/ovnkube-config-dpu",
    "ConfigMap/ovnkube-node-scripts",
    "ConfigMap/ovnkube-node-env",
    "DaemonSet/ovnkube-node",
    "MachineConfig/99-dpu-dpu-network-operator",
]


# render


def test_render_shows_the_example_as_a_stream_of_objects(capsys: Capture) -> None:
    code, out, err = run(capsys, "render")
    assert (code, err) == (0, "")
    assert kinds(out) == EVERYTHING


def test_rendered_objects_are_what_the_plan_made_and_their_scripts_can_be_read(capsys: Capture) -> None:
    _, out, _ = run(capsys, "render")
    _, as_json, _ = run(capsys, "render", "-o", "json")
    assert list(yaml.safe_load_all(out)) == json.loads(as_json)["objects"]
    assert "    #!/bin/bash\n" in out


def test_render_reads_what_oc_adm_inspect_writes(capsys: Capture, tmp_path: Path) -> None:
    inspected(tmp_path / "tenant", folder.load(EXAMPLES / "tenant-4.20"))
    inspected(tmp_path / "infra", folder.load(EXAMPLES / "infra"))
    folders = ("--tenant", str(tmp_path / "tenant"), "--infra", str(tmp_path / "infra"))
    code, out, err = run(capsys, "render", "-f", CONFIG, *folders)
    assert (code, err) == (0, "")
    assert out == run(capsys, "render")[1]


def test_render_needs_no_folder_of_the_infra_cluster(capsys: Capture) -> None:
    code, out, err = run(capsys, "render", "-f", CONFIG, "--tenant", TENANT)
    assert (code, err) == (0, "")
    assert kinds(out) == EVERYTHING
    assert "node-role.kubernetes.io/dpu" in out
    assert "example.com/ovnkube@sha256:0000" in out, "an image that nobody can take for a real one"


def test_render_takes_the_images_of_its_environment(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELATED_IMAGE_AGENT", "registry.example/agent@sha256:" + 64 * "a")
    monkeypatch.setenv("RELATED_IMAGE_OVNKUBE", "registry.example/ovnkube@sha256:" + 64 * "b")
    _, out, _ = run(capsys, "render", "-f", CONFIG, "--tenant", TENANT)
    images = {container["image"] for container in daemon_set(out)["spec"]["template"]["spec"]["containers"]}
    assert images == {"registry.example/ovnkube@sha256:" + 64 * "b"}
    assert b64("DPU_AGENT_IMAGE=registry.example/agent@sha256:" + 64 * "a" + "\n") in out
    assert 64 * "0" not in out


def daemon_set(stream: str) -> dict[str, Any]:
    found: dict[str, Any] = next(obj for obj in yaml.safe_load_all(stream) if obj["kind"] == "DaemonSet")
    return found


def test_render_as_json_is_one_object_with_conditions_and_facts(capsys: Capture) -> None:
    code, out, _ = run(capsys, "render", "-o", "json")
    shown = json.loads(out)
    assert (code, set(shown)) == (0, {"objects", "conditions", "facts"})
    synced = next(c for c in shown["conditions"] if c["type"] == "TenantObjectsSynced")
    assert set(synced) == {"type", "status", "reason", "message"}
    assert synced["status"] == "True", "judged as if it were applied"
    assert shown["facts"]["topology"] == "interconnect"


def changed_tenant(target: Path, key: TenantKey, text: str | None) -> str:
    """The example tenant with one object replaced, or taken away."""
    objects = folder.load(EXAMPLES / "tenant-4.20")
    obj = objects.pop(key.ref(TENANT_NAMESPACE))
    inspected(target, objects)
    if text is not None:
        name, value = text.split("=", 1)
        obj["metadata"]["annotations"][name] = value
        file(target, yaml.safe_dump(obj), "changed.yaml")
    return str(target)


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        (TenantKey.NODE_DAEMON_SET, None, "no OVN-Kubernetes that we know"),
        (TenantKey.NODE_DAEMON_SET, "networkoperator.openshift.io/hybrid-overlay-status=enabled", "hybrid overlay"),
        (TenantKey.DPU_HOST_DAEMON_SET, "release.openshift.io/version=4.16.2", "4.16.2"),
        (TenantKey.OVNKUBE_CONFIG, None, "ovnkube-config"),
    ],
)
def test_a_tenant_that_is_not_usable_is_an_error_in_two_sentences(
    capsys: Capture, tmp_path: Path, key: TenantKey, text: str | None, words: str
) -> None:
    tenant = changed_tenant(tmp_path, key, text)
    code, _, err = run(capsys, "render", "-f", CONFIG, "--tenant", tenant, "--infra", INFRA)
    assert code == 1
    assert two_sentences(err), err
    assert words in err


def test_something_in_the_way_of_the_dpus_is_exit_code_3_with_the_objects(capsys: Capture, tmp_path: Path) -> None:
    objects = folder.load(EXAMPLES / "infra")
    for ref, obj in objects.items():
        if ref.name == "dpu-1":
            del obj["metadata"]["annotations"]["dpu.openshift.io/tenant-node"]
    inspected(tmp_path, objects)
    code, out, err = run(capsys, "render", "-f", CONFIG, "--tenant", TENANT, "--infra", str(tmp_path))
    assert code == 3
    assert kinds(out) == EVERYTHING
    assert err.startswith("NodesMapped=False NotMapped: 2 of 3 DPUs are mapped")
    assert "dpu-1" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("-f", CONFIG),
        ("--tenant", TENANT),
        ("-f", "/nowhere.yaml", "--tenant", TENANT),
        ("-f", CONFIG, "--tenant", "/nowhere"),
        ("-f", CONFIG, "--tenant", TENANT, "--infra", "/nowhere"),
        ("-f", f"{TENANT}/network-operator-cluster.yaml", "--tenant", TENANT),
    ],
)
def test_what_cannot_be_read_is_an_error_in_two_sentences(capsys: Capture, arguments: tuple[str, ...]) -> None:
    code, out, err = run(capsys, "render", *arguments)
    assert (code, out) == (1, "")
    assert two_sentences(err), err


def test_garbage_among_the_files_is_named_with_its_line(capsys: Capture, tmp_path: Path) -> None:
    path = file(tmp_path, "a: 1\nb: [\n")
    code, _, err = run(capsys, "render", "-f", CONFIG, "--tenant", str(tmp_path))
    assert code == 1
    assert two_sentences(err)
    assert f"{path} is not YAML (line 3)" in err


# the command line


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("unknown",),
        ("render", "-o", "xml"),
        ("check", "--kubeconfig", "x", "-o", "yaml"),
        ("check",),
        ("run", "--log-format", "xml"),
        ("render", "--unknown"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_says_what_is_right(
    capsys: Capture, arguments: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: dpu-operator")


def test_an_unknown_output_names_the_known_ones(capsys: Capture) -> None:
    assert re.search(r"choose from '?yaml'?, '?json'?", run(capsys, "render", "-o", "xml")[2])


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of the command and of each verb."""
    whole = cli._parser()
    verbs = next(action for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    return {"": whole, **verbs.choices}


@pytest.mark.parametrize("verb", ["", "run", "render", "check"])
def test_help_lists_every_option_and_teaches_by_examples(capsys: Capture, verb: str) -> None:
    code, out, err = run(capsys, *verb.split(), "--help")
    assert (code, err) == (0, "")
    for action in parsers()[verb]._actions:
        assert all(option in out for option in action.option_strings), action
        assert action.help or isinstance(action, argparse._SubParsersAction), action
    assert "\nexamples:\n" in out
    assert f"\n  dpu-operator {verb}".rstrip() in out
    assert max(map(len, out.splitlines())) <= 120
    assert out.isascii() or "…" in out


def test_every_verb_has_help_and_every_example_can_be_parsed(capsys: Capture) -> None:
    assert set(parsers()) == {"", "run", "render", "check"}
    for verb in parsers():
        _, out, _ = run(capsys, *verb.split(), "--help")
        for line in re.findall(
            r"^.*?\bdpu-operator ((?:run|render|check)\b.*)$", out.split("examples:")[1], re.MULTILINE
        ):
            command = re.split(r"\s{2,}|\s\|\s", line)[0]
            assert callable(cli._parser().parse_args(command.split()).action)


def test_the_exit_codes_are_documented_where_a_person_looks(capsys: Capture) -> None:
    _, out, _ = run(capsys, "--help")
    for code in ("0 all is well", "1 an error", "2 the command line is wrong", "3 checked or rendered"):
        assert code in " ".join(out.split())


def test_the_version_is_the_packages(capsys: Capture) -> None:
    from dpu_operator import __version__

    assert run(capsys, "--version") == (0, f"dpu-operator {__version__}\n", "")


def test_a_traceback_is_shown_only_when_asked_for(capsys: Capture) -> None:
    assert "Traceback" not in run(capsys, "render", "-f", CONFIG)[2]
    assert "Traceback" in run(capsys, "--debug", "render", "-f", CONFIG)[2]


def test_an_interrupted_command_has_the_shells_exit_code(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_do_render", interrupted)
    assert run(capsys, "render") == (130, "", "")


# as a process of its own


def process(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dpu_operator.cli", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


@pytest.mark.parametrize("arguments", [("render",), ("--help",), ("render", "--help")])
def test_a_reader_that_has_seen_enough_gets_no_complaint(arguments: tuple[str, ...]) -> None:
    """`dpu-operator render | head -1`: the pipe may be closed before anything was written."""
    child = process(*arguments)
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    complaint = child.stderr.read()
    child.stderr.close()
    assert (child.wait(timeout=60), complaint) == (0, b"")


def test_help_and_render_load_neither_kopf_nor_a_client() -> None:
    """They should be instant, and work where neither is installed."""
    code = (
        "import sys; from dpu_operator import cli; cli.main(['render']);"
        "sys.exit(', '.join({'kopf', 'kubernetes', 'aiohttp'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_run_without_a_cluster_is_an_error_in_two_sentences(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    monkeypatch.setattr("dpu_operator.report.logs.configure", lambda **_: None)
    code, out, err = run(capsys, "run")
    assert (code, out) == (1, "")
    assert two_sentences(err), err


def test_run_starts_with_what_the_command_line_and_the_environment_say(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpu_operator.commands import run as verb

    said: dict[str, Any] = {}
    monkeypatch.setenv("RELATED_IMAGE_AGENT", "a@sha256:1")
    monkeypatch.setattr("dpu_operator.report.logs.configure", said.update)
    monkeypatch.setattr(verb, "own_access", lambda path: f"access by {path}")
    monkeypatch.setattr("dpu_operator.app.run", lambda **arguments: said.update(arguments))
    code, _, _ = run(capsys, "run", "--kubeconfig", "k", "--log-format", "json", "--liveness", "http://0.0.0.0:1/x")
    assert code == 0
    assert (said["style"], said["verbose"], said["access"]) == ("json", False, "access by k")
    assert (said["images"], said["liveness"]) == ({"agent": "a@sha256:1"}, "http://0.0.0.0:1/x")
    assert "/etc/systemd/system" in " ".join(said["tree"])


def test_an_error_is_printed_as_its_two_sentences(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: argparse.Namespace) -> int:
        raise UserError("It is broken.", "Mend it.")

    monkeypatch.setattr(cli, "_do_render", broken)
    assert run(capsys, "render") == (1, "", "error: It is broken.\nMend it.\n")
