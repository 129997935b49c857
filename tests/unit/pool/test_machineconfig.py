"""The MachineConfig: what is in it, what our lint says of bad ones, and whether a rendered one holds ours."""

import base64
import copy
import dataclasses
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dpu_operator.observe.tree import load_tree
from dpu_operator.plan import ignition
from dpu_operator.plan import machineconfig as mc
from dpu_operator.world import HASH_ANNOTATION, OWNER_ANNOTATION, InfraWorld, Obj
from dpu_shared.errors import UserError
from dpu_shared.host_config import HostConfig, Mode
from tests.unit.pool.worlds import IMAGE, ROLE, TREE, config, ours, rendered

UNIT = (
    "[Unit]\nDescription=DPU agent\nAfter=network-online.target\n[Service]\nType=simple\nExecStart=/usr/bin/true\n"
    "[Install]\nWantedBy=multi-user.target\n"
)
HELLO = "data:,hello%20world"
OF_HELLO = "sha512-9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043"
ZEROS = "data:;base64,H4sIAO82BGsC/+3BAQ0AAADCoGzvX8ocbkABAAAAAAAAAADAvwHtyEM8ECcAAA=="


def sample(version: str = "3.2.0", **config_fields: object) -> Obj:
    return {
        "apiVersion": "machineconfiguration.openshift.io/v1",
        "kind": "MachineConfig",
        "metadata": {"name": "99-x", "labels": {ROLE: "dpu"}},
        "spec": {"config": {"ignition": {"version": version}, **config_fields}},
    }


def of_files(*entries: Obj) -> Obj:
    return sample(storage={"files": list(entries)})


def file_of(
    source: str = HELLO, mode: int = 384, path: str = "/etc/dpu/x.conf", more: Obj | None = None, **fields: object
) -> Obj:
    return {"path": path, "mode": mode, "overwrite": True, "contents": {"source": source, **(more or {})}, **fields}


def of_unit(name: str = "dpu-agent.service", contents: str = UNIT, version: str = "3.2.0", **fields: object) -> Obj:
    return sample(version, systemd={"units": [{"name": name, "enabled": True, "contents": contents}]}, **fields)


SAMPLES: dict[str, tuple[Obj, str]] = {
    "bad-append": (of_files({"path": "/etc/x", "append": [{"source": "data:,a"}]}), "append"),
    "bad-directories": (
        sample(storage={"files": [], "directories": [{"path": "/etc/dpu", "mode": 493}]}), "directories",
    ),
    "bad-file-http": (of_files(file_of("http://x/y")), "no data URL"),
    "bad-mode-setuid": (of_files(file_of(mode=2541)), "mode"),
    "bad-unit-ext": (of_unit("a.container"), "ending is no unit type"),
    "bad-unit-syntax": (of_unit(contents="garbage no section"), "no section"),
    "dup-file": (of_files(file_of(), file_of()), "twice"),
    "hash-wrong": (of_files(file_of("data:,hellX", more={"verification": {"hash": OF_HELLO}})), "verification.hash"),
    "mode-dec-755": (of_files(file_of(mode=755)), "mode"),
    "ok-file-b64": (of_files(file_of("data:text/plain;charset=utf-8;base64,aGVsbG8K")), ""),
    "ok-file-data": (of_files(file_of()), ""),
    "ok-file-gzip": (of_files(file_of(ZEROS, more={"compression": "gzip"})), ""),
    "ok-user-id": (of_files(file_of(user={"id": 0})), ""),
    "overwrite-nosource": (of_files({"path": "/etc/x", "overwrite": True}), "overwrite without a source"),
    "quadlet": (of_files(file_of(mode=420, path="/etc/containers/systemd/dpu-agent.container")), ""),
    "unit-no-install": (of_unit(contents="[Service]\nExecStart=/bin/true\n"), "[Install]"),
    "unknown-field": (of_unit(foo=1), "unknown key foo"),
    "v-3.2.0": (of_unit(), ""),
    "v-3.5.0": (of_unit(version="3.5.0"), ""),
    "v-3.6.0": (of_unit(version="3.6.0"), "version"),
}  # fmt: skip
"""Twenty on which the machine-config-operator's own code was run (August 2026), with what has to be found.

It lets five of the bad ones by: bad-file-http, bad-unit-syntax, hash-wrong, unit-no-install and unknown-field. Where
DPU_FIXTURES names a folder with the original files, these here are held against them.
"""


@pytest.mark.parametrize("name", SAMPLES)
def test_each_of_the_twenty_samples_gets_the_right_verdict(name: str) -> None:
    obj, words = SAMPLES[name]
    problems = mc.verify(obj)
    assert bool(problems) is bool(words), problems
    assert words in " ".join(problems)
    originals = os.environ.get("DPU_FIXTURES")
    if originals:
        assert obj == yaml.safe_load((Path(originals) / "machineconfig" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("mode", [0, 0o777])
def test_the_first_and_the_last_mode_are_accepted(mode: int) -> None:
    assert mc.verify(of_files(file_of(mode=mode))) == ()


def test_a_right_hash_is_accepted() -> None:
    assert mc.verify(of_files(file_of("data:,hello", more={"verification": {"hash": OF_HELLO}}))) == ()


def test_ours_passes_our_own_lint_also_with_the_tree_that_is_shipped() -> None:
    assert mc.verify(ours()) == ()
    world = InfraWorld(config=config())
    shipped = mc.machine_config(world, tree=load_tree({}), host_config=HostConfig(), agent_image=IMAGE)
    assert mc.verify(shipped) == ()


def test_it_is_named_and_marked_for_its_pool_and_has_no_owner_reference() -> None:
    made = ours()
    assert made["metadata"]["name"] == "99-dpu-dpu-network-operator"
    assert (
        made["metadata"]["labels"].items()
        >= {ROLE: "dpu", "app.kubernetes.io/managed-by": "dpu-network-operator"}.items()
    )
    assert made["metadata"]["annotations"][OWNER_ANNOTATION] == "tenant-1/cluster"
    assert "ownerReferences" not in made["metadata"]
    assert "namespace" not in made["metadata"]
    assert made["spec"]["config"]["ignition"] == {"version": "3.2.0"}


def files(obj: Obj) -> dict[str, Obj]:
    return {file["path"]: file for file in obj["spec"]["config"]["storage"]["files"]}


def test_it_carries_the_tree_the_host_configuration_and_the_image() -> None:
    carried = files(ours())
    assert set(carried) == {
        "/usr/local/bin/dpu-agent",
        "/etc/dpu-network-operator/host-config.json",
        "/etc/dpu-network-operator/agent-image.env",
    }
    texts = {path: ignition.decode(file["contents"]).decode() for path, file in carried.items()}
    assert HostConfig.from_json(texts["/etc/dpu-network-operator/host-config.json"]) == HostConfig()
    assert texts["/etc/dpu-network-operator/agent-image.env"] == f"DPU_AGENT_IMAGE={IMAGE}\n"
    assert carried["/usr/local/bin/dpu-agent"]["mode"] == 493
    assert carried["/etc/dpu-network-operator/host-config.json"]["mode"] == 420


def test_a_unit_with_install_is_enabled_and_a_folder_becomes_drop_ins() -> None:
    unit = b"[Service]\nExecStart=/bin/true\n"
    tree = {
        "/etc/systemd/system/a.service": mc.TreeFile(0o644, unit),
        "/etc/systemd/system/b.service": mc.TreeFile(0o644, unit + b"[Install]\nWantedBy=multi-user.target\n"),
        "/etc/systemd/system/ovs-vswitchd.service.d/10-dpu.conf": mc.TreeFile(0o644, b"[Service]\nNice=1\n"),
    }
    made = mc.machine_config(InfraWorld(config=config()), tree=tree, host_config=HostConfig(), agent_image=IMAGE)
    assert made["spec"]["config"]["systemd"]["units"] == [
        {"name": "a.service", "contents": unit.decode()},
        {"name": "b.service", "contents": unit.decode() + "[Install]\nWantedBy=multi-user.target\n", "enabled": True},
        {"name": "ovs-vswitchd.service", "dropins": [{"name": "10-dpu.conf", "contents": "[Service]\nNice=1\n"}]},
    ]


def test_the_same_input_in_another_order_gives_the_same_bytes() -> None:
    world = InfraWorld(config=config())
    backwards = dict(reversed(list(TREE.items())))
    again = mc.machine_config(world, tree=backwards, host_config=HostConfig(), agent_image=IMAGE)
    assert json.dumps(again) == json.dumps(ours())


def test_another_host_configuration_gives_another_hash() -> None:
    def mark(obj: Obj) -> str:
        return str(obj["metadata"]["annotations"][HASH_ANNOTATION])

    assert mark(ours()) != mark(ours(host=HostConfig(mode=Mode.REPORT_ONLY)))


@pytest.mark.parametrize(
    "image", ["", "quay.io/x", "quay.io/x:v1\nA=b", "quay.io/x:v1 --privileged", "$(id):v1", "-v:1"]
)
def test_an_image_that_would_not_run_or_would_run_more_is_refused(image: str) -> None:
    with pytest.raises(UserError, match="Set RELATED_IMAGE_AGENT"):
        mc.machine_config(InfraWorld(config=config()), tree=TREE, host_config=HostConfig(), agent_image=image)


def test_a_tree_that_would_make_a_bad_machine_config_is_refused_before_anything_is_written() -> None:
    tree = {"/etc/systemd/system/a.service": mc.TreeFile(0o644, b"garbage")}
    with pytest.raises(UserError, match=r"unit a\.service: has no section"):
        mc.machine_config(InfraWorld(config=config()), tree=tree, host_config=HostConfig(), agent_image=IMAGE)


SPOILS: dict[str, tuple[Callable[[Obj], object], str]] = {
    "no role": (lambda m: m["metadata"].pop("labels"), "no label"),
    "a key beside config": (lambda m: m["spec"].update(configs={}), "unknown key configs"),
    "a section that is misspelt": (lambda m: m["spec"]["config"].update(system={}), "unknown key system"),
    "an Ignition section": (lambda m: m["spec"]["config"]["ignition"].update(config={}), "unknown key config"),
    "no version": (lambda m: m["spec"]["config"].update(ignition={}), "version"),
    "a user": (lambda m: m["spec"]["config"].update(passwd={"users": [{"name": "x"}]}), "passwd"),
    "Ignition kernel arguments": (
        lambda m: m["spec"]["config"].update(kernelArguments={"shouldExist": ["a"]}), "use spec.kernelArguments",
    ),
    "a link": (lambda m: m["spec"]["config"]["storage"].update(links=[{"path": "/a"}]), "links"),
    "a relative path": (lambda m: files(m)["/usr/local/bin/dpu-agent"].update(path="a/b"), "absolute"),
    "a path that climbs": (lambda m: files(m)["/usr/local/bin/dpu-agent"].update(path="/a/../b"), "absolute and plain"),
    "the force file": (
        lambda m: files(m)["/usr/local/bin/dpu-agent"].update(path="/run/machine-config-daemon-force"), "own switch",
    ),
    "an octal mode as text": (lambda m: files(m)["/usr/local/bin/dpu-agent"].update(mode="0755"), "mode"),
    "a misspelt file key": (lambda m: files(m)["/usr/local/bin/dpu-agent"].update(content={}), "unknown key content"),
    "headers": (
        lambda m: files(m)["/usr/local/bin/dpu-agent"]["contents"].update(httpHeaders=[]), "unknown key contents.httpHeaders",
    ),
    "xz": (lambda m: files(m)["/usr/local/bin/dpu-agent"]["contents"].update(compression="xz"), "other than gzip"),
    "not gzip": (lambda m: files(m)["/usr/local/bin/dpu-agent"]["contents"].update(compression="gzip"), "is not gzip"),
    "broken base64": (
        lambda m: files(m)["/usr/local/bin/dpu-agent"].update(contents={"source": "data:;base64,a"}), "broken base64",
    ),
    "a data URL without comma": (
        lambda m: files(m)["/usr/local/bin/dpu-agent"].update(contents={"source": "data:abc"}), "no data URL",
    ),
    "a path for a source": (
        lambda m: files(m)["/usr/local/bin/dpu-agent"].update(contents={"source": "/a,b"}), "no data URL",
    ),
    "a number for a source": (lambda m: files(m)["/usr/local/bin/dpu-agent"].update(contents={"source": 1}), "no data URL"),
    "a negative mode": (lambda m: files(m)["/usr/local/bin/dpu-agent"].update(mode=-1), "mode"),
    "a mode that is true": (lambda m: files(m)["/usr/local/bin/dpu-agent"].update(mode=True), "mode"),
    "enable for enabled": (lambda m: m["spec"]["config"]["systemd"]["units"][0].update(enable=True), "unknown key enable"),
    "a unit twice": (
        lambda m: m["spec"]["config"]["systemd"].update(units=m["spec"]["config"]["systemd"]["units"] * 2), "twice",
    ),
    "a drop-in that is no .conf": (
        lambda m: m["spec"]["config"]["systemd"]["units"].append({"name": "x.service", "dropins": [{"name": "a", "contents": "[Unit]\n"}]}),
        "does not end in .conf",
    ),
    "a misspelt drop-in key": (
        lambda m: m["spec"]["config"]["systemd"]["units"].append(
            {"name": "x.service", "dropins": [{"name": "a.conf", "content": "", "contents": "[Unit]\n"}]}
        ),
        "drop-in with the unknown key content",
    ),
    "a line that is no assignment": (
        lambda m: m["spec"]["config"]["systemd"]["units"].append({"name": "x.service", "contents": "[Unit]\nAfter\n"}),
        "no assignment in line 2",
    ),
    "an unfinished header": (
        lambda m: m["spec"]["config"]["systemd"]["units"].append({"name": "x.service", "contents": "[Unit\nA=b\n"}),
        "unfinished section header",
    ),
    "a setting before any section": (
        lambda m: m["spec"]["config"]["systemd"]["units"].append({"name": "x.service", "contents": "A=b\n[Unit]\n"}),
        "no section before line 1",
    ),
    "more than a pool can hold": (
        lambda m: files(m)["/usr/local/bin/dpu-agent"].update(contents={"source": "data:," + "a" * 1_600_000}), "larger than",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILS)
def test_the_lint_finds(case: str) -> None:
    spoil, words = SPOILS[case]
    spoiled = copy.deepcopy(ours())
    spoil(spoiled)
    found = mc.verify(spoiled)
    assert words in " ".join(found), found


def test_the_lint_knows_continued_lines_and_comments() -> None:
    text = "# c\n[Service]\nExecStart=/bin/sh \\\n  ; a comment between\n  -c true\n\n; d\nNice=1\n"
    assert list(ignition.unit_problems(text)) == []


def test_a_rendered_one_holds_ours_also_when_it_is_encoded_otherwise() -> None:
    mine = ours()
    merged = rendered(mine)
    for file in merged["spec"]["config"]["storage"]["files"]:
        packed = base64.b64encode(gzip.compress(ignition.decode(file["contents"]))).decode()
        file["contents"] = {"source": f"data:text/plain;base64,{packed}", "compression": "gzip"}
    assert mc.ours_in(merged, mine)


LOSSES: dict[str, tuple[Callable[[Obj], object], str]] = {
    "a file is gone": (lambda c: c["storage"].update(files=c["storage"]["files"][:-1]), "file /usr/local/bin/dpu-agent"),
    "a file has another mode": (lambda c: c["storage"]["files"][-1].update(mode=420), "file /usr/local/bin/dpu-agent"),
    "a file has another content": (
        lambda c: c["storage"]["files"][-1].update(contents={"source": "data:,x"}), "file /usr/local/bin/dpu-agent",
    ),
    "a file cannot be read": (
        lambda c: c["storage"]["files"][-1].update(contents={"source": "http://x"}), "file /usr/local/bin/dpu-agent",
    ),
    "the unit is gone": (lambda c: c["systemd"].update(units=[]), "unit dpu-agent.service"),
    "the unit is another": (lambda c: c["systemd"]["units"][0].update(contents="[Unit]\n"), "unit dpu-agent.service"),
    "the unit is disabled": (lambda c: c["systemd"]["units"][0].update(enabled=False), "unit dpu-agent.service"),
    "the unit is masked": (lambda c: c["systemd"]["units"][0].update(mask=True), "unit dpu-agent.service"),
    "there is no configuration": (lambda c: c.clear(), "file "),
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES)
def test_a_rendered_one_that_lost_something_of_ours_is_told_from_one_that_did_not(case: str) -> None:
    lose, words = LOSSES[case]
    merged = copy.deepcopy(rendered(ours()))
    lose(merged["spec"]["config"])
    assert mc.missing_in(merged, ours()).startswith(words)
    assert not mc.ours_in(merged, ours())


def test_a_drop_in_of_ours_is_looked_for_too() -> None:
    path = "/etc/systemd/system/ovs-vswitchd.service.d/10-dpu.conf"
    tree = {**TREE, path: mc.TreeFile(0o644, b"[Service]\nNice=1\n")}
    mine = mc.machine_config(InfraWorld(config=config()), tree=tree, host_config=HostConfig(), agent_image=IMAGE)
    assert mc.ours_in(rendered(mine), mine)
    assert mc.missing_in(rendered(ours()), mine) == "drop-in ovs-vswitchd.service.d/10-dpu.conf"


def test_the_tree_is_read_from_the_checkout_or_from_where_it_is_told_to(tmp_path: Path) -> None:
    assert set(load_tree({})) == {
        "/etc/systemd/system/dpu-agent.service",
        "/etc/udev/rules.d/82-dpu-network-operator.rules",
        "/usr/local/bin/dpu-agent",
    }
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "a").write_text("a")
    (tmp_path / "etc" / "a").chmod(0o600)
    (tmp_path / "etc" / "b").write_text("b")
    (tmp_path / "etc" / "b").chmod(0o700)
    (tmp_path / "README.md").write_text("not for the DPU")
    told = load_tree({"DPU_SYSTEMD_TREE": str(tmp_path)})
    assert dict(told) == {"/etc/a": mc.TreeFile(0o644, b"a"), "/etc/b": mc.TreeFile(0o755, b"b")}


def test_a_tree_that_is_not_there_or_empty_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="Set DPU_SYSTEMD_TREE"):
            load_tree({"DPU_SYSTEMD_TREE": str(folder)})


def test_the_console_wrapper_is_executable_on_the_dpu() -> None:
    assert load_tree({})["/usr/local/bin/dpu-agent"].mode == 0o755


def test_two_worlds_that_differ_in_more_than_the_owner_share_the_bytes_on_the_dpu() -> None:
    one, two = (InfraWorld(config=config(namespace=space)) for space in ("a", "b"))
    assert ours(one)["spec"] == ours(dataclasses.replace(two, live_complete=True))["spec"]
