"""Every reason that a verdict can have: one CamelCase word each, for scripts and alerts; they stay as they are."""

import enum
from collections.abc import Mapping
from types import MappingProxyType


class Reason(enum.StrEnum):
    """Why a DPU is in the state it is in. Problems of the machine; how far a plan is; the running agent itself."""

    CONFIG_MISSING = "ConfigMissing"
    CONFIG_INVALID = "ConfigInvalid"
    NOT_A_DPU = "NotADpu"
    HOST_WITH_CARD = "HostWithCard"
    PLATFORM_UNSEEN = "PlatformUnseen"
    OTHER_MANAGER = "OtherManager"
    FUNCTION_MISSING = "FunctionMissing"
    FUNCTION_WITHOUT_DRIVER = "FunctionWithoutDriver"
    NOT_ESWITCH_MANAGER = "NotEswitchManager"
    ESWITCH_UNSEEN = "EswitchUnseen"
    HOST_PF_PENDING = "HostPfPending"
    HOST_PF_ABSENT = "HostPfAbsent"
    SEVERAL_HOST_PFS = "SeveralHostPfs"
    UDEV_RULES_EDITED = "UdevRulesEdited"
    OVS_UNAVAILABLE = "OvsUnavailable"
    VSWITCHD_DOWN = "VswitchdDown"
    BRIDGE_ABSENT = "BridgeAbsent"
    BRIDGE_NOT_KERNEL = "BridgeNotKernel"
    UPLINK_ABSENT = "UplinkAbsent"
    SEVERAL_UPLINKS = "SeveralUplinks"
    PORT_PENDING = "PortPending"
    FOREIGN_PORT_BROKEN = "ForeignPortBroken"
    UNSEEN = "Unseen"

    STEP_FAILED = "StepFailed"
    REPORT_ONLY = "ReportOnly"
    DISRUPTION_LIMIT = "DisruptionLimit"
    REBOOT_REQUIRED = "RebootRequired"
    STEPS_PENDING = "StepsPending"
    AS_CONFIGURED = "AsConfigured"

    STARTING = "Starting"
    LOOP_HANGS = "LoopHangs"
    DEFECT = "Defect"


REASONS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.CONFIG_MISSING: "There is no configuration file, so the MachineConfig has not reached this machine.",
        Reason.CONFIG_INVALID: "The configuration file is not what this program's MachineConfig writes.",
        Reason.NOT_A_DPU: "This machine is not the ARM side of a BlueField.",
        Reason.HOST_WITH_CARD: "This machine is the host that holds the card, not the DPU on it.",
        Reason.PLATFORM_UNSEEN: "What kind of machine this is could not be found out.",
        Reason.OTHER_MANAGER: "Another program manages this DPU.",
        Reason.FUNCTION_MISSING: "A physical function of the card is not on the PCI bus.",
        Reason.FUNCTION_WITHOUT_DRIVER: "A physical function of the card is not driven by mlx5_core.",
        Reason.NOT_ESWITCH_MANAGER: "The card is in separated-host or NIC mode: its ARM side manages no eswitch.",
        Reason.ESWITCH_UNSEEN: "The mode or the ports of an eswitch could not be read.",
        Reason.HOST_PF_PENDING: "The host PF's representor comes, or gets its name, with a step that is still to be done.",
        Reason.HOST_PF_ABSENT: "The eswitch is in switchdev mode, and there is no representor of the host's PF.",
        Reason.SEVERAL_HOST_PFS: "The uplink's function has several host PFs, and nothing says which one is wanted.",
        Reason.UDEV_RULES_EDITED: "The udev rules in /etc differ from those of this program.",
        Reason.OVS_UNAVAILABLE: "Open vSwitch's database does not answer.",
        Reason.VSWITCHD_DOWN: "ovs-vswitchd does not run.",
        Reason.BRIDGE_ABSENT: "Open vSwitch has no bridge of the configured name (yet).",
        Reason.BRIDGE_NOT_KERNEL: "The bridge's datapath is not the kernel's.",
        Reason.UPLINK_ABSENT: "No port of the card is on the bridge.",
        Reason.SEVERAL_UPLINKS: "Several ports of the card are on the bridge.",
        Reason.PORT_PENDING: "ovs-vswitchd has yet to open the host PF representor's port.",
        Reason.FOREIGN_PORT_BROKEN: "Somebody else's port for the host PF representor does not work.",
        Reason.UNSEEN: "A part of the machine could not be looked at.",
        Reason.STEP_FAILED: "A step did not work; it is tried again unless that is pointless.",
        Reason.REPORT_ONLY: "Changes are needed, and the mode is ReportOnly.",
        Reason.DISRUPTION_LIMIT: "A change is needed that disturbs more than maxDisruption allows.",
        Reason.REBOOT_REQUIRED: "A change waits for the next boot, which makes it without disturbing anybody.",
        Reason.STEPS_PENDING: "Changes are being made.",
        Reason.AS_CONFIGURED: "All is as configured.",
        Reason.STARTING: "The agent has just started and has not looked at the machine yet.",
        Reason.LOOP_HANGS: "The running agent's loop makes no turn any more, so nothing is known of the machine.",
        Reason.DEFECT: "The running agent met a mistake of its own; its log has the details.",
    }
)
"""What each reason means, in one line."""
