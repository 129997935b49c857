// SPDX-License-Identifier: GPL-2.0-only
/* The netdevs: pairs that hand each other frames, and a hardware that accepts every flower rule without doing anything. */
#include <linux/ethtool.h>
#include <net/flow_offload.h>
#include <net/pkt_cls.h>
#include "card.h"

#define MAX_CHANNELS 8

static LIST_HEAD(block_callbacks);

static netdev_tx_t transmit(struct sk_buff *skb, struct net_device *dev)
{
	struct card_netdev *priv = netdev_priv(dev);
	unsigned int length = skb->len;
	struct net_device *peer;

	rcu_read_lock();
	peer = rcu_dereference(priv->peer);
	if (!peer || !netif_running(peer) || !netif_carrier_ok(dev)) {
		kfree_skb(skb);
		dev->stats.tx_dropped++;
	} else if (dev_forward_skb(peer, skb) == NET_RX_SUCCESS) {
		dev_sw_netstats_tx_add(dev, 1, length);
		dev_sw_netstats_rx_add(peer, length);
	} else {
		dev->stats.tx_dropped++;
	}
	rcu_read_unlock();
	return NETDEV_TX_OK;
}

static int open(struct net_device *dev)
{
	netif_start_queue(dev);
	return 0;
}

static int stop(struct net_device *dev)
{
	netif_stop_queue(dev);
	return 0;
}

static int flower(struct card_function *fn, struct flow_cls_offload *rule)
{
	int err;

	switch (rule->command) {
	case FLOW_CLS_REPLACE:
		if (fn->mode != DEVLINK_ESWITCH_MODE_SWITCHDEV)
			return -EOPNOTSUPP;
		err = xa_insert(&fn->flows, rule->cookie, xa_mk_value(1), GFP_KERNEL);
		if (!err)
			atomic_inc(&fn->flow_count);
		return err == -EBUSY ? 0 : err;
	case FLOW_CLS_DESTROY:
		/* This comes for rules that were refused, too: only what was counted is uncounted. */
		if (xa_erase(&fn->flows, rule->cookie))
			atomic_dec(&fn->flow_count);
		return 0;
	case FLOW_CLS_STATS:
		/* The frames take the software's path, which counts them. */
		flow_stats_update(&rule->stats, 0, 0, 0, 0, FLOW_ACTION_HW_STATS_DELAYED);
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static int block_callback(enum tc_setup_type type, void *data, void *private)
{
	struct net_device *dev = private;
	struct card_netdev *priv = netdev_priv(dev);

	if (type != TC_SETUP_CLSFLOWER)
		return -EOPNOTSUPP;
	if (!tc_can_offload_extack(dev, ((struct flow_cls_offload *)data)->common.extack))
		return -EOPNOTSUPP;
	return flower(priv->fn, data);
}

static int setup_tc(struct net_device *dev, enum tc_setup_type type, void *data)
{
	if (type != TC_SETUP_BLOCK)
		return -EOPNOTSUPP;
	return flow_block_cb_setup_simple(data, &block_callbacks, block_callback, dev, dev, true);
}

/* No ndo_get_port_parent_id: a netdev with a devlink port answers through that, and the kernel warns of both. */
static const struct net_device_ops card_ops = {
	.ndo_open = open,
	.ndo_stop = stop,
	.ndo_start_xmit = transmit,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_setup_tc = setup_tc,
};

static const struct net_device_ops far_ops = {
	.ndo_open = open,
	.ndo_stop = stop,
	.ndo_start_xmit = transmit,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_get_stats64 = dev_get_tstats64,
};

static void get_drvinfo(struct net_device *dev, struct ethtool_drvinfo *info)
{
	struct card_netdev *priv = netdev_priv(dev);

	strscpy(info->driver, priv->uplink ? "mlx5_core" : "mlx5e_rep", sizeof(info->driver));
	strscpy(info->fw_version, "24.41.1000 (MT_0000000765)", sizeof(info->fw_version));
	strscpy(info->bus_info, pci_name(priv->fn->pdev), sizeof(info->bus_info));
}

static void get_channels(struct net_device *dev, struct ethtool_channels *channels)
{
	struct card_netdev *priv = netdev_priv(dev);

	channels->max_combined = MAX_CHANNELS;
	channels->combined_count = priv->channels;
}

static int set_channels(struct net_device *dev, struct ethtool_channels *channels)
{
	struct card_netdev *priv = netdev_priv(dev);

	priv->channels = channels->combined_count;
	return 0;
}

static const struct ethtool_ops card_ethtool_ops = {
	.get_drvinfo = get_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_channels = get_channels,
	.set_channels = set_channels,
};

static const struct ethtool_ops far_ethtool_ops = {
	.get_link = ethtool_op_get_link,
};

/* With a function: the card's side of a pipe, named by the kernel. Without: the host's or the wire's, named here. */
struct net_device *card_netdev_alloc(struct card_function *fn, const char *name, unsigned char assigned)
{
	struct card_netdev *priv;
	struct net_device *dev;

	dev = alloc_netdev(sizeof(*priv), name, assigned, ether_setup);
	if (!dev)
		return NULL;
	priv = netdev_priv(dev);
	priv->fn = fn;
	priv->channels = MAX_CHANNELS;
	dev->netdev_ops = fn ? &card_ops : &far_ops;
	dev->ethtool_ops = fn ? &card_ethtool_ops : &far_ethtool_ops;
	dev->max_mtu = 9978;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	if (fn) {
		SET_NETDEV_DEV(dev, &fn->pdev->dev);
		dev->hw_features |= NETIF_F_HW_TC;
		dev->features |= NETIF_F_HW_TC;
	}
	return dev;
}

static void point(struct net_device *dev, struct net_device *peer)
{
	struct card_netdev *priv = netdev_priv(dev);

	rcu_assign_pointer(priv->peer, peer);
}

void card_netdev_join(struct net_device *a, struct net_device *b)
{
	if (!a || !b)
		return;
	point(a, b);
	point(b, a);
}

/* Frames under way still see the other side; unregister_netdev() waits for them before anything is freed. */
void card_netdev_part(struct net_device *a, struct net_device *b)
{
	if (a)
		point(a, NULL);
	if (b)
		point(b, NULL);
}
