"""LabelSelectors, and who belongs to a pool."""

from hypothesis import given
from hypothesis import strategies as st

from dpu_operator.plan.mcp import members, selects
from dpu_operator.world import Obj

KEYS = st.sampled_from(["a", "b", "c.example.com/d"])
VALUES = st.sampled_from(["", "x", "y", "z"])
LABELS = st.dictionaries(KEYS, VALUES)
EXPRESSIONS = st.one_of(
    st.fixed_dictionaries(
        {"key": KEYS, "operator": st.sampled_from(["In", "NotIn"]), "values": st.lists(VALUES, min_size=1)}
    ),
    st.fixed_dictionaries({"key": KEYS, "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
)


def single(expression: Obj, labels: dict[str, str]) -> bool:
    """The Kubernetes documentation's sentences, one by one."""
    value = labels.get(expression["key"])
    return {
        "In": lambda: value is not None and value in expression["values"],
        "NotIn": lambda: value is None or value not in expression["values"],
        "Exists": lambda: value is not None,
        "DoesNotExist": lambda: value is None,
    }[expression["operator"]]()


@given(LABELS, st.dictionaries(KEYS, VALUES, max_size=2), st.lists(EXPRESSIONS, max_size=3))
def test_a_selector_matches_when_every_requirement_does(
    labels: dict[str, str], plain: dict[str, str], expressions: list[Obj]
) -> None:
    selector = {"matchLabels": plain, "matchExpressions": expressions}
    wanted = bool(plain or expressions)
    wanted = wanted and all(labels.get(key) == value for key, value in plain.items())
    assert selects(selector, labels) is (wanted and all(single(each, labels) for each in expressions))


@given(LABELS, EXPRESSIONS)
def test_an_expression_and_its_opposite_never_agree(labels: dict[str, str], expression: Obj) -> None:
    opposite = {"In": "NotIn", "NotIn": "In", "Exists": "DoesNotExist", "DoesNotExist": "Exists"}
    other = {**expression, "operator": opposite[expression["operator"]]}
    one, two = ({"matchExpressions": [each]} for each in (expression, other))
    assert selects(one, labels) is not selects(two, labels)


@given(LABELS)
def test_an_empty_selector_matches_nothing(labels: dict[str, str]) -> None:
    empty: tuple[Obj | None, ...] = (None, {}, {"matchLabels": {}}, {"matchExpressions": None})
    assert not any(selects(each, labels) for each in empty)


def test_an_operator_that_is_not_known_matches_nothing() -> None:
    assert not selects({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}, {"a": "2"})


def test_members_are_sorted_by_name_and_a_node_without_labels_is_none() -> None:
    nodes: list[Obj] = [{"metadata": {"name": name, "labels": {"dpu": ""}}} for name in ("b", "a")]
    nodes.append({"metadata": {"name": "c"}})
    pool: Obj = {"metadata": {"name": "dpu"}, "spec": {"nodeSelector": {"matchLabels": {"dpu": ""}}}}
    assert [node["metadata"]["name"] for node in members(pool, nodes)] == ["a", "b"]
    assert members(None, nodes) == ()
