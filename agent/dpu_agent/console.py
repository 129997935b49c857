"""What a person reads on the DPU's console. It takes the documents of `documents.py`, so text and JSON say the same."""

from collections.abc import Iterable, Mapping
from typing import Any

from dpu_agent.world import World
from dpu_shared.steps import Disruption

Document = Mapping[str, Any]

_DISTURBS = {
    Disruption.NONE: "disturbs nothing",
    Disruption.OVS_RESTART: "restarts Open vSwitch: traffic may pause for seconds",
    Disruption.LINK_FLAP: "takes links down for seconds",
    Disruption.REBOOT: "needs a reboot",
}
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
"""The kernel's and the database's words must not repaint a terminal."""


def plan_text(plan: Document) -> str:
    """The plan, in the order in which one wants to know it."""
    lines: list[str] = []
    problems, steps, held = plan["problems"], plan["steps"], plan["held"]
    _section(lines, _count(len(problems), "problem"), [_problem(problem) for problem in problems])
    numbered = (_step(step, number) for number, step in enumerate(steps, 1))
    _section(lines, f"{_count(len(steps), 'step')} to do, in this order", numbered)
    _section(lines, f"{_count(len(held), 'step')} held back", [_held(step) for step in held])
    _section(lines, "Not seen", _unseen(plan))
    if not problems and not steps and not held:
        lines.append("Nothing to do: all that was seen is as the configuration wants it.")
    return _text(lines)


def status_text(status: Document) -> str:
    """The status: the sentence first, then what it is made of."""
    lines = [f"{status['state']} ({status['reason']})"]
    if not status["problems"] and not status["failures"]:
        # Else the message is made of their sentences, which follow.
        lines.append(f"  {_clean(status['message'])}")
    lines.append("")
    if status["source"] == "agent":
        age = status["heartbeatAgeSeconds"]
        lines.append(f"The running agent says so; its loop last got on {age:.1f} s ago.")
    elif status["source"] == "observation":
        lines.append("No agent runs here; this is what a look at the machine shows now.")
    if status["reportError"]:
        lines.append(f"The Node does not have this report: {_clean(status['reportError'])}")
    if status["hostPfMacs"]:
        lines.append(f"The host's functions: {', '.join(status['hostPfMacs'])}")
    if lines[-1]:
        lines.append("")
    _section(lines, _count(len(status["problems"]), "problem"), [_problem(item) for item in status["problems"]])
    _section(lines, "Failed", [_failure(failure) for failure in status["failures"]])
    failed = [failure["step"] for failure in status["failures"]]
    waiting = [_step(step, None) for step in status["steps"] if step not in failed]
    _section(lines, f"{_count(len(waiting), 'step')} to do", waiting)
    _section(lines, f"{_count(len(status['held']), 'step')} held back", [_held(step) for step in status["held"]])
    _section(lines, "Not seen", _unseen(status))
    return _text(lines)


def world_text(world: World) -> str:
    """A short view of an observation; all of it is in its JSON."""
    lines = [f"boot {world.boot_id or 'unknown'}, {world.platform.product_name or 'product unknown'}"]
    for function in world.functions:
        lines.append(
            f"function {function.address} ({function.device}, {function.driver or 'no driver'}): {function.mode}"
        )
        for port in function.ports:
            place = ", ".join(
                f"{name} {value}"
                for name, value in (("controller", port.controller), ("pf", port.pf), ("vf", port.vf))
                if value is not None
            )
            lines.append(f"  port {port.index}: {port.flavour} {place} {port.netdev or '(no netdev)'}".rstrip())
    lines.extend(
        f"netdev {netdev.name}: {'up' if netdev.up else 'down'}, MTU {netdev.mtu}, {netdev.phys_port_name or 'no port name'}"
        for netdev in world.netdevs
    )
    if world.ovs is not None:
        lines.append(f"Open vSwitch {world.ovs.version}: hw-offload {world.ovs.hw_offload or 'not set'}")
        lines.extend(
            f"  bridge {bridge.name}: {', '.join(port.name for port in bridge.ports) or 'no ports'}"
            for bridge in world.ovs.bridges
        )
    lines.append(f"udev rules: {world.rules}")
    configuration = world.configuration
    if configuration.current is None:
        lines.append(f"configuration: {configuration.problem or 'none.'} {configuration.hint}".rstrip())
    lines.extend(f"not seen: {item.what}: {item.message} {item.hint}" for item in world.unseen)
    return "".join(f"{_clean(line)}\n" for line in lines)


def _section(lines: list[str], title: str, items: Iterable[list[str]]) -> None:
    found = list(items)
    if found:
        lines.append(f"{title}:")
        for item in found:
            lines.extend(f"  {_clean(line)}" for line in item)
        lines.append("")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _problem(problem: Document) -> list[str]:
    return _pair(f"{problem['reason']}: {problem['message']}", problem["hint"])


def _pair(message: str, hint: str) -> list[str]:
    return [f"- {message}", f"  {hint}"]


def _unseen(document: Document) -> list[list[str]]:
    """Those whose sentence is not already that of a problem."""
    told = {problem["message"] for problem in document["problems"]}
    return [_pair(f"{i['what']}: {i['message']}", i["hint"]) for i in document["unseen"] if i["message"] not in told]


def _step(step: Document, number: int | None) -> list[str]:
    mark = "-" if number is None else f"{number}."
    indent = " " * len(mark)
    return [
        f"{mark} {step['what']} ({_DISTURBS[Disruption(step['disruption'])]})",
        f"{indent} why: {step['why']}",
    ]


def _held(step: Document) -> list[str]:
    return [*_step(step, None), f"  waits: {step['heldBecause']}"]


def _failure(failure: Document) -> list[str]:
    again = "not tried again before the machine changes" if failure["terminal"] else "tried again"
    return [
        f"- to {failure['step']['what']} ({_count(failure['attempts'], 'attempt')}; {again})",
        f"  {failure['message']}",
        f"  {failure['hint']}",
    ]


def _clean(text: str) -> str:
    return text.translate(_ESCAPES)


def _text(lines: list[str]) -> str:
    while lines and not lines[-1]:
        lines.pop()
    return "".join(f"{line}\n" for line in lines)
