"""The host configuration travels as JSON, the same bytes each time, and a bad one is refused in two sentences."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpu_shared.errors import UserError
from dpu_shared.host_config import HostConfig, Mode, Offload
from dpu_shared.steps import Disruption

CONFIGS = st.builds(
    HostConfig,
    bridge=st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}", fullmatch=True),
    hardware_offload=st.sampled_from(Offload),
    max_disruption=st.sampled_from(Disruption),
    mode=st.sampled_from(Mode),
)


@given(CONFIGS)
def test_what_is_written_is_read_again(config: HostConfig) -> None:
    assert HostConfig.from_json(config.to_json()) == config


@given(CONFIGS, CONFIGS)
def test_two_configurations_have_the_same_hash_exactly_when_they_are_equal(one: HostConfig, two: HostConfig) -> None:
    assert (one.config_hash() == two.config_hash()) is (one == two)
    assert (one.to_json() == two.to_json()) is (one == two)


def test_the_bytes_stay_as_they_are_since_any_change_reboots_every_dpu() -> None:
    assert HostConfig().to_json() == (
        '{\n  "bridge": "br-ex",\n  "hardwareOffload": "Enabled",\n  "maxDisruption": "None",\n'
        '  "mode": "Enforce",\n  "schemaVersion": 1\n}\n'
    )
    assert HostConfig().config_hash() == "073f1b4ea69eead2"


def test_a_spec_may_leave_out_everything() -> None:
    assert HostConfig.from_spec({}) == HostConfig()
    assert HostConfig.from_spec({"mode": "ReportOnly"}).mode is Mode.REPORT_ONLY


GOOD = json.loads(HostConfig().to_json())
BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "is no JSON."),
    "no object": ("[]", "is no JSON object."),
    "no version": ({**GOOD, "schemaVersion": None}, "has schema version None"),
    "a newer version": ({**GOOD, "schemaVersion": 2}, "has schema version 2, and this program reads 1."),
    "a version that is true": ({**GOOD, "schemaVersion": True}, "has schema version True"),
    "a missing field": ({k: v for k, v in GOOD.items() if k != "mode"}, "lacks mode."),
    "an unknown field": ({**GOOD, "brigde": "x"}, "has the unknown field brigde."),
    "a long bridge": ({**GOOD, "bridge": "b" * 16}, "at most 15 characters"),
    "a bridge with a slash": ({**GOOD, "bridge": "a/b"}, "no interface name"),
    "a bridge that is a number": ({**GOOD, "bridge": 1}, "no interface name"),
    "another mode": ({**GOOD, "mode": "DryRun"}, "none of: Enforce, ReportOnly."),
    "a boolean": ({**GOOD, "hardwareOffload": True}, "none of: Enabled, Disabled."),
    "a list": ({**GOOD, "maxDisruption": ["Reboot"]}, "none of: None, OVSRestart, LinkFlap, Reboot."),
    "null": ({**GOOD, "maxDisruption": None}, "none of: None, OVSRestart, LinkFlap, Reboot."),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused(case: str) -> None:
    content, words = BAD[case]
    with pytest.raises(UserError) as caught:
        HostConfig.from_json(content if isinstance(content, str) else json.dumps(content))
    assert words in caught.value.message
    assert caught.value.hint.endswith(".")


def test_a_bad_spec_is_named_as_such() -> None:
    with pytest.raises(UserError, match=r"spec\.hostConfig has a value of mode"):
        HostConfig.from_spec({"mode": "x"})
