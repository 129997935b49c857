"""What /sys and /proc tell, on trees that the test writes."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dpu_agent.host import paths
from dpu_agent.host.paths import Paths
from dpu_agent.host.sysfs import MachineSysfs
from dpu_agent.machine import HostError, Sysfs
from dpu_agent.world import Netdev, Platform

BRIDGE = "devices/pci0000:00/0000:00:00.0"
BOOT = "6c2b1a52-8e0e-4a0c-9a0f-b0e5c0a1d2f3"


class Tree:
    """A machine's files below a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder / "root", folder / "sys", folder / "proc", folder / "run")
        for each in (self.paths.root, self.paths.sys, self.paths.proc, self.paths.run):
            each.mkdir()
        self.write(self.paths.proc / "sys/kernel/random/boot_id", BOOT + "\n")

    @property
    def sysfs(self) -> MachineSysfs:
        return MachineSysfs(self.paths)

    def write(self, path: Path, text: str | bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def link(self, path: Path, target: Path | str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def function(self, address: str, device: str, *, vendor: str = "0x15b3", driver: str = "mlx5_core") -> Path:
        folder = self.paths.sys / BRIDGE / address
        self.write(folder / "vendor", vendor + "\n")
        self.write(folder / "device", f"0x{device}\n")
        if driver:
            self.link(folder / "driver", f"../../../../bus/pci/drivers/{driver}")
        self.link(self.paths.sys / "bus/pci/devices" / address, folder)
        return folder

    def netdev(self, name: str, index: int, device: Path | None = None, attributes: Mapping[str, str] = {}) -> Path:
        folder = (device or self.paths.sys / "devices/virtual") / "net" / name
        everything = {
            "ifindex": str(index),
            "address": "02:00:00:00:00:0A",
            "mtu": "1500",
            "flags": "0x1003",
            "operstate": "up",
            **attributes,
        }
        for key, value in everything.items():
            self.write(folder / key, value + "\n")
        if device:
            self.link(folder / "device", device)
        self.link(self.paths.sys / "class/net" / name, folder)
        return folder

    def process(self, pid: int, comm: str, state: str = "S", start: int = 4711) -> None:
        numbers = " ".join(str(number) for number in range(4, 22))
        self.write(self.paths.proc / str(pid) / "stat", f"{pid} ({comm}) {state} {numbers} {start} 23 24\n")

    def pid_file(self, text: str) -> None:
        self.write(self.paths.run / "openvswitch/ovs-vswitchd.pid", text)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_it_is_the_sysfs_of_the_contract(tree: Tree) -> None:
    part: Sysfs = tree.sysfs
    assert part is not None


def test_an_empty_machine_has_nothing_and_fails_at_nothing(tree: Tree) -> None:
    sysfs = tree.sysfs
    assert sysfs.functions() == ()
    assert sysfs.netdevs() == ()
    assert sysfs.vswitchd() == ""
    assert sysfs.other_managers() == ()
    assert sysfs.platform() == Platform(architecture=os.uname().machine)


def test_the_boot_is_named_by_the_kernel(tree: Tree) -> None:
    assert tree.sysfs.boot_id() == BOOT


def test_a_boot_without_a_name_is_an_error(tree: Tree) -> None:
    (tree.paths.proc / "sys/kernel/random/boot_id").unlink()
    with pytest.raises(HostError, match="The boot id cannot be read"):
        tree.sysfs.boot_id()


def test_the_arm_side_shows_itself_by_dmi_acpi_and_root_port(tree: Tree) -> None:
    tree.write(tree.paths.sys / "class/dmi/id/product_name", "BlueField-2 DPU 25GbE, 2-port\n")
    tree.write(tree.paths.sys / "firmware/acpi/tables/SSDT1", b"SSDT\0\xff\xfenothing")
    tree.write(tree.paths.sys / "firmware/acpi/tables/SSDT2", b"SSDT\0\xff\xfe" + b"\0" * 100_000 + b"\x0dMLNXBF22\0")
    tree.write(tree.paths.sys / "bus/pci/devices/0000:00:00.0/vendor", "0x15b3\n")
    assert tree.sysfs.platform() == Platform(
        os.uname().machine, "BlueField-2 DPU 25GbE, 2-port", acpi_bluefield=True, root_port_vendor="15b3"
    )


@pytest.mark.parametrize(("mark", "seen"), [(b"MLNXBF33", True), (b"MLNXBF02", False), (b"ACPI0007", False)])
def test_only_the_firmware_of_bluefield_2_and_3_counts(tree: Tree, mark: bytes, *, seen: bool) -> None:
    tree.write(tree.paths.sys / "firmware/acpi/tables/SSDT7", b"\0" + mark)
    tree.write(tree.paths.sys / "firmware/acpi/tables/DSDT", b"MLNXBF22")
    assert tree.sysfs.platform().acpi_bluefield is seen


def test_functions_are_the_cards_physical_ones_in_order(tree: Tree) -> None:
    tree.function("0000:03:00.1", "a2d6")
    tree.function("0000:03:00.0", "a2d6")
    tree.function("0000:07:00.0", "a2dc", driver="")
    tree.function("0000:02:00.0", "1978", driver="pcieport")
    tree.function("0000:03:00.2", "101e")
    tree.function("0000:04:00.0", "a2d6", vendor="0x8086")
    virtual = tree.function("0000:05:00.3", "a2d6")
    tree.link(virtual / "physfn", "../0000:03:00.0")
    tree.write(virtual.parent / "0000:03:00.0" / "here", "")
    assert tree.sysfs.functions() == (
        ("0000:03:00.0", "a2d6", "mlx5_core"),
        ("0000:03:00.1", "a2d6", "mlx5_core"),
        ("0000:07:00.0", "a2dc", ""),
    )


def test_a_representor_belongs_to_its_pfs_function(tree: Tree) -> None:
    function = tree.function("0000:03:00.0", "a2d6")
    switch = {"phys_switch_id": "aceb0e00cbc0c008"}
    tree.netdev("p0", 3, function, {"phys_port_name": "p0", "mtu": "9216", **switch})
    tree.netdev("c1pf0hpf", 12, function, {"phys_port_name": "c1pf0", "flags": "0x1002", "operstate": "down", **switch})
    shared = Netdev("", 0, "02:00:00:00:00:0a", phys_switch_id=switch["phys_switch_id"], function="0000:03:00.0")
    assert tree.sysfs.netdevs() == (
        replace(shared, name="p0", ifindex=3, mtu=9216, up=True, operstate="up", phys_port_name="p0"),
        replace(shared, name="c1pf0hpf", ifindex=12, mtu=1500, operstate="down", phys_port_name="c1pf0"),
    )


def test_a_netdev_without_port_name_or_device_is_seen_as_such(tree: Tree) -> None:
    """The files are there in any case, and reading them is an error."""
    function = tree.function("0000:03:00.0", "a2d6")
    plain = tree.netdev("oob_net0", 2, tree.paths.sys / "devices/platform/MLNXBF17:00")
    (plain / "phys_port_name").mkdir()  # read() fails, as it does with EOPNOTSUPP on a real one
    tree.netdev("sf", 4, function / "mlx5_core.sf.2")
    tree.netdev("virtio", 5, function / "virtio1")
    tree.netdev("br-ex", 6)
    found = tree.sysfs.netdevs()
    assert [(each.name, each.phys_port_name, each.function) for each in found] == [
        ("oob_net0", "", ""),
        ("sf", "", ""),
        ("virtio", "", ""),
        ("br-ex", "", ""),
    ]


def test_what_is_no_netdev_or_has_just_gone_is_left_out(tree: Tree) -> None:
    tree.netdev("lo", 1)
    tree.write(tree.paths.sys / "class/net/bonding_masters", "\n")
    tree.link(tree.paths.sys / "class/net/gone", "../../devices/virtual/net/gone")
    (tree.paths.sys / "class/net/going").mkdir()
    assert [each.name for each in tree.sysfs.netdevs()] == ["lo"]


def test_an_ovs_vswitchd_is_named_by_boot_process_and_start(tree: Tree) -> None:
    tree.pid_file("812\n")
    tree.process(812, "ovs-vswitchd", start=10432)
    assert tree.sysfs.vswitchd() == f"{BOOT}/812/10432"


def test_a_restarted_one_has_another_name_even_with_the_same_process_id(tree: Tree) -> None:
    tree.pid_file("812\n")
    tree.process(812, "ovs-vswitchd", start=10432)
    before = tree.sysfs.vswitchd()
    tree.process(812, "ovs-vswitchd", start=99999)
    assert tree.sysfs.vswitchd() != before


@pytest.mark.parametrize(
    ("text", "comm", "state"),
    [
        ("812\n", "sleep", "S"),  # the number is another's by now
        ("812\n", "not (ovs-vswitchd", "S"),
        ("812\n", "ovs-vswitchd", "Z"),
        ("813\n", "ovs-vswitchd", "S"),
        ("", "ovs-vswitchd", "S"),
        ("-1", "ovs-vswitchd", "S"),
        ("../812", "ovs-vswitchd", "S"),
    ],
)
def test_a_dead_one_has_no_name(tree: Tree, text: str, comm: str, state: str) -> None:
    tree.pid_file(text)
    tree.process(812, comm, state)
    assert tree.sysfs.vswitchd() == ""


def test_an_open_vswitch_elsewhere_is_found_there(tree: Tree) -> None:
    tree.process(812, "ovs-vswitchd", start=5)
    other = tree.write(tree.paths.run / "other/ovs-vswitchd.pid", "812").parent
    assert MachineSysfs(tree.paths, ovs=other).vswitchd() == f"{BOOT}/812/5"
    assert tree.sysfs.vswitchd() == ""


def test_only_a_number_names_a_process(tree: Tree) -> None:
    tree.pid_file("self\n")
    tree.process(812, "ovs-vswitchd")
    (tree.paths.proc / "self").symlink_to("812")
    assert tree.sysfs.vswitchd() == ""


def test_a_command_name_with_a_bracket_does_not_shift_the_words(tree: Tree) -> None:
    """A name may hold anything, brackets and blanks too (proc(5))."""
    tree.pid_file("812\n")
    tree.process(812, "ovs-vswitchd", start=7)
    tree.process(813, "a) S 1 2 3 (b", start=8)
    tree.pid_file("813\n")
    assert tree.sysfs.vswitchd() == ""


OURS = Path(__file__).parents[2] / "systemd"
UNIT, WRAPPER = "etc/systemd/system/dpu-agent.service", "usr/local/bin/dpu-agent"


def test_this_projects_own_files_are_no_other_manager(tree: Tree) -> None:
    for name in (UNIT, WRAPPER):
        tree.write(tree.paths.root / name, (OURS / name).read_bytes())
    assert tree.sysfs.other_managers() == ()


def test_nvidias_agent_is_found_in_each_of_its_places(tree: Tree) -> None:
    tree.write(tree.paths.root / "opt/dpf/dpuagent", b"\x7fELF dpuagent")
    tree.write(tree.paths.root / UNIT, "[Service]\nExecStart=/usr/local/bin/dpu-agent\n")
    tree.write(tree.paths.root / WRAPPER, b"\x7fELF dpu-agent of DPF")
    assert tree.sysfs.other_managers() == (
        "NVIDIA DPF's agent (/opt/dpf/dpuagent)",
        "another dpu-agent.service (/etc/systemd/system/dpu-agent.service)",
        "another dpu-agent (/usr/local/bin/dpu-agent)",
    )


def test_one_file_by_two_names_is_one_sign(tree: Tree) -> None:
    """The links are the machine's: an absolute one leads below its root and not into the agent's own files."""
    real = tree.write(tree.paths.root / "usr/lib/systemd/system/dpu-agent.service", "[Service]\n")
    tree.link(tree.paths.root / UNIT, "/usr/lib/systemd/system/dpu-agent.service")
    assert real.exists()
    assert tree.sysfs.other_managers() == ("another dpu-agent.service (/etc/systemd/system/dpu-agent.service)",)


def test_a_masked_unit_and_an_empty_file_are_no_sign(tree: Tree) -> None:
    tree.link(tree.paths.root / UNIT, "/dev/null")
    tree.write(tree.paths.run / "systemd/system/dpu-agent.service", "")
    (tree.paths.root / "opt/dpf/dpuagent").mkdir(parents=True)
    assert tree.sysfs.other_managers() == ()


def test_a_units_runtime_override_is_read_from_run_itself(tree: Tree) -> None:
    tree.write(tree.paths.run / "systemd/system/dpu-agent.service", "[Service]\n")
    assert tree.sysfs.other_managers() == ("another dpu-agent.service (/run/systemd/system/dpu-agent.service)",)


def test_a_path_of_the_machine_is_followed_below_its_root(tree: Tree) -> None:
    root = tree.paths.root
    tree.link(root / "usr/local", "../var/usrlocal")
    tree.link(root / "abs", "/var/../var/usrlocal/./bin")
    tree.link(root / "out", "../../../../etc")
    tree.link(root / "loop", "loop")
    assert tree.paths.host("/usr/local/bin/x") == root / "var/usrlocal/bin/x"
    assert tree.paths.host("/abs/x") == root / "var/usrlocal/bin/x"
    assert tree.paths.host("/out/x") == root / "etc/x", "never out of the root"
    assert tree.paths.host("/loop/x").name == "x", "and never for ever"


def test_outside_a_container_the_root_is_the_root() -> None:
    assert paths.default_root() == Path("/")


def test_in_a_container_the_root_is_where_process_one_has_its(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init = tmp_path / "init"
    init.mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "host").symlink_to(init)
    monkeypatch.setattr(paths, "_INIT_ROOT", init)
    monkeypatch.setattr(paths, "_MOUNTED", tmp_path / "host")
    assert paths.default_root() == tmp_path / "host"
    assert paths.command_prefix(tmp_path / "host") == ("chroot", str(init)), "where the machine's mounts are"
    assert paths.command_prefix(tmp_path / "other") == ("chroot", str(tmp_path / "other"))
    assert paths.command_prefix(Path("/")) == ()
    monkeypatch.setattr(paths, "_MOUNTED", tmp_path / "other")
    assert paths.default_root() == Path("/"), "a folder /host that is something else"
    monkeypatch.setattr(paths, "_INIT_ROOT", tmp_path / "missing")
    assert paths.default_root() == Path("/")
