/* SPDX-License-Identifier: GPL-2.0-only */
/* The virtual card: two PCI functions, each with an eswitch of its own. */
#ifndef VIRTUAL_BLUEFIELD_CARD_H
#define VIRTUAL_BLUEFIELD_CARD_H

#include <linux/debugfs.h>
#include <linux/etherdevice.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <net/devlink.h>

#define CARD_FUNCTIONS 2
#define CARD_MAX_VFS 16
#define CARD_TEXT 256
#define CARD_VENDOR 0x15b3
#define CARD_BRIDGE 0x1978
#define CARD_BLUEFIELD2 0xa2d6
#define CARD_SUBSYSTEM 0x0061
#define CARD_CONTROLLER 1 /* as the ARM side sees the host */

/* No eswitch at all: what a card can be in right after boot. Not a mode of devlink. */
#define CARD_MODE_NONE 0xffff

struct card_function;

/* One side of a pipe between two netdevs. */
struct card_netdev {
	struct card_function *fn; /* NULL on the host's and the wire's side */
	struct net_device __rcu *peer;
	bool uplink;
	u32 channels;
};

/* A devlink port with its netdev, and what is at the pipe's other end: the host's function, or the wire. */
struct card_port {
	struct devlink_port dl;
	struct card_function *fn;
	struct net_device *netdev;
	struct net_device *far;
	u8 hw_addr[ETH_ALEN];
};

struct card_failure {
	int count; /* how many more; below 0: for ever */
	int errno_;
	char text[CARD_TEXT];
};

struct card_function {
	struct pci_dev *pdev;
	struct devlink *devlink;
	u8 pf;
	u16 mode;
	u8 switch_id[8];
	struct xarray flows; /* offloaded rules, by cookie */
	atomic_t flow_count;

	struct card_port uplink;
	struct card_port host_pf;
	struct card_port host_vf[CARD_MAX_VFS];
	u8 vfs;
	bool host_pf_present;

	/* knobs, under the devlink instance's lock */
	struct card_failure fail_sets;
	struct card_failure fail_gets;
	u32 ignore_sets;
	u32 set_ms;
	u32 host_pf_late_ms;
	u32 revert_after_set_ms;
	bool busy_with_flows;
	bool carrier;
	u64 sets;
	u64 gets;

	struct delayed_work late_host_pf;
	struct delayed_work revert;
	struct dentry *debugfs;
};

/* main.c */
extern unsigned int card_root_bus;
extern unsigned int card_secondary_bus;
extern bool card_legacy_switch_id;

/* config.c */
extern struct pci_ops card_pci_ops;
void card_config_init(void);

/* eswitch.c */
extern const struct devlink_ops card_devlink_ops;
void card_eswitch_init(struct card_function *fn);
void card_eswitch_stop(struct card_function *fn);
int card_eswitch_enter(struct card_function *fn, u16 mode);

/* ports.c */
int card_ports_create(struct card_function *fn);
void card_ports_destroy(struct card_function *fn);
int card_representors_create(struct card_function *fn);
void card_representors_destroy(struct card_function *fn);
int card_host_pf_set(struct card_function *fn, bool present);
int card_host_pf_show(struct card_function *fn);
int card_host_vfs_set(struct card_function *fn, unsigned int count);
void card_carrier_set(struct card_function *fn, bool on);
void card_uplink_follow_mode(struct card_function *fn);

/* netdev.c */
struct net_device *card_netdev_alloc(struct card_function *fn, const char *name, unsigned char assigned);
void card_netdev_join(struct net_device *a, struct net_device *b);
void card_netdev_part(struct net_device *a, struct net_device *b);

/* knobs.c */
void card_knobs_init(void);
void card_knobs_exit(void);
void card_knobs_create(struct card_function *fn);
void card_knobs_destroy(struct card_function *fn);

#endif
