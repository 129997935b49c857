"""docs/troubleshooting.md explains every reason that a condition can have, and no other."""

import ast
import re

from dpu_operator.plan import conditions, judge
from dpu_shared.node_report import State
from tests.unit.docpages import ROOT, page, rows, section, ticked

PLAN = ROOT / "operator/dpu_operator/plan"
SUMMARY = ("Available", "Progressing", "Degraded")
NEVER_SHOWN = {"Supported"}
"""Reasons that the code gives to itself only."""
CAMEL_CASE = re.compile(r"[A-Z][A-Za-z]*[a-z]")


class Reasons(ast.NodeVisitor):
    """The string constants that a module uses as a condition's reason.

    They are what is passed to a parameter or field called `reason` (of whatever function or class of plan/ or
    world.py), what is assigned to such a name, and the first of two where the second is a sentence.
    """

    def __init__(self, positions: dict[str, int]) -> None:
        self.positions = positions
        self.found: set[str] = set()

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        position = self.positions.get(name)
        if position is not None and position < len(node.args):
            self._take(node.args[position])
        for keyword in node.keywords:
            if keyword.arg in {"reason", "otherwise"}:
                self._take(keyword.value)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        defaults = (*([None] * (len(node.args.args) - len(node.args.defaults))), *node.args.defaults)
        pairs = [
            *zip(node.args.args, defaults, strict=True),
            *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
        ]
        for parameter, default in pairs:
            if parameter.arg == "reason" and default is not None:
                self._take(default)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(isinstance(target, ast.Name) and target.id == "reason" for target in node.targets):
            self._take(node.value)
        self.generic_visit(node)

    def visit_Tuple(self, node: ast.Tuple) -> None:
        if len(node.elts) == 2 and self._is_sentence(node.elts[1]):
            self._take(node.elts[0])
        self.generic_visit(node)

    def _is_sentence(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id in {"sentence", "message"}
        return isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
        )

    def _take(self, node: ast.expr) -> None:
        """A reason may depend on something: only the outcomes are taken, not what is asked."""
        if isinstance(node, ast.IfExp):
            self._take(node.body)
            self._take(node.orelse)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and CAMEL_CASE.fullmatch(node.value):
            self.found.add(node.value)


def reason_positions(trees: list[ast.Module]) -> dict[str, int]:
    """Where a reason stands among the arguments of each function and class that takes one."""
    positions: dict[str, int] = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef):
            names = [parameter.arg for parameter in node.args.args]
        elif isinstance(node, ast.ClassDef):
            names = [
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            ]
        else:
            continue
        for name in ("reason", "otherwise"):
            if name in names:
                positions[node.name] = names.index(name)
    return positions


def reasons_in_code() -> set[str]:
    paths = [*sorted(PLAN.glob("*.py")), PLAN.parent / "world.py"]
    trees = [ast.parse(path.read_text(), str(path)) for path in paths]
    visitor = Reasons(reason_positions(trees))
    for tree in trees:
        visitor.visit(tree)
    agent = {str(state) for state in State if state is not State.READY}
    return (visitor.found | agent) - NEVER_SHOWN


def reasons_in_page() -> dict[str, list[str]]:
    """The reasons that are explained, with their whole rows."""
    text = page("troubleshooting.md")
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        if "| reason |" in part:
            for row in rows(part):
                (reason,) = ticked(row[0])
                found[reason] = row
    return found


def test_every_reason_is_explained_and_none_that_is_never_given() -> None:
    code, explained = reasons_in_code(), set(reasons_in_page())
    assert sorted(code - explained) == [], "given by the code, and missing in docs/troubleshooting.md"
    assert sorted(explained - code) == [], "in docs/troubleshooting.md, and never given by the code"


def test_the_reasons_are_found_however_the_code_passes_them() -> None:
    code = reasons_in_code()
    known = conditions.MOVING | conditions.IDLE | conditions.SLOW | {*judge._OPERAND_REASONS, *judge._NODE_REASONS}
    assert {str(reason) for reason in known} <= code
    # one for each way: a helper's argument, a field, a choice of two, a pair, a default, an assignment
    ways = {
        "PoolInvalid",
        "UnsupportedRelease",
        "VersionDiffers",
        "NamespaceForbidden",
        "InvalidMachineConfig",
        "SecretNotFound",
    }
    assert ways <= code
    tree = ast.parse("def f(a, reason): ...\nf(1, 'Fresh' if x == 'Stale' else 'Newest')\ny = ('Paired', f'{x} is so')")
    visitor = Reasons(reason_positions([tree]))
    visitor.visit(tree)
    assert visitor.found == {"Fresh", "Newest", "Paired"}


def test_every_reason_says_what_to_do() -> None:
    for reason, row in reasons_in_page().items():
        assert len(row) == 3, reason
        assert all(row), reason
        if reason in conditions.MOVING:
            assert row[2].startswith("wait"), f"{reason} moves by itself"


def test_every_condition_has_its_section() -> None:
    types = [ticked(row[0])[0] for row in rows(section(page("api.md"), "## Conditions"))]
    heads = re.findall(r"^## (.+)$", page("troubleshooting.md"), re.MULTILINE)
    assert [head for head in heads if head in types] == [kind for kind in types if kind not in SUMMARY]
    assert ", ".join(SUMMARY) in heads
