"""What the tests on real control planes share: one lab, one installed operator, and two ways to begin.

`stage`: the operator runs and tenant-1/cluster is in full health. The operator and the resource live for a module; what
a test breaks is mended before the next one begins.
`idle`: the operator is installed and does not run, and there is no resource; whatever a test makes is cleaned away.
"""

from collections.abc import Iterator

import pytest

from tests.cluster import health
from tests.lab.fixtures import lab, lab_logs, running_lab
from tests.lab.lab import Lab
from tests.lab.stage import Stage

__all__ = ["lab", "lab_logs", "running_lab"]


@pytest.fixture(scope="session")
def installed(running_lab: Lab) -> Iterator[Stage]:
    """CRD, account and rights in infra, the namespace tenant-1 with its kubeconfig; the operator does not run."""
    stage = Stage(running_lab, running_lab.folder)
    stage.install()
    stage.tenant_namespace(kubeconfig=health.good_kubeconfig(stage))
    yield stage
    if stage.process.alive():
        stage.process.terminate()


@pytest.fixture(scope="module")
def _playing(installed: Stage) -> Iterator[Stage]:
    """Owns the operator and the resource of a module; at its end both are gone."""
    yield installed
    health.mend(installed)
    health.clean(installed)
    if installed.process.alive():
        installed.process.terminate()


@pytest.fixture
def stage(_playing: Stage) -> Iterator[Stage]:
    """The operator runs and tenant-1/cluster is in full health."""
    health.mend(_playing)
    health.bring_up(_playing)
    yield _playing
    if _playing.process.alive():
        return
    # A test that ended the operator for good would leave finalizers to nobody.
    _playing.process.start()


@pytest.fixture
def idle(installed: Stage) -> Iterator[Stage]:
    """Installed, not running, without any resource; cleaned away afterwards, whatever runs under `installed.process`."""
    if installed.process.alive():
        installed.process.terminate()
    health.mend(installed)
    health.clean(installed)
    yield installed
    health.mend(installed)
    health.clean(installed)
    if installed.process.alive():
        installed.process.terminate()
