"""Whether an object must be written: what we want against what is there.

The API server fills in defaults and other writers add fields, so equality means: all that we want is there. ConfigMaps
and Secrets are copies byte for byte, so there nothing more may be there either.
"""

from collections.abc import Mapping
from typing import Any

from dpu_operator.plan.objects import map_at
from dpu_operator.world import FIELD_MANAGER, HASH_ANNOTATION, MANAGED_BY_LABEL, OWNER_ANNOTATION, Obj

_EXACT = ("data", "binaryData")


def differs(desired: Obj, live: Obj) -> str:
    """The path of the first field that is not as desired, or '' when nothing needs to be written.

    Only the path is given, never a value: it is logged, and the object may be a Secret. A quantity in `desired` must be
    spelled as the API server spells it (`100m`, not `0.1`), else it differs for ever.
    """
    exact = desired.get("kind") in ("ConfigMap", "Secret")
    if _annotations(desired).get(HASH_ANNOTATION) != _annotations(live).get(HASH_ANNOTATION):
        return f"metadata.annotations[{HASH_ANNOTATION}]"  # cheap, and covers a field that we no longer want
    for key, want in desired.items():
        if exact and key in _EXACT:
            path = _exact(want or {}, live.get(key) or {}, key)
        else:
            path = _subset(want, live.get(key), key)
        if path:
            return path
    if exact:
        return next((key for key in _EXACT if key not in desired and live.get(key)), "")
    return ""


def extra_keys(desired: Obj, live: Obj) -> tuple[str, ...]:
    """The keys of `data` and `binaryData` that somebody else added to a copy."""
    if desired.get("kind") not in ("ConfigMap", "Secret"):
        return ()
    return tuple(sorted(key for part in _EXACT for key in set(live.get(part) or {}) - set(desired.get(part) or {})))


def retyped(desired: Obj, live: Obj) -> bool:
    """Whether a Secret has another type than it should: the API server lets nobody change it (core/v1 validation)."""
    return desired.get("kind") == "Secret" and desired.get("type", "Opaque") != live.get("type", "Opaque")


def is_ours(live: Obj, owner: str) -> bool:
    """Whether we made this object for that OVNKubeConfig; both marks count, since a label alone is easily copied."""
    labels = map_at(live, "metadata", "labels")
    return labels.get(MANAGED_BY_LABEL) == FIELD_MANAGER and _annotations(live).get(OWNER_ANNOTATION) == owner


def _annotations(obj: Obj) -> Obj:
    return map_at(obj, "metadata", "annotations")


def _exact(want: Mapping[str, str], have: Mapping[str, str], path: str) -> str:
    if want == have:
        return ""
    return next((f"{path}[{key}]" for key in sorted({*want, *have}) if want.get(key) != have.get(key)), path)


def _subset(want: Any, have: Any, path: str) -> str:
    """The path of the first difference.

    The server leaves out what is empty (Go's omitempty), so an absent value equals an empty text, list or object. It
    does not equal 0 or false: where these mean something (`runAsUser`, `automountServiceAccountToken`) the server keeps
    them, and `desired` must not say them elsewhere.
    """
    if have is None:
        return "" if want is None or want in ("", [], {}) else path
    if isinstance(want, dict):
        if not isinstance(have, dict):
            return path
        for key, value in want.items():
            where = f"{path}[{key}]" if path.endswith(("labels", "annotations", "matchLabels")) else f"{path}.{key}"
            if found := _subset(value, have.get(key), where):
                return found
        return ""
    if isinstance(want, list):
        if path == "metadata.ownerReferences":
            return "" if isinstance(have, list) and all(_among(reference, have) for reference in want) else path
        if not isinstance(have, list) or len(want) != len(have):
            return path
        pairs = enumerate(zip(want, have, strict=True))
        return next((found for i, (w, h) in pairs if (found := _subset(w, h, f"{path}[{i}]"))), "")
    return "" if want == have and isinstance(want, bool) == isinstance(have, bool) else path


def _among(want: Obj, have: list[Any]) -> bool:
    """An owner that another controller added beside ours is no difference: the API server merges them by uid."""
    return any(not _subset(want, reference, "") for reference in have)
