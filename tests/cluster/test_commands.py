"""`dpu-operator check` against a live tenant, and `dpu-operator render` against what the operator has applied."""

import datetime as dt
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dpu_operator import cli
from tests.cluster import health
from tests.lab import binaries, yamlfiles
from tests.lab.client import kind_of, name_of, namespace_of
from tests.lab.controlplane import ControlPlane
from tests.lab.credentials import RBAC, mint
from tests.lab.kubeconfig import Access
from tests.lab.lab import Lab
from tests.lab.stage import AGENT_IMAGE, Stage
from tests.lab.tenant import NAMESPACE

ACCOUNT = "checked"
"""An account of these tests' own: the operator's is in use by an operator that runs meanwhile."""


@dataclass
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def sentences(self) -> list[str]:
        """What it said of an error, a sentence a line."""
        return self.err.strip().splitlines()


@dataclass
class Checker:
    """Runs `dpu-operator check` with an account that has the operator's rights, or nearly."""

    lab: Lab
    folder: Path
    capsys: pytest.CaptureFixture[str]

    def grant(self, **resources: list[str]) -> None:
        """The operator's rights; of the named resources only these verbs."""
        for item in yamlfiles.documents(RBAC):
            if item["kind"] in {"Namespace", "ServiceAccount"}:
                continue
            for rule in item.get("rules", []):
                (plural, *_) = rule["resources"]
                rule["verbs"] = resources.get(plural, rule["verbs"])
            for subject in item.get("subjects", []):
                subject["name"] = ACCOUNT
                if subject["kind"] == "ServiceAccount":
                    subject["namespace"] = "default"
            item["metadata"]["name"] = ACCOUNT
            if "roleRef" in item:
                item["roleRef"]["name"] = ACCOUNT
            self.lab.tenant.admin.apply(item)

    def account(self) -> None:
        """The account itself."""
        metadata = {"name": ACCOUNT, "namespace": "default"}
        self.lab.tenant.admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})

    def token(self) -> Access:
        """A token of it."""
        tenant = self.lab.tenant
        return Access(tenant.url, tenant.authority.cert, token=mint(tenant.admin, "default", ACCOUNT))

    def certificate(self, lifetime: dt.timedelta) -> Access:
        """A client certificate of the same name."""
        tenant = self.lab.tenant
        return Access(tenant.url, tenant.authority.cert, tenant.authority.client(ACCOUNT, (), lifetime))

    def check(self, access: Access, *options: str) -> Answer:
        """Run it."""
        file = self.folder / "tenant.kubeconfig"
        file.write_text(access.kubeconfig())
        code = cli.main(["check", "--kubeconfig", str(file), *options])
        out, err = self.capsys.readouterr()
        for secret in (access.token, access.pair and access.pair.key):
            assert not secret or secret not in out + err
        return Answer(code, out, err)


@pytest.fixture
def checker(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Checker:
    """With all rights."""
    checker = Checker(lab, tmp_path, capsys)
    checker.account()
    checker.grant()
    return checker


def lines_of(answer: Answer) -> dict[str, list[str]]:
    """The table: what is in the row of each object."""
    rows = [line.split() for line in answer.out.splitlines()]
    return {f"{row[0]} {row[1]}": row[2:] for row in rows[4:] if row}


def test_check_of_a_good_kubeconfig_says_what_it_can_do_and_until_when(checker: Checker) -> None:
    access = checker.token()
    answer = checker.check(access)
    assert (answer.code, answer.err) == (0, "")
    assert f"server       {access.server.removeprefix('https://')} answers, v1." in answer.out
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    assert f"token, expires on {tomorrow:%Y-%m-%d}" in answer.out
    table = lines_of(answer)
    assert table["configmaps ovnkube-config"] == ["yes", "ok", "always"]
    assert table["nodes (all)"] == ["yes", "ok", "always"]
    assert {row[1] for row in table.values()} == {"ok"}
    assert {row[0] for row in table.values() if row[2:] == ["always"]} == {"yes"}


def test_check_as_json_says_the_same(checker: Checker) -> None:
    answer = checker.check(checker.token(), "-o", "json")
    assert (answer.code, answer.err) == (0, "")
    said = json.loads(answer.out)
    assert said["ok"] is True
    assert said["credential"]["what"] == "token"
    assert dt.datetime.fromisoformat(said["credential"]["expires"]) > dt.datetime.now(dt.UTC)
    config = next(each for each in said["objects"] if each["name"] == "ovnkube-config")
    assert config == {
        "group": "", "resource": "configmaps", "namespace": NAMESPACE, "name": "ovnkube-config",
        "needed": "always", "there": True, "missing": [],
    }  # fmt: skip


def test_check_names_a_missing_verb_and_its_object(checker: Checker) -> None:
    checker.grant(daemonsets=["get", "list"])
    answer = checker.check(checker.token())
    assert answer.code == 3
    assert lines_of(answer)["daemonsets ovnkube-node"] == ["yes", "missing", "watch", "always"]
    assert lines_of(answer)["configmaps ovnkube-config"] == ["yes", "ok", "always"]
    assert "daemonsets ovnkube-node (watch); " in answer.err
    assert "Grant get, list and watch" in answer.err
    said = json.loads(checker.check(checker.token(), "-o", "json").out)
    assert said["ok"] is False
    assert {each["name"]: each["missing"] for each in said["objects"] if each["missing"]} == {
        "ovnkube-node": ["watch"], "ovnkube-node-dpu-host": ["watch"], "ovnkube-master": ["watch"],
    }  # fmt: skip


def test_check_names_an_object_that_is_not_there(checker: Checker) -> None:
    checker.lab.tenant.admin.delete("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    answer = checker.check(checker.token())
    assert answer.code == 3
    assert lines_of(answer)["configmaps ovnkube-config"] == ["no", "ok", "always"]
    assert "configmaps ovnkube-config" in answer.err, "what is missing must not have to be looked for"
    assert "Grant" not in answer.err, "no right is missing"


def test_check_of_a_client_certificate_says_when_it_ends(checker: Checker) -> None:
    answer = checker.check(checker.certificate(dt.timedelta(days=3)))
    assert answer.code == 0
    assert "client certificate, expires on" in answer.out
    assert "(in 3.0 days)" in answer.out


def test_check_of_an_expired_client_certificate_says_that_it_expired(checker: Checker) -> None:
    answer = checker.check(checker.certificate(dt.timedelta(minutes=-1)))
    assert (answer.code, answer.out, len(answer.sentences)) == (1, "", 2)
    assert "expired on" in answer.sentences[0]


def test_check_of_a_revoked_token_ends_with_two_sentences(checker: Checker) -> None:
    access = checker.token()
    checker.lab.tenant.admin.delete("v1/ServiceAccount", ACCOUNT, "default")
    answer = checker.check(access)
    assert (answer.code, answer.out) == (1, "")
    assert answer.sentences == [
        "error: The tenant's API server refuses this credential (HTTP 401).", "Make a new kubeconfig."
    ]  # fmt: skip


def test_check_of_an_api_server_that_is_cut_off_ends_with_two_sentences(checker: Checker) -> None:
    access = checker.token()
    checker.lab.tenant.network().set("cut")
    answer = checker.check(access, "-o", "json")
    assert (answer.code, answer.out, len(answer.sentences)) == (1, "", 2)
    assert answer.sentences[0] == "error: The tenant's API server does not answer: connection refused."


def test_check_of_a_kubeconfig_that_the_operator_would_refuse_says_why(checker: Checker) -> None:
    file = checker.folder / "plugin.kubeconfig"
    config = json.loads(checker.token().kubeconfig())
    config["users"][0]["user"] = {"exec": {"command": "aws"}}
    command = [sys.executable, "-m", "dpu_operator.cli", "check", "--kubeconfig", "-"]
    ended = subprocess.run(command, input=json.dumps(config), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (1, "", 2)
    assert "(exec)" in ended.stderr
    assert not file.exists()


# --- render ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def dumped(stage: Stage, tmp_path: Path) -> tuple[Stage, Path]:
    """What an administrator would send: lists as kubectl prints them, of both clusters."""
    for folder in ("tenant", "infra"):
        (tmp_path / folder).mkdir()
    lab = stage.lab
    dump(lab.tenant, tmp_path / "tenant/namespaced.yaml", "configmaps,daemonsets", "-n", NAMESPACE)
    dump(lab.tenant, tmp_path / "tenant/cluster.yaml", "nodes,networks.operator.openshift.io,clusterversions")
    dump(lab.infra, tmp_path / "infra/cluster.yaml", "nodes,machineconfigpools")
    dump(lab.infra, tmp_path / "infra/ovn.yaml", "daemonsets", "-n", "openshift-ovn-kubernetes")
    dump(lab.infra, tmp_path / "config.yaml", "ovnkubeconfigs", "-n", "tenant-1")
    return stage, tmp_path


def dump(cluster: ControlPlane, file: Path, what: str, *options: str) -> None:
    """`kubectl get … -o yaml`."""
    command = [binaries.path("kubectl"), "--kubeconfig", str(cluster.admin_kubeconfig), "get", what, *options]
    text = subprocess.run([*command, "-o", "yaml"], check=True, capture_output=True, text=True).stdout
    assert "kind: List" in text
    file.write_text(text)


def test_render_from_a_dump_gives_what_the_operator_has_applied(
    dumped: tuple[Stage, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, folder = dumped
    monkeypatch.setenv("RELATED_IMAGE_AGENT", AGENT_IMAGE)
    monkeypatch.delenv("RELATED_IMAGE_OVNKUBE", raising=False)
    argv = ["render", "-f", str(folder / "config.yaml"), "--tenant", str(folder / "tenant")]
    code = cli.main([*argv, "--infra", str(folder / "infra")])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")

    rendered = [item for item in yaml.safe_load_all(out) if item]
    places = {(kind_of(item), name_of(item)) for item in rendered}
    assert places == {*health.made(stage, "tenant-1"), (health.MACHINE_CONFIG, health.OURS)}
    for item in rendered:
        live = stage.lab.infra.admin.get(kind_of(item), name_of(item), namespace_of(item))
        assert lacking(item, live, kind_of(item)) == []
        if "data" in item:
            assert item["data"] == live["data"]


def lacking(want: Any, have: Any, path: str) -> list[str]:
    """The paths of what is in one and not the same in the other; what the API server adds does not count."""
    if isinstance(want, dict) and isinstance(have, dict):
        return [each for key, value in want.items() for each in lacking(value, have.get(key), f"{path}.{key}")]
    if isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
        pairs = enumerate(zip(want, have, strict=True))
        return [each for index, (one, other) in pairs for each in lacking(one, other, f"{path}[{index}]")]
    return [] if want == have or (have is None and want in ("", [], {})) else [path]
