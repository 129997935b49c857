"""`dpu-operator check`: what a tenant's kubeconfig can do."""

import argparse
import asyncio
import dataclasses
import datetime as dt
import json
import sys
from pathlib import Path

from dpu_operator.kube.client import ApiError, Cluster, ClusterError
from dpu_operator.kube.vetting import Access, vet
from dpu_operator.observe.essentials import ALWAYS
from dpu_operator.world import NODE, Ref, TenantKey
from dpu_shared.errors import UserError

VERBS = ("get", "list", "watch")
_CENTRAL = (TenantKey.OVN_CA, TenantKey.OVN_CERT, TenantKey.MASTER_DAEMON_SET, TenantKey.DB_SERVICE)


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One object, and what may be done with it."""

    ref: Ref
    needed: str
    missing: tuple[str, ...]
    exists: bool | None
    """None: could not be looked at."""

    @property
    def bad(self) -> bool:
        return self.needed == "always" and bool(self.missing or self.exists is False)


def main(arguments: argparse.Namespace) -> int:
    """Try it. Returns 3 where something that is always needed is missing."""
    access = vet(_read(arguments.kubeconfig))
    now = dt.datetime.now(dt.UTC)
    version, lines = asyncio.run(_try(access, arguments.tenant_namespace))
    bad = [line for line in lines if line.bad]
    expired = access.expires is not None and access.expires <= now
    if arguments.output == "json":
        print(json.dumps(_as_json(access, version, lines, ok=not bad and not expired), indent=2))  # noqa: T201
    else:
        _print(access, version, lines, now)
    return 3 if bad or expired else 0


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}).", "Check the path and its permissions.") from None


async def _try(access: Access, namespace: str) -> tuple[str, list[Line]]:
    cluster = Cluster(access)
    try:
        version = str((await cluster.version()).get("gitVersion", "unknown"))
        wanted = [(key.ref(namespace), "always") for key in ALWAYS]
        wanted += [(Ref(NODE, None, ""), "always")]
        wanted += [(key.ref(namespace), "central OVN") for key in _CENTRAL]
        return version, list(await asyncio.gather(*(_line(cluster, ref, needed) for ref, needed in wanted)))
    except ApiError as error:
        if error.status == 401:
            over = access.expires is not None and access.expires <= dt.datetime.now(dt.UTC)
            why = f": the {access.what} {_end(access, dt.datetime.now(dt.UTC))}" if over else ""
            raise UserError(
                f"The tenant's API server refuses this credential (HTTP 401){why}.", "Make a new kubeconfig."
            ) from None
        raise UserError(f"The tenant's API server answers HTTP {error.status}.", "Look at its health.") from None
    except ClusterError as error:
        raise UserError(
            f"The tenant's API server does not answer: {error}.",
            "Check the server's address, name resolution and firewalls from here, and the CA in the kubeconfig.",
        ) from None
    finally:
        await cluster.close()


async def _line(cluster: Cluster, ref: Ref, needed: str) -> Line:
    allowed = await asyncio.gather(*(cluster.review_access(verb, ref) for verb in VERBS))
    missing = tuple(verb for verb, yes in zip(VERBS, allowed, strict=True) if not yes)
    exists: bool | None = None
    if "list" not in missing:
        try:
            items, _ = await cluster.list(ref.kind, ref.namespace, name=ref.name or None, limit=1)
            exists = bool(items)
        except ApiError as error:
            exists = False if error.status == 404 else None
    return Line(ref, needed, missing, exists)


def _print(access: Access, version: str, lines: list[Line], now: dt.datetime) -> None:
    print(f"server       {access.host} answers, {version}")  # noqa: T201
    print(f"credential   {access.what}, {_end(access, now)}\n")  # noqa: T201
    width = max(len(_name(line)) for line in lines)
    print(f"{'OBJECT':<{width}}  {'THERE':<6} {'RIGHTS':<24} NEEDED")  # noqa: T201
    for line in lines:
        rights = "missing " + ",".join(line.missing) if line.missing else "ok"
        there = {True: "yes", False: "no", None: "?"}[line.exists]
        print(f"{_name(line):<{width}}  {there:<6} {rights:<24} {line.needed}")  # noqa: T201
    lacking = [f"{_name(line)} ({', '.join(line.missing)})" for line in lines if line.bad and line.missing]
    absent = [_name(line) for line in lines if line.bad and not line.missing]
    if lacking:
        print(  # noqa: T201
            f"\nRights that the operator always needs are missing: {'; '.join(lacking)}. Grant get, list and watch on"
            " each, for example with a Role that names them in resourceNames.",
            file=sys.stderr,
        )
    if absent:
        print(  # noqa: T201
            f"\nThe tenant has no {', no '.join(absent)}. Let its network operator make what is missing, or name the"
            " namespace of its OVN-Kubernetes with --tenant-namespace.",
            file=sys.stderr,
        )


def _end(access: Access, now: dt.datetime) -> str:
    if access.expires is None:
        return "which says of no end of its life"
    when = access.expires.strftime("%Y-%m-%d %H:%M UTC")
    days = (access.expires - now).total_seconds() / 86400
    return f"expired on {when}" if days <= 0 else f"expires on {when} (in {days:.1f} days)"


def _name(line: Line) -> str:
    return f"{line.ref.kind.plural} {line.ref.name or '(all)'}"


def _as_json(access: Access, version: str, lines: list[Line], *, ok: bool) -> dict[str, object]:
    return {
        "ok": ok,
        "server": access.host,
        "version": version,
        "credential": {"what": access.what, "expires": access.expires.isoformat() if access.expires else None},
        "objects": [
            {
                "group": line.ref.kind.group,
                "resource": line.ref.kind.plural,
                "namespace": line.ref.namespace,
                "name": line.ref.name or None,
                "needed": line.needed,
                "there": line.exists,
                "missing": list(line.missing),
            }
            for line in lines
        ],
    }
