"""What may be said of the tenant's API server and of the credential that we have for it."""

import datetime as dt

from dpu_operator.plan.objects import text_at
from dpu_operator.world import Condition, Credential, InfraWorld, Link, LinkState, Sight, TenantWorld, Truth

UNREACHABLE = "TenantClusterApiServerUnreachable"
VALID = "TenantCredentialsValid"
WARN = dt.timedelta(days=7)
"""How long before its end a credential is called to expire soon."""
SHORT_LIVED_SHARE = 10
"""A credential that was issued for less than 10 times WARN is warned of in the last tenth of its life instead: a bound
ServiceAccount token may live for an hour, and is renewed by whoever made it."""


def warning_time(credential: Credential, issued: dt.datetime | None = None) -> dt.datetime | None:
    """From when on a credential expires soon; None where it has no end. With `issued` unknown, WARN before its end."""
    if credential.expires is None:
        return None
    issued = issued or credential.issued
    warn = WARN if issued is None else min(WARN, (credential.expires - issued) / SHORT_LIVED_SHARE)
    return credential.expires - max(warn, dt.timedelta(0))


def wake_at(credential: Credential, now: dt.datetime, issued: dt.datetime | None = None) -> dt.datetime | None:
    """The next moment at which time alone changes the condition; None where none will."""
    moments = (warning_time(credential, issued), credential.expires)
    return min((moment for moment in moments if moment is not None and moment > now), default=None)


def api_server_unreachable(tenant: TenantWorld) -> Condition:
    """The condition TenantClusterApiServerUnreachable: True is bad. A refusal (HTTP 401) is an answer too."""
    link = tenant.link
    if tenant.credential.problem:
        message = (
            "The tenant's API server is not called, for there is no usable kubeconfig. See TenantCredentialsValid."
        )
        return Condition(UNREACHABLE, Truth.UNKNOWN, "NoCredential", message)
    server = link.server or "of the tenant"
    match link.state:
        case LinkState.UP:
            # Since when is the condition's own lastTransitionTime; a time here would be news at each restart.
            message = f"The API server {server} answers."
            return Condition(UNREACHABLE, Truth.FALSE, "Reachable", message)
        case LinkState.REFUSED:
            message = f"The API server {server} answers, but refuses the credential. See TenantCredentialsValid."
            return Condition(UNREACHABLE, Truth.FALSE, "Reachable", message)
        case LinkState.DOWN:
            why = _phrase(link.message)
            message = (
                f"The API server {server} has not answered{_since(link)}{f' ({why})' if why else ''}. All copies stay as they are; "
                "check that server, and the network and the proxy between the two clusters."
            )
            return Condition(UNREACHABLE, Truth.TRUE, "Unreachable", message)
    return Condition(UNREACHABLE, Truth.UNKNOWN, "NotProbedYet", f"The API server {server} has not been called yet.")


def credentials_valid(infra: InfraWorld, tenant: TenantWorld, issued: dt.datetime | None = None) -> Condition:
    """The condition TenantCredentialsValid: both kubeconfigs are there and well-formed, and the tenant takes ours.

    The credential of `spec.nodeKubeConfigFile` is used by the DPUs only, so of that one no answer is known.

    Args:
        infra: names the Secrets, and the present time.
        tenant: our credential and what its use gave.
        issued: when our credential was issued, where it does not say so itself.

    """
    name = text_at(infra.spec, "kubeConfigFile")
    node_name = text_at(infra.spec, "nodeKubeConfigFile")
    problem = _problem(f"Secret {infra.namespace}/{name}", tenant.credential, infra.now)
    if problem is None and node_name and node_name != name:
        problem = _problem(f"Secret {infra.namespace}/{node_name}", infra.node_credential, infra.now)
    if problem is not None:
        return problem
    what = f"The {tenant.credential.what or 'credential'} in Secret {infra.namespace}/{name}"
    if tenant.link.state is LinkState.REFUSED:
        return _invalid("Unauthorized", f"{what} is refused by the tenant's API server. Put a new kubeconfig into it.")
    soon = _soon(f"Secret {infra.namespace}/{name}", tenant.credential, infra.now, issued)
    if soon is None and node_name and node_name != name:
        soon = _soon(f"Secret {infra.namespace}/{node_name}", infra.node_credential, infra.now)
    if soon is not None:
        return soon
    end = f"expires on {_date(tenant.credential.expires)}" if tenant.credential.expires else "has no end that shows"
    if tenant.link.state is LinkState.UP:
        return Condition(VALID, Truth.TRUE, "Valid", f"{what} is accepted by the tenant's API server, and {end}.")
    message = f"{what} {end}, and whether it is accepted is not known. See TenantClusterApiServerUnreachable."
    return Condition(VALID, Truth.UNKNOWN, "NotVerified", message)


def _problem(secret: str, credential: Credential, now: dt.datetime) -> Condition | None:
    if credential.problem:
        reason = "SecretNotFound" if credential.seen is Sight.ABSENT else "KubeconfigRefused"
        return _invalid(reason, f"{_sentence(credential.problem)} {_sentence(credential.hint)}".strip())
    match credential.seen:
        case Sight.ABSENT:
            return _invalid(
                "SecretNotFound", f"{secret} does not exist. Put the kubeconfig there, under the key `config`."
            )
        case Sight.FORBIDDEN:
            return _invalid(
                "SecretForbidden",
                f"The operator may not read {secret}. Bind ClusterRole dpu-network-operator-tenant to it in that namespace.",
            )
        case Sight.UNSEEN | Sight.UNSERVED:
            return Condition(VALID, Truth.UNKNOWN, "NotObservedYet", f"{secret} has not been read yet. Wait a moment.")
    if credential.expires is not None and credential.expires <= now:
        what = f"The {credential.what or 'credential'} in {secret}"
        return _invalid("Expired", f"{what} expired on {_date(credential.expires)}. Put a new kubeconfig into it.")
    return None


def _soon(secret: str, credential: Credential, now: dt.datetime, issued: dt.datetime | None = None) -> Condition | None:
    warn = warning_time(credential, issued)
    if warn is None or warn > now:
        return None
    what = f"The {credential.what or 'credential'} in {secret} expires on {_date(credential.expires)}"
    return _invalid("ExpiresSoon", f"{what}. Put a new kubeconfig into it before that.")


def _invalid(reason: str, message: str) -> Condition:
    return Condition(VALID, Truth.FALSE, reason, message)


def _date(moment: dt.datetime | None) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%d at %H:%M UTC") if moment else "a day that is not known"


def _since(link: Link) -> str:
    return f" since {link.since.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}" if link.since else ""


def _phrase(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _sentence(text: str) -> str:
    phrase = _phrase(text)
    return f"{phrase[0].upper()}{phrase[1:]}." if phrase else ""
