"""The documents say what the code does: names, tables, links, commands and reasons are compared with it."""

import argparse
import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import yaml

from dpu_agent import cli as agent_cli
from dpu_agent import health
from dpu_agent.reasons import REASONS
from dpu_operator import cli, world
from dpu_operator.plan import conditions, credentials, mapping, mirrors, nodevars, topology
from dpu_operator.plan.topology import Topology
from dpu_shared.node_report import NodeReport, State
from tests.lab import cli as lab_cli
from tests.unit.docpages import ROOT, blocks, page, prose, rows, section, ticked

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *DOCS]
TEXTS = [*PAGES, *sorted((ROOT / "docs/images").glob("*.svg"))]
CRD = ROOT / "charts/dpu-network-operator/crds/ovnkubeconfigs.dpu.openshift.io.yaml"
PUBLIC_HOSTS = {"keepachangelog.com", "semver.org", "www.w3.org", "0.0.0.0:8080", "127.0.0.1:9917"}
"""Hosts that a document may name in a URL: two conventions, the name of a file format, and listening addresses."""


# -- links, names of machines ---------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_relative_link_and_image_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_document_names_a_machine_or_a_registry(path: Path) -> None:
    text = path.read_text()
    hosts = set(re.findall(r"\bhttps?://([^/\s)\"'`]+)", text))
    assert hosts <= PUBLIC_HOSTS
    paths = re.findall(r"(?<![\w~./-])/(?:work|home|root|tmp|Users|mnt|srv|private|var/tmp)\b\S*", text)
    assert paths == []
    registries = re.findall(
        r"\b(?:quay|ghcr|gcr|docker|registry)\.[a-z][\w.-]*|\b[\w-]+\.[a-z]{2,}(?::\d+)?/\S+@sha256", text
    )
    assert registries == []


def test_files_that_the_documents_name_exist() -> None:
    """Paths in backticks that begin with a folder of the repository; `…/x` stands for the operator's `x`."""
    folders = {entry.name for entry in ROOT.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    for path in PAGES:
        for name in ticked(path.read_text()):
            full = name.replace("…", "operator/dpu_operator")
            if "/" in full and full.partition("/")[0] in folders and " " not in full:
                assert (ROOT / full).exists(), f"{path.name}: {name}"


# -- commands -------------------------------------------------------------------------------------------------------


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in PAGES:
        code = [*ticked(path.read_text()), *(content for _, content in blocks(path.read_text()))]
        named = {name for text in code for name in re.findall(r"^(?:[A-Z]+=\S+ )?make ([\w-]+)", text, re.MULTILINE)}
        assert named <= targets, path.name


def command_lines(text: str, program: str) -> list[list[str]]:
    """The arguments of a program wherever it is called in a piece of shell, as far as a pipe or a description."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    found = re.findall(rf"(?:^|\| |/){program} (.*?)(?:  |$| \|)", joined, re.MULTILINE)
    return [shlex.split(arguments, comments=True) for arguments in found]


def help_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The epilogs: of the command and of each of its verbs."""
    yield parser.epilog or ""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from help_of(verb)


def inline(program: str) -> list[list[str]]:
    """Commands in the middle of a sentence; a bare name or a synopsis (`up | down`, `break …`) is none."""
    texts = [code for path in PAGES for code in ticked(path.read_text())]
    commands = [text for text in texts if re.match(rf"(?:\S*/)?{program} [a-z]+ \S", text)]
    plain = [text for text in commands if not re.search(r"[|…]", text)]
    return [line for text in plain for line in command_lines(text.replace("[", "").replace("]", ""), program)]


def outlined(program: str) -> list[list[str]]:
    return [line for path in PAGES for _, code in blocks(path.read_text()) for line in command_lines(code, program)]


def test_every_dpu_operator_command_that_is_shown_parses() -> None:
    parser = cli._parser()
    epilogs = [
        line
        for text in help_of(parser)
        for line in command_lines(re.sub(r"^ +", "", text, flags=re.MULTILINE), "dpu-operator")
    ]
    shown = [*epilogs, *outlined("dpu-operator"), *inline("dpu-operator")]
    assert len(epilogs) >= 10
    assert {arguments[0] for arguments in shown} == {"run", "render", "check"}
    for arguments in shown:
        parser.parse_args(arguments)


def test_every_dpu_lab_command_that_is_shown_parses() -> None:
    parser = lab_cli.parser()
    epilog = command_lines(re.sub(r"^ +", "", lab_cli.EPILOG, flags=re.MULTILINE), "dpu-lab")
    shown = [*epilog, *outlined("dpu-lab"), *inline("dpu-lab")]
    assert {arguments[0] for arguments in epilog} == {"up", "kubectl", "break", "mend", "down"}
    for arguments in shown:
        wanted = parser.parse_args(arguments)
        assert wanted.verb != "break" or wanted.how in lab_cli.WAYS[wanted.what]


def test_every_dpu_agent_command_that_is_shown_parses() -> None:
    parser = agent_cli._parser()
    epilogs = [
        line
        for text in help_of(parser)
        for line in command_lines(re.sub(r"^ +", "", text, flags=re.MULTILINE), "dpu-agent")
    ]
    shown = [*epilogs, *outlined("dpu-agent"), *inline("dpu-agent")]
    assert {arguments[0] for arguments in shown} == {"run", "apply", "status", "observe", "plan"}
    for arguments in shown:
        parser.parse_args(arguments[: arguments.index(">")] if ">" in arguments else arguments)


def test_the_readme_renders_the_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (arguments,) = [line for line in outlined("dpu-operator") if "-f" in line]
    assert cli.main(arguments) == 0
    kinds = [obj["kind"] for obj in yaml.safe_load_all(capsys.readouterr().out)]
    assert kinds[-2:] == ["DaemonSet", "MachineConfig"]


def test_the_readme_shows_the_example_resource() -> None:
    (shown,) = [content for language, content in blocks((ROOT / "README.md").read_text()) if language == "yaml"]
    example = ROOT / "operator/dpu_operator/examples/ovnkubeconfig.yaml"
    assert yaml.safe_load(shown) == yaml.safe_load(example.read_text())


# -- the API --------------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    required: bool
    default: str | None
    words: tuple[str, ...]


def fields() -> dict[str, Field]:
    """The leaves of spec in the CRD, by dotted name."""
    schema = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: dict[str, Field] = {}

    def walk(node: dict[str, Any], prefix: str) -> None:
        for name, child in node["properties"].items():
            if child["type"] == "object":
                walk(child, f"{prefix}{name}.")
            else:
                words = tuple(child.get("enum", ()))
                found[prefix + name] = Field(name in node.get("required", ()), child.get("default"), words)

    walk(schema["properties"]["spec"], "")
    return found


def test_the_table_of_fields_is_that_of_the_crd() -> None:
    table = {ticked(name)[0]: (default, meaning) for name, default, meaning in rows(section(page("api.md"), "## spec"))}
    assert set(table) == set(fields())
    for name, field in fields().items():
        default, meaning = table[name]
        assert (default == "required") == field.required, name
        if field.default is not None:
            assert default == f"`{field.default}`", name
        elif default.startswith("`"):
            assert ticked(default)[0] in fields(), name  # it falls back to another field
        assert set(field.words) <= set(ticked(f"{default} {meaning}")), name


def test_the_names_of_the_resource_are_those_of_the_crd() -> None:
    names = yaml.safe_load(CRD.read_text())["spec"]["names"]
    first = page("api.md").split("\n## ")[0]
    assert f"short name `{names['shortNames'][0]}`, category `{names['categories'][0]}`" in first


@pytest.fixture(scope="module")
def rendered() -> dict[str, Any]:
    """What `dpu-operator render -o json` prints for the example."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["render", "-o", "json"]) == 0
    shown: dict[str, Any] = json.loads(out.getvalue())
    return shown


def test_the_table_of_conditions_has_each_of_them(rendered: dict[str, Any]) -> None:
    table = [ticked(row[0])[0] for row in rows(section(page("api.md"), "## Conditions"))]
    assert sorted(table) == sorted(condition["type"] for condition in rendered["conditions"])
    assert {11: "Eleven"}[len(table)] in (ROOT / "README.md").read_text()


def test_the_table_of_objects_has_what_is_made(rendered: dict[str, Any]) -> None:
    documented: set[tuple[str, str]] = set()
    for _, objects, _ in rows(section(page("api.md"), "## What the operator makes")):
        documented |= set(re.findall(r"(\w+) `([^`]+)`", objects))
    made = {(obj["kind"], obj["metadata"]["name"].replace("-dpu-dpu-", "-<pool>-dpu-")) for obj in rendered["objects"]}
    copies = {mirrors.mirror_ref(key, "x") for kind in Topology for key in mirrors.required(kind)}
    assert documented == made | {(ref.kind.kind, ref.name) for ref in copies}
    marks = section(page("api.md"), "## What the operator makes")
    assert world.FIELD_MANAGER in marks
    assert {f"{world.MANAGED_BY_LABEL}: {world.FIELD_MANAGER}", world.FINALIZER} <= set(ticked(marks))
    assert world.OWNER_ANNOTATION in marks


def test_the_support_matrix_is_that_of_the_code() -> None:
    names = {
        "central OVN": Topology.CENTRAL,
        "interconnect with a single zone": Topology.SINGLE_ZONE,
        "interconnect": Topology.INTERCONNECT,
    }
    text = section(page("api.md"), "## Which tenants can work")
    table = [(names[kind], releases) for kind, releases in rows(text)]
    assert table == [(row.topology, topology._range(row)) for row in topology.SUPPORT]
    assert set(ticked(section(page("api.md"), "## Other status"))) >= {kind.value for kind in Topology}


def test_the_variables_of_env_overrides_are_those_that_are_permitted() -> None:
    text = section(page("api.md"), "## Which DPU belongs to which tenant node")
    listed = ticked(text.partition("may also set")[2])
    assert sorted(listed) == sorted(nodevars.PERMITTED)
    assert f"`{mapping.TENANT_NODE_VARIABLE}=<tenant node>`" in text
    assert f"`{world.TENANT_NODE_ANNOTATION}`" in text


def test_the_table_of_the_agents_reasons_is_that_of_the_code() -> None:
    shown = rows(section(page("agent.md"), "## Reasons"))
    assert [tuple(row) for row in shown] == [(f"`{reason}`", text) for reason, text in REASONS.items()]


def test_the_agents_annotations_are_those_of_the_contract() -> None:
    shown = " ".join(row[0] for row in rows(section(page("agent.md"), "## On the Node")))
    assert set(re.findall(r"`([^`]+)`", shown)) == set(NodeReport(State.READY).to_annotations())


def test_the_agent_answers_at_every_path_that_is_shown() -> None:
    shown = " ".join(row[0] for row in rows(section(page("agent.md"), "## Over HTTP, on the DPU only")))
    paths = {getattr(route, "path", "") for route in health.application(cast("Any", None)).routes}
    assert set(re.findall(r"`([^`]+)`", shown)) <= paths


def test_the_numbers_in_the_text_are_those_of_the_code() -> None:
    assert (credentials.WARN.days, credentials.SHORT_LIVED_SHARE) == (7, 10)
    assert "within seven days, or within the last tenth of its life for one that lives less than seventy days" in page(
        "api.md"
    )
    assert conditions.PATIENCE.total_seconds() == 10 * 60
    assert "is given ten minutes" in page("troubleshooting.md")


def test_the_reboot_free_policy_covers_all_that_the_machine_config_holds(rendered: dict[str, Any]) -> None:
    policies = [yaml.safe_load(content) for language, content in blocks(page("install.md")) if language == "yaml"]
    (policy,) = [item["spec"]["nodeDisruptionPolicy"] for item in policies if item["kind"] == "MachineConfiguration"]
    config = next(obj["spec"]["config"] for obj in rendered["objects"] if obj["kind"] == "MachineConfig")
    covered = [Path(each["path"]) for each in policy["files"]]
    for file in config["storage"]["files"]:
        assert any(Path(file["path"]).is_relative_to(path) for path in covered), file["path"]
    assert {unit["name"] for unit in config["systemd"]["units"]} <= {each["name"] for each in policy["units"]}
