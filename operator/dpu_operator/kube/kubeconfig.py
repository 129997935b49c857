"""The strict reading of a kubeconfig's YAML: plain mappings, lists and texts, nothing that can explode or run."""

from collections.abc import Iterator

import yaml

from dpu_shared.errors import UserError

SIZE_LIMIT = 1024 * 1024
"""Bytes of a kubeconfig; a Secret holds no more either."""
DEPTH_LIMIT = 32
PARTS_LIMIT = 20_000
"""YAML events in one file: hundreds of contexts are fine, a file that is only there to fill our memory is not."""

_TEXT, _NULL, _BOOL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"
_TRUE = {"yes", "true", "on"}

Mapping = dict[str, object]

_REWRITE = "Write the file anew, for example with kubectl config view --raw --flatten."


class NotText:
    """A number, a date or the like where a kubeconfig has a text: kept as a mark, never interpreted."""


def read_document(raw: bytes) -> Mapping:
    """The one YAML mapping that the file holds.

    Raises:
        UserError: not UTF-8, too large or too deep, not one plain mapping, or with anchors, aliases, tags or double keys.

    """
    if len(raw) > SIZE_LIMIT:
        raise UserError("The kubeconfig is larger than 1 MiB.", "Keep only the one context that is needed.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError("The kubeconfig is not a text in UTF-8.", "Save the file as UTF-8, without a terminating NUL.")
    try:
        _check_events(text)
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
        document = None if node is None else _plain(node)
    except yaml.YAMLError:
        document = NotText()
    if document is None:
        raise UserError("The kubeconfig is empty.", "Put a whole kubeconfig under the Secret's key.")
    if isinstance(document, NotText):
        raise UserError("The kubeconfig is not valid YAML.", _REWRITE)
    if not isinstance(document, dict):
        raise UserError("The kubeconfig is not a YAML mapping.", _REWRITE)
    return document


def selected(document: Mapping) -> tuple[Mapping, Mapping]:
    """The cluster and the user that the current context names.

    Raises:
        UserError: it is no kubeconfig, or the names do not lead to exactly one cluster and one user.

    """
    for field, expected in (("apiVersion", "v1"), ("kind", "Config")):
        if document.get(field, expected) != expected:
            raise UserError(
                f"The file's {field} is not {expected}, so it is not a kubeconfig.",
                "Put the kubeconfig itself under the Secret's key.",
            )
    contexts = _named(document, "contexts", "context")
    clusters = _named(document, "clusters", "cluster")
    users = _named(document, "users", "user")
    current = document.get("current-context")
    if not isinstance(current, str) or not current:
        raise UserError(
            "The kubeconfig has no current-context, so it does not say which cluster is meant.",
            "Choose one with kubectl config use-context.",
        )
    context = _found(contexts, current, "The kubeconfig's current-context names a context that the file does not hold.")
    cluster = _found(
        clusters, context.get("cluster"), "The kubeconfig's context names a cluster that the file does not hold."
    )
    user = _found(users, context.get("user"), "The kubeconfig's context names a user that the file does not hold.")
    return cluster, user


def text_of(mapping: Mapping, field: str) -> str:
    """The text of a field; an empty string where it is missing or null.

    Raises:
        UserError: it is something else than a text.

    """
    value = mapping.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"The kubeconfig's {field} is not a text.", f"Put the value of {field} in quotes.")
    return value


def _found(entries: dict[str, Mapping], name: object, problem: str) -> Mapping:
    if not isinstance(name, str) or name not in entries:
        raise UserError(problem, "Write the file anew with kubectl config view --raw --flatten --minify.")
    return entries[name]


def _named(document: Mapping, plural: str, singular: str) -> dict[str, Mapping]:
    entries = document.get(plural)
    if not isinstance(entries, list):
        raise UserError(f"The kubeconfig has no list of {plural}.", _REWRITE)
    found: dict[str, Mapping] = {}
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        value = entry.get(singular) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or not isinstance(value, dict):
            raise UserError(f"One of the kubeconfig's {plural} lacks a name or a {singular}.", _REWRITE)
        if name in found:
            raise UserError(
                f"Two of the kubeconfig's {plural} have the same name.", "Give each a name of its own, or remove one."
            )
        found[name] = value
    return found


def _check_events(text: str) -> None:
    """Refuse what could explode before any tree is built: the parser's events come one by one."""
    depth = 0
    documents = 0
    for count, event in enumerate(_events(text)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise UserError("The kubeconfig uses YAML anchors or aliases.", "Write each value out where it is used.")
        if getattr(event, "tag", None) is not None:
            raise UserError("The kubeconfig uses YAML tags.", "Remove whatever starts with an exclamation mark.")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if documents > 1:
            raise UserError("The kubeconfig holds several YAML documents.", "Keep one document without --- between.")
        if depth > DEPTH_LIMIT or count > PARTS_LIMIT:
            raise UserError(
                "The kubeconfig is nested too deeply or has too many parts.",
                "Keep only the one context that is needed, with kubectl config view --raw --flatten --minify.",
            )


def _events(text: str) -> Iterator[yaml.Event]:
    return yaml.parse(text, Loader=yaml.CSafeLoader)


def _plain(node: yaml.Node) -> object:
    """The node as dict, list, str, bool or None; no constructor of PyYAML's is involved, some of them are slow."""
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if node.tag == _TEXT:
        return str(node.value)
    if node.tag == _BOOL:
        return node.value.lower() in _TRUE
    return None if node.tag == _NULL else NotText()


def _plain_mapping(node: yaml.MappingNode) -> Mapping:
    mapping: Mapping = {}
    for key, value in node.value:
        if key.tag != _TEXT:
            raise UserError("The kubeconfig has a key that is not a text.", "Put the key in quotes, or remove it.")
        if key.value in mapping:
            raise UserError(
                "The kubeconfig has the same key twice in one place.", "Remove one of the two, so that it is clear."
            )
        mapping[key.value] = _plain(value)
    return mapping
