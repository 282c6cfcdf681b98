// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/NAME-ctl: a server's open file of a device. It serves one queue at most.
 * When the process that attached it loses it, the server is dead.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/fdtable.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "dblock.h"

static int dblock_channel_open(struct inode *inode, struct file *file)
{
	struct dblock_channel *channel;
	struct dblock_device *device;

	device = dblock_device_by_minor(iminor(inode));
	if (!device)
		return -ENXIO;
	channel = kzalloc(sizeof(*channel), GFP_KERNEL);
	if (!channel) {
		dblock_device_put(device);
		return -ENOMEM;
	}
	channel->device = device;
	file->private_data = channel;
	return stream_open(inode, file);
}

static void dblock_channel_detach(struct dblock_channel *channel)
{
	struct dblock_device *device = channel->device;
	u32 i;

	mutex_lock(&device->lock);
	/* One of its threads may still wait for its turn to attach. */
	WRITE_ONCE(channel->closed, true);
	for (i = 0; !channel->queue && i < device->params.queue_count; i++)
		wake_up_all(&device->queues[i].wait);
	if (channel->queue && dblock_queue_detach(channel->queue, channel)) {
		device->attached_count--;
		if (!channel->queue->successor)
			dblock_device_server_died(device);
	}
	mutex_unlock(&device->lock);
}

static int dblock_same_file(const void *wanted, struct file *file,
			    unsigned int fd)
{
	return file == wanted;
}

/* Called whenever a process closes a descriptor of this file, also when it
 * exits. A child that inherited one must not keep a dead server alive, so what
 * counts is the process that attached: gone, or without a descriptor.
 */
static int dblock_channel_flush(struct file *file, fl_owner_t id)
{
	struct dblock_channel *channel = file->private_data;

	if (READ_ONCE(channel->files) != id)
		return 0;
	if (current->flags & PF_EXITING ||
	    !iterate_fd(current->files, 0, dblock_same_file, file))
		dblock_channel_detach(channel);
	return 0;
}

static int dblock_channel_release(struct inode *inode, struct file *file)
{
	struct dblock_channel *channel = file->private_data;

	dblock_channel_detach(channel);
	if (channel->mm)
		mmdrop(channel->mm);
	dblock_device_put(channel->device);
	kfree(channel);
	return 0;
}

static __poll_t dblock_channel_poll(struct file *file, poll_table *table)
{
	struct dblock_channel *channel = file->private_data;
	struct dblock_queue *queue = smp_load_acquire(&channel->queue);

	if (!queue)
		return EPOLLERR;
	poll_wait(file, &queue->wait, table);
	if (READ_ONCE(queue->gone) || READ_ONCE(queue->channel) != channel)
		return EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	return dblock_queue_ready(queue, channel) ? EPOLLIN | EPOLLRDNORM : 0;
}

static bool dblock_attach_valid(const struct dblock_device *device,
				const struct dblock_attach *p)
{
	const struct dblock_create *params = &device->params;
	u64 buffer_bytes = 0;

	if (!(params->flags & DBLOCK_DEVICE_DIRECT))
		buffer_bytes = (u64)params->queue_depth * params->max_io_bytes;
	return dblock_is_zero(p->reserved, sizeof(p->reserved)) &&
	       p->queue < params->queue_count &&
	       p->ring_bytes == DBLOCK_RING_BYTES(params->queue_depth) &&
	       p->ring_address % 8 == 0 && p->buffer_address % 4096 == 0 &&
	       p->buffer_bytes == buffer_bytes &&
	       !p->buffer_address == !buffer_bytes;
}

/* Under the device's lock, with the channel's EXCHANGE kept out. */
static int dblock_attach_locked(struct dblock_channel *channel,
				const struct dblock_attach *p)
{
	struct dblock_device *device = channel->device;
	struct dblock_queue *queue = &device->queues[p->queue];
	char __user *ring = u64_to_user_ptr(p->ring_address);
	u32 depth = device->params.queue_depth;
	bool served = queue->channel;
	int err;

	if (device->state >= DBLOCK_STATE_REMOVING)
		return -ENODEV;
	if (channel->closed)
		return -EBADF;
	if (channel->queue && (queue->channel != channel ||
			       channel->mm != current->mm))
		return -EBUSY;
	err = dblock_queue_attach(queue, channel,
				  p->flags & DBLOCK_ATTACH_TAKE_OVER);
	if (!err || err == -EINPROGRESS)
		WRITE_ONCE(channel->files, current->files);
	if (err)
		return err;
	if (!channel->mm) {
		channel->mm = current->mm;
		mmgrab(channel->mm);
	}
	channel->header = (void __user *)ring;
	ring += sizeof(struct dblock_ring_header);
	channel->requests = (void __user *)ring;
	ring += depth * sizeof(struct dblock_request);
	channel->completions = (void __user *)ring;
	spin_lock(&queue->lock);	/* a COMMIT may be under way */
	channel->buffer_address = p->buffer_address;
	spin_unlock(&queue->lock);
	device->attached_count += !served;
	device->server_pid = task_tgid_nr(current);
	dblock_note(device, "queue %u is served by process %d%s\n", p->queue,
		    device->server_pid, served ? ", which took it over" : "");
	smp_store_release(&channel->queue, queue);
	return 0;
}

/* Attaches as soon as the server before has answered what it has. */
static int dblock_attach_wait(struct dblock_channel *channel,
			      const struct dblock_attach *p)
{
	struct dblock_device *device = channel->device;
	struct dblock_queue *queue = &device->queues[p->queue];
	bool waiting = false;
	int err;

	for (;;) {
		mutex_lock(&device->lock);
		err = dblock_attach_locked(channel, p);
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
	if (err && waiting) {
		mutex_lock(&device->lock);
		dblock_queue_give_up(queue);
		/* If the server before died meanwhile, this was its heir. */
		if (!queue->channel)
			dblock_device_server_died(device);
		mutex_unlock(&device->lock);
	}
	return err;
}

static int dblock_attach(struct dblock_channel *channel,
			 struct dblock_attach *p)
{
	int err;

	if (p->flags & ~DBLOCK_ATTACH_TAKE_OVER)
		return -EOPNOTSUPP;
	if (!dblock_attach_valid(channel->device, p))
		return -EINVAL;
	if (!dblock_device_is(channel->device, p->id))
		return -ESTALE;
	if (!access_ok(u64_to_user_ptr(p->ring_address), p->ring_bytes) ||
	    !access_ok(u64_to_user_ptr(p->buffer_address), p->buffer_bytes) ||
	    clear_user(u64_to_user_ptr(p->ring_address),
		       sizeof(struct dblock_ring_header)))
		return -EFAULT;
	if (test_and_set_bit_lock(0, &channel->exchanging))
		return -EBUSY;
	err = dblock_attach_wait(channel, p);
	clear_bit_unlock(0, &channel->exchanging);
	return err;
}

static int dblock_resize(struct dblock_device *device, struct dblock_resize *p)
{
	int err = -ENODEV;

	if (p->flags)
		return -EOPNOTSUPP;
	if (!p->size_bytes || p->size_bytes > DBLOCK_SIZE_BYTES_MAX ||
	    p->size_bytes & (device->params.logical_block_bytes - 1) ||
	    !dblock_is_zero(p->reserved, sizeof(p->reserved)))
		return -EINVAL;
	if (!dblock_device_is(device, p->id))
		return -ESTALE;
	mutex_lock(&device->lock);
	if (device->state >= DBLOCK_STATE_LIVE &&
	    device->state < DBLOCK_STATE_REMOVING) {
		dblock_note(device, "resized from %llu to %llu bytes\n",
			    device->params.size_bytes, p->size_bytes);
		dblock_disk_resize(device, p->size_bytes);
		err = 0;
	}
	mutex_unlock(&device->lock);
	return err;
}

static int dblock_start(struct dblock_device *device, struct dblock_start *p)
{
	if (p->flags & ~DBLOCK_START_NO_WAIT)
		return -EOPNOTSUPP;
	if (!dblock_is_zero(p->reserved, sizeof(p->reserved)))
		return -EINVAL;
	if (!dblock_device_is(device, p->id))
		return -ESTALE;
	return dblock_device_start(device, !(p->flags & DBLOCK_START_NO_WAIT));
}

static long dblock_channel_ioctl(struct file *file, unsigned int command,
				 unsigned long argument)
{
	struct dblock_channel *channel = file->private_data;
	union {
		u32 error;
		struct dblock_attach attach;
		struct dblock_start start;
		struct dblock_commit commit;
		struct dblock_resize resize;
		struct dblock_info info;
	} p;
	void __user *user = (void __user *)argument;
	size_t size = _IOC_SIZE(command);
	int err;

	switch (command) {
	case DBLOCK_IOC_EXCHANGE:
		return dblock_exchange(file, argument);
	case DBLOCK_IOC_ATTACH:
	case DBLOCK_IOC_START:
	case DBLOCK_IOC_COMMIT:
	case DBLOCK_IOC_RESIZE:
	case DBLOCK_IOC_INFO:
		break;
	default:
		return -ENOTTY;
	}
	if (copy_from_user(&p, user, size))
		return -EFAULT;
	if (command == DBLOCK_IOC_COMMIT) {
		err = dblock_commit(channel, &p.commit);
	} else if (!capable(CAP_SYS_ADMIN)) {
		err = -EPERM;
	} else if (command == DBLOCK_IOC_ATTACH) {
		err = dblock_attach(channel, &p.attach);
	} else if (command == DBLOCK_IOC_START) {
		err = dblock_start(channel->device, &p.start);
	} else if (command == DBLOCK_IOC_RESIZE) {
		err = dblock_resize(channel->device, &p.resize);
	} else {
		err = dblock_device_info_checked(channel->device, &p.info);
	}
	p.error = -err;
	if (copy_to_user(user, &p, size))
		return -EFAULT;
	return err;
}

const struct file_operations dblock_channel_fops = {
	.owner		= THIS_MODULE,
	.open		= dblock_channel_open,
	.flush		= dblock_channel_flush,
	.release	= dblock_channel_release,
	.poll		= dblock_channel_poll,
	.unlocked_ioctl	= dblock_channel_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};
