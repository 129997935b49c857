// SPDX-License-Identifier: GPL-2.0-only
/*
 * A virtual BlueField-2, for tests. A PCI host bridge in software, and the driver of what is behind it: to user space
 * the ARM side of the card. README.md tells what it shows and what it doesn't.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/module.h>
#if !IS_ENABLED(CONFIG_X86)
#include <linux/pci-ecam.h>
#endif
#include "card.h"

static unsigned int domain;
module_param(domain, uint, 0444);
MODULE_PARM_DESC(domain, "PCI domain (0)");
unsigned int card_root_bus = 2;
module_param_named(root_bus, card_root_bus, uint, 0444);
MODULE_PARM_DESC(root_bus, "bus of the root port (2)");
unsigned int card_secondary_bus = 3;
module_param_named(secondary_bus, card_secondary_bus, uint, 0444);
MODULE_PARM_DESC(secondary_bus, "bus of the two functions (3)");
bool card_legacy_switch_id = true;
module_param_named(legacy_switch_id, card_legacy_switch_id, bool, 0444);
MODULE_PARM_DESC(legacy_switch_id, "uplinks have a switch id in legacy mode too, as with mlx5 of 6.12 (Y)");
static bool none;
module_param(none, bool, 0444);
MODULE_PARM_DESC(none, "start without any eswitch mode, as some cards do right after boot (N)");

static struct pci_host_bridge *bridge;
static struct resource bus_numbers = { .name = "virtual BlueField-2", .flags = IORESOURCE_BUS };
#if IS_ENABLED(CONFIG_X86)
static struct pci_sysdata sysdata = { .node = NUMA_NO_NODE };
#else
static struct pci_config_window sysdata;
#endif

static int card_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct card_function *fn;
	struct devlink *devlink;
	int err;

	if (pdev->bus->ops != &card_pci_ops)
		return -ENODEV; /* a real card is none of our business */
	err = pci_enable_device(pdev);
	if (err)
		return err;
	devlink = devlink_alloc(&card_devlink_ops, sizeof(*fn), &pdev->dev);
	if (!devlink) {
		err = -ENOMEM;
		goto disable;
	}
	fn = devlink_priv(devlink);
	fn->pdev = pdev;
	fn->devlink = devlink;
	fn->pf = PCI_FUNC(pdev->devfn);
	fn->mode = none ? CARD_MODE_NONE : DEVLINK_ESWITCH_MODE_LEGACY;
	pci_set_drvdata(pdev, fn);
	card_eswitch_init(fn);

	devl_lock(devlink);
	err = card_ports_create(fn);
	if (err) {
		devl_unlock(devlink);
		goto free;
	}
	devl_register(devlink);
	devl_unlock(devlink);
	card_knobs_create(fn);
	return 0;

free:
	devlink_free(devlink);
disable:
	pci_disable_device(pdev);
	return err;
}

static void card_remove(struct pci_dev *pdev)
{
	struct card_function *fn = pci_get_drvdata(pdev);
	struct devlink *devlink = fn->devlink;

	card_knobs_destroy(fn); /* waits for who is at a knob, and that is someone who wants the instance's lock */
	devl_lock(devlink);
	devl_unregister(devlink); /* nobody asks for another mode any more, so that no work is queued again */
	devl_unlock(devlink);
	card_eswitch_stop(fn);

	devl_lock(devlink);
	card_representors_destroy(fn);
	card_ports_destroy(fn);
	devl_unlock(devlink);
	xa_destroy(&fn->flows);
	devlink_free(devlink);
	pci_disable_device(pdev);
}

/* Without MODULE_DEVICE_TABLE: nothing loads this by itself. */
static const struct pci_device_id card_ids[] = {
	{ PCI_DEVICE(CARD_VENDOR, CARD_BLUEFIELD2) },
	{}
};

static struct pci_driver card_driver = {
	.name = "mlx5_core",
	.id_table = card_ids,
	.probe = card_probe,
	.remove = card_remove,
};

static int card_bus_create(void)
{
	int err;

	bus_numbers.start = card_root_bus;
	bus_numbers.end = card_secondary_bus;
	bridge = pci_alloc_host_bridge(0);
	if (!bridge)
		return -ENOMEM;
#if IS_ENABLED(CONFIG_X86)
	sysdata.domain = domain;
#endif
	pci_add_resource(&bridge->windows, &bus_numbers);
	bridge->sysdata = &sysdata;
	bridge->ops = &card_pci_ops;
	bridge->busnr = card_root_bus;
	bridge->domain_nr = domain;
	bridge->native_aer = 0;
	bridge->native_pcie_hotplug = 0;
	bridge->native_shpc_hotplug = 0;
	bridge->native_pme = 0;
	bridge->native_ltr = 0;
	bridge->native_dpc = 0;

	pci_lock_rescan_remove();
	err = pci_scan_root_bus_bridge(bridge);
	if (!err)
		pci_bus_add_devices(bridge->bus);
	pci_unlock_rescan_remove();
	if (err)
		pci_free_host_bridge(bridge);
	return err;
}

static void card_bus_destroy(void)
{
	pci_lock_rescan_remove();
	pci_stop_root_bus(bridge->bus);
	pci_remove_root_bus(bridge->bus);
	pci_free_host_bridge(bridge);
	pci_unlock_rescan_remove();
}

static int __init card_init(void)
{
	int err;

	if (card_root_bus >= card_secondary_bus || card_secondary_bus > 255)
		return -EINVAL;
	card_config_init();
	card_knobs_init();
	/* Before the bus exists, so that the functions are bound before udev hears of them. */
	err = pci_register_driver(&card_driver);
	if (err)
		goto knobs;
	err = card_bus_create();
	if (err)
		goto driver;
	return 0;

driver:
	pci_unregister_driver(&card_driver);
knobs:
	card_knobs_exit();
	return err;
}

static void __exit card_exit(void)
{
	card_bus_destroy();
	pci_unregister_driver(&card_driver);
	card_knobs_exit();
}

module_init(card_init);
module_exit(card_exit);
MODULE_DESCRIPTION("A virtual BlueField-2 for tests");
MODULE_LICENSE("GPL");
