// SPDX-License-Identifier: GPL-2.0
/*
 * ATTACH: an open file begins to serve a queue, at once or by taking it over from
 * the server that has it. And the end of that, which is a server's death unless
 * the server has said that it leaves, or somebody is taking the device over.
 *
 * A take-over is one act of two processes, the heir and its predecessor, though
 * the queues change hands one by one. From the first until the last, or until the
 * heir leaves, neither is handed anything, and the predecessor's death is no
 * reason to apply on_death: what it served waits for the heir. All of this is
 * under the device's lock.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/err.h>
#include <linux/eventfd.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "dblock.h"

static bool dblock_device_complete(const struct dblock_device *device)
{
	return device->attached_count == device->params.queue_count;
}

static void dblock_take_over_end(struct dblock_device *device)
{
	if (!device->heir)
		return;
	put_pid(device->heir);
	put_pid(device->predecessor);
	WRITE_ONCE(device->heir, NULL);
	device->predecessor = NULL;
	dblock_device_wake(device);
}

/* Return: 0; -EOPNOTSUPP or -EBUSY if there must be no take-over now. */
static int dblock_take_over_begin(struct dblock_device *device,
				  struct pid *heir, struct pid *predecessor,
				  bool orphaned)
{
	/* A process that moves a queue from file to file inherits nothing. */
	if (heir == predecessor)
		return 0;
	/* Nobody tells a server when to flush for the last time. */
	if (dblock_cache_volatile(device) && !orphaned)
		return -EOPNOTSUPP;
	/* Where a queue has no server yet there is nothing whole to take over. */
	if (device->heir || !dblock_device_complete(device))
		return 0;
	/* It may do late what has ended. Who waited for that would stop all I/O
	 * for as long.
	 */
	if (!list_empty_careful(&device->quarantine) && !orphaned)
		return -EBUSY;
	device->predecessor = get_pid(predecessor);
	WRITE_ONCE(device->heir, get_pid(heir));
	return 0;
}

/* Whether a process serves a queue, or waits to take one over. */
static bool dblock_process_takes_part(const struct dblock_device *device,
				      const struct pid *process)
{
	const struct dblock_queue *queue;
	u32 i;

	for (i = 0; i < device->params.queue_count; i++) {
		queue = &device->queues[i];
		if ((queue->channel && queue->channel->process == process) ||
		    (queue->successor && queue->successor->process == process))
			return true;
	}
	return false;
}

/* After a queue has got or lost a server, or somebody has ceased to wait for
 * one: whether that was the end of a take-over.
 */
static void dblock_take_over_check(struct dblock_device *device)
{
	lockdep_assert_held(&device->lock);
	if (!device->heir)
		return;
	if (!dblock_process_takes_part(device, device->heir)) {
		/* It has left. What it was to inherit has no server. */
		dblock_take_over_end(device);
		if (!dblock_device_complete(device))
			dblock_device_server_gone(device, false);
	} else if (dblock_device_complete(device) &&
		   !dblock_process_takes_part(device, device->predecessor)) {
		dblock_take_over_end(device);
	}
}

/**
 * dblock_channel_detach_locked() - this file serves its queue no more
 * @channel: the file; it attaches nothing else either
 */
void dblock_channel_detach_locked(struct dblock_channel *channel)
{
	struct dblock_device *device = channel->device;
	struct dblock_queue *queue = channel->queue;
	bool inherited;

	lockdep_assert_held(&device->lock);
	WRITE_ONCE(channel->closed, true);
	if (!queue) {
		/* One of its threads may still wait for its turn to attach. */
		dblock_device_wake(device);
		return;
	}
	if (!dblock_queue_detach(queue, channel))
		return;
	device->attached_count--;
	inherited = queue->successor ||
		    (device->heir && channel->process == device->predecessor);
	if (inherited)
		dblock_cache_lost(device);
	if (!inherited) {
		/* Be it the heir: this is the end of a server. */
		dblock_take_over_end(device);
		dblock_device_server_gone(device, channel->leaves);
	}
}

void dblock_channel_detach(struct dblock_channel *channel)
{
	mutex_lock(&channel->device->lock);
	dblock_channel_detach_locked(channel);
	mutex_unlock(&channel->device->lock);
}

/* The server of this file says that it leaves, with all its files of the device:
 * the first of them to be closed is the end that is counted, whichever it is.
 *
 * Return: 0, or -ENOTCONN if the file serves its queue no more.
 */
int dblock_channel_leave(struct dblock_channel *channel)
{
	struct dblock_device *device = channel->device;
	struct dblock_channel *other;
	int err = -ENOTCONN;
	u32 i;

	mutex_lock(&device->lock);
	if (channel->queue->channel == channel) {
		for (i = 0; i < device->params.queue_count; i++) {
			other = device->queues[i].channel;
			if (other && other->process == channel->process)
				other->leaves = true;
		}
		err = 0;
	}
	mutex_unlock(&device->lock);
	return err;
}

static bool dblock_attach_valid(const struct dblock_device *device,
				const struct dblock_attach *p)
{
	const struct dblock_create *params = &device->params;
	u64 buffer_bytes = 0;

	if (!(params->flags & DBLOCK_DEVICE_DIRECT))
		buffer_bytes = (u64)params->queue_depth * params->max_io_bytes;
	return dblock_is_zero(p->reserved, sizeof(p->reserved)) &&
	       (p->flags & DBLOCK_ATTACH_EVENTFD || !p->event_fd) &&
	       (p->flags & DBLOCK_ATTACH_FILE ?
		params->flags & DBLOCK_DEVICE_DIRECT &&
		!dblock_cache_volatile(device) : !p->file_fd) &&
	       p->queue < params->queue_count &&
	       p->ring_bytes == DBLOCK_RING_BYTES(params->queue_depth) &&
	       p->ring_address % 8 == 0 && p->buffer_address % 4096 == 0 &&
	       p->buffer_bytes == buffer_bytes &&
	       !p->buffer_address == !buffer_bytes;
}

/* This file belongs to the process that attaches it, from before the queue knows
 * the file.
 */
static void dblock_channel_own(struct dblock_channel *channel)
{
	if (channel->queue)
		return;
	put_pid(channel->process);
	channel->process = get_pid(task_tgid(current));
	if (channel->mm)
		mmdrop(channel->mm);
	channel->mm = current->mm;
	mmgrab(channel->mm);
}

/* Who has the queue now, seen by who asks for it: a dead server, which may not
 * know it yet, does not have it any more.
 */
static int dblock_attach_look(struct dblock_channel *channel,
			      struct dblock_queue *queue, bool take_over)
{
	struct dblock_channel *before = queue->channel;
	struct dblock_device *device = channel->device;
	bool orphaned;
	int err = 0;

	if (!before || before == channel)
		return 0;
	orphaned = dblock_channel_orphaned(before);
	if (take_over)
		err = dblock_take_over_begin(device, channel->process,
					     before->process, orphaned);
	if (orphaned)
		dblock_channel_detach_locked(before);
	return err;
}

/* Under the device's lock, with the channel's EXCHANGE kept out. The channel's file
 * and @content change places.
 */
static int dblock_attach_locked(struct dblock_channel *channel,
				const struct dblock_attach *p,
				struct file **content)
{
	bool take_over = p->flags & DBLOCK_ATTACH_TAKE_OVER;
	struct dblock_device *device = channel->device;
	struct dblock_queue *queue = &device->queues[p->queue];
	char __user *ring = u64_to_user_ptr(p->ring_address);
	u32 depth = device->params.queue_depth;
	bool served;
	int err;

	if (device->state >= DBLOCK_STATE_REMOVING)
		return -ENODEV;
	if (channel->closed)
		return -EBADF;
	if (channel->queue && (queue->channel != channel ||
			       channel->mm != current->mm))
		return -EBUSY;
	dblock_channel_own(channel);
	err = dblock_attach_look(channel, queue, take_over);
	if (device->state >= DBLOCK_STATE_REMOVING)
		return -ENODEV;
	if (err)
		return err;
	if (device->heir && device->heir != channel->process)
		return -EBUSY;
	served = queue->channel;
	err = dblock_queue_attach(queue, channel, take_over);
	if (!err || err == -EINPROGRESS)
		WRITE_ONCE(channel->files, current->files);
	if (err)
		return err;
	channel->header = (void __user *)ring;
	ring += sizeof(struct dblock_ring_header);
	channel->requests = (void __user *)ring;
	ring += depth * sizeof(struct dblock_request);
	channel->completions = (void __user *)ring;
	spin_lock(&queue->lock);	/* a COMMIT may be under way */
	channel->buffer_address = p->buffer_address;
	swap(channel->file, *content);
	spin_unlock(&queue->lock);
	channel->leaves = false;
	device->attached_count += !served;
	device->server_pid = task_tgid_nr(current);
	dblock_note(device, "queue %u is served by process %d%s\n", p->queue,
		    device->server_pid, served ? ", which took it over" : "");
	smp_store_release(&channel->queue, queue);
	put_pid(device->creator);
	device->creator = NULL;
	dblock_take_over_check(device);
	dblock_channel_relay(channel);
	dblock_watch_begin();
	return 0;
}

/* Attaches as soon as the server before has answered what it has. */
static int dblock_attach_wait(struct dblock_channel *channel,
			      const struct dblock_attach *p,
			      struct file **content)
{
	struct dblock_device *device = channel->device;
	struct dblock_queue *queue = &device->queues[p->queue];
	bool waiting = false;
	int err;

	for (;;) {
		mutex_lock(&device->lock);
		err = dblock_attach_locked(channel, p, content);
		mutex_unlock(&device->lock);
		if (err != -EINPROGRESS)
			break;
		waiting = true;
		if (wait_event_interruptible(queue->wait,
					     dblock_queue_drained(queue) ||
					     READ_ONCE(channel->closed))) {
			err = -EINTR;
			break;
		}
	}
	if (!err)
		return 0;
	mutex_lock(&device->lock);
	if (waiting) {
		dblock_queue_give_up(queue);
		/* If the server before died meanwhile, this was its heir. */
		if (!queue->channel && !device->heir)
			dblock_device_server_gone(device, false);
	}
	dblock_take_over_check(device);
	mutex_unlock(&device->lock);
	return err;
}

/* Whether there is memory that can be written to, without writing to it: it may
 * be a ring that is in use.
 */
static bool dblock_ring_there(const struct dblock_attach *p)
{
	return dblock_user_range(p->ring_address, p->ring_bytes) &&
	       dblock_user_range(p->buffer_address, p->buffer_bytes) &&
	       !dblock_data_fault_in(p->ring_address,
				     sizeof(struct dblock_ring_header), true);
}

/* With the channel's EXCHANGE kept out; lets it in. */
static int dblock_attach_alone(struct dblock_channel *channel,
			       struct dblock_attach *p,
			       struct eventfd_ctx *eventfd,
			       struct file **content)
{
	int err = dblock_attach_wait(channel, p, content);

	if (!err)
		dblock_bell_set(channel, eventfd);
	if (!err && clear_user(u64_to_user_ptr(p->ring_address),
			       sizeof(struct dblock_ring_header)))
		dblock_note(channel->device, "the ring has gone already\n");
	clear_bit_unlock(0, &channel->exchanging);
	return err;
}

/**
 * dblock_attach() - DBLOCK_IOC_ATTACH
 * @channel: the file
 * @p: as it came from the caller
 */
int dblock_attach(struct dblock_channel *channel, struct dblock_attach *p)
{
	struct eventfd_ctx *eventfd = NULL;
	struct file *content = NULL;
	int err;

	if (p->flags & ~(DBLOCK_ATTACH_TAKE_OVER | DBLOCK_ATTACH_EVENTFD |
			 DBLOCK_ATTACH_FILE))
		return -EOPNOTSUPP;
	if (!dblock_attach_valid(channel->device, p))
		return -EINVAL;
	if (!dblock_device_is(channel->device, p->id))
		return -ESTALE;
	if (!dblock_ring_there(p))
		return -EFAULT;
	if (p->flags & DBLOCK_ATTACH_FILE) {
		content = dblock_file_get(channel->device, p->file_fd);
		if (IS_ERR(content))
			return PTR_ERR(content);
	}
	if (p->flags & DBLOCK_ATTACH_EVENTFD) {
		eventfd = eventfd_ctx_fdget(p->event_fd);
		if (IS_ERR(eventfd)) {
			eventfd = NULL;
			err = -EINVAL;
			goto out;
		}
	}
	if (test_and_set_bit_lock(0, &channel->exchanging))
		err = -EBUSY;
	else
		err = dblock_attach_alone(channel, p, eventfd, &content);
	if (err && eventfd)
		eventfd_ctx_put(eventfd);
out:
	/* The one that the channel had before, or that it does not get. */
	if (content)
		fput(content);
	return err;
}
