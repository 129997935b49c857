"""The steps of a plan: what changes, why, and how much it disturbs. Data only; `apply.py` executes them."""

from dataclasses import dataclass

from dpu_shared.steps import Disruption


@dataclass(frozen=True, slots=True)
class SetSwitchdev:
    """Put a function's eswitch into switchdev mode."""

    function: str

    @property
    def what(self) -> str:
        return f"put the eswitch of {self.function} into switchdev mode"


@dataclass(frozen=True, slots=True)
class InstallRules:
    """Put the agent's udev rules into /run/udev/rules.d and have udev read them; what is in /etc is never touched."""

    @property
    def what(self) -> str:
        return "install the udev rules for representors"


@dataclass(frozen=True, slots=True)
class TriggerUdev:
    """Have udev apply the rules to a netdev that was there before them: its name, and NetworkManager's hands off."""

    netdev: str

    @property
    def what(self) -> str:
        return f"have udev apply its rules to {self.netdev}"


@dataclass(frozen=True, slots=True)
class SetOffload:
    """Set `other_config:hw-offload`, and mark the ovs-vswitchd that runs meanwhile."""

    enabled: bool

    @property
    def what(self) -> str:
        return f"set hw-offload={'true' if self.enabled else 'false'} in Open vSwitch"


@dataclass(frozen=True, slots=True)
class RestartVswitchd:
    """Restart ovs-vswitchd, which takes up hw-offload only at its start (vswitch.xml)."""

    @property
    def what(self) -> str:
        return "restart ovs-vswitchd"


@dataclass(frozen=True, slots=True)
class SetLink:
    """Bring a netdev up and give it an MTU (bytes; None leaves it)."""

    netdev: str
    up: bool = True
    mtu: int | None = None

    @property
    def what(self) -> str:
        wanted = (["up"] if self.up else []) + ([f"MTU {self.mtu}"] if self.mtu is not None else [])
        return f"set {self.netdev} {', '.join(wanted)}"


@dataclass(frozen=True, slots=True)
class AddPort:
    """Add a netdev to a bridge, tagged as ours and transient."""

    bridge: str
    netdev: str

    @property
    def what(self) -> str:
        return f"add {self.netdev} to {self.bridge}"


@dataclass(frozen=True, slots=True)
class MovePort:
    """Take a port from another bridge to the wanted one, in one transaction."""

    source: str
    bridge: str
    netdev: str

    @property
    def what(self) -> str:
        return f"move {self.netdev} from {self.source} to {self.bridge}"


@dataclass(frozen=True, slots=True)
class RecreatePort:
    """Remove our port that Open vSwitch could not open, and add it anew, in one transaction."""

    bridge: str
    netdev: str

    @property
    def what(self) -> str:
        return f"add {self.netdev} to {self.bridge} anew"


@dataclass(frozen=True, slots=True)
class RemovePort:
    """Remove a port of ours that no longer stands for the host PF."""

    bridge: str
    port: str

    @property
    def what(self) -> str:
        return f"remove the stale port {self.port} from {self.bridge}"


Action = (
    SetSwitchdev
    | InstallRules
    | TriggerUdev
    | SetOffload
    | RestartVswitchd
    | SetLink
    | AddPort
    | MovePort
    | RecreatePort
    | RemovePort
)


@dataclass(frozen=True, slots=True)
class Step:
    """One change: the action, the reason in one sentence, and its disruption on this machine as it is now."""

    action: Action
    why: str
    disruption: Disruption = Disruption.NONE
    at_boot: bool = False
    """Whether a reboot does it without disturbing anybody: if it waits, the state is RebootRequired, else Blocked."""

    @property
    def name(self) -> str:
        """Names the action in JSON, metrics and logs: `SetSwitchdev`, `AddPort` and so on."""
        return type(self.action).__name__
