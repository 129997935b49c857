"""What counts as a difference: anything we want that is not there, and in a copy also what we do not want."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpu_operator.plan.diff import differs, extra_keys, is_ours
from dpu_operator.world import FIELD_MANAGER, HASH_ANNOTATION, MANAGED_BY_LABEL, OWNER_ANNOTATION, Obj

LEAF = st.one_of(st.text(max_size=3), st.integers(-2, 2), st.booleans())
KEY = st.text("abc", min_size=1, max_size=2)
TREE = st.recursive(
    LEAF, lambda t: st.one_of(st.lists(t, max_size=3), st.dictionaries(KEY, t, max_size=3)), max_leaves=12
)
SPEC = st.dictionaries(KEY, TREE, max_size=4)


def wrapped(spec: Any) -> Obj:
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "x"}, "spec": spec}


def with_defaults(value: Any, extras: dict[str, Any]) -> Any:
    """What the API server might make of it: fields added in every object."""
    if isinstance(value, dict):
        return {
            **{f"server-{key}": each for key, each in extras.items()},
            **{k: with_defaults(v, extras) for k, v in value.items()},
        }
    return [with_defaults(each, extras) for each in value] if isinstance(value, list) else value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, each in value.items() for leaf in leaves(each, (*path, key))]
    if isinstance(value, list):
        return [leaf for i, each in enumerate(value) for leaf in leaves(each, (*path, i))]
    return [path]


@given(SPEC, SPEC)
def test_what_the_server_adds_is_no_difference(spec: dict[str, Any], extras: dict[str, Any]) -> None:
    live = wrapped(with_defaults(spec, extras))
    live["status"] = {"numberReady": 3}
    live["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": [], "labels": {"a": "b"}}
    assert differs(wrapped(spec), live) == ""


@given(SPEC, LEAF, st.data())
def test_any_changed_leaf_is_noticed(spec: dict[str, Any], value: Any, data: st.DataObject) -> None:
    paths = leaves(spec)
    if not paths:
        return
    path = data.draw(st.sampled_from(paths))
    live = copy.deepcopy(spec)
    node: Any = live
    for step in path[:-1]:
        node = node[step]
    before = node[path[-1]]
    if (before, type(before)) == (value, type(value)):
        return
    node[path[-1]] = value
    found = differs(wrapped(spec), wrapped(live))
    assert found.startswith("spec")
    assert str(path[0]) in found


@given(SPEC, st.data())
def test_a_leaf_that_is_gone_is_noticed_unless_it_was_empty(spec: dict[str, Any], data: st.DataObject) -> None:
    names = [key for key, value in spec.items() if value not in ("", [], {})]
    if not names:
        return
    gone = data.draw(st.sampled_from(names))
    live = {key: value for key, value in spec.items() if key != gone}
    assert differs(wrapped(spec), wrapped(live)) == f"spec.{gone}"


@pytest.mark.parametrize("value", [0, False])
def test_zero_and_false_are_not_the_same_as_absent(value: object) -> None:
    assert differs(wrapped({"runAsUser": value}), wrapped({})) == "spec.runAsUser"


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_what_the_server_leaves_out_because_it_is_empty_is_no_difference(value: object) -> None:
    assert differs(wrapped({"x": value}), wrapped({})) == ""


def test_lists_are_compared_element_by_element() -> None:
    one, two = {"args": ["a", "b"]}, {"args": ["a", "c"]}
    assert differs(wrapped(one), wrapped(two)) == "spec.args[1]"
    assert differs(wrapped(one), wrapped({"args": ["a"]})) == "spec.args"
    assert differs(wrapped(one), wrapped({"args": ["a", "b", "c"]})) == "spec.args"


def test_true_is_not_one() -> None:
    assert differs(wrapped({"x": True}), wrapped({"x": 1})) == "spec.x"


def test_another_type_than_wanted_is_a_difference() -> None:
    assert differs(wrapped({"x": {"y": 1}}), wrapped({"x": "y"})) == "spec.x"
    assert differs(wrapped({"x": [1]}), wrapped({"x": "y"})) == "spec.x"


def test_an_owner_that_another_controller_added_is_no_difference() -> None:
    mine, other = {"kind": "OVNKubeConfig", "uid": "1"}, {"kind": "Thing", "uid": "2"}
    desired, live = wrapped({}), wrapped({})
    desired["metadata"]["ownerReferences"] = [mine]
    live["metadata"]["ownerReferences"] = [other, mine | {"apiVersion": "v1"}]
    assert differs(desired, live) == ""
    live["metadata"]["ownerReferences"] = [other]
    assert differs(desired, live) == "metadata.ownerReferences"


def test_another_content_hash_is_a_difference_though_all_that_is_wanted_is_there() -> None:
    desired, live = wrapped({}), wrapped({"old": "field of ours"})
    desired["metadata"]["annotations"] = {HASH_ANNOTATION: "new"}
    live["metadata"]["annotations"] = {HASH_ANNOTATION: "old"}
    assert differs(desired, live) == f"metadata.annotations[{HASH_ANNOTATION}]"
    del live["metadata"]["annotations"]
    assert differs(desired, live) == f"metadata.annotations[{HASH_ANNOTATION}]"


def copied(kind: str, **fields: Any) -> Obj:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "ovn-cert"}, **fields}


COPIES: dict[str, tuple[Obj, Obj, str, tuple[str, ...]]] = {
    "equal": (copied("Secret", data={"a": "MQ=="}), copied("Secret", data={"a": "MQ=="}, type="Opaque"), "", ()),
    "a changed value": (copied("Secret", data={"a": "MQ=="}), copied("Secret", data={"a": "Mg=="}), "data[a]", ()),
    "a key too few": (copied("ConfigMap", data={"a": "1", "b": ""}), copied("ConfigMap", data={"a": "1"}), "data[b]", ()),
    "a key too many": (copied("ConfigMap", data={"a": "1"}), copied("ConfigMap", data={"a": "1", "z": "2"}), "data[z]", ("z",)),
    "data that should be empty": (copied("ConfigMap"), copied("ConfigMap", data={"a": "1"}), "data", ("a",)),
    "binary data that should not be there": (
        copied("ConfigMap", data={"a": "1"}), copied("ConfigMap", data={"a": "1"}, binaryData={"b": "MQ=="}), "binaryData", ("b",),
    ),
    "another type": (
        copied("Secret", data={}, type="kubernetes.io/tls"), copied("Secret", data={}, type="Opaque"), "type", (),
    ),
    "empty and absent": (copied("ConfigMap", data={}), copied("ConfigMap"), "", ()),
}  # fmt: skip


@pytest.mark.parametrize("case", COPIES)
def test_a_copy_is_exact(case: str) -> None:
    desired, live, path, extra = COPIES[case]
    assert differs(desired, live) == path
    assert extra_keys(desired, live) == extra


def test_no_value_is_ever_shown() -> None:
    desired, live = copied("Secret", data={"tls.key": "c2VjcmV0"}), copied("Secret", data={"tls.key": "b3RoZXI="})
    assert differs(desired, live) == "data[tls.key]"


def test_other_kinds_have_no_extra_keys() -> None:
    assert extra_keys(wrapped({}), {**wrapped({}), "data": {"a": "b"}}) == ()


def test_an_object_is_ours_by_both_marks() -> None:
    mine = {"metadata": {"labels": {MANAGED_BY_LABEL: FIELD_MANAGER}, "annotations": {OWNER_ANNOTATION: "ns/cluster"}}}
    assert is_ours(mine, "ns/cluster")
    assert not is_ours(mine, "ns/other")
    assert not is_ours({"metadata": {**mine["metadata"], "labels": {}}}, "ns/cluster")
    assert not is_ours({"metadata": {**mine["metadata"], "annotations": None}}, "ns/cluster")
    assert not is_ours({"metadata": {}}, "ns/cluster")
