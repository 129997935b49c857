// SPDX-License-Identifier: GPL-2.0-only
/* Which ports exist: the uplink always, representors of the host's functions in switchdev mode. Under the instance's lock. */
#include <linux/rtnetlink.h>
#include "card.h"

#define VPORT_UPLINK 0xffff

/* As mlx5 numbers them: the function's id in the device, then the port within its eswitch. */
static unsigned int port_index(const struct card_function *fn, unsigned int vport)
{
	return (fn->pf + 3U) << 16 | vport;
}

static int fn_hw_addr_get(struct devlink_port *dl, u8 *address, int *length, struct netlink_ext_ack *extack)
{
	struct card_port *port = container_of(dl, struct card_port, dl);

	ether_addr_copy(address, port->hw_addr);
	*length = ETH_ALEN;
	return 0;
}

static const struct devlink_port_ops function_ops = {
	.port_fn_hw_addr_get = fn_hw_addr_get,
};

static void switch_id(struct card_function *fn, struct devlink_port_attrs *attrs)
{
	memcpy(attrs->switch_id.id, fn->switch_id, sizeof(fn->switch_id));
	attrs->switch_id.id_len = sizeof(fn->switch_id);
}

/* The far side: the host's own netdev, which the host may put into a namespace, or the wire. */
static int far_create(struct card_port *port, const char *name)
{
	struct net_device *dev = card_netdev_alloc(NULL, name, NET_NAME_USER);
	int err;

	if (!dev)
		return -ENOMEM;
	eth_hw_addr_set(dev, port->hw_addr);
	err = register_netdev(dev);
	if (err) {
		free_netdev(dev);
		return err;
	}
	port->far = dev;
	return 0;
}

static void far_destroy(struct card_port *port)
{
	struct net_device *dev = port->far;

	if (!dev)
		return;
	card_netdev_part(port->netdev, dev);
	port->far = NULL;
	unregister_netdev(dev);
	free_netdev(dev);
}

static int near_create(struct card_port *port, bool uplink)
{
	struct net_device *dev = card_netdev_alloc(port->fn, "eth%d", NET_NAME_ENUM);
	struct card_netdev *priv;
	int err;

	if (!dev)
		return -ENOMEM;
	priv = netdev_priv(dev);
	priv->uplink = uplink;
	if (uplink) {
		u8 address[ETH_ALEN] = { 0x0c, 0x42, 0xa1, 0x5b, 0x1c, 0x10 + port->fn->pf };

		eth_hw_addr_set(dev, address);
		dev->netns_local = port->fn->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV;
	} else {
		eth_hw_addr_random(dev);
		dev->netns_local = true;
	}
	SET_NETDEV_DEVLINK_PORT(dev, &port->dl);
	card_netdev_join(dev, port->far);
	err = register_netdev(dev);
	if (err) {
		card_netdev_part(dev, port->far);
		free_netdev(dev);
		return err;
	}
	port->netdev = dev;
	return 0;
}

static void near_destroy(struct card_port *port)
{
	struct net_device *dev = port->netdev;

	if (!dev)
		return;
	card_netdev_part(dev, port->far);
	port->netdev = NULL;
	unregister_netdev(dev);
	free_netdev(dev);
}

static void representor_destroy(struct card_port *port)
{
	if (!port->netdev)
		return;
	near_destroy(port);
	devl_port_unregister(&port->dl);
}

/* VF -1 is the PF itself. */
static int representor_create(struct card_port *port, int vf)
{
	struct card_function *fn = port->fn;
	int err;

	if (port->netdev)
		return 0;
	memset(&port->dl, 0, sizeof(port->dl));
	switch_id(fn, &port->dl.attrs);
	if (vf < 0)
		devlink_port_attrs_pci_pf_set(&port->dl, CARD_CONTROLLER, fn->pf, true);
	else
		devlink_port_attrs_pci_vf_set(&port->dl, CARD_CONTROLLER, fn->pf, vf, true);
	err = devl_port_register_with_ops(fn->devlink, &port->dl, port_index(fn, vf + 1), &function_ops);
	if (err)
		return err;
	err = near_create(port, false);
	if (err)
		devl_port_unregister(&port->dl);
	return err;
}

int card_host_pf_show(struct card_function *fn)
{
	if (!fn->host_pf_present || fn->mode != DEVLINK_ESWITCH_MODE_SWITCHDEV)
		return 0;
	return representor_create(&fn->host_pf, -1);
}

int card_representors_create(struct card_function *fn)
{
	unsigned int vf;
	int err = 0;

	if (fn->host_pf_late_ms)
		mod_delayed_work(system_wq, &fn->late_host_pf, msecs_to_jiffies(fn->host_pf_late_ms));
	else
		err = card_host_pf_show(fn);
	for (vf = 0; !err && vf < fn->vfs; vf++)
		err = representor_create(&fn->host_vf[vf], vf);
	if (err)
		card_representors_destroy(fn);
	return err;
}

void card_representors_destroy(struct card_function *fn)
{
	int vf;

	for (vf = CARD_MAX_VFS - 1; vf >= 0; vf--)
		representor_destroy(&fn->host_vf[vf]);
	representor_destroy(&fn->host_pf);
}

int card_host_pf_set(struct card_function *fn, bool present)
{
	char name[IFNAMSIZ];
	int err;

	if (present == fn->host_pf_present)
		return 0;
	if (!present) {
		fn->host_pf_present = false;
		representor_destroy(&fn->host_pf);
		far_destroy(&fn->host_pf);
		return 0;
	}
	snprintf(name, sizeof(name), "hostpf%u", fn->pf);
	err = far_create(&fn->host_pf, name);
	if (err)
		return err;
	fn->host_pf_present = true;
	return card_host_pf_show(fn);
}

int card_host_vfs_set(struct card_function *fn, unsigned int count)
{
	char name[IFNAMSIZ];
	int err;

	if (count > CARD_MAX_VFS)
		return -ERANGE;
	while (fn->vfs > count) {
		struct card_port *port = &fn->host_vf[--fn->vfs];

		representor_destroy(port);
		far_destroy(port);
	}
	while (fn->vfs < count) {
		struct card_port *port = &fn->host_vf[fn->vfs];

		snprintf(name, sizeof(name), "hostpf%uvf%u", fn->pf, fn->vfs);
		err = far_create(port, name);
		if (err)
			return err;
		if (fn->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV)
			err = representor_create(port, fn->vfs);
		if (err) {
			far_destroy(port);
			return err;
		}
		fn->vfs++;
	}
	return 0;
}

static void carrier(struct net_device *dev, bool on)
{
	if (!dev)
		return;
	if (on)
		netif_carrier_on(dev);
	else
		netif_carrier_off(dev);
}

void card_carrier_set(struct card_function *fn, bool on)
{
	fn->carrier = on;
	carrier(fn->uplink.netdev, on);
	carrier(fn->uplink.far, on);
}

/* The uplink's netdev survives a change of the mode (kernels 5.13 and newer); these are what changes of it. */
void card_uplink_follow_mode(struct card_function *fn)
{
	bool on = fn->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV;

	rtnl_lock();
	if (fn->uplink.netdev)
		fn->uplink.netdev->netns_local = on;
	fn->uplink.dl.switch_port = on || card_legacy_switch_id;
	rtnl_unlock();
}

static int uplink_create(struct card_function *fn)
{
	struct devlink_port_attrs attrs = {
		.flavour = DEVLINK_PORT_FLAVOUR_PHYSICAL,
		.phys.port_number = fn->pf,
	};
	char name[IFNAMSIZ];
	int err;

	switch_id(fn, &attrs);
	devlink_port_attrs_set(&fn->uplink.dl, &attrs);
	err = devl_port_register_with_ops(fn->devlink, &fn->uplink.dl, port_index(fn, VPORT_UPLINK), NULL);
	if (err)
		return err;
	fn->uplink.dl.switch_port = card_legacy_switch_id;
	snprintf(name, sizeof(name), "wire%u", fn->pf);
	err = far_create(&fn->uplink, name);
	if (err)
		goto port;
	err = near_create(&fn->uplink, true);
	if (err)
		goto far;
	return 0;

far:
	far_destroy(&fn->uplink);
port:
	devl_port_unregister(&fn->uplink.dl);
	return err;
}

int card_ports_create(struct card_function *fn)
{
	u8 base[ETH_ALEN] = { 0x0c, 0x42, 0xa1, 0x5b, 0x20 + fn->pf, 0x00 };
	u8 wire[ETH_ALEN] = { 0x0c, 0x42, 0xa1, 0x5b, 0x30, fn->pf };
	u8 id[8] = { 0xc2, 0xcf, 0xc6, 0x00, 0x03, 0xa1, 0x42, 0x0c + fn->pf };
	int err, vf;

	memcpy(fn->switch_id, id, sizeof(id));
	fn->uplink.fn = fn;
	ether_addr_copy(fn->uplink.hw_addr, wire);
	fn->host_pf.fn = fn;
	ether_addr_copy(fn->host_pf.hw_addr, base);
	for (vf = 0; vf < CARD_MAX_VFS; vf++) {
		fn->host_vf[vf].fn = fn;
		base[5] = vf + 1;
		ether_addr_copy(fn->host_vf[vf].hw_addr, base);
	}
	err = uplink_create(fn);
	if (err)
		return err;
	err = card_host_pf_set(fn, true);
	if (err)
		card_ports_destroy(fn);
	return err;
}

void card_ports_destroy(struct card_function *fn)
{
	card_host_vfs_set(fn, 0);
	card_host_pf_set(fn, false);
	near_destroy(&fn->uplink);
	far_destroy(&fn->uplink);
	devl_port_unregister(&fn->uplink.dl);
}
