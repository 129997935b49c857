"""The tests on real control planes use the lab's fixtures."""

from tests.lab.fixtures import lab, lab_logs, running_lab

__all__ = ["lab", "lab_logs", "running_lab"]
