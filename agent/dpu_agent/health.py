"""The local HTTP: is the agent alive, is the DPU ready, and why not. All answers come from memory, none from the API server.

It is for programs on this machine, which need no credentials for it; so it only ever listens on loopback or on a Unix
socket. Whatever a client does, or leaves undone, it has ten seconds and one request to a connection.
"""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel

from dpu_agent import __version__
from dpu_agent.decision import Stage
from dpu_agent.documents import plan_document, status_document
from dpu_agent.metrics import CONTENT_TYPE, Metrics
from dpu_agent.snapshot import HEARTBEAT_LIMIT, STARTING, Agent

_READY = "The host network is as configured: 2 functions in switchdev mode, c1pf0hpf in br-ex.\n"
_NOT_READY = "br-ex is not there. Wait until ovs-configuration.service has made it.\n"
_ALIVE = "The loop last got on 3.2 s ago.\n"
_HANGS = "The agent's loop has made no turn for 95 s. Run `systemctl restart dpu-agent.service`, and keep its log.\n"


class ProblemAnswer(BaseModel):
    """Something that no step mends."""

    reason: str
    message: str
    hint: str
    state: str
    blocks: str


class StepAnswer(BaseModel):
    """A change of the machine."""

    name: str
    arguments: dict[str, str | int | bool | None]
    what: str
    why: str
    disruption: str
    atBoot: bool  # noqa: N815 - the document's own key


class HeldAnswer(StepAnswer):
    """A change that is needed and not made."""

    heldBecause: str  # noqa: N815


class FailureAnswer(BaseModel):
    """A step that did not work."""

    step: StepAnswer
    message: str
    hint: str
    terminal: bool
    attempts: int


class UnseenAnswer(BaseModel):
    """Something that could not be looked at."""

    what: str
    message: str
    hint: str


class _Answer(BaseModel):
    schemaVersion: int  # noqa: N815
    kind: str
    version: str
    bootId: str  # noqa: N815
    configHash: str  # noqa: N815
    problems: list[ProblemAnswer]
    steps: list[StepAnswer]
    held: list[HeldAnswer]
    unseen: list[UnseenAnswer]


class PlanAnswer(_Answer):
    """What is to be done, as `dpu-agent apply --dry-run -o json` prints it."""

    stage: str
    configuration: dict[str, str] | None
    changesNeeded: bool  # noqa: N815


class StatusAnswer(_Answer):
    """How the DPU is, as `dpu-agent status -o json` prints it."""

    source: str
    state: str
    reason: str
    message: str
    ready: bool
    heartbeatAgeSeconds: float | None  # noqa: N815
    reportError: str  # noqa: N815
    hostPfMacs: list[str]  # noqa: N815
    failures: list[FailureAnswer]


class NotYetAnswer(BaseModel):
    """The agent has only just started."""

    message: str


def _text(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}, "example": example}}}


_NOT_YET: dict[int | str, dict[str, Any]] = {
    503: {
        "model": NotYetAnswer,
        "description": "The agent has just started and knows nothing yet.",
        "content": {"application/json": {"example": {"message": STARTING.message}}},
    }
}
_METHODS: dict[int | str, dict[str, Any]] = {405: {"description": "Only GET is answered."}}


def application(agent: Agent) -> FastAPI:
    """The endpoints, over one running agent."""
    app = FastAPI(
        title="dpu-agent",
        version=__version__,
        description="The DPU agent's state, for programs on the same machine. Nothing can be changed here.",
        # The documentation's pages would load scripts from elsewhere; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        responses=_METHODS,
    )
    metrics = Metrics(agent)

    @app.get(
        "/livez",
        summary="Whether the agent's loop goes round",
        response_class=PlainTextResponse,
        responses={200: _text("It does; with the heartbeat's age.", _ALIVE), 503: _text("It hangs.", _HANGS)},
    )
    async def livez() -> PlainTextResponse:
        age = agent.age()
        if age > HEARTBEAT_LIMIT:
            return PlainTextResponse(f"{agent.verdict().message}\n", status_code=503)
        return PlainTextResponse(f"The loop last got on {age:.1f} s ago.\n")

    @app.get(
        "/readyz",
        summary="Whether the DPU's host network is as configured, and if not, why not",
        response_class=PlainTextResponse,
        responses={200: _text("It is.", _READY), 503: _text("It is not; the body says why.", _NOT_READY)},
    )
    async def readyz() -> PlainTextResponse:
        verdict = agent.verdict()
        return PlainTextResponse(f"{verdict.message}\n", status_code=200 if verdict.ready else 503)

    @app.get("/status", summary="How the DPU is", response_model=StatusAnswer, responses=_NOT_YET)
    async def status() -> JSONResponse:
        snapshot = agent.snapshot
        if snapshot is None:
            return _not_yet()
        return JSONResponse(
            status_document(
                snapshot.plan,
                snapshot.world,
                agent.verdict(),
                snapshot.failures,
                age=agent.age(),
                report_error=agent.report_error,
            )
        )

    @app.get("/plan", summary="What is to be done", response_model=PlanAnswer, responses=_NOT_YET)
    async def plan() -> JSONResponse:
        snapshot = agent.snapshot
        if snapshot is None:
            return _not_yet()
        return JSONResponse(plan_document(snapshot.plan, snapshot.world, stage=Stage.LATE))

    @app.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE: {"schema": {"type": "string"}}}, "description": "In text format."}},
    )
    async def prometheus(_request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return app


def _not_yet() -> JSONResponse:
    return JSONResponse({"message": STARTING.message}, status_code=503)
