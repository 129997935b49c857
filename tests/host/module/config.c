// SPDX-License-Identifier: GPL-2.0-only
/* Configuration space: a root port, and behind it one device with two functions. Bytes, and which of them are writable. */
#include <linux/spinlock.h>
#include "card.h"

#define CONFIG_SIZE 256
#define PCIE_CAP 0x60

struct config {
	u8 value[CONFIG_SIZE];
	u8 writable[CONFIG_SIZE];
};

static DEFINE_RAW_SPINLOCK(config_lock);
static struct config root_port;
static struct config function[CARD_FUNCTIONS];

static void put(struct config *c, unsigned int at, unsigned int size, u32 value, u32 writable)
{
	unsigned int i;

	for (i = 0; i < size; i++) {
		c->value[at + i] = value >> (8 * i);
		c->writable[at + i] = writable >> (8 * i);
	}
}

static void identity(struct config *c, u16 device, u32 class)
{
	put(c, PCI_VENDOR_ID, 2, CARD_VENDOR, 0);
	put(c, PCI_DEVICE_ID, 2, device, 0);
	put(c, PCI_COMMAND, 2, 0, 0x0547);
	put(c, PCI_STATUS, 2, PCI_STATUS_CAP_LIST, 0);
	put(c, PCI_CLASS_REVISION, 4, class << 8, 0);
	put(c, PCI_CACHE_LINE_SIZE, 1, 0, 0xff);
	put(c, PCI_CAPABILITY_LIST, 1, PCIE_CAP, 0);
	put(c, PCI_INTERRUPT_LINE, 1, 0xff, 0xff);
}

/* Both ends of the link say the same of their clock, so that the kernel has nothing to retrain. */
static void pcie(struct config *c, u8 type)
{
	put(c, PCIE_CAP, 2, PCI_CAP_ID_EXP, 0);
	put(c, PCIE_CAP + PCI_EXP_FLAGS, 2, 2 | type << 4, 0);
	put(c, PCIE_CAP + PCI_EXP_DEVCAP, 4, PCI_EXP_DEVCAP_RBER, 0);
	put(c, PCIE_CAP + PCI_EXP_DEVCTL, 2, 0, 0x7fff);
	put(c, PCIE_CAP + PCI_EXP_LNKCAP, 4, PCI_EXP_LNKCAP_SLS_16_0GB | 8 << 4, 0);
	put(c, PCIE_CAP + PCI_EXP_LNKCTL, 2, PCI_EXP_LNKCTL_CCC, PCI_EXP_LNKCTL_ASPMC);
	put(c, PCIE_CAP + PCI_EXP_LNKSTA, 2, PCI_EXP_LNKSTA_SLC | PCI_EXP_LNKSTA_CLS_16_0GB | 8 << 4, 0);
}

void card_config_init(void)
{
	unsigned int i;

	identity(&root_port, CARD_BRIDGE, PCI_CLASS_BRIDGE_PCI << 8);
	put(&root_port, PCI_HEADER_TYPE, 1, PCI_HEADER_TYPE_BRIDGE, 0);
	put(&root_port, PCI_PRIMARY_BUS, 1, card_root_bus, 0xff);
	put(&root_port, PCI_SECONDARY_BUS, 1, card_secondary_bus, 0xff);
	put(&root_port, PCI_SUBORDINATE_BUS, 1, card_secondary_bus, 0xff);
	/* A window whose base is above its limit is shut; zeros would be an open one at address 0. */
	put(&root_port, PCI_IO_BASE, 1, 0xf0, 0xf0);
	put(&root_port, PCI_IO_LIMIT, 1, 0x00, 0xf0);
	put(&root_port, PCI_MEMORY_BASE, 2, 0xfff0, 0xfff0);
	put(&root_port, PCI_MEMORY_LIMIT, 2, 0x0000, 0xfff0);
	put(&root_port, PCI_PREF_MEMORY_BASE, 2, 0xfff0, 0xfff0);
	put(&root_port, PCI_PREF_MEMORY_LIMIT, 2, 0x0000, 0xfff0);
	put(&root_port, PCI_BRIDGE_CONTROL, 2, 0, 0x003f);
	pcie(&root_port, PCI_EXP_TYPE_ROOT_PORT);

	for (i = 0; i < CARD_FUNCTIONS; i++) {
		identity(&function[i], CARD_BLUEFIELD2, PCI_CLASS_NETWORK_ETHERNET << 8);
		put(&function[i], PCI_HEADER_TYPE, 1, i == 0 ? PCI_HEADER_TYPE_MFD : 0, 0);
		put(&function[i], PCI_SUBSYSTEM_VENDOR_ID, 2, CARD_VENDOR, 0);
		put(&function[i], PCI_SUBSYSTEM_ID, 2, CARD_SUBSYSTEM, 0);
		pcie(&function[i], PCI_EXP_TYPE_ENDPOINT);
	}
}

/* The secondary bus is the one that the port's register names now, as in hardware. */
static struct config *find(const struct pci_bus *bus, unsigned int devfn)
{
	if (bus->number == card_root_bus)
		return devfn == 0 ? &root_port : NULL;
	if (bus->number == root_port.value[PCI_SECONDARY_BUS] && devfn < CARD_FUNCTIONS)
		return &function[devfn];
	return NULL;
}

static int config_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	struct config *c;
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&config_lock, flags);
	c = find(bus, devfn);
	*value = 0;
	for (i = 0; c && i < size && where + i < CONFIG_SIZE; i++)
		*value |= (u32)c->value[where + i] << (8 * i);
	raw_spin_unlock_irqrestore(&config_lock, flags);
	if (!c) {
		*value = ~0U;
		return PCIBIOS_DEVICE_NOT_FOUND;
	}
	return PCIBIOS_SUCCESSFUL;
}

static int config_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	struct config *c;
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&config_lock, flags);
	c = find(bus, devfn);
	for (i = 0; c && i < size && where + i < CONFIG_SIZE; i++) {
		u8 mask = c->writable[where + i];
		u8 byte = value >> (8 * i);

		c->value[where + i] = (c->value[where + i] & ~mask) | (byte & mask);
	}
	raw_spin_unlock_irqrestore(&config_lock, flags);
	return c ? PCIBIOS_SUCCESSFUL : PCIBIOS_DEVICE_NOT_FOUND;
}

struct pci_ops card_pci_ops = {
	.read = config_read,
	.write = config_write,
};
