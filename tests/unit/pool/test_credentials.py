"""What is said of the tenant's API server and of the credential, as time and the link go on."""

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpu_operator.plan.credentials import api_server_unreachable, credentials_valid, wake_at, warning_time
from dpu_operator.world import Condition, Credential, InfraWorld, Link, LinkState, Sight, TenantWorld, Truth
from tests.unit.pool.worlds import NOW, well

DAY = dt.timedelta(days=1)
GOOD = Credential(seen=Sight.PRESENT, expires=NOW + 30 * DAY, issued=NOW - 90 * DAY, what="token")
SERVER = "https://api.tenant.example.com:6443"
UP = Link(LinkState.UP, server=SERVER, since=NOW - DAY)
DOWN = Link(LinkState.DOWN, "connection refused", since=NOW - dt.timedelta(minutes=5), server=SERVER)
REFUSED = Link(LinkState.REFUSED, "", since=NOW, server=SERVER)


def valid(credential: Credential = GOOD, link: Link = UP, node: Credential | None = None) -> Condition:
    infra = well()
    if node is not None:
        spec = {**infra.spec, "nodeKubeConfigFile": "node-kubeconfig"}
        infra = dataclasses.replace(infra, config={**infra.config, "spec": spec}, node_credential=node)
    return credentials_valid(infra, TenantWorld(credential=credential, link=link))


VALIDITY: dict[str, tuple[Condition, Truth, str, str]] = {
    "in use": (valid(), Truth.TRUE, "Valid", "The token in Secret tenant-1/tenant-kubeconfig is accepted by the tenant's API server, and expires on 2026-12-24 at 12:00 UTC."),
    "without end": (valid(dataclasses.replace(GOOD, expires=None)), Truth.TRUE, "Valid", "has no end that shows."),
    "not looked at": (valid(Credential()), Truth.UNKNOWN, "NotObservedYet", "has not been read yet"),
    "missing": (valid(Credential(seen=Sight.ABSENT)), Truth.FALSE, "SecretNotFound", "tenant-1/tenant-kubeconfig does not exist"),
    "missing, as the reader says it": (
        valid(Credential(seen=Sight.ABSENT, problem="Secret x does not exist.", hint="Create it.")),
        Truth.FALSE, "SecretNotFound", "Secret x does not exist. Create it.",
    ),
    "not to be read": (valid(Credential(seen=Sight.FORBIDDEN)), Truth.FALSE, "SecretForbidden", "Bind ClusterRole dpu-network-operator-tenant"),
    "refused by vetting": (
        valid(Credential(seen=Sight.PRESENT, problem="the kubeconfig starts a program", hint="use a token.")),
        Truth.FALSE, "KubeconfigRefused", "The kubeconfig starts a program. Use a token.",
    ),
    "refused by the tenant": (valid(link=REFUSED), Truth.FALSE, "Unauthorized", "is refused by the tenant's API server. Put a new"),
    "expired": (valid(dataclasses.replace(GOOD, expires=NOW)), Truth.FALSE, "Expired", "expired on 2026-11-24 at 12:00 UTC. Put"),
    "expired and therefore refused": (
        valid(dataclasses.replace(GOOD, expires=NOW - DAY), REFUSED), Truth.FALSE, "Expired", "expired on 2026-11-23",
    ),
    "about to expire": (
        valid(dataclasses.replace(GOOD, expires=NOW + 7 * DAY)), Truth.FALSE, "ExpiresSoon", "expires on 2026-12-01 at 12:00 UTC.",
    ),
    "not tried": (valid(link=Link()), Truth.UNKNOWN, "NotVerified", "whether it is accepted is not known"),
    "while the tenant is away": (valid(link=DOWN), Truth.UNKNOWN, "NotVerified", "See TenantClusterApiServerUnreachable."),
    "about to expire while the tenant is away": (
        valid(dataclasses.replace(GOOD, expires=NOW + DAY), DOWN), Truth.FALSE, "ExpiresSoon", "2026-11-25",
    ),
    "with a good second one": (valid(node=GOOD), Truth.TRUE, "Valid", "tenant-1/tenant-kubeconfig"),
    "about to expire with a good second one": (
        valid(dataclasses.replace(GOOD, expires=NOW + DAY), node=GOOD), Truth.FALSE, "ExpiresSoon", "tenant-1/tenant-kubeconfig expires",
    ),
    "with a second one that is missing": (
        valid(node=Credential(seen=Sight.ABSENT)), Truth.FALSE, "SecretNotFound", "tenant-1/node-kubeconfig does not exist",
    ),
    "with a second one that expired": (
        valid(node=dataclasses.replace(GOOD, expires=NOW - DAY)), Truth.FALSE, "Expired", "tenant-1/node-kubeconfig expired",
    ),
    "with a second one that is about to expire": (
        valid(node=dataclasses.replace(GOOD, expires=NOW + DAY)), Truth.FALSE, "ExpiresSoon", "tenant-1/node-kubeconfig",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VALIDITY)
def test_the_credential_is_called(case: str) -> None:
    judged, status, reason, words = VALIDITY[case]
    assert (judged.type, judged.status, judged.reason) == ("TenantCredentialsValid", status, reason)
    assert words in judged.message
    assert judged.message[0].isupper()
    assert judged.message.endswith(".")


def test_the_first_kubeconfig_named_twice_is_judged_once() -> None:
    infra = well()
    spec = {**infra.spec, "nodeKubeConfigFile": infra.spec["kubeConfigFile"]}
    same = dataclasses.replace(infra, config={**infra.config, "spec": spec})
    assert credentials_valid(same, TenantWorld(credential=GOOD, link=UP)).status is Truth.TRUE


def unreachable(link: Link, credential: Credential = GOOD) -> Condition:
    return api_server_unreachable(TenantWorld(credential=credential, link=link))


def test_the_api_server_is_not_judged_before_the_first_probe_or_without_a_kubeconfig() -> None:
    assert (unreachable(Link()).status, unreachable(Link()).reason) == (Truth.UNKNOWN, "NotProbedYet")
    broken = Credential(seen=Sight.PRESENT, problem="Bad.", hint="Mend.")
    assert (unreachable(DOWN, broken).status, unreachable(DOWN, broken).reason) == (Truth.UNKNOWN, "NoCredential")


def test_an_api_server_that_answers_is_reachable_also_when_it_refuses_us() -> None:
    assert unreachable(UP) == Condition(
        "TenantClusterApiServerUnreachable", Truth.FALSE, "Reachable",
        f"The API server {SERVER} answers.",
    )  # fmt: skip
    assert (unreachable(REFUSED).status, unreachable(REFUSED).reason) == (Truth.FALSE, "Reachable")
    assert "refuses the credential" in unreachable(REFUSED).message


def test_an_api_server_that_does_not_answer_is_named_with_the_time_the_cause_and_what_to_do() -> None:
    judged = unreachable(DOWN)
    assert (judged.status, judged.reason) == (Truth.TRUE, "Unreachable")
    assert judged.message.startswith(
        f"The API server {SERVER} has not answered since 2026-11-24T11:55:00Z (connection refused). "
    )
    assert unreachable(dataclasses.replace(DOWN, message="")).message.startswith(
        f"The API server {SERVER} has not answered since 2026-11-24T11:55:00Z. "
    )


LIVES = st.timedeltas(min_value=dt.timedelta(minutes=1), max_value=dt.timedelta(days=4000))


@given(LIVES)
def test_a_warning_comes_seven_days_before_the_end_or_in_the_last_tenth_of_a_short_life(life: dt.timedelta) -> None:
    end = NOW + life
    assert warning_time(Credential(seen=Sight.PRESENT, issued=NOW, expires=end)) == end - min(7 * DAY, life / 10)
    assert warning_time(Credential(seen=Sight.PRESENT, expires=end)) == end - 7 * DAY
    assert warning_time(Credential(seen=Sight.PRESENT, expires=end), issued=NOW) == end - min(7 * DAY, life / 10)


def test_a_life_that_ended_before_it_began_is_warned_of_at_its_end() -> None:
    backwards = Credential(seen=Sight.PRESENT, issued=NOW, expires=NOW - DAY)
    assert warning_time(backwards) == NOW - DAY


@given(LIVES, st.timedeltas(min_value=-4001 * DAY, max_value=4001 * DAY))
def test_it_wakes_exactly_when_the_condition_changes(life: dt.timedelta, age: dt.timedelta) -> None:
    credential = Credential(seen=Sight.PRESENT, issued=NOW, expires=NOW + life, what="token")
    tick = dt.timedelta(microseconds=1)

    def reason(at: dt.datetime) -> str:
        infra: InfraWorld = dataclasses.replace(well(), now=at)
        return credentials_valid(infra, TenantWorld(credential=credential, link=UP)).reason

    now = NOW + age
    wake = wake_at(credential, now)
    if wake is None:
        assert reason(now) == "Expired"
        return
    assert wake > now
    assert reason(now) == reason(wake - tick)
    assert reason(wake) != reason(now)


def test_a_credential_without_end_wakes_nobody() -> None:
    assert wake_at(dataclasses.replace(GOOD, expires=None), NOW) is None
