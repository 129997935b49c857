"""What the tests on real control planes share: one lab, one installed operator, and two ways to begin.

`stage`: the operator runs and tenant-1/cluster is in full health. Operator and resource live on from one such test to
the next, and what a test breaks is mended before the next one begins; so these tests come first.
`idle`: the operator is installed and does not run, and there is no resource; whatever a test makes is cleaned away.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import health, longcut
from tests.lab.fixtures import lab, lab_logs, running_lab
from tests.lab.lab import Lab
from tests.lab.stage import Stage

__all__ = ["lab", "lab_logs", "running_lab"]

_playing: list[Stage] = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share the running operator come before the others, and the long cut before all: it is the longest."""
    here = [index for index, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    ordered = sorted((items[index] for index in here), key=lambda item: (not _cuts(item), not _shares(item)))
    for index, item in zip(here, ordered, strict=True):
        items[index] = item


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """After the last of them, the operator and its resource go: nobody else expects them."""
    if _playing and nextitem is not None and not _shares(nextitem):
        _end(_playing.pop())


def _cuts(item: pytest.Item) -> bool:
    return "long_cut" in getattr(item, "fixturenames", ())


def _shares(item: pytest.Item) -> bool:
    return "stage" in getattr(item, "fixturenames", ())


def _end(stage: Stage) -> None:
    health.mend(stage)
    health.clean(stage)
    if stage.process.alive():
        stage.process.terminate()


@pytest.fixture(scope="session")
def installed(running_lab: Lab) -> Iterator[Stage]:
    """CRD, account and rights in infra, the namespace tenant-1 with its kubeconfig; the operator does not run."""
    stage = Stage(running_lab, running_lab.folder)
    stage.install()
    stage.tenant_namespace(kubeconfig=health.good_kubeconfig(stage))
    yield stage
    _playing.clear()
    if stage.process.alive():
        stage.process.terminate()


@pytest.fixture
def stage(installed: Stage) -> Stage:
    """The operator runs and tenant-1/cluster is in full health."""
    health.mend(installed)
    health.bring_up(installed)
    _playing[:] = [installed]
    return installed


@pytest.fixture
def idle(installed: Stage) -> Iterator[Stage]:
    """Installed, not running, without any resource; cleaned away afterwards, whatever runs under `installed.process`."""
    _end(installed)
    yield installed
    _end(installed)


@pytest.fixture(scope="session")
def long_cut(installed: Stage) -> Iterator[longcut.LongCut]:
    """A second resource, whose way to the tenant can be cut. Who uses it asks for `stage` as well."""
    with longcut.LongCut(installed) as cut:
        yield cut
