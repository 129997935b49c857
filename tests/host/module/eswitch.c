// SPDX-License-Identifier: GPL-2.0-only
/* What devlink asks: the mode and its change, with the failures that the knobs order. The instance's lock is held. */
#include <linux/delay.h>
#include "card.h"

#define BUSY "mlx5_core: Can't change mode, E-Switch is busy."

/* The text of an answer is read after the handler returned, and may outlive the function. */
static char last_text[CARD_FUNCTIONS][CARD_TEXT];

static bool spent(struct card_failure *failure)
{
	if (failure->count == 0)
		return false;
	if (failure->count > 0)
		failure->count--;
	return true;
}

static void say(struct card_function *fn, struct netlink_ext_ack *extack, const char *text)
{
	if (!extack || !text[0])
		return;
	/* NL_SET_ERR_MSG_FMT would cut it at 80 bytes. */
	strscpy(last_text[fn->pf], text, CARD_TEXT);
	extack->_msg = last_text[fn->pf];
}

int card_eswitch_enter(struct card_function *fn, u16 mode)
{
	int err = 0;

	if (mode == fn->mode)
		return 0;
	cancel_delayed_work(&fn->late_host_pf);
	cancel_delayed_work(&fn->revert);
	if (fn->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV)
		card_representors_destroy(fn);
	fn->mode = mode;
	if (mode == DEVLINK_ESWITCH_MODE_SWITCHDEV)
		err = card_representors_create(fn);
	if (err)
		fn->mode = DEVLINK_ESWITCH_MODE_LEGACY;
	card_uplink_follow_mode(fn);
	return err;
}

static int mode_get(struct devlink *devlink, u16 *mode)
{
	struct card_function *fn = devlink_priv(devlink);

	fn->gets++;
	if (spent(&fn->fail_gets))
		return -fn->fail_gets.errno_;
	if (fn->mode == CARD_MODE_NONE)
		return -EINVAL;
	*mode = fn->mode;
	return 0;
}

static int mode_set(struct devlink *devlink, u16 mode, struct netlink_ext_ack *extack)
{
	struct card_function *fn = devlink_priv(devlink);
	int err;

	fn->sets++;
	if (mode != DEVLINK_ESWITCH_MODE_LEGACY && mode != DEVLINK_ESWITCH_MODE_SWITCHDEV)
		return -EINVAL;
	if (fn->set_ms)
		msleep(fn->set_ms);
	/* Before the no-op, as mlx5 does it: even asking for the present mode is refused. */
	if (fn->busy_with_flows && atomic_read(&fn->flow_count)) {
		say(fn, extack, BUSY);
		return -EBUSY;
	}
	if (mode == fn->mode)
		return 0;
	if (spent(&fn->fail_sets)) {
		say(fn, extack, fn->fail_sets.text);
		/* A failed way to switchdev ends in legacy. */
		if (mode == DEVLINK_ESWITCH_MODE_SWITCHDEV)
			card_eswitch_enter(fn, DEVLINK_ESWITCH_MODE_LEGACY);
		return -fn->fail_sets.errno_;
	}
	if (fn->ignore_sets) {
		fn->ignore_sets--;
		return 0;
	}
	err = card_eswitch_enter(fn, mode);
	if (!err && mode == DEVLINK_ESWITCH_MODE_SWITCHDEV && fn->revert_after_set_ms) {
		mod_delayed_work(system_wq, &fn->revert, msecs_to_jiffies(fn->revert_after_set_ms));
		fn->revert_after_set_ms = 0;
	}
	return err;
}

static int inline_mode_get(struct devlink *devlink, u8 *mode)
{
	*mode = DEVLINK_ESWITCH_INLINE_MODE_NONE;
	return 0;
}

static int inline_mode_set(struct devlink *devlink, u8 mode, struct netlink_ext_ack *extack)
{
	if (mode == DEVLINK_ESWITCH_INLINE_MODE_NONE)
		return 0;
	NL_SET_ERR_MSG(extack, "mlx5_core: Inline mode can't be set");
	return -EOPNOTSUPP;
}

static int encap_mode_get(struct devlink *devlink, enum devlink_eswitch_encap_mode *mode)
{
	*mode = DEVLINK_ESWITCH_ENCAP_MODE_BASIC;
	return 0;
}

static int encap_mode_set(struct devlink *devlink, enum devlink_eswitch_encap_mode mode, struct netlink_ext_ack *extack)
{
	if (mode == DEVLINK_ESWITCH_ENCAP_MODE_BASIC)
		return 0;
	NL_SET_ERR_MSG(extack, "mlx5_core: Can't set encapsulation when flows are configured");
	return -EOPNOTSUPP;
}

static int info_get(struct devlink *devlink, struct devlink_info_req *req, struct netlink_ext_ack *extack)
{
	int err;

	err = devlink_info_serial_number_put(req, "MT0000X00000");
	if (!err)
		err = devlink_info_version_fixed_put(req, "fw.psid", "MT_0000000765");
	if (!err)
		err = devlink_info_version_running_put(req, "fw.version", "24.41.1000");
	if (!err)
		err = devlink_info_version_stored_put(req, "fw.version", "24.41.1000");
	return err;
}

const struct devlink_ops card_devlink_ops = {
	.eswitch_mode_get = mode_get,
	.eswitch_mode_set = mode_set,
	.eswitch_inline_mode_get = inline_mode_get,
	.eswitch_inline_mode_set = inline_mode_set,
	.eswitch_encap_mode_get = encap_mode_get,
	.eswitch_encap_mode_set = encap_mode_set,
	.info_get = info_get,
};

static void late_host_pf(struct work_struct *work)
{
	struct card_function *fn = container_of(to_delayed_work(work), struct card_function, late_host_pf);

	devl_lock(fn->devlink);
	card_host_pf_show(fn);
	devl_unlock(fn->devlink);
}

static void revert(struct work_struct *work)
{
	struct card_function *fn = container_of(to_delayed_work(work), struct card_function, revert);

	devl_lock(fn->devlink);
	if (fn->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV)
		card_eswitch_enter(fn, DEVLINK_ESWITCH_MODE_LEGACY);
	devl_unlock(fn->devlink);
}

void card_eswitch_init(struct card_function *fn)
{
	xa_init(&fn->flows);
	atomic_set(&fn->flow_count, 0);
	fn->busy_with_flows = true;
	fn->carrier = true;
	INIT_DELAYED_WORK(&fn->late_host_pf, late_host_pf);
	INIT_DELAYED_WORK(&fn->revert, revert);
}

void card_eswitch_stop(struct card_function *fn)
{
	cancel_delayed_work_sync(&fn->late_host_pf);
	cancel_delayed_work_sync(&fn->revert);
}
