"""Pytest fixtures of the lab: one lab for the whole session, mended after each test that uses it.

Tests that break things ask for `lab`; it is whole again before the next test starts. Use it by
`from tests.lab.fixtures import lab, running_lab` in a conftest.py: several may do so and share one lab.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab

_shared: list[Lab] = []


@pytest.fixture(scope="session")
def running_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Both clusters, up once per session."""
    if _shared:
        # Another conftest.py has brought the fixture in as well: it owns the lab.
        yield _shared[0]
        return
    folder = tmp_path_factory.mktemp("lab")
    with Lab(folder) as lab:
        _shared.append(lab)
        try:
            yield lab
        finally:
            _shared.remove(lab)
    for data in ("infra/etcd", "tenant/etcd"):
        shutil.rmtree(folder / data, ignore_errors=True)


@pytest.fixture
def lab(running_lab: Lab) -> Iterator[Lab]:
    """The session's lab; whole again afterwards."""
    yield running_lab
    running_lab.mend()


@pytest.fixture
def lab_logs(running_lab: Lab) -> list[Path]:
    """The logs of the lab's programs, for a test that asserts about them."""
    return sorted(running_lab.folder.rglob("*.log"))
