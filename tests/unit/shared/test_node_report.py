"""The agent's report: written and read as annotations, and believed only for this configuration and this boot."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from dpu_shared import node_report
from dpu_shared.node_report import NodeReport, State, believed, parse
from dpu_shared.steps import Disruption

WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=8)
MACS = st.from_regex(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", fullmatch=True)
REPORTS = st.builds(
    NodeReport,
    state=st.sampled_from(State),
    message=WORDS,
    config_hash=WORDS,
    boot_id=WORDS,
    time=st.none() | st.datetimes(min_value=dt.datetime(2000, 1, 1), timezones=st.just(dt.UTC)).map(lambda t: t.replace(microsecond=0)),  # noqa: DTZ001
    version=WORDS,
    host_pf_macs=st.lists(MACS, max_size=2).map(tuple),
)  # fmt: skip


@given(REPORTS)
def test_what_is_written_is_read_again(report: NodeReport) -> None:
    assert parse({**report.to_annotations(), "other.example.com/x": "y"}) == report


@given(REPORTS)
def test_every_annotation_is_under_our_own_domain(report: NodeReport) -> None:
    assert all(key.startswith("dpu.openshift.io/") for key in report.to_annotations())


def test_a_node_without_a_state_has_no_report() -> None:
    assert parse({}) is None
    assert parse({node_report.STATE: ""}) is None
    assert parse({node_report.BOOT_ID: "x"}) is None


def test_a_state_that_is_not_known_counts_as_degraded_and_says_so() -> None:
    report = parse({node_report.STATE: "Splendid", node_report.MESSAGE: "All well."})
    assert report is not None
    assert report.state is State.DEGRADED
    assert "does not know" in report.message


def test_a_time_that_cannot_be_read_is_no_time() -> None:
    report = parse({node_report.STATE: "Ready", node_report.TIME: "yesterday"})
    assert report is not None
    assert report.time is None


def test_a_time_without_zone_is_utc() -> None:
    report = parse({node_report.STATE: "Ready", node_report.TIME: "2026-01-01T00:00:00"})
    assert report is not None
    assert report.time == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_mac_addresses_are_read_in_any_case_and_with_blanks() -> None:
    report = parse({node_report.STATE: "Ready", node_report.HOST_PF_MACS: " 0C:42:A1:00:00:01, ,0c:42:a1:00:00:02"})
    assert report is not None
    assert report.host_pf_macs == ("0c:42:a1:00:00:01", "0c:42:a1:00:00:02")


def test_a_report_is_believed_only_for_this_configuration_and_this_boot() -> None:
    report = NodeReport(State.READY, config_hash="c", boot_id="b")
    assert believed(report, config_hash="c", boot_id="b")
    assert not believed(report, config_hash="c", boot_id="after the reboot")
    assert not believed(report, config_hash="another", boot_id="b")


def test_a_report_that_does_not_say_what_it_is_about_is_never_believed() -> None:
    assert not believed(NodeReport(State.READY), config_hash="", boot_id="")
    assert not believed(NodeReport(State.READY, config_hash="c"), config_hash="c", boot_id="")
    assert not believed(NodeReport(State.READY, boot_id="b"), config_hash="", boot_id="b")


def test_a_disruption_exceeds_what_is_before_it_and_not_itself() -> None:
    order = list(Disruption)
    for i, one in enumerate(order):
        assert [one.exceeds(other) for other in order] == [i > j for j in range(len(order))]
