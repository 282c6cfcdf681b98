// SPDX-License-Identifier: GPL-2.0
/*
 * A device from CREATE to gone: the state and what follows from it, and the
 * works that add and remove the disk. README.md draws the states.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitops.h>
#include <linux/module.h>
#include <linux/pid.h>
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
	for (i = 0; device->queues && i < device->params.queue_count; i++)
		dblock_queue_free(&device->queues[i]);
	kvfree(device->queues);
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

static void dblock_start_work(struct work_struct *work)
{
	struct dblock_device *device = container_of(work, struct dblock_device,
						    start_work);
	int err = dblock_disk_alloc(device);

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
	dblock_disk_resized(device);
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
	return device;

free:
	dblock_device_free(device);
	return ERR_PTR(err);
}

/*
 * State
 */

const char * const dblock_state_names[] = {
	[DBLOCK_STATE_CREATED]	= "created",
	[DBLOCK_STATE_STARTING]	= "starting",
	[DBLOCK_STATE_LIVE]	= "live",
	[DBLOCK_STATE_HELD]	= "held",
	[DBLOCK_STATE_FAILED]	= "failed",
	[DBLOCK_STATE_REMOVING]	= "removing",
	[DBLOCK_STATE_GONE]	= "gone",
};

static const unsigned long dblock_next_states[] = {
	[DBLOCK_STATE_CREATED]	= BIT(DBLOCK_STATE_STARTING) |
				  BIT(DBLOCK_STATE_REMOVING),
	[DBLOCK_STATE_STARTING]	= BIT(DBLOCK_STATE_LIVE) |
				  BIT(DBLOCK_STATE_REMOVING),
	[DBLOCK_STATE_LIVE]	= BIT(DBLOCK_STATE_HELD) |
				  BIT(DBLOCK_STATE_FAILED) |
				  BIT(DBLOCK_STATE_REMOVING),
	[DBLOCK_STATE_HELD]	= BIT(DBLOCK_STATE_LIVE) |
				  BIT(DBLOCK_STATE_REMOVING),
	[DBLOCK_STATE_FAILED]	= BIT(DBLOCK_STATE_LIVE) |
				  BIT(DBLOCK_STATE_REMOVING),
	[DBLOCK_STATE_REMOVING]	= BIT(DBLOCK_STATE_GONE),
	[DBLOCK_STATE_GONE]	= 0,
};

static const enum dblock_mode dblock_modes[] = {
	[DBLOCK_STATE_CREATED]	= DBLOCK_MODE_HOLD,
	[DBLOCK_STATE_STARTING]	= DBLOCK_MODE_SERVE,
	[DBLOCK_STATE_LIVE]	= DBLOCK_MODE_SERVE,
	[DBLOCK_STATE_HELD]	= DBLOCK_MODE_HOLD,
	[DBLOCK_STATE_FAILED]	= DBLOCK_MODE_FAIL,
	[DBLOCK_STATE_REMOVING]	= DBLOCK_MODE_FAIL,
	[DBLOCK_STATE_GONE]	= DBLOCK_MODE_FAIL,
};

/* The only place that changes the state; the queues follow. */
void dblock_device_set_state(struct dblock_device *device,
			     enum dblock_state state)
{
	u32 i;

	lockdep_assert_held(&device->lock);
	WARN_ON_ONCE(!(dblock_next_states[device->state] & BIT(state)));
	dblock_note(device, "state %s to %s\n",
		    dblock_state_names[device->state],
		    dblock_state_names[state]);
	device->state = state;
	for (i = 0; i < device->params.queue_count; i++)
		dblock_queue_set_mode(&device->queues[i], dblock_modes[state],
				      state >= DBLOCK_STATE_REMOVING);
}

/* Everything in flight gets EIO now; disk and name go soon after. */
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

/* A server is gone, and with it what it had answered and not flushed, unless its
 * cache is somewhere else. Every FLUSH that is under way fails, and the next one
 * that comes: so does a drive that lost its power.
 */
void dblock_device_lost_cache(struct dblock_device *device)
{
	u32 flags = device->params.flags;
	u64 changes = dblock_device_changes(device);
	bool lost;

	lockdep_assert_held(&device->lock);
	if (!(flags & DBLOCK_DEVICE_WRITE_CACHE) ||
	    flags & DBLOCK_DEVICE_CACHE_SURVIVES)
		return;
	spin_lock(&device->quarantine_lock);
	lost = device->flushed != changes;
	device->flushed = changes;
	spin_unlock(&device->quarantine_lock);
	if (!lost)
		return;
	atomic_inc(&device->cache_losses);
	atomic_set(&device->flush_fails, 1);
}

/* A queue has lost its server. A disk that was never live goes in any case. */
void dblock_device_server_died(struct dblock_device *device)
{
	const char *name = device->params.name;

	lockdep_assert_held(&device->lock);
	if (device->state == DBLOCK_STATE_CREATED ||
	    device->state == DBLOCK_STATE_STARTING) {
		dblock_device_remove(device);
		return;
	}
	if (device->state != DBLOCK_STATE_LIVE)
		return;
	device->death_count++;
	dblock_device_lost_cache(device);
	switch (device->params.on_death) {
	case DBLOCK_ON_DEATH_HOLD:
		pr_warn_ratelimited("%s: the server (process %d) is gone; I/O waits until another attaches\n",
				    name, device->server_pid);
		dblock_device_set_state(device, DBLOCK_STATE_HELD);
		break;
	case DBLOCK_ON_DEATH_FAIL:
		pr_warn_ratelimited("%s: the server (process %d) is gone; I/O gets EIO until another attaches\n",
				    name, device->server_pid);
		dblock_device_set_state(device, DBLOCK_STATE_FAILED);
		break;
	default:
		pr_warn_ratelimited("%s: the server (process %d) is gone; I/O gets EIO and the device is removed\n",
				    name, device->server_pid);
		dblock_device_remove(device);
	}
}

/* Whoever waits for a queue, whichever that is, looks again. */
void dblock_device_wake(struct dblock_device *device)
{
	u32 i;

	for (i = 0; i < device->params.queue_count; i++)
		wake_up_all(&device->queues[i].wait);
}

/*
 * What there is to tell
 */

static void dblock_queue_info(struct dblock_queue *queue,
			      struct dblock_info *info)
{
	int i;

	spin_lock(&queue->lock);
	info->waiting_count += queue->waiting_count + queue->blocked_count;
	info->handed_count += queue->handed_count;
	info->quarantined_count += queue->quarantined_count;
	for (i = 0; i < DBLOCK_OPERATION_COUNT; i++) {
		info->requests[i] += queue->requests[i];
		info->bytes[i] += queue->bytes[i];
	}
	info->error_count += queue->error_count;
	info->timeout_count += queue->timeout_count;
	info->stale_count += queue->stale_count;
	info->refused_count += queue->refused_count;
	info->replayed_count += queue->replayed_count;
	info->batch_count += queue->batch_count;
	info->handed_total += queue->handed_total;
	spin_unlock(&queue->lock);
}

/* Whether a caller who says @id, or 0 for any, means this device. */
bool dblock_device_is(const struct dblock_device *device, u64 id)
{
	return !id || id == device->params.id;
}

/**
 * dblock_device_info_checked() - INFO as a caller asks for it
 * @device: the device; the caller has a reference
 * @info: what the caller gave; everything about the device
 *
 * Return: 0, -EINVAL or -ESTALE; @info is as it was then.
 */
int dblock_device_info_checked(struct dblock_device *device,
			       struct dblock_info *info)
{
	if (!dblock_is_zero(info->reserved, sizeof(info->reserved)))
		return -EINVAL;
	if (!dblock_device_is(device, info->id))
		return -ESTALE;
	dblock_device_info(device, info);
	return 0;
}

void dblock_device_info(struct dblock_device *device, struct dblock_info *info)
{
	const struct dblock_create *p = &device->params;
	u32 i;

	memset(info, 0, sizeof(*info));
	mutex_lock(&device->lock);
	info->flags = p->flags;
	memcpy(info->name, p->name, sizeof(info->name));
	info->id = p->id;
	info->size_bytes = p->size_bytes;
	info->logical_block_bytes = p->logical_block_bytes;
	info->physical_block_bytes = p->physical_block_bytes;
	info->io_opt_bytes = p->io_opt_bytes;
	info->max_io_bytes = p->max_io_bytes;
	info->queue_count = p->queue_count;
	info->queue_depth = p->queue_depth;
	info->timeout_ms = p->timeout_ms;
	info->on_death = p->on_death;
	info->discard_granularity_bytes = p->discard_granularity_bytes;
	info->max_discard_bytes = p->max_discard_bytes;
	info->max_write_zeroes_bytes = p->max_write_zeroes_bytes;
	info->minor = p->minor;
	info->state = device->state;
	info->open_count = device->open_count;
	info->server_pid = device->attached_count ? device->server_pid : 0;
	info->attached_count = device->attached_count;
	info->death_count = device->death_count;
	if (device->state >= DBLOCK_STATE_LIVE && device->disk_added) {
		info->disk_major = device->disk->major;
		info->disk_minor = device->disk->first_minor;
	}
	for (i = 0; i < p->queue_count; i++)
		dblock_queue_info(&device->queues[i], info);
	mutex_unlock(&device->lock);
}
