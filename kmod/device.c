// SPDX-License-Identifier: GPL-2.0
/*
 * A device from CREATE to gone: its beginning and end, the works that add and
 * remove the disk, who has the disk open, and what moves the state. The states are
 * in state.c, and README.md draws them; what the disk is made of is in disk.c.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "compat.h"
#include "dblock.h"

/*
 * Birth and death
 */

static void dblock_device_free(struct dblock_device *device)
{
	u32 i;

	dblock_disk_free(device);
	if (device->flush_workqueue)
		destroy_workqueue(device->flush_workqueue);
	for (i = 0; device->queues && i < device->params.queue_count; i++)
		dblock_queue_free(&device->queues[i]);
	kvfree(device->queues);
	put_pid(device->creator);
	put_pid(device->heir);
	put_pid(device->predecessor);
	mutex_destroy(&device->lock);
	mutex_destroy(&device->resizing);
	kfree(device);
	module_put(THIS_MODULE);
}

static void dblock_device_release(struct kref *ref)
{
	struct dblock_device *device = container_of(ref, struct dblock_device,
						    ref);

	if (device->disk)
		dblock_device_forget_disk(device->disk);
	dblock_device_free(device);
}

void dblock_device_put(struct dblock_device *device)
{
	kref_put(&device->ref, dblock_device_release);
}

/*
 * The disk, which is added and removed in works
 */

static int dblock_disk_open(DBLOCK_OPEN_ARGS)
{
	struct dblock_device *device;
	int err = 0;

	if (!dblock_device_get_disk(DBLOCK_OPEN_DISK))
		return -ENXIO;
	device = DBLOCK_OPEN_DISK->private_data;
	mutex_lock(&device->lock);
	if (device->state >= DBLOCK_STATE_REMOVING)
		err = -ENXIO;
	else
		device->open_count++;
	mutex_unlock(&device->lock);
	if (err)
		dblock_device_put(device);
	return err;
}

static void dblock_disk_release(DBLOCK_RELEASE_ARGS(disk))
{
	struct dblock_device *device = disk->private_data;

	mutex_lock(&device->lock);
	device->open_count--;
	mutex_unlock(&device->lock);
	dblock_device_put(device);
}

static const struct block_device_operations dblock_disk_fops = {
	.owner		= THIS_MODULE,
	.open		= dblock_disk_open,
	.release	= dblock_disk_release,
};

static void dblock_start_work(struct work_struct *work)
{
	struct dblock_device *device = container_of(work, struct dblock_device,
						    start_work);
	int err = dblock_disk_alloc(device, &dblock_disk_fops);

	if (!err)
		err = dblock_disk_add(device);
	mutex_lock(&device->lock);
	device->disk_added = !err;
	device->start_error = err;
	if (device->state == DBLOCK_STATE_STARTING) {
		if (!err) {
			dblock_device_set_state(device, DBLOCK_STATE_LIVE);
		} else {
			pr_err_ratelimited("%s: the disk cannot be added (error %d) and the device is removed; see that no other disk has its name\n",
					   device->params.name, err);
			dblock_device_remove(device);
		}
	} else if (!err) {
		device->start_error = -ENODEV;
	}
	mutex_unlock(&device->lock);
	complete_all(&device->started);
}

static void dblock_remove_work(struct work_struct *work)
{
	struct dblock_device *device = container_of(work, struct dblock_device,
						    remove_work);

	/* A start that waits for its turn behind others' never begins. One that
	 * runs comes to its end, as every request fails since REMOVING.
	 */
	if (cancel_work_sync(&device->start_work)) {
		mutex_lock(&device->lock);
		device->start_error = -ENODEV;
		mutex_unlock(&device->lock);
	}
	/* Nobody is at its size after this. */
	mutex_lock(&device->resizing);
	mutex_unlock(&device->resizing);
	dblock_disk_del(device);
	dblock_registry_remove(device);
	mutex_lock(&device->lock);
	dblock_device_set_state(device, DBLOCK_STATE_GONE);
	mutex_unlock(&device->lock);
	complete_all(&device->started);
	complete_all(&device->removed);
	dblock_device_put(device);
}

/**
 * dblock_device_create() - make a device and its server node
 * @params: checked by the caller
 *
 * Return: the device with a reference for the caller, or an error pointer.
 */
struct dblock_device *dblock_device_create(const struct dblock_create *params)
{
	struct dblock_device *device;
	int err = -ENOMEM;
	u32 i;

	device = kzalloc(sizeof(*device), GFP_KERNEL);
	if (!device)
		return ERR_PTR(-ENOMEM);
	/* The caller is in an ioctl of ours, so the module is held already. */
	__module_get(THIS_MODULE);
	kref_init(&device->ref);
	mutex_init(&device->resizing);
	mutex_init(&device->lock);
	spin_lock_init(&device->quarantine_lock);
	INIT_LIST_HEAD(&device->quarantine);
	init_completion(&device->started);
	init_completion(&device->removed);
	INIT_WORK(&device->start_work, dblock_start_work);
	INIT_WORK(&device->remove_work, dblock_remove_work);
	device->params = *params;
	device->creator = get_pid(task_tgid(current));
	device->queues = kvcalloc(params->queue_count, sizeof(*device->queues),
				  GFP_KERNEL);
	if (!device->queues)
		goto free;
	for (i = 0; i < params->queue_count; i++) {
		err = dblock_queue_init(&device->queues[i], device);
		if (err)
			goto free;
	}
	kref_get(&device->ref);
	err = dblock_registry_add(device);
	if (err)
		goto free;
	dblock_watch_begin();
	return device;

free:
	dblock_device_free(device);
	return ERR_PTR(err);
}

/*
 * What the state follows
 */

/* Everything in flight fails now; disk and name go soon after. */
void dblock_device_remove(struct dblock_device *device)
{
	lockdep_assert_held(&device->lock);
	if (device->state >= DBLOCK_STATE_REMOVING)
		return;
	dblock_device_set_state(device, DBLOCK_STATE_REMOVING);
	queue_work(dblock_remove_workqueue, &device->remove_work);
}

/**
 * dblock_device_destroy() - remove a device and wait until it is gone
 * @device: the device; the caller has a reference
 * @force: even if the disk is open
 * @open_count: out: how many have it open
 *
 * Return: 0, also if somebody else removed it; -EBUSY if it is open and @force
 * is not set; -EINTR if a signal ended the wait.
 */
int dblock_device_destroy(struct dblock_device *device, bool force,
			  unsigned int *open_count)
{
	mutex_lock(&device->lock);
	*open_count = device->open_count;
	if (device->open_count && !force &&
	    device->state < DBLOCK_STATE_REMOVING) {
		mutex_unlock(&device->lock);
		return -EBUSY;
	}
	dblock_device_remove(device);
	mutex_unlock(&device->lock);
	if (wait_for_completion_interruptible(&device->removed))
		return -EINTR;
	/* Its last line drops a reference; without it rmmod may be refused. */
	flush_work(&device->remove_work);
	return 0;
}

static bool dblock_device_attached(struct dblock_device *device)
{
	return device->attached_count == device->params.queue_count;
}

/**
 * dblock_device_start() - the disk appears, or I/O goes on after a server's
 * death
 * @device: the device; the caller has a reference
 * @wait: until the disk is there
 *
 * Return: 0 or the errors of DBLOCK_IOC_START.
 */
int dblock_device_start(struct dblock_device *device, bool wait)
{
	int err = 0;

	mutex_lock(&device->lock);
	if (device->state == DBLOCK_STATE_LIVE)
		err = -EALREADY;
	else if (device->state >= DBLOCK_STATE_REMOVING)
		err = -ENODEV;
	else if (!dblock_device_attached(device))
		err = -ENOTCONN;
	else if (device->state == DBLOCK_STATE_CREATED) {
		dblock_device_set_state(device, DBLOCK_STATE_STARTING);
		queue_work(dblock_start_workqueue, &device->start_work);
	} else if (device->state != DBLOCK_STATE_STARTING) {
		dblock_device_set_state(device, DBLOCK_STATE_LIVE);
		pr_info_ratelimited("%s: served again, by process %d\n",
				    device->params.name, device->server_pid);
		wait = false;
	}
	mutex_unlock(&device->lock);
	if (err || !wait)
		return err;
	if (wait_for_completion_interruptible(&device->started))
		return -EINTR;
	err = READ_ONCE(device->start_error);
	/* Who hears of a failure can use the name again. */
	if (err && wait_for_completion_interruptible(&device->removed))
		return -EINTR;
	return err;
}

/**
 * dblock_device_resize() - give the disk a new size
 * @device: the device; the caller has a reference
 * @size_bytes: checked by the caller
 *
 * The disk's users are told without the device's lock, as that may take long: who
 * comes to end the reason for it, by ATTACH, START or DESTROY, does not wait.
 *
 * Return: 0, or -ENODEV if there is no disk, or none any more.
 */
int dblock_device_resize(struct dblock_device *device, u64 size_bytes)
{
	int err = 0;

	mutex_lock(&device->resizing);
	mutex_lock(&device->lock);
	if (device->state >= DBLOCK_STATE_LIVE &&
	    device->state < DBLOCK_STATE_REMOVING) {
		dblock_note(device, "resized from %llu to %llu bytes\n",
			    device->params.size_bytes, size_bytes);
		device->params.size_bytes = size_bytes;
	} else {
		err = -ENODEV;
	}
	mutex_unlock(&device->lock);
	if (!err)
		dblock_disk_set_size(device, size_bytes);
	mutex_unlock(&device->resizing);
	return err;
}

/**
 * dblock_device_server_gone() - a queue has lost its server
 * @device: the device; one that was never live goes in any case
 * @left: the server had said that it leaves; otherwise this is a death
 */
void dblock_device_server_gone(struct dblock_device *device, bool left)
{
	const char *name = device->params.name;
	const char *then;

	lockdep_assert_held(&device->lock);
	if (device->state == DBLOCK_STATE_CREATED ||
	    device->state == DBLOCK_STATE_STARTING) {
		dblock_device_remove(device);
		return;
	}
	/* The last of its queues may have answered after the first was lost. */
	dblock_cache_lost(device);
	if (device->state != DBLOCK_STATE_LIVE)
		return;
	if (left)
		device->leave_count++;
	else
		device->death_count++;
	switch (device->params.on_death) {
	case DBLOCK_ON_DEATH_HOLD:
		then = "I/O waits until another attaches";
		dblock_device_set_state(device, DBLOCK_STATE_HELD);
		break;
	case DBLOCK_ON_DEATH_FAIL:
		then = "I/O gets EIO until another attaches";
		dblock_device_set_state(device, DBLOCK_STATE_FAILED);
		break;
	default:
		then = "I/O fails and the device is removed";
		dblock_device_remove(device);
	}
	if (left)
		pr_info_ratelimited("%s: the server (process %d) has left; %s\n",
				    name, device->server_pid, then);
	else
		pr_warn_ratelimited("%s: the server (process %d) is gone; %s\n",
				    name, device->server_pid, then);
}

/* Whether a caller who says @id, or 0 for any, means this device. */
bool dblock_device_is(const struct dblock_device *device, u64 id)
{
	return !id || id == device->params.id;
}
