// SPDX-License-Identifier: GPL-2.0
/*
 * The registry of devices: names, the minor numbers of their server nodes, and
 * who may look up whom.
 */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/namei.h>
#include <linux/random.h>
#include <linux/sched/mm.h>
#include <linux/string.h>

#include "compat.h"
#include "dblock.h"

#define DBLOCK_MINORS	65536

static unsigned int max_devices = 1024;
module_param(max_devices, uint, 0644);
MODULE_PARM_DESC(max_devices, "How many devices may exist at once (default 1024, at most 65536)");

static DEFINE_MUTEX(dblock_nodes_lock);
static DEFINE_MUTEX(dblock_registry_lock);
/* By minor of the server node; NULL for one whose node is being made. */
static DEFINE_IDR(dblock_devices);
static unsigned int dblock_devices_count;
/* Of the newest device. Begins anywhere: a number that somebody has kept from
 * before the module was loaded anew names no device of today.
 */
static u64 dblock_last_id;
static struct class *dblock_class;
static struct cdev dblock_cdev;
static dev_t dblock_devt;

int dblock_registry_init(void)
{
	int err;

	dblock_last_id = get_random_u64() >> 12; /* up to 2^52 */
	err = alloc_chrdev_region(&dblock_devt, 0, DBLOCK_MINORS, "dblock");
	if (err)
		return err;
	dblock_class = dblock_class_create("dblock");
	if (IS_ERR(dblock_class)) {
		err = PTR_ERR(dblock_class);
		goto unregister_region;
	}
	cdev_init(&dblock_cdev, &dblock_channel_fops);
	dblock_cdev.owner = THIS_MODULE;
	err = cdev_add(&dblock_cdev, dblock_devt, DBLOCK_MINORS);
	if (err)
		goto destroy_class;
	return 0;

destroy_class:
	class_destroy(dblock_class);
unregister_region:
	unregister_chrdev_region(dblock_devt, DBLOCK_MINORS);
	return err;
}

void dblock_registry_exit(void)
{
	cdev_del(&dblock_cdev);
	class_destroy(dblock_class);
	unregister_chrdev_region(dblock_devt, DBLOCK_MINORS);
	idr_destroy(&dblock_devices);
}

unsigned int dblock_device_count_max(void)
{
	return min_t(unsigned int, READ_ONCE(max_devices), DBLOCK_MINORS);
}

static struct dblock_device *dblock_registry_find(const char *name)
{
	struct dblock_device *device;
	int minor;

	lockdep_assert_held(&dblock_registry_lock);
	idr_for_each_entry(&dblock_devices, device, minor)
		if (!strcmp(device->params.name, name))
			return device;
	return NULL;
}

/* Whether /dev has such a node of somebody else's. A courtesy, for a clear
 * error before anything is done; the block layer has the last word.
 */
static bool dblock_node_exists(const char *name, const char *suffix)
{
	char path[sizeof("/dev/") + DBLOCK_NAME_BYTES + sizeof("-ctl")];
	struct path found;

	snprintf(path, sizeof(path), "/dev/%s%s", name, suffix);
	if (kern_path(path, 0, &found))
		return false;
	path_put(&found);
	return true;
}

/* Name and minor are taken; the look-ups do not find the device yet. */
static int dblock_registry_reserve(struct dblock_device *device)
{
	int err;

	lockdep_assert_held(&dblock_nodes_lock);
	mutex_lock(&dblock_registry_lock);
	if (dblock_registry_find(device->params.name))
		err = -EEXIST;
	else if (dblock_devices_count >= dblock_device_count_max())
		err = -ENOSPC;
	else
		err = idr_alloc(&dblock_devices, NULL, 0, DBLOCK_MINORS,
				GFP_NOIO);
	if (err >= 0) {
		device->params.minor = err;
		device->params.id = ++dblock_last_id;
		dblock_devices_count++;
	}
	mutex_unlock(&dblock_registry_lock);
	return min(err, 0);
}

/* With NULL for @device name and minor are free again. */
static void dblock_registry_set(unsigned int minor,
				struct dblock_device *device)
{
	lockdep_assert_held(&dblock_nodes_lock);
	mutex_lock(&dblock_registry_lock);
	if (device) {
		idr_replace(&dblock_devices, device, minor);
	} else {
		idr_remove(&dblock_devices, minor);
		dblock_devices_count--;
	}
	mutex_unlock(&dblock_registry_lock);
}

/* /dev/NAME-ctl appears, and the device can be found. To make a node may take as
 * long as a disk that nobody serves is held, in reclaim; so nobody who comes to
 * end that waits for the lock that is held meanwhile.
 */
int dblock_registry_add(struct dblock_device *device)
{
	struct dblock_create *p = &device->params;
	struct device *node;
	unsigned int noio;
	int err;

	if (dblock_node_exists(p->name, "") ||
	    dblock_node_exists(p->name, "-ctl"))
		return -EEXIST;
	mutex_lock(&dblock_nodes_lock);
	noio = memalloc_noio_save();
	err = dblock_registry_reserve(device);
	if (err)
		goto unlock;
	node = device_create(dblock_class, NULL,
			     MKDEV(MAJOR(dblock_devt), p->minor), NULL,
			     "%s-ctl", p->name);
	err = PTR_ERR_OR_ZERO(node);
	dblock_registry_set(p->minor, err ? NULL : device);
unlock:
	memalloc_noio_restore(noio);
	mutex_unlock(&dblock_nodes_lock);
	return err;
}

void dblock_registry_remove(struct dblock_device *device)
{
	unsigned int minor = device->params.minor;
	unsigned int noio;

	mutex_lock(&dblock_nodes_lock);
	noio = memalloc_noio_save();
	device_destroy(dblock_class, MKDEV(MAJOR(dblock_devt), minor));
	dblock_registry_set(minor, NULL);
	memalloc_noio_restore(noio);
	mutex_unlock(&dblock_nodes_lock);
}

/* The look-ups return a reference, or NULL. */
struct dblock_device *dblock_device_by_name(const char *name)
{
	struct dblock_device *device;

	mutex_lock(&dblock_registry_lock);
	device = dblock_registry_find(name);
	if (device)
		kref_get(&device->ref);
	mutex_unlock(&dblock_registry_lock);
	return device;
}

struct dblock_device *dblock_device_by_minor(unsigned int minor)
{
	struct dblock_device *device;

	mutex_lock(&dblock_registry_lock);
	device = idr_find(&dblock_devices, minor);
	if (device)
		kref_get(&device->ref);
	mutex_unlock(&dblock_registry_lock);
	return device;
}

/* The first device at or after *minor, which is set to its own. */
struct dblock_device *dblock_device_next(unsigned int *minor)
{
	struct dblock_device *device;
	int next = *minor;

	mutex_lock(&dblock_registry_lock);
	device = idr_get_next(&dblock_devices, &next);
	if (device)
		kref_get(&device->ref);
	mutex_unlock(&dblock_registry_lock);
	*minor = next;
	return device;
}

/* Looks at every device, under the registry's lock. Return: whether @look said yes
 * to any.
 */
bool dblock_device_any(bool (*look)(struct dblock_device *device))
{
	struct dblock_device *device;
	bool any = false;
	int minor;

	mutex_lock(&dblock_registry_lock);
	idr_for_each_entry(&dblock_devices, device, minor)
		any |= look(device);
	mutex_unlock(&dblock_registry_lock);
	return any;
}

/* For an open of the disk. An old kernel may open one that has just been
 * removed; its private_data is NULL once the device is freed.
 */
bool dblock_device_get_disk(struct gendisk *disk)
{
	struct dblock_device *device;
	bool got;

	mutex_lock(&dblock_registry_lock);
	device = disk->private_data;
	got = device && kref_get_unless_zero(&device->ref);
	mutex_unlock(&dblock_registry_lock);
	return got;
}

/* No open finds the device through this disk any more. */
void dblock_device_forget_disk(struct gendisk *disk)
{
	mutex_lock(&dblock_registry_lock);
	disk->private_data = NULL;
	mutex_unlock(&dblock_registry_lock);
}
