"""Worlds from folders: what people and `oc adm inspect` write, and files that are no use."""

import copy
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dpu_operator import plan as planning
from dpu_operator.observe import folder
from dpu_operator.observe.credentials import read
from dpu_operator.observe.images import related_images
from dpu_operator.world import (
    CONFIG_MAP,
    DAEMON_SET,
    MACHINE_CONFIG,
    NODE,
    LinkState,
    Obj,
    Ref,
    Seen,
    Sight,
    TenantKey,
)
from dpu_shared.errors import UserError
from dpu_shared.host_config import HostConfig
from tests.unit.core.worlds import EXAMPLES, NAMESPACE, NOW, TENANT_NAMESPACE, TREE, World, config_map, foreign
from tests.unit.hostile_kubeconfigs import MARK, b64, good, written

CRD = Path(__file__).parents[3] / "charts/dpu-network-operator/crds/ovnkubeconfigs.dpu.openshift.io.yaml"
CONFIG = "apiVersion: dpu.openshift.io/v1\nkind: OVNKubeConfig\nmetadata: {name: cluster}\nspec:\n"
MINIMAL = CONFIG + "  kubeConfigFile: k\n  poolName: dpu\n"


def file(folder_: Path, text: str | bytes, name: str = "object.yaml") -> Path:
    path = folder_ / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(call: Any, *arguments: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert caught.value.message.endswith(".")
    assert caught.value.hint.endswith(".")
    assert caught.value.__cause__ is None
    return caught.value


def inspected(target: Path, objects: dict[Ref, Obj]) -> Path:
    """The objects in the layout of `oc adm inspect`: typed lists in the core group, a file an object elsewhere."""
    lists: dict[Path, list[Obj]] = {}
    for ref, obj in objects.items():
        group = ref.kind.group or "core"
        root = target / "namespaces" / ref.namespace if ref.namespace else target / "cluster-scoped-resources"
        if ref.namespace and not ref.kind.group:
            bare = {k: v for k, v in obj.items() if k not in ("apiVersion", "kind")}
            lists.setdefault(root / group / f"{ref.kind.plural}.yaml", []).append(bare)
            kind = ref.kind.kind
            text = {"apiVersion": "v1", "kind": f"{kind}List", "metadata": {"resourceVersion": "1"}}
            file(root, yaml.safe_dump(text | {"items": lists[root / group / f"{ref.kind.plural}.yaml"]}), f"{group}/{ref.kind.plural}.yaml")  # fmt: skip
        else:
            file(root, "---\n" + yaml.safe_dump(obj), f"{group}/{ref.kind.plural}/{ref.name}.yaml")
    file(target, "collected\n", "timestamp")
    file(target, "<html>", "event-filter.html")
    return target


def test_one_file_an_object_and_the_layout_of_oc_adm_inspect_are_the_same_objects(tmp_path: Path) -> None:
    for part in ("tenant-4.20", "infra"):
        plain = folder.load(EXAMPLES / part)
        assert folder.load(inspected(tmp_path / part, plain)) == plain


def test_every_object_of_a_file_counts_and_lists_are_taken_apart(tmp_path: Path) -> None:
    file(
        tmp_path,
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: x}\n---\n# nothing\n---\n"
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: b, namespace: x}}\n"
        "- apiVersion: apps/v1\n  kind: DaemonSetList\n  items:\n  - metadata: {name: c, namespace: x}\n",
    )
    assert [str(ref) for ref in folder.load(tmp_path)] == ["ConfigMap x/a", "Secret x/b", "DaemonSet x/c"]
    assert {ref.kind for ref in folder.load(tmp_path)} >= {CONFIG_MAP, DAEMON_SET}


def test_json_is_read_too_and_other_files_are_not(tmp_path: Path) -> None:
    file(tmp_path, '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}', "a.json")
    file(tmp_path, "not: [yaml", "notes.txt")
    file(tmp_path, "not: [yaml", "_ignored.yaml")
    assert [ref.name for ref in folder.load(tmp_path)] == ["a"]


def test_times_stay_the_text_that_the_api_server_wrote(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, creationTimestamp: 2026-05-19T10:00:00Z}\n"
        "data: {day: 2026-05-19, number: '5'}\n",
    )
    (obj,) = folder.load_file(path)
    assert obj["metadata"]["creationTimestamp"] == "2026-05-19T10:00:00Z"
    assert obj["data"] == {"day": "2026-05-19", "number": "5"}


GARBAGE: list[tuple[str, bytes, int]] = [
    ("a tab", b"a: 1\nb:\n\t- c\n", 3),
    ("open brackets", b"a: [1\nb: 2\n", 2),
    ("a tag that would run something", b"a: 1\nb: !!python/object/apply:os.system [x]\n", 2),
    ("a key that is a map", b"a: 1\n? {b: c}\n: d\n", 2),
    ("an unknown alias", b"a: *b\n", 1),
    ("half of a JSON text", b'{"a": 1,\n', 2),
    ("a NUL", b"a: \x00\n", 0),
    ("a number that is none", b"a: 0x_\n", 0),
    ("a tagged number that is none", b"a: !!int b\n", 0),
    ("a list in itself", b"apiVersion: v1\nkind: List\nitems: &a\n- kind: List\n  items: *a\n", 0),
]


@pytest.mark.parametrize(("content", "line"), [row[1:] for row in GARBAGE], ids=[row[0] for row in GARBAGE])
def test_a_file_that_is_no_yaml_is_named_with_its_line(tmp_path: Path, content: bytes, line: int) -> None:
    path = file(tmp_path, content)
    for error in (refusal(folder.load_file, path), refusal(folder.load, tmp_path)):
        assert error.message.startswith(f"{path} is not YAML")
        assert f"(line {line})" in error.message or not line


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = file(tmp_path, b"a: \xff\xfe")
    assert refusal(folder.load_file, path).message == f"{path} is not UTF-8."


@pytest.mark.parametrize(
    "text", ["", "# nothing", "just a text", "- a\n- list", "kind: ConfigMap\nmetadata: {name: a}", "a: 1",
             "apiVersion: v1\nkind: ConfigMap\nmetadata: null", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 5}",
             "apiVersion: v1\nkind: List\nitems: [null, 5, [], a]"],
)  # fmt: skip
def test_what_is_yaml_and_no_object_is_passed_over(tmp_path: Path, text: str) -> None:
    path = file(tmp_path, text)
    assert list(folder.load_file(path)) == []
    assert refusal(folder.load, tmp_path).message == f"{tmp_path} holds no Kubernetes object."


def test_a_folder_that_is_none_and_a_file_that_cannot_be_read_are_two_sentences(tmp_path: Path) -> None:
    assert "is not a folder" in refusal(folder.load, tmp_path / "nowhere").message
    assert "cannot be read" in refusal(folder.load_file, tmp_path / "nothing.yaml").message
    assert "cannot be read" in refusal(folder.load_file, tmp_path).message


@pytest.mark.parametrize("field", ["metadata: {name: dpu-0, annotations: null, labels: null}", "metadata: {name: dpu-0}\nstatus: null\nspec: null", "metadata: {name: dpu-0}\nstatus: {addresses: null, conditions: null, nodeInfo: null}"])  # fmt: skip
def test_a_node_with_empty_fields_is_a_node(tmp_path: Path, field: str) -> None:
    file(tmp_path, f"apiVersion: v1\nkind: Node\n{field}\n")
    objects = folder.load(tmp_path)
    infra = folder.infra_world(World().config, objects, images={}, now=NOW)
    tenant = folder.tenant_world(objects, namespace=TENANT_NAMESPACE)
    assert [node["metadata"]["name"] for node in (*infra.nodes, *tenant.nodes)] == ["dpu-0", "dpu-0"]
    planning.plan(infra, tenant, tree=TREE)


def test_a_pool_with_empty_fields_is_a_pool(tmp_path: Path) -> None:
    kind = "apiVersion: machineconfiguration.openshift.io/v1\nkind: MachineConfigPool\nmetadata: {name: dpu}\n"
    file(tmp_path, kind + "spec: {configuration: null}\n")
    infra = folder.infra_world(World().config, folder.load(tmp_path), images={}, now=NOW)
    assert infra.pool.sight is Sight.PRESENT
    file(tmp_path, kind + "spec: null\n")
    planning.plan(
        folder.infra_world(World().config, folder.load(tmp_path), images={}, now=NOW), World().tenant, tree=TREE
    )


# worlds


def test_a_folders_tenant_answers_and_what_is_not_in_it_is_absent_for_sure() -> None:
    tenant = folder.tenant_world(folder.load(EXAMPLES / "tenant-4.20"), namespace=TENANT_NAMESPACE)
    assert tenant.link.state is LinkState.UP
    assert tenant.credential.usable
    assert tenant.seen(TenantKey.OVNKUBE_CONFIG).sight is Sight.PRESENT
    assert tenant.seen(TenantKey.OVN_CERT).sight is Sight.ABSENT
    assert set(tenant.objects) == set(TenantKey)


def test_the_tenants_namespace_can_be_another_one() -> None:
    objects = folder.load(EXAMPLES / "tenant-4.20")
    assert folder.tenant_world(objects, namespace="elsewhere").seen(TenantKey.OVNKUBE_CONFIG).sight is Sight.ABSENT


def test_a_folders_infra_cluster_has_what_is_in_the_resources_namespace_and_cluster_wide() -> None:
    world = World()
    world.server.put(foreign("ConfigMap", "here"))
    world.server.put({**foreign("ConfigMap", "there"), "metadata": {"name": "there", "namespace": "elsewhere"}})
    world.server.put(foreign("ConfigMap", "env-overrides"))
    world.server.put({"apiVersion": MACHINE_CONFIG.api_version, "kind": "MachineConfig", "metadata": {"name": "m"}})
    infra = world.infra()
    assert {ref for ref in infra.live if ref.kind != NODE} == {
        config_map("here"),
        config_map("env-overrides"),
        Ref(MACHINE_CONFIG, None, "m"),
    }
    assert infra.live_complete
    assert infra.env_overrides.sight is Sight.PRESENT
    assert len(infra.nodes) == 3
    assert infra.infra_ovnkube.sight is Sight.PRESENT


def test_a_state_that_was_written_down_is_planned_again_elsewhere(tmp_path: Path) -> None:
    """A support engineer replays a cluster on a laptop: the same plan from the objects as files."""
    world = World()
    world.do(world.plan().steps[:4])
    again = folder.load(inspected(tmp_path, world.server.objects))
    replayed = folder.infra_world(world.config, again, images=world.infra().images, now=NOW)
    assert planning.plan(replayed, world.tenant, tree=TREE) == world.plan()


# the OVNKubeConfig


def defaults_of(schema: Obj) -> Obj:
    """What the API server fills into an empty object."""
    found: Obj = {}
    for name, field in schema.get("properties", {}).items():
        if "default" in field:
            value = copy.deepcopy(field["default"])
            found[name] = {**defaults_of(field), **value} if isinstance(value, dict) else value
    return found


@cache
def crd_spec() -> Obj:
    (crd,) = yaml.safe_load_all(CRD.read_text(encoding="utf-8"))
    spec: Obj = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def test_the_defaults_are_those_that_the_api_server_fills_in(tmp_path: Path) -> None:
    config = folder.config_of(file(tmp_path, MINIMAL))
    assert config["spec"] == {"kubeConfigFile": "k", "poolName": "dpu", **defaults_of(crd_spec())}
    host = HostConfig()
    assert HostConfig.from_spec(config["spec"]["hostConfig"]) == host
    assert HostConfig.from_spec({}) == host


def test_what_the_file_says_is_kept(tmp_path: Path) -> None:
    text = MINIMAL + "  tenantNamespace: elsewhere\n  hostConfig: {bridge: br-x}\n  ovnKubeImage: i\n"
    config = folder.config_of(file(tmp_path, text))
    assert config["spec"]["tenantNamespace"] == "elsewhere"
    assert config["spec"]["hostConfig"] == {**defaults_of(crd_spec())["hostConfig"], "bridge": "br-x"}
    assert config["spec"]["ovnKubeImage"] == "i"
    assert config["metadata"]["name"] == "cluster"
    assert config["metadata"]["namespace"] == "default"


def test_what_is_made_for_a_file_names_no_owner_that_does_not_exist(tmp_path: Path) -> None:
    """Whoever applied such objects would see them deleted by the garbage collector at once."""
    infra = folder.infra_world(
        folder.config_of(file(tmp_path, MINIMAL)), folder.load(EXAMPLES / "infra"), images={}, now=NOW
    )
    made = planning.plan(infra, World().tenant, tree=TREE).desired
    assert made
    assert not [obj for obj in made if "ownerReferences" in obj["metadata"]]


@pytest.mark.parametrize(
    "more", ["  hostConfig: null\n", "  hostConfig: {bridge: null}\n", "  tenantNamespace: null\n"]
)
def test_an_empty_field_has_its_default(tmp_path: Path, more: str) -> None:
    assert folder.config_of(file(tmp_path, MINIMAL + more)) == folder.config_of(file(tmp_path, MINIMAL, "other.yaml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds 0 OVNKubeConfig"),
        (MINIMAL + "---\n" + MINIMAL, "holds 2 OVNKubeConfig"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", "holds 0 OVNKubeConfig"),
        (CONFIG.replace("spec:", ""), "has no spec.kubeConfigFile"),
        (CONFIG + "  poolName: dpu\n", "has no spec.kubeConfigFile"),
        (CONFIG + "  kubeConfigFile: k\n", "has no spec.poolName"),
        (CONFIG + "  kubeConfigFile: k\n  poolName: 5\n", "has no spec.poolName"),
        (CONFIG + "  - a list\n", "has no spec.kubeConfigFile"),
        (MINIMAL + "  hostConfig: text\n", "spec.hostConfig"),
        (MINIMAL + "  hostConfig: [a]\n", "spec.hostConfig"),
    ],
)
def test_a_resource_that_no_api_server_would_take_is_refused_in_two_sentences(
    tmp_path: Path, text: str, words: str
) -> None:
    assert words in refusal(folder.config_of, file(tmp_path, text)).message


def test_the_example_is_one_that_the_crd_describes() -> None:
    raw = yaml.safe_load((EXAMPLES / "ovnkubeconfig.yaml").read_text(encoding="utf-8"))
    assert set(raw["spec"]) <= set(crd_spec()["properties"])
    assert set(crd_spec()["required"]) <= set(raw["spec"])


# the Secret with the kubeconfig


def kubeconfig_secret(text: str | None, **fields: Any) -> Seen:
    data = {"config": b64(text)} if text is not None else {}
    return Seen(
        Sight.PRESENT, {"metadata": {"name": "tenant-kubeconfig", "namespace": NAMESPACE}, "data": data, **fields}
    )


def test_a_good_kubeconfig_gives_access_and_says_what_it_is() -> None:
    reading = read(kubeconfig_secret(written(good())), name="tenant-kubeconfig")
    assert reading.access is not None
    assert (reading.credential.usable, reading.credential.what, reading.credential.problem) == (True, "token", "")


@pytest.mark.parametrize(
    "secret",
    [
        Seen(Sight.ABSENT),
        kubeconfig_secret(None),
        kubeconfig_secret(""),
        kubeconfig_secret(None, data=None),
        kubeconfig_secret(f"garbage {MARK}"),
        kubeconfig_secret(written(good() | {"users": [{"name": MARK, "user": {"exec": {"command": MARK}}}]})),
        kubeconfig_secret(None, data={"config": f"{MARK} no base64"}),
        kubeconfig_secret(None, data={"config": f"{MARK}ä"}),
    ],
)
def test_a_kubeconfig_that_is_no_use_is_refused_with_the_secrets_name_and_nothing_of_its_content(secret: Seen) -> None:
    reading = read(secret, name="tenant-kubeconfig")
    assert reading.access is None
    assert not reading.credential.usable
    assert "tenant-kubeconfig" in reading.credential.problem
    for sentence in (reading.credential.problem, reading.credential.hint):
        assert sentence.endswith(".")
        assert MARK not in sentence


@pytest.mark.parametrize("sight", [Sight.UNSEEN, Sight.FORBIDDEN])
def test_a_secret_that_was_not_seen_is_no_refusal(sight: Sight) -> None:
    reading = read(Seen(sight), name="tenant-kubeconfig")
    assert (reading.access, reading.credential.seen, reading.credential.problem) == (None, sight, "")


def test_images_come_from_the_environment_and_an_empty_one_is_none() -> None:
    environ = {"RELATED_IMAGE_AGENT": "a@sha256:1", "RELATED_IMAGE_OVNKUBE": "", "PATH": "/bin"}
    assert related_images(environ) == {"agent": "a@sha256:1"}


def test_the_examples_can_be_copied_out_of_the_package(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    assert folder.load(tmp_path / "examples" / "infra").keys() == folder.load(EXAMPLES / "infra").keys()
