"""How much a step of a plan disturbs the traffic of a DPU and its host."""

import enum


class Disruption(enum.StrEnum):
    """The classes of DESIGN §6, in rising order; the values are those of `spec.hostConfig.maxDisruption`."""

    NONE = "None"
    OVS_RESTART = "OVSRestart"
    LINK_FLAP = "LinkFlap"
    REBOOT = "Reboot"

    def exceeds(self, limit: "Disruption") -> bool:
        """Whether this is more than the limit allows."""
        order = list(Disruption)
        return order.index(self) > order.index(limit)
