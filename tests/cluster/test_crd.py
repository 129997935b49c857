"""The CRD on a real API server: each rule refuses one resource, in the sentence that a person reads.

The sentences stand here in full, so that a changed one is a decision.
"""

import contextlib
import copy
from collections.abc import Iterator

import pytest

from dpu_operator.report.status import status_of
from dpu_operator.world import EPOCH, Condition, Counts, Plan, Truth
from dpu_shared.host_config import HostConfig
from tests.lab import places, yamlfiles
from tests.lab.client import ApiError, Client, Object
from tests.lab.lab import Lab
from tests.lab.openshift import wait_established
from tests.lab.operator_run import namespace

CHART = places.REPOSITORY / "charts" / "dpu-network-operator"
CRD = CHART / "crds" / "ovnkubeconfigs.dpu.openshift.io.yaml"
KIND = "dpu.openshift.io/v1/OVNKubeConfig"
SPACE = "crd"
DNS = "write lower-case letters, digits, '-' and '.' only"
SECRET = f"kubeConfigFile must be the name of a Secret: {DNS}, for example tenant-kubeconfig."
NODE_SECRET = f"nodeKubeConfigFile must be the name of a Secret: {DNS}, or leave the field out to use kubeConfigFile."
BUILT_IN = (
    "poolName must not be master, worker or arbiter, which hold machines that are no DPUs: "
    "write the name of a custom MachineConfigPool of the DPUs."
)
POOL = f"poolName must be the name of a MachineConfigPool: {DNS}, for example dpu."
IMMUTABLE = "poolName cannot be changed: delete this OVNKubeConfig and create another with the new pool."
IMAGE = (
    "ovnKubeImage must be an image reference with a digest or a tag: write registry/name@sha256:<64 hexadecimal digits> "
    "or registry/name:tag, or leave the field out to follow the tenant."
)
SPACE_NAME = (
    "tenantNamespace must be the name of a namespace: write lower-case letters, digits and '-' only, "
    "or leave the field out for openshift-ovn-kubernetes."
)
BRIDGE = (
    "bridge must be the name of an OVS bridge: write letters, digits, '.', '_' and '-' only, "
    "or leave the field out for br-ex."
)
REFUSED: dict[str, tuple[Object, str]] = {
    "a missing kubeconfig": ({"kubeConfigFile": None}, "spec.kubeConfigFile: Required value"),
    "an empty kubeconfig name": ({"kubeConfigFile": ""}, SECRET),
    "a path for a kubeconfig": ({"kubeConfigFile": "/etc/kubeconfig"}, SECRET),
    "an upper-case kubeconfig name": ({"kubeConfigFile": "Tenant"}, SECRET),
    "a long kubeconfig name": ({"kubeConfigFile": "a" * 254}, "may not be more than 253"),
    "a missing pool": ({"poolName": None}, "spec.poolName: Required value"),
    "an empty pool": ({"poolName": ""}, POOL),
    "a pool with a slash": ({"poolName": "mcp/dpu"}, POOL),
    "the pool master": ({"poolName": "master"}, BUILT_IN),
    "the pool worker": ({"poolName": "worker"}, BUILT_IN),
    "the pool arbiter": ({"poolName": "arbiter"}, BUILT_IN),
    "a long pool": ({"poolName": "p" * 64}, "may not be more than 63"),
    "an empty node kubeconfig": ({"nodeKubeConfigFile": ""}, NODE_SECRET),
    "a node kubeconfig with a blank": ({"nodeKubeConfigFile": "a b"}, NODE_SECRET),
    "a long node kubeconfig name": ({"nodeKubeConfigFile": "a" * 254}, "may not be more than 253"),
    "an empty image": ({"ovnKubeImage": ""}, IMAGE),
    "an image without tag": ({"ovnKubeImage": "quay.io/ovn/ovnkube"}, IMAGE),
    "an image with a port only": ({"ovnKubeImage": "registry:5000/ovnkube"}, IMAGE),
    "an image with a cut digest": ({"ovnKubeImage": "quay.io/ovn/ovnkube@sha256:abc"}, IMAGE),
    "an image as a URL": ({"ovnKubeImage": "https://quay.io/ovn/ovnkube:v1"}, IMAGE),
    "an image with a newline": ({"ovnKubeImage": "quay.io/ovn/ovnkube:v1\nX=y"}, IMAGE),
    "a long image": ({"ovnKubeImage": f"quay.io/{'a' * 512}:v1"}, "may not be more than 512"),
    "an empty tenant namespace": ({"tenantNamespace": ""}, SPACE_NAME),
    "a tenant namespace with a dot": ({"tenantNamespace": "a.b"}, SPACE_NAME),
    "a long tenant namespace": ({"tenantNamespace": "n" * 64}, "may not be more than 63"),
    "an empty bridge": ({"hostConfig": {"bridge": ""}}, BRIDGE),
    "a bridge with a blank": ({"hostConfig": {"bridge": "br ex"}}, BRIDGE),
    "a bridge that starts with a dash": ({"hostConfig": {"bridge": "-f"}}, BRIDGE),
    "a long bridge": ({"hostConfig": {"bridge": "b" * 16}}, "may not be more than 15"),
    "a boolean-like offload": (
        {"hostConfig": {"hardwareOffload": "true"}},
        'spec.hostConfig.hardwareOffload: Unsupported value: "true": supported values: "Enabled", "Disabled"',
    ),
    "an unknown disruption": (
        {"hostConfig": {"maxDisruption": "Drain"}},
        'Unsupported value: "Drain": supported values: "None", "OVSRestart", "LinkFlap", "Reboot"',
    ),
    "an unknown mode": (
        {"hostConfig": {"mode": "DryRun"}},
        'spec.hostConfig.mode: Unsupported value: "DryRun": supported values: "Enforce", "ReportOnly"',
    ),
}
ACCEPTED: dict[str, Object] = {
    "the least": {},
    "a pool with dots": {"poolName": "dpu.rack-1"},
    "a second kubeconfig": {"nodeKubeConfigFile": "node.kubeconfig"},
    "an image by tag": {"ovnKubeImage": "quay.io/ovn/ovnkube:v4.20"},
    "an image by digest": {"ovnKubeImage": "registry.example.com:5000/a/b__c@sha256:" + "0a" * 32},
    "an image by tag and digest": {"ovnKubeImage": "localhost/ovnkube:dev@sha256:" + "0a" * 32},
    "everything of the host": {
        "hostConfig": {
            "bridge": "br_dpu.0",
            "hardwareOffload": "Disabled",
            "maxDisruption": "Reboot",
            "mode": "ReportOnly",
        }
    },
    "the longest names": {"poolName": "p" * 63, "kubeConfigFile": "k" * 253, "tenantNamespace": "n" * 63},
}


@pytest.fixture(scope="module")
def api(running_lab: Lab) -> Iterator[Client]:
    admin = running_lab.infra.admin
    for item in yamlfiles.documents(CRD):
        admin.apply(item)
    wait_established(admin, {"ovnkubeconfigs.dpu.openshift.io"})
    namespace(admin, SPACE)
    yield admin
    for item in admin.list(KIND, SPACE):
        admin.delete(KIND, item["metadata"]["name"], SPACE)


def resource(name: str = "cluster", **spec: object) -> Object:
    full = {"kubeConfigFile": "tenant-kubeconfig", "poolName": "dpu", **spec}
    return {
        "apiVersion": "dpu.openshift.io/v1",
        "kind": "OVNKubeConfig",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {key: value for key, value in full.items() if value is not None},
    }


@pytest.fixture
def created(api: Client) -> Iterator[Object]:
    yield api.create(resource())
    api.delete(KIND, "cluster", SPACE)


@pytest.mark.parametrize("case", REFUSED)
def test_the_api_server_refuses_with_a_sentence_that_says_what_to_write(api: Client, case: str) -> None:
    spec, sentence = REFUSED[case]
    with pytest.raises(ApiError) as caught:
        api.create(resource(**spec))
    assert caught.value.status == 422
    assert sentence in caught.value.message


@pytest.mark.parametrize("case", ACCEPTED)
def test_the_api_server_accepts(api: Client, case: str) -> None:
    made = api.create(resource("good", **ACCEPTED[case]))
    api.delete(KIND, "good", SPACE)
    assert made["spec"].items() >= {k: v for k, v in ACCEPTED[case].items() if k != "hostConfig"}.items()


def test_a_resource_without_spec_is_refused(api: Client) -> None:
    bare = resource()
    del bare["spec"]
    with pytest.raises(ApiError, match="spec: Required value"):
        api.create(bare)


def test_the_pool_cannot_be_changed_later(api: Client, created: Object) -> None:
    with pytest.raises(ApiError) as caught:
        api.patch(KIND, "cluster", {"spec": {"poolName": "other"}}, SPACE)
    assert IMMUTABLE in caught.value.message


def test_everything_but_the_pool_can_be_changed_later(api: Client, created: Object) -> None:
    change = {"spec": {"kubeConfigFile": "new", "tenantNamespace": "ovn", "hostConfig": {"mode": "ReportOnly"}}}
    changed = api.patch(KIND, "cluster", change, SPACE)
    assert changed["spec"]["kubeConfigFile"] == "new"
    assert changed["metadata"]["generation"] == created["metadata"]["generation"] + 1


def test_defaults_are_filled_in_and_are_those_of_the_code(created: Object) -> None:
    assert created["spec"] == {
        "kubeConfigFile": "tenant-kubeconfig",
        "poolName": "dpu",
        "tenantNamespace": "openshift-ovn-kubernetes",
        "hostConfig": {
            "bridge": "br-ex",
            "hardwareOffload": "Enabled",
            "maxDisruption": "None",
            "mode": "Enforce",
        },
    }
    assert HostConfig.from_spec(created["spec"]["hostConfig"]) == HostConfig()


def test_a_misspelt_field_is_refused_in_strict_mode(api: Client) -> None:
    path = api.resource(KIND).path(SPACE)
    with pytest.raises(ApiError, match=r'unknown field "spec\.pollName"'):
        api.request("POST", path, resource("strict", pollName="x"), query="fieldValidation=Strict")


def condition(kind: str, status: Truth) -> Condition:
    return Condition(kind, status, "Because", "It is so.")


def status(*conditions: Condition) -> Object:
    plan = Plan(
        (),
        conditions,
        counts=Counts(3, 2, 1, ("dpu-2",)),
        facts={"topology": "Interconnect", "tenantVersion": "4.20.1", "image": "quay.io/ovn/ovnkube:v1"},
    )
    return status_of(plan, before={}, generation=1, now=EPOCH)


def test_the_status_that_the_operator_writes_is_stored_whole(api: Client, created: Object) -> None:
    wanted = status(condition("MachineConfigApplied", Truth.TRUE), condition("OvnKubeReady", Truth.UNKNOWN))
    wanted["relatedObjects"] = [{"group": "", "resource": "nodes", "name": "dpu-2"}]
    stored = api.patch(KIND, "cluster", {"status": wanted}, SPACE, subresource="status")
    assert stored["status"] == wanted
    assert stored["metadata"]["generation"] == created["metadata"]["generation"]


def test_a_patch_of_the_resource_itself_does_not_reach_the_status(api: Client, created: Object) -> None:
    patched = api.patch(KIND, "cluster", {"status": status()}, SPACE)
    assert "status" not in patched


def test_conditions_are_a_map_by_type_so_that_two_appliers_do_not_meet(api: Client, created: Object) -> None:
    one = status(condition("MachineConfigApplied", Truth.TRUE))["conditions"]
    two = status(condition("OvnKubeReady", Truth.FALSE))["conditions"]
    bare = {key: value for key, value in resource().items() if key != "spec"}
    with contextlib.closing(Client(api.access, field_manager="one")) as mine:
        mine.apply({**bare, "status": {"conditions": one}}, "status")
    with contextlib.closing(Client(api.access, field_manager="two")) as yours:
        both = yours.apply({**bare, "status": {"conditions": two}}, "status")
    assert [each["type"] for each in both["status"]["conditions"]] == ["MachineConfigApplied", "OvnKubeReady"]


BAD_STATUS: dict[str, Object] = {
    "a condition twice": {
        "conditions": [*status(condition("A", Truth.TRUE), condition("A", Truth.FALSE))["conditions"]]
    },
    "a status that is no condition's": {
        "conditions": [status(condition("A", Truth.TRUE))["conditions"][0] | {"status": "Yes"}]
    },
    "an empty reason": {"conditions": [status(condition("A", Truth.TRUE))["conditions"][0] | {"reason": ""}]},
    "21 names": {"dpus": {"unwell": [f"dpu-{i}" for i in range(21)]}},
    "a negative count": {"dpus": {"total": -1}},
}


@pytest.mark.parametrize("case", BAD_STATUS)
def test_a_status_that_would_confuse_its_readers_is_refused(api: Client, created: Object, case: str) -> None:
    with pytest.raises(ApiError) as caught:
        api.patch(KIND, "cluster", {"status": BAD_STATUS[case]}, SPACE, subresource="status")
    assert caught.value.status == 422


class TableClient(Client):
    """Asks as kubectl does."""

    def _headers(self, content_type: str | None) -> dict[str, str]:
        return {**super()._headers(content_type), "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}


def test_kubectl_get_shows_the_conditions_that_matter(api: Client, created: Object) -> None:
    wanted = status(
        condition("MachineConfigApplied", Truth.TRUE),
        condition("OvnKubeReady", Truth.FALSE),
        condition("TenantClusterApiServerUnreachable", Truth.UNKNOWN),
        condition("Degraded", Truth.TRUE),
    )
    api.patch(KIND, "cluster", {"status": wanted}, SPACE, subresource="status")
    with contextlib.closing(TableClient(api.access)) as kubectl:
        table = kubectl.request("GET", api.resource(KIND).path(SPACE))
    columns = table["columnDefinitions"]
    shown = {c["name"]: cell for c, cell in zip(columns, table["rows"][0]["cells"], strict=True)}
    assert [c["name"] for c in columns if c["priority"] == 0] == [
        "Name", "Pool", "MachineConfig", "OvnKube", "Unreachable", "Age",
    ]  # fmt: skip
    assert shown.pop("Age")
    assert shown == {
        "Name": "cluster", "Pool": "dpu", "MachineConfig": "True", "OvnKube": "False", "Unreachable": "Unknown",
        "Synced": None, "Credentials": None, "DPUs": 3, "Mapped": 2, "Configured": 1, "Tenant version": "4.20.1",
        "Topology": "Interconnect", "Degraded": "True",
    }  # fmt: skip


def test_it_is_found_by_its_short_name_and_its_category(api: Client) -> None:
    entries = api.request("GET", "/apis/dpu.openshift.io/v1")["resources"]
    entry = next(each for each in entries if each["name"] == "ovnkubeconfigs")
    assert (entry["shortNames"], entry["categories"], entry["namespaced"]) == (["okc"], ["dpu"], True)


def test_every_field_has_a_description_for_kubectl_explain() -> None:
    definition = next(iter(yamlfiles.documents(CRD)))
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def bare(node: Object, path: str) -> Iterator[str]:
        for name, field in (node.get("properties") or {}).items():
            if "description" not in field and name != "metadata":
                yield f"{path}.{name}"
            yield from bare(field, f"{path}.{name}")
            yield from bare(field.get("items") or {}, f"{path}.{name}[]")

    assert list(bare(copy.deepcopy(schema), "")) == []
