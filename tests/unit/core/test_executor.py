"""A plan is carried out as it is given: inputs before their users, nothing that is not ours, and no secret in a sentence."""

import asyncio
import gc
import logging
from typing import Any, cast

import pytest

from dpu_operator.apply import executor
from dpu_operator.apply.executor import Failure, execute
from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.world import (
    CONFIG_MAP,
    DAEMON_SET,
    MACHINE_CONFIG,
    SECRET,
    Apply,
    Delete,
    Kind,
    Obj,
    Ref,
    Step,
)
from tests.unit.core.server import ApiServer
from tests.unit.core.worlds import NAMESPACE

MARK = "bTRyazNy"
"""What a Secret holds here, and nothing that anybody may read."""

INPUT, OTHER = Ref(CONFIG_MAP, NAMESPACE, "input"), Ref(CONFIG_MAP, NAMESPACE, "other")
CERT = Ref(SECRET, NAMESPACE, "ovn-cert")
USER = Ref(DAEMON_SET, NAMESPACE, "user")
MACHINES = Ref(MACHINE_CONFIG, None, "99-dpu")


def of(ref: Ref, **content: Any) -> Obj:
    meta = {"name": ref.name} | ({"namespace": ref.namespace} if ref.namespace else {})
    made: Obj = {"apiVersion": ref.kind.api_version, "kind": ref.kind.kind, "metadata": meta, **content}
    return made | {"spec": {}} if ref.kind == DAEMON_SET else made


def step(ref: Ref, **more: Any) -> Apply:
    return Apply(ref, of(ref, **more.pop("content", {})), "It does not exist.", **more)


class Run:
    """One execution and what was told of it."""

    def __init__(self, server: ApiServer | None = None) -> None:
        self.server = server or ApiServer()
        self.wrote: list[tuple[Ref, Obj | None]] = []

    async def __call__(self, *steps: Step, outdated: tuple[Ref, ...] = ()) -> tuple[Failure, ...]:
        return await execute(
            steps,
            cluster=cast("Any", self.server),
            wrote=lambda ref, obj: self.wrote.append((ref, obj)),
            outdated=lambda s: s.ref in outdated,
        )

    def fails(self, ref: Ref, error: ClusterError) -> None:
        self.server.refuse = lambda _verb, r: error if r == ref else None


async def test_what_uses_the_others_is_written_after_them() -> None:
    run = Run()
    assert await run(step(USER), step(MACHINES), step(CERT), step(INPUT)) == ()
    places = [ref for _, ref, _ in run.server.writes]
    assert set(places[:2]) == {CERT, INPUT}
    assert set(places[2:]) == {USER, MACHINES}


async def test_no_user_is_written_before_the_last_answer_about_its_inputs() -> None:
    run, hold = Run(), asyncio.Event()

    async def gate(ref: Ref) -> None:
        if ref == INPUT:
            await hold.wait()

    run.server.gate = gate
    task = asyncio.create_task(run(step(USER), step(INPUT), step(OTHER)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert [ref for _, ref, _ in run.server.writes] == [OTHER], "steps that do not depend on each other go at once"
    hold.set()
    await task
    assert run.server.writes[-1][1] == USER


async def test_not_all_steps_go_at_once_and_a_cancelled_plan_starts_no_more() -> None:
    run, under_way = Run(), []

    async def gate(ref: Ref) -> None:
        under_way.append(ref)
        await asyncio.Event().wait()

    run.server.gate = gate
    task = asyncio.create_task(run(*(step(Ref(CONFIG_MAP, NAMESPACE, f"n{n}")) for n in range(9))))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(under_way) == executor.WRITES_AT_ONCE
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    gc.collect()  # a coroutine that nobody awaited would complain here
    assert len(under_way) == executor.WRITES_AT_ONCE
    assert run.server.writes == []


async def test_a_failed_input_stops_its_users_and_nothing_else() -> None:
    run = Run()
    run.fails(INPUT, ApiError(403, "Forbidden", "no"))
    failures = await run(step(INPUT), step(OTHER), step(USER), step(MACHINES))
    assert [failure.step.ref for failure in failures] == [INPUT]
    assert [ref for ref, _ in run.wrote] == [OTHER]


async def test_each_answer_is_told_and_a_deletion_as_nothing() -> None:
    server = ApiServer([of(OTHER)])
    uid = server.objects[OTHER]["metadata"]["uid"]
    run = Run(server)
    await run(step(INPUT), Delete(OTHER, uid, "It is no longer needed."))
    told = dict(run.wrote)
    assert told[OTHER] is None
    assert (told[INPUT] or {})["metadata"]["resourceVersion"]


async def test_what_the_api_server_lets_nobody_change_is_deleted_by_its_uid_and_made_again() -> None:
    server = ApiServer([of(CERT)])
    uid = server.objects[CERT]["metadata"]["uid"]
    run = Run(server)
    assert await run(step(CERT, replaces=True, recreate=True, uid=uid)) == ()
    assert [verb for verb, _, _ in server.writes] == ["delete", "apply"]
    assert server.objects[CERT]["metadata"]["uid"] != uid
    another = Run(ApiServer([of(CERT)]))
    assert len(await another(step(CERT, replaces=True, recreate=True, uid="somebody-else's"))) == 1
    assert [verb for verb, _, _ in another.server.writes] == ["delete"], "refused, and nothing is written after it"
    assert CERT in another.server.objects


async def test_an_outdated_step_is_not_carried_out_and_is_no_failure() -> None:
    run = Run()
    assert await run(step(INPUT), step(OTHER), outdated=(INPUT,)) == ()
    assert [ref for _, ref, _ in run.server.writes] == [OTHER]


async def test_an_unknown_outcome_is_a_failure_that_says_so_and_tells_no_answer() -> None:
    run = Run()
    run.fails(INPUT, Unreachable("timed out after 10 s", sent=True))
    (failure,) = await run(step(INPUT))
    assert failure.sentence == f"ConfigMap {NAMESPACE}/input could not be written (timed out after 10 s)."
    assert run.wrote == []


async def test_a_deletion_that_fails_is_called_a_deletion() -> None:
    run = Run(ApiServer([of(INPUT)]))
    run.fails(INPUT, ApiError(403, "Forbidden", "no."))
    (failure,) = await run(Delete(INPUT, "uid-1", "It is no longer needed."))
    assert failure.sentence == f"ConfigMap {NAMESPACE}/input could not be deleted (HTTP 403 Forbidden: no)."


async def test_a_deletion_of_what_is_gone_already_is_done() -> None:
    run = Run()
    assert await run(Delete(INPUT, "uid-1", "It is no longer needed.")) == ()
    assert run.wrote == [(INPUT, None)]


async def test_another_object_in_the_place_of_the_one_to_delete_is_not_deleted() -> None:
    run = Run(ApiServer([of(INPUT)]))
    (failure,) = await run(Delete(INPUT, "uid-of-the-one-before", "It is no longer needed."))
    assert "409" in failure.sentence
    assert INPUT in run.server.objects


@pytest.mark.parametrize("replaces", [False, True])
async def test_force_is_only_for_what_is_ours(*, replaces: bool) -> None:
    asked: list[bool] = []

    class Server(ApiServer):
        async def apply(self, ref: Ref, obj: Obj, *, force: bool = True) -> Obj:
            asked.append(force)
            return await super().apply(ref, obj, force=force)

    await Run(Server())(step(INPUT, replaces=replaces))
    assert asked == [replaces]


async def test_what_is_replaced_is_named_by_its_uid_so_that_another_object_in_its_place_is_refused() -> None:
    bodies: list[Obj] = []

    class Server(ApiServer):
        async def apply(self, ref: Ref, obj: Obj, *, force: bool = True) -> Obj:
            bodies.append(obj)
            return await super().apply(ref, obj, force=force)

    run = Run(Server([of(INPUT)]))
    uid = run.server.objects[INPUT]["metadata"]["uid"]
    planned = step(INPUT, replaces=True, uid=uid)
    assert await run(planned) == ()
    assert [body["metadata"].get("uid") for body in bodies] == [uid]
    assert "uid" not in planned.object["metadata"], "the plan is not changed by carrying it out"


async def test_an_object_that_somebody_made_meanwhile_stays_as_it_is() -> None:
    theirs = of(INPUT, data={"a": "theirs"})
    run = Run(ApiServer([theirs]))
    before = run.server.objects[INPUT]
    (failure,) = await run(step(INPUT, content={"data": {"a": "ours"}}))
    assert isinstance(failure.error, ApiError)
    assert failure.error.conflict
    assert run.server.objects[INPUT] == before


@pytest.mark.parametrize(
    ("ref", "desired", "live"),
    [
        (INPUT, {"data": {"a": "1"}}, {"data": {"a": "1", "more": "x"}}),
        (INPUT, {"data": {"a": "1"}}, {"data": {"a": "1"}, "binaryData": {"more": "eA=="}}),
        (INPUT, {"binaryData": {"a": "eA=="}}, {"binaryData": {"a": "eA=="}, "data": {"more": "x"}}),
        (INPUT, {}, {"data": {"more": "x"}}),
        (INPUT, {"binaryData": {"more": "eA=="}}, {"data": {"more": "x"}}),
        (CERT, {"data": {"a": "eA=="}}, {"data": {"a": "eA==", "more": "eA=="}}),
    ],
)
async def test_keys_that_somebody_added_to_a_copy_go_away_wherever_they_are(ref: Ref, desired: Obj, live: Obj) -> None:
    server = ApiServer([of(ref, **live)])
    assert await Run(server)(step(ref, content=desired, replaces=True, drop_keys=("more",))) == ()
    after = server.objects[ref]
    assert {field: after.get(field) for field in ("data", "binaryData")} == {
        field: desired.get(field) for field in ("data", "binaryData")
    }


async def test_a_secret_is_not_patched_in_a_field_that_it_does_not_have() -> None:
    server = ApiServer([of(CERT, data={"more": "eA=="})])
    await Run(server)(step(CERT, content={"data": {"a": "eA=="}}, replaces=True, drop_keys=("more",)))
    assert server.writes[0][2] == {"data": {"more": None}}


async def test_without_such_keys_a_step_is_one_request() -> None:
    run = Run()
    await run(step(INPUT))
    assert run.server.written() == [f"apply {INPUT}"]


QUOTES = f'Secret "ovn-cert" is invalid: data[tls.key]: Invalid value: "{MARK}"'


@pytest.mark.parametrize("status", [400, 403, 409, 422, 500])
async def test_what_a_server_says_about_a_secret_is_never_repeated(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    run = Run()
    run.fails(CERT, ApiError(status, "Invalid", QUOTES))
    failures = await run(step(CERT, content={"data": {"tls.key": MARK}}))
    assert failures[0].sentence == f"Secret {NAMESPACE}/ovn-cert could not be written (HTTP {status} Invalid)."
    assert MARK not in caplog.text
    assert MARK not in failures[0].sentence


async def test_a_deletion_of_a_secret_repeats_nothing_either(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    run = Run(ApiServer([of(CERT)]))
    run.fails(CERT, ApiError(422, "Invalid", QUOTES))
    (failure,) = await run(Delete(CERT, "uid-1", "It is no longer needed."))
    assert MARK not in failure.sentence + caplog.text


async def test_success_is_logged_with_its_reason_and_without_the_content(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    run = Run()
    await run(step(CERT, content={"data": {"tls.key": MARK}}))
    assert caplog.messages == [f"Secret {NAMESPACE}/ovn-cert: It does not exist."]


async def test_a_kind_that_only_looks_like_a_secret_is_read_with_its_message() -> None:
    other = Kind("example.com", "v1", "secrets", "Secret")
    failure = Failure(step(Ref(other, NAMESPACE, "x")), ApiError(403, "Forbidden", "no"))
    assert failure.sentence.endswith("could not be written (HTTP 403 Forbidden: no).")


async def test_an_apply_alone_is_what_the_short_way_uses() -> None:
    server = ApiServer()
    answer = await executor.apply(step(INPUT), cast("Any", server))
    assert answer["metadata"]["uid"]
