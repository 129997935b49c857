"""Pure: what should be, from what is. No I/O, no clock, no randomness, no logging.

`plan()` is the whole of it: two worlds in, steps and conditions out. The modules below each answer one question.
"""

from dpu_operator.plan.compose import copy_step, plan, removal, with_failures
from dpu_operator.plan.machineconfig import machine_config_name

__all__ = ["copy_step", "machine_config_name", "plan", "removal", "with_failures"]
