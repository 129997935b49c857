"""The endpoints, in this process: what they answer, and that it is what their OpenAPI document says."""

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from fastapi import FastAPI

from dpu_agent.decision import Failure, Plan, Verdict
from dpu_agent.health import application
from dpu_agent.plan import plan
from dpu_agent.snapshot import HEARTBEAT_LIMIT, STARTING, Counters, Snapshot, hanging
from dpu_agent.steps import AddPort, Step
from dpu_agent.verdict import verdict
from dpu_agent.world import World
from dpu_shared.host_config import Mode
from tests.unit.agent import worlds as w


@dataclass(frozen=True)
class Answer:
    status_code: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """Calls the application as a server would."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def request(self, method: str, path: str) -> Answer:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": [],
            "server": ("127.0.0.1", 9917), "client": ("127.0.0.1", 1),
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self._app(scope, receive, send))
        start, *body = sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], headers, b"".join(one.get("body", b"") for one in body).decode())


class Agent:
    """`snapshot.Agent` as the test wants it."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.counters = Counters()
        self.watching = {"devlink": True, "ovsdb": True, "udev": False}
        self.report_error = ""
        self.seconds = 1.25

    def age(self) -> float:
        return self.seconds

    def verdict(self) -> Verdict:
        if self.seconds > HEARTBEAT_LIMIT:
            return hanging(self.seconds)
        return self.snapshot.verdict if self.snapshot else STARTING

    def saw(self, world: World, *failures: Failure) -> Plan:
        found = plan(world)
        self.snapshot = Snapshot(world, found, verdict(found, failures), failures, heartbeat=0.0)
        return found


@pytest.fixture
def agent() -> Agent:
    made = Agent()
    made.saw(w.healthy())
    return made


@pytest.fixture
def client(agent: Agent) -> Client:
    return Client(application(agent))


def portless() -> World:
    return w.without_port(w.healthy(), "br-ex", "c1pf0hpf")


def metrics(client: Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_alive_is_the_age_of_the_heartbeat(agent: Agent, client: Client) -> None:
    answer = client.get("/livez")
    assert (answer.status_code, answer.text) == (200, "The loop last got on 1.2 s ago.\n")
    agent.seconds = HEARTBEAT_LIMIT
    assert client.get("/livez").status_code == 200
    agent.seconds = HEARTBEAT_LIMIT + 5
    answer = client.get("/livez")
    assert answer.status_code == 503
    assert f"no turn for {HEARTBEAT_LIMIT + 5:.0f} s" in answer.text


def test_alive_says_nothing_of_ready(agent: Agent, client: Client) -> None:
    agent.saw(replace(w.healthy(), platform=w.SERVER))
    assert client.get("/livez").status_code == 200


def test_ready_is_the_verdict_in_plain_words(agent: Agent, client: Client) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (200, agent.verdict().message + "\n")
    assert answer.headers["content-type"].startswith("text/plain")
    agent.saw(portless())
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, agent.verdict().message + "\n")
    assert "c1pf0hpf" in answer.text


def test_a_loop_that_hangs_is_not_ready_whatever_it_saw_last(agent: Agent, client: Client) -> None:
    agent.seconds = HEARTBEAT_LIMIT + 1
    assert client.get("/readyz").status_code == 503
    assert client.get("/status").json()["ready"] is False


@pytest.mark.parametrize("path", ["/readyz", "/status", "/plan"])
def test_before_the_first_turn_it_says_so(agent: Agent, client: Client, path: str) -> None:
    agent.snapshot = None
    answer = client.get(path)
    assert answer.status_code == 503
    assert "not looked at this machine yet" in answer.text
    assert client.get("/livez").status_code == 200
    assert client.get("/metrics").status_code == 200


def test_the_status_has_all_that_a_script_needs(agent: Agent, client: Client) -> None:
    step = Step(AddPort("br-ex", "c1pf0hpf"), "It stands for the host's PF.")
    agent.saw(portless(), Failure(step, "It is busy.", "Wait.", attempts=3))
    agent.report_error = "The API server is away."
    status = client.get("/status").json()
    assert status["schemaVersion"] == 1
    assert status["kind"] == "Status"
    assert status["source"] == "agent"
    assert status["state"] == "Degraded"
    assert status["reason"] == "StepFailed"
    assert status["heartbeatAgeSeconds"] == 1.25
    assert status["reportError"] == "The API server is away."
    assert status["configHash"]
    assert status["failures"][0]["attempts"] == 3
    assert status["failures"][0]["step"]["arguments"] == {"bridge": "br-ex", "netdev": "c1pf0hpf"}


def test_the_plan_tells_steps_from_steps_that_wait(agent: Agent, client: Client) -> None:
    agent.saw(portless())
    document = client.get("/plan").json()
    assert [step["name"] for step in document["steps"]] == ["AddPort"]
    assert document["changesNeeded"] is True
    world = portless()
    config = world.configuration.current
    assert config is not None
    told = replace(world.configuration, current=replace(config, mode=Mode.REPORT_ONLY))
    agent.saw(replace(world, configuration=told))
    document = client.get("/plan").json()
    assert document["steps"] == []
    assert document["held"][0]["heldBecause"] == "The mode is ReportOnly, so nothing is changed."


def test_the_metrics_tell_state_steps_and_modes(agent: Agent, client: Client) -> None:
    agent.counters.done["AddPort"] += 2
    agent.counters.failed["SetSwitchdev"] += 1
    agent.counters.events["ovsdb"] += 7
    found = metrics(client)
    assert found['dpu_agent_state{state="Ready"}'] == 1
    assert found['dpu_agent_state{state="Blocked"}'] == 0
    assert found['dpu_agent_steps_done_total{step="AddPort"}'] == 2
    assert found['dpu_agent_steps_failed_total{step="SetSwitchdev"}'] == 1
    assert found['dpu_agent_events_total{source="ovsdb"}'] == 7
    assert found["dpu_agent_heartbeat_age_seconds"] == 1.25
    assert found[f'dpu_agent_eswitch_mode{{function="{w.F0}",mode="switchdev"}}'] == 1
    assert found[f'dpu_agent_eswitch_mode{{function="{w.F0}",mode="legacy"}}'] == 0
    assert found['dpu_agent_watching{source="udev"}'] == 0
    assert found["process_resident_memory_bytes"] > 1 << 20


def test_two_agents_in_one_process_have_metrics_of_their_own(client: Client) -> None:
    other = Agent()
    other.saw(portless())
    assert metrics(Client(application(other)))['dpu_agent_state{state="Ready"}'] == 0
    assert metrics(client)['dpu_agent_state{state="Ready"}'] == 1


def test_the_description_loads_nothing_from_elsewhere(client: Client) -> None:
    document = client.get("/openapi.json").json()
    assert sorted(document["paths"]) == ["/livez", "/metrics", "/plan", "/readyz", "/status"]
    assert "://" not in json.dumps(document)
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404


def test_every_answer_has_an_example_or_a_schema(client: Client) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for code, answer in operations["get"]["responses"].items():
            if code in ("200", "503"):
                for content in answer["content"].values():
                    assert content.get("schema") or content.get("example"), (path, code)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/status", "/plan", "/metrics"])
def test_nothing_can_be_changed(client: Client, path: str, method: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
