"""`dpu-operator check`: what a tenant's kubeconfig can do, and nothing of its content."""

import argparse
import datetime as dt
import io
import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dpu_operator import cli
from dpu_operator.commands import check
from dpu_operator.kube.access import Access
from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.observe import folder
from dpu_operator.observe.essentials import ALWAYS
from dpu_operator.world import NODE, Ref, TenantKey
from tests.unit.core.server import ApiServer
from tests.unit.core.test_cli import run, two_sentences
from tests.unit.core.worlds import EXAMPLES, TENANT_NAMESPACE
from tests.unit.hostile_kubeconfigs import MARK, good, jwt, with_cluster, written

Capture = pytest.CaptureFixture[str]
TOKEN = f"token-{MARK}"


class Tenant(ApiServer):
    """A tenant's API server, as check sees it."""

    def __init__(self, _: Access) -> None:
        super().__init__(folder.load(EXAMPLES / "tenant-4.20").values(), host="api.tenant.example:6443")
        self.refuse = refusals[-1]


Refusal = Callable[[str, Ref], ClusterError | None]
refusals: list[Refusal] = []


@pytest.fixture(autouse=True)
def _tenant(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example tenant answers and allows everything, unless the test says otherwise."""
    refusals[:] = [lambda _verb, _ref: None]
    monkeypatch.setattr(check, "Cluster", Tenant)
    yield
    refusals.clear()


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    path = tmp_path / "tenant.kubeconfig"
    path.write_text(written(good()), encoding="utf-8")
    return str(path)


def refuse(refusal: Refusal) -> None:
    refusals.append(refusal)


def forbidden(*where: tuple[str, str]) -> Refusal:
    return lambda verb, ref: ApiError(403, "Forbidden", "no") if (verb, ref.name) in where else None


def test_a_kubeconfig_that_can_do_everything_is_exit_code_0(capsys: Capture, kubeconfig: str) -> None:
    code, out, err = run(capsys, "check", "--kubeconfig", kubeconfig)
    assert (code, err) == (0, "")
    assert "answers, v1.33.5" in out
    assert "credential   token, which says of no end" in out
    for key in ALWAYS:
        assert f"{key.kind.plural} {key.object_name} " in out
    assert "nodes (all)" in out
    assert "secrets ovn-cert" in out


def test_json_has_every_object_with_what_is_missing(capsys: Capture, kubeconfig: str) -> None:
    code, out, _ = run(capsys, "check", "--kubeconfig", kubeconfig, "-o", "json")
    shown = json.loads(out)
    assert (code, shown["ok"], shown["version"]) == (0, True, "v1.33.5")
    assert shown["credential"] == {"what": "token", "expires": None}
    assert {o["resource"] for o in shown["objects"]} >= {"configmaps", "daemonsets", "networks", "nodes", "secrets"}
    nodes = next(o for o in shown["objects"] if o["resource"] == "nodes")
    assert nodes == {
        "group": "", "resource": "nodes", "namespace": None, "name": None, "needed": "always", "there": True,
        "missing": [],
    }  # fmt: skip
    assert len(shown["objects"]) == len(ALWAYS) + 1 + 4


@pytest.mark.parametrize("verb", check.VERBS)
def test_each_missing_verb_on_an_object_that_is_always_needed_is_named(
    capsys: Capture, kubeconfig: str, verb: str
) -> None:
    refuse(forbidden((verb, "ovnkube-config")))
    code, out, err = run(capsys, "check", "--kubeconfig", kubeconfig)
    assert code == 3
    (line,) = [line for line in out.splitlines() if line.startswith("configmaps ovnkube-config ")]
    assert f"missing {verb} " in line
    assert "Grant get, list and watch" in err
    code, out, _ = run(capsys, "check", "--kubeconfig", kubeconfig, "-o", "json")
    assert (code, json.loads(out)["ok"]) == (3, False)


def test_what_may_not_be_listed_is_neither_there_nor_absent(capsys: Capture, kubeconfig: str) -> None:
    refuse(forbidden(("list", "ovnkube-config")))
    _, out, _ = run(capsys, "check", "--kubeconfig", kubeconfig, "-o", "json")
    assert [o["there"] for o in json.loads(out)["objects"] if o["name"] == "ovnkube-config"] == [None]


def test_what_only_central_ovn_needs_may_be_missing(capsys: Capture, kubeconfig: str) -> None:
    refuse(forbidden(*((verb, "ovn-cert") for verb in check.VERBS)))
    code, out, err = run(capsys, "check", "--kubeconfig", kubeconfig)
    assert (code, err) == (0, "")
    assert "missing get,list,watch" in out


def test_an_object_that_is_always_needed_and_does_not_exist_is_exit_code_3(capsys: Capture, kubeconfig: str) -> None:
    code, out, err = run(capsys, "check", "--kubeconfig", kubeconfig, "--tenant-namespace", "elsewhere")
    assert code == 3
    assert "no     ok" in out
    assert err


def test_a_resource_type_that_is_not_served_is_not_there(capsys: Capture, kubeconfig: str) -> None:
    refuse(lambda verb, ref: ApiError(404, "NotFound", "no") if ref.kind.plural == "clusterversions" else None)

    async def allowed(*_: object) -> bool:
        return True

    original = Tenant.review_access
    Tenant.review_access = allowed  # type: ignore[assignment,method-assign]
    try:
        _, out, _ = run(capsys, "check", "--kubeconfig", kubeconfig, "-o", "json")
    finally:
        Tenant.review_access = original  # type: ignore[method-assign]
    assert [o["there"] for o in json.loads(out)["objects"] if o["resource"] == "clusterversions"] == [False]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ApiError(401, "Unauthorized", "Unauthorized"), "refuses this credential (HTTP 401)"),
        (ApiError(503, "ServiceUnavailable", "no"), "answers HTTP 503"),
        (Unreachable("certificate verify failed: unable to get local issuer certificate"), "certificate verify failed"),
    ],
)
def test_a_server_that_gives_no_answer_is_an_error_in_two_sentences(
    capsys: Capture, kubeconfig: str, error: ClusterError, words: str
) -> None:
    refuse(lambda _verb, _ref: error)
    code, out, err = run(capsys, "check", "--kubeconfig", kubeconfig)
    assert (code, out) == (1, "")
    assert two_sentences(err), err
    assert words in err


def test_a_dead_server_is_an_error_in_two_sentences_and_the_token_is_nowhere(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpu_operator.kube.client import Cluster

    monkeypatch.setattr(check, "Cluster", Cluster)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        path = tmp_path / "k"
        path.write_text(with_cluster(server=f"https://127.0.0.1:{closed.getsockname()[1]}"), encoding="utf-8")
        code, out, err = run(capsys, "--debug", "check", "--kubeconfig", str(path))
    assert (code, out) == (1, "")
    assert two_sentences(err.split("Traceback")[0]), err
    assert "does not answer: connection refused" in err
    assert TOKEN not in err


@pytest.mark.parametrize("output", ["text", "json"])
def test_the_token_is_never_printed(capsys: Capture, kubeconfig: str, output: str) -> None:
    for refusal in (forbidden(), forbidden(("list", "ovn-cert"))):
        refuse(refusal)
        _, out, err = run(capsys, "--debug", "check", "--kubeconfig", kubeconfig, "-o", output)
        assert TOKEN not in out + err


@pytest.mark.parametrize(
    "text", ["", f"{MARK}: [", written(good() | {"users": []}), with_cluster(insecure_skip_tls_verify=True)]
)
def test_a_kubeconfig_that_is_refused_is_an_error_in_two_sentences_without_its_content(
    capsys: Capture, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "k"
    path.write_text(text, encoding="utf-8")
    code, out, err = run(capsys, "--debug", "check", "--kubeconfig", str(path))
    assert (code, out) == (1, "")
    assert two_sentences(err.split("Traceback")[0]), err
    assert MARK not in err


def test_a_kubeconfig_that_is_not_there_is_named(capsys: Capture, tmp_path: Path) -> None:
    code, _, err = run(capsys, "check", "--kubeconfig", str(tmp_path / "nowhere"))
    assert code == 1
    assert two_sentences(err)
    assert "nowhere cannot be read (No such file or directory)" in err


def test_a_kubeconfig_comes_from_standard_input_too(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(written(good()).encode())))
    assert run(capsys, "check", "--kubeconfig", "-")[0] == 0


def with_end(tmp_path: Path, end: dt.timedelta) -> str:
    config = good()
    at = int((dt.datetime.now(dt.UTC) + end).timestamp())
    config["users"][0]["user"]["token"] = jwt({"exp": at, "iat": at - 10**7})
    path = tmp_path / "k"
    path.write_text(written(config), encoding="utf-8")
    return str(path)


def test_the_end_of_the_credential_is_told_with_the_days_that_are_left(capsys: Capture, tmp_path: Path) -> None:
    path = with_end(tmp_path, dt.timedelta(days=10, minutes=5))
    code, out, _ = run(capsys, "check", "--kubeconfig", path)
    assert code == 0
    assert "(in 10.0 days)" in out
    _, out, _ = run(capsys, "check", "--kubeconfig", path, "-o", "json")
    assert dt.datetime.fromisoformat(json.loads(out)["credential"]["expires"]).tzinfo is not None


def test_an_expired_credential_is_exit_code_3_even_where_it_still_works(capsys: Capture, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "check", "--kubeconfig", with_end(tmp_path, dt.timedelta(days=-1)))
    assert code == 3
    assert "expired on" in out


def test_what_is_checked_is_what_the_operator_watches() -> None:
    """Each tenant object that any plan may ask for is among the lines."""
    checked = {*ALWAYS, *check._CENTRAL}
    assert checked == set(TenantKey)


def test_a_line_is_bad_only_where_it_is_always_needed() -> None:
    def line(**fields: Any) -> check.Line:
        ref = Ref(NODE, None, "")
        usual: dict[str, Any] = {"ref": ref, "needed": "always", "missing": (), "exists": True}
        return check.Line(**usual | fields)

    assert not line().bad
    assert line(missing=("get",)).bad
    assert line(exists=False).bad
    assert not line(exists=None).bad
    assert not line(needed="central OVN", missing=("get",), exists=False).bad


def test_the_default_namespace_is_the_apis(capsys: Capture) -> None:
    arguments = cli._parser().parse_args(["check", "--kubeconfig", "x"])
    assert isinstance(arguments, argparse.Namespace)
    assert arguments.tenant_namespace == TENANT_NAMESPACE
