"""What the bench reads out of an audit log and of managed fields."""

import json
from pathlib import Path
from typing import Any

from tests.bench.project import applied
from tests.bench.trail import Trail, begun, first_writes

OPERATOR = "system:serviceaccount:dpu:operator"


def line(second: int, verb: str, resource: str, name: str = "x", **more: Any) -> dict[str, Any]:
    target = {"resource": resource, "namespace": "n", "name": name, "subresource": more.pop("subresource", "")}
    return {
        "auditID": more.pop("audit_id", f"{second}-{resource}-{name}"),
        "user": {"username": more.pop("user", OPERATOR)},
        "verb": verb,
        "objectRef": target,
        "requestURI": f"/{resource}",
        "responseStatus": {"code": more.pop("code", 200)},
        "requestReceivedTimestamp": f"2026-11-24T10:00:{second:02}.000000Z",
        "stageTimestamp": f"2026-11-24T10:00:{more.pop('answered', second):02}.500000Z",
    }


def write(log: Path, *lines: dict[str, Any]) -> None:
    with log.open("a") as out:
        out.writelines(json.dumps(each) + "\n" for each in lines)


def trail(tmp_path: Path) -> tuple[Trail, Path]:
    log = tmp_path / "audit.log"
    log.touch()
    return Trail(log), log


def test_a_half_written_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    found, log = trail(tmp_path)
    text = json.dumps(line(1, "get", "pods")) + "\n"
    log.write_text(text[:20])
    assert found.read() == []
    log.write_text(text)
    assert [entry.place for entry in found.read()] == ["pods/n/x"]
    assert found.read() == []


def test_only_objects_count_as_made_and_only_their_first_write(tmp_path: Path) -> None:
    found, log = trail(tmp_path)
    write(
        log,
        line(1, "create", "configmaps", user="somebody"),
        line(2, "patch", "configmaps", code=409),
        line(3, "patch", "configmaps"),
        line(4, "patch", "configmaps"),
        line(5, "patch", "daemonsets"),
        line(6, "patch", "daemonsets", subresource="status"),
        line(7, "create", "events"),
        line(8, "patch", "ovnkubeconfigs"),
        line(9, "get", "secrets"),
    )
    made = first_writes(found.read(), OPERATOR)
    assert {place: entry.received % 60 for place, entry in made.items()} == {"configmaps/n/x": 3, "daemonsets/n/x": 5}


def test_a_watch_counts_once_and_where_it_starts(tmp_path: Path) -> None:
    found, log = trail(tmp_path)
    write(
        log,
        line(1, "watch", "pods", audit_id="old", answered=20),
        line(12, "watch", "pods", audit_id="new"),
        line(12, "watch", "pods", audit_id="new", answered=19),
        line(30, "get", "pods"),
    )
    entries = found.read()
    start = entries[1].received - 2
    assert [entry.audit_id for entry in begun(entries, OPERATOR, start, start + 10)] == ["new"]


def test_what_was_applied_is_without_the_defaults_of_the_server() -> None:
    item = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": "d",
            "namespace": "n",
            "uid": "u",
            "labels": {"ours": "1", "theirs": "2"},
            "managedFields": [
                {
                    "manager": "m",
                    "operation": "Apply",
                    "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:ours": {}}},
                        "f:spec": {
                            "f:containers": {
                                'k:{"name":"a"}': {
                                    ".": {},
                                    "f:args": {},
                                    "f:name": {},
                                    "f:ports": {'k:{"port":1,"protocol":"TCP"}': {".": {}, "f:port": {}}},
                                }
                            },
                            "f:finalizers": {'v:"x"': {}},
                        },
                    },
                },
                {"manager": "m", "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {}}},
            ],
        },
        "spec": {
            "containers": [
                {"name": "a", "args": ["-v"], "ports": [{"port": 1, "protocol": "TCP", "host": 0}], "pull": "Always"},
                {"name": "b"},
            ],
            "finalizers": ["x", "y"],
            "period": 10,
        },
        "status": {"ready": 1},
    }
    assert applied(item, "m") == {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"labels": {"ours": "1"}, "name": "d", "namespace": "n"},
        "spec": {
            "containers": [{"name": "a", "args": ["-v"], "ports": [{"port": 1, "protocol": "TCP"}]}],
            "finalizers": ["x"],
        },
    }
