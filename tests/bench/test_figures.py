"""The arithmetic behind the figures: a wrong percentile would be a wrong claim."""

import pytest

from tests.bench.figures import (
    OPERATOR,
    Change,
    Sighting,
    lags,
    per_minute,
    percentile,
    ratio,
    summary,
    verdicts,
)


def change(number: int, sent: float) -> Change:
    return Change(number, sent, sent + 0.002)


def test_a_percentile_is_a_measured_value() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 50) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 51) == 3.0


@pytest.mark.parametrize("count", [100, 200, 300, 700, 1200])
def test_p99_leaves_exactly_one_percent_above(count: int) -> None:
    values = [float(value) for value in range(count)]
    assert sum(value > percentile(values, 99) for value in values) == count // 100


def test_a_percentile_of_one_sample_is_that_sample() -> None:
    assert [percentile([7.0], percent) for percent in (0, 50, 100)] == [7.0, 7.0, 7.0]


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_each_change_that_is_seen_lags_by_its_own_time() -> None:
    changes = [change(1, 0.0), change(2, 1.0)]
    assert lags(changes, [Sighting(0.25, 1), Sighting(1.5, 2)], given_up=9.0) == [0.25, 0.5]


def test_a_skipped_change_lags_until_a_newer_one_is_seen() -> None:
    changes = [change(1, 0.0), change(2, 1.0), change(3, 2.0)]
    assert lags(changes, [Sighting(2.5, 3)], given_up=9.0) == [2.5, 1.5, 0.5]


def test_a_change_that_never_comes_lags_until_the_bench_gives_up() -> None:
    assert lags([change(1, 0.0), change(2, 1.0)], [Sighting(0.5, 1)], given_up=9.0) == [0.5, 8.0]


def test_an_old_number_seen_again_shows_nothing_new() -> None:
    changes = [change(1, 0.0), change(2, 1.0)]
    sightings = [Sighting(0.5, 1), Sighting(1.2, 1), Sighting(1.75, 2)]
    assert lags(changes, sightings, given_up=9.0) == [0.5, 0.75]


def test_sightings_from_before_the_changes_do_not_count_for_them() -> None:
    assert lags([change(5, 3.0)], [Sighting(1.0, 4), Sighting(3.5, 5)], given_up=9.0) == [0.5]


def test_the_order_in_which_samples_were_noted_is_no_matter() -> None:
    changes = [change(2, 1.0), change(1, 0.0)]
    assert lags(changes, [Sighting(1.5, 2), Sighting(0.25, 1)], given_up=9.0) == [0.25, 0.5]


def test_a_summary_is_in_milliseconds() -> None:
    assert summary([0.001, 0.002, 0.003]) == {
        "count": 3,
        "p50_ms": 2.0,
        "p90_ms": 3.0,
        "p99_ms": 3.0,
        "max_ms": 3.0,
    }


def test_a_ratio_needs_a_floor() -> None:
    assert ratio(0.3, 0.2) == 1.5
    with pytest.raises(ValueError, match="no time"):
        ratio(0.3, 0.0)


def test_a_rate_is_by_the_minute() -> None:
    assert per_minute(10, 300) == 2.0


def test_verdicts_say_by_how_much_a_figure_is_missed() -> None:
    figures = {
        "sync_ratio_p50": 1.5,
        "rss_mib_1_tenant": 120,
        "idle_requests_per_minute": {"infra": 2.5, "tenant": 0.0},
    }
    assert verdicts(figures, OPERATOR) == {
        "sync_ratio_p50": "met",
        "rss_mib_1_tenant": "missed: 120, to be under 120",
        "idle_requests_per_minute.infra": "missed: 2.5, to be at most 2",
        "idle_requests_per_minute.tenant": "met",
    }


def test_every_promised_figure_has_a_target() -> None:
    assert {name.partition(".")[0] for name in OPERATOR} == {
        "sync_ratio_p50",
        "sync_ratio_p99",
        "burst_ratio_p99",
        "burst_cpu_percent",
        "first_apply_ratio",
        "idle_requests_per_minute",
        "rss_mib_1_tenant",
        "rss_mib_20_tenants",
        "rest_cpu_percent",
    }
