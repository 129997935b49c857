// SPDX-License-Identifier: GPL-2.0-only
/* The knobs, one file each in /sys/kernel/debug/virtual_bluefield/FUNCTION/. Each is turned under the instance's lock. */
#include <linux/uaccess.h>
#include "card.h"

#define ROOM (CARD_TEXT + 32)

static struct dentry *root;

struct knob {
	const char *name;
	int (*read)(struct card_function *fn, char *text);
	int (*write)(struct card_function *fn, char *text); /* NULL: only to be read */
};

static int whole(const char *text, long minimum, long maximum, long *value)
{
	int err = kstrtol(text, 0, value);

	if (err)
		return err;
	return *value < minimum || *value > maximum ? -ERANGE : 0;
}

/* A number or switch that only has to be stored. */
#define STORED(field, maximum)                                                   \
	static int field##_read(struct card_function *fn, char *text)            \
	{                                                                        \
		return scnprintf(text, ROOM, "%u\n", (unsigned int)fn->field);   \
	}                                                                        \
	static int field##_write(struct card_function *fn, char *text)           \
	{                                                                        \
		long value;                                                      \
		int err = whole(text, 0, maximum, &value);                       \
                                                                                 \
		if (!err)                                                        \
			fn->field = value;                                       \
		return err;                                                      \
	}

STORED(ignore_sets, INT_MAX)
STORED(set_ms, 600000)
STORED(host_pf_late_ms, 600000)
STORED(revert_after_set_ms, 600000)
STORED(busy_with_flows, 1)

/* Something that is counted. */
#define COUNTED(name, value)                                                      \
	static int name##_read(struct card_function *fn, char *text)              \
	{                                                                         \
		return scnprintf(text, ROOM, "%llu\n", (unsigned long long)value); \
	}

COUNTED(flows, atomic_read(&fn->flow_count))
COUNTED(sets, fn->sets)
COUNTED(gets, fn->gets)

static int failure_read(const struct card_failure *failure, char *text)
{
	return scnprintf(text, ROOM, "%d %d %s\n", failure->count, failure->errno_, failure->text);
}

/* COUNT ERRNO [TEXT...] */
static int failure_write(struct card_failure *failure, char *text)
{
	int count, number, used = 0;

	if (sscanf(text, "%d %d%n", &count, &number, &used) < 2 || number < 1 || number > 4095)
		return -EINVAL;
	failure->count = count;
	failure->errno_ = number;
	strscpy(failure->text, skip_spaces(text + used), CARD_TEXT);
	return 0;
}

static int fail_sets_read(struct card_function *fn, char *text)
{
	return failure_read(&fn->fail_sets, text);
}

static int fail_sets_write(struct card_function *fn, char *text)
{
	return failure_write(&fn->fail_sets, text);
}

static int fail_gets_read(struct card_function *fn, char *text)
{
	return failure_read(&fn->fail_gets, text);
}

static int fail_gets_write(struct card_function *fn, char *text)
{
	return failure_write(&fn->fail_gets, text);
}

static int host_vfs_read(struct card_function *fn, char *text)
{
	return scnprintf(text, ROOM, "%u\n", fn->vfs);
}

static int host_vfs_write(struct card_function *fn, char *text)
{
	long value;
	int err = whole(text, 0, CARD_MAX_VFS, &value);

	return err ? err : card_host_vfs_set(fn, value);
}

static int host_pf_read(struct card_function *fn, char *text)
{
	return scnprintf(text, ROOM, "%u\n", fn->host_pf_present);
}

static int host_pf_write(struct card_function *fn, char *text)
{
	long value;
	int err = whole(text, 0, 1, &value);

	return err ? err : card_host_pf_set(fn, value);
}

static int carrier_read(struct card_function *fn, char *text)
{
	return scnprintf(text, ROOM, "%u\n", fn->carrier);
}

static int carrier_write(struct card_function *fn, char *text)
{
	long value;
	int err = whole(text, 0, 1, &value);

	if (!err)
		card_carrier_set(fn, value);
	return err;
}

static int mode_read(struct card_function *fn, char *text)
{
	const char *mode = fn->mode == CARD_MODE_NONE ? "none" :
			   fn->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV ? "switchdev" : "legacy";

	return scnprintf(text, ROOM, "%s\n", mode);
}

/* As if the card had done it by itself: no failure ordered by another knob applies. */
static int mode_write(struct card_function *fn, char *text)
{
	if (!strcmp(text, "none"))
		return card_eswitch_enter(fn, CARD_MODE_NONE);
	if (!strcmp(text, "legacy"))
		return card_eswitch_enter(fn, DEVLINK_ESWITCH_MODE_LEGACY);
	if (!strcmp(text, "switchdev"))
		return card_eswitch_enter(fn, DEVLINK_ESWITCH_MODE_SWITCHDEV);
	return -EINVAL;
}

static int revert_ms_read(struct card_function *fn, char *text)
{
	return scnprintf(text, ROOM, "%u\n", delayed_work_pending(&fn->revert));
}

static int revert_ms_write(struct card_function *fn, char *text)
{
	long value;
	int err = whole(text, 0, 600000, &value);

	if (!err)
		mod_delayed_work(system_wq, &fn->revert, msecs_to_jiffies(value));
	return err;
}

static const struct knob knobs[] = {
	{ "host_vfs", host_vfs_read, host_vfs_write },
	{ "host_pf", host_pf_read, host_pf_write },
	{ "host_pf_late_ms", host_pf_late_ms_read, host_pf_late_ms_write },
	{ "carrier", carrier_read, carrier_write },
	{ "mode", mode_read, mode_write },
	{ "fail_sets", fail_sets_read, fail_sets_write },
	{ "fail_gets", fail_gets_read, fail_gets_write },
	{ "ignore_sets", ignore_sets_read, ignore_sets_write },
	{ "set_ms", set_ms_read, set_ms_write },
	{ "revert_ms", revert_ms_read, revert_ms_write },
	{ "revert_after_set_ms", revert_after_set_ms_read, revert_after_set_ms_write },
	{ "busy_with_flows", busy_with_flows_read, busy_with_flows_write },
	{ "flows", flows_read, NULL },
	{ "sets", sets_read, NULL },
	{ "gets", gets_read, NULL },
};

/* The file's own name says which knob it is; files are never renamed here. */
static const struct knob *knob_of(struct file *file)
{
	const char *name = file_dentry(file)->d_name.name;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		if (!strcmp(knobs[i].name, name))
			return &knobs[i];
	return &knobs[0]; /* not reached */
}

static ssize_t knob_read(struct file *file, char __user *to, size_t size, loff_t *at)
{
	struct card_function *fn = file_inode(file)->i_private;
	char *text = kmalloc(ROOM, GFP_KERNEL);
	ssize_t length;

	if (!text)
		return -ENOMEM;
	devl_lock(fn->devlink);
	length = knob_of(file)->read(fn, text);
	devl_unlock(fn->devlink);
	length = simple_read_from_buffer(to, size, at, text, length);
	kfree(text);
	return length;
}

static ssize_t knob_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	struct card_function *fn = file_inode(file)->i_private;
	char *text;
	int err;

	if (size >= ROOM)
		return -E2BIG;
	text = memdup_user_nul(from, size);
	if (IS_ERR(text))
		return PTR_ERR(text);
	devl_lock(fn->devlink);
	err = knob_of(file)->write(fn, strim(text));
	devl_unlock(fn->devlink);
	kfree(text);
	return err ? err : size;
}

static const struct file_operations knob_ops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = knob_read,
	.write = knob_write,
	.llseek = default_llseek,
};

void card_knobs_create(struct card_function *fn)
{
	size_t i;

	fn->debugfs = debugfs_create_dir(pci_name(fn->pdev), root);
	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		debugfs_create_file(knobs[i].name, knobs[i].write ? 0644 : 0444, fn->debugfs, fn, &knob_ops);
}

void card_knobs_destroy(struct card_function *fn)
{
	debugfs_remove(fn->debugfs);
}

void card_knobs_init(void)
{
	root = debugfs_create_dir(KBUILD_MODNAME, NULL);
}

void card_knobs_exit(void)
{
	debugfs_remove(root);
}
