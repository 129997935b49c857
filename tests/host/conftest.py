"""The virtual DPU's fixtures for the tests beside this file, and what a failed one tells."""

from collections.abc import Generator

import pytest

from tests.host.fixtures import describe, dpu_place, dpu_vm, running_dpu_vm, shared_dpu_vm
from tests.host.vm import DpuVm
from tests.lab.errors import LabError

__all__ = ["dpu_place", "dpu_vm", "running_dpu_vm", "shared_dpu_vm"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The limit of time is the test's own: making the machine's parts for the first time takes minutes."""
    for item in items:
        if "/tests/host/" in item.path.as_posix() and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(180, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test tells what the machine said."""
    report = yield
    if report.when == "call" and report.failed:
        arguments: dict[str, object] = getattr(item, "funcargs", {})
        for vm in arguments.values():
            if isinstance(vm, DpuVm):
                try:
                    report.sections += describe(vm)
                except LabError as error:
                    report.sections.append(("the virtual DPU", f"It does not answer: {error}"))
                break
    return report
