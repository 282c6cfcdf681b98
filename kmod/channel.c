// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/NAME-ctl: the file that a server opens. A file serves one queue at most;
 * attach.c says how that begins and ends. When the process that attached the file
 * has no descriptor of it any more, the server is dead.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/pid.h>
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
	init_waitqueue_head(&channel->wait);
	file->private_data = channel;
	return stream_open(inode, file);
}

static int dblock_same_file(const void *wanted, struct file *file,
			    unsigned int fd)
{
	return file == wanted;
}

/* Called whenever a process closes a descriptor of this file, also when the
 * process exits. Only the process that attached the file counts: a child that
 * inherited a descriptor must not keep a dead server alive. The server is dead if
 * that process exits, or has no descriptor left. watch.c finds the deaths that
 * this does not see.
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
	if (channel->relay.func)
		remove_wait_queue(&channel->queue->wait, &channel->relay);
	dblock_bell_set(channel, NULL);
	if (channel->file)
		fput(channel->file);
	if (channel->mm)
		mmdrop(channel->mm);
	put_pid(channel->process);
	dblock_device_put(channel->device);
	kfree(channel);
	return 0;
}

/* The queue wakes somebody: wake those, too, who polled before ATTACH. */
static int dblock_channel_relayed(struct wait_queue_entry *entry,
				  unsigned int mode, int flags, void *key)
{
	struct dblock_channel *channel = container_of(entry,
						      struct dblock_channel,
						      relay);

	wake_up_all(&channel->wait);
	return 0;
}

/* This file serves a queue from now on. An epoll set that added the file before is
 * on the file's own list for good, so the queue's wake-ups are passed on to that
 * list. A poll that begins later is on the queue's list, and nothing is passed on.
 */
void dblock_channel_relay(struct dblock_channel *channel)
{
	lockdep_assert_held(&channel->device->lock);
	/* Pairs with dblock_channel_poll(): either this thread sees that
	 * somebody polled early, or that poll sees the queue.
	 */
	smp_mb();
	if (!READ_ONCE(channel->polled_early) || channel->relay.func)
		return;
	init_waitqueue_func_entry(&channel->relay, dblock_channel_relayed);
	add_wait_queue(&channel->queue->wait, &channel->relay);
	wake_up_all(&channel->wait);
}

/* Puts the caller on the queue's list, or on the file's own before ATTACH, and only
 * then looks at what may change.
 */
static __poll_t dblock_channel_poll(struct file *file, poll_table *table)
{
	struct dblock_channel *channel = file->private_data;
	struct dblock_queue *queue = smp_load_acquire(&channel->queue);

	if (!queue) {
		poll_wait(file, &channel->wait, table);
		WRITE_ONCE(channel->polled_early, true);
		smp_mb();
		queue = smp_load_acquire(&channel->queue);
		if (!queue)
			return EPOLLERR;
	}
	poll_wait(file, &queue->wait, table);
	/* Pairs with dblock_queue_wake(). Not every kernel's poll_wait() has it. */
	smp_mb();
	if (READ_ONCE(queue->gone) || READ_ONCE(queue->channel) != channel)
		return EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	if (READ_ONCE(channel->bell.rung) || dblock_queue_ready(queue, channel))
		return EPOLLIN | EPOLLRDNORM;
	return 0;
}

static int dblock_resize(struct dblock_device *device, struct dblock_resize *p)
{
	if (p->flags)
		return -EOPNOTSUPP;
	if (!p->size_bytes || p->size_bytes > DBLOCK_SIZE_BYTES_MAX ||
	    p->size_bytes & (device->params.logical_block_bytes - 1) ||
	    !dblock_is_zero(p->reserved, sizeof(p->reserved)))
		return -EINVAL;
	if (!dblock_device_is(device, p->id))
		return -ESTALE;
	return dblock_device_resize(device, p->size_bytes);
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

static long dblock_channel_command(struct file *file, unsigned int command,
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

/* Memory for a server's pages may be short because of what waits for its disk.
 * To get some, no file system is asked in here, as it may be on this disk.
 * Swapping is allowed: without it, a process that has come to the limit of its
 * memory group is killed though swap is free. Who swaps to his own disk has to be
 * an I/O flusher (prctl), which excludes that, too.
 */
static long dblock_channel_ioctl(struct file *file, unsigned int command,
				 unsigned long argument)
{
	unsigned int nofs = memalloc_nofs_save();
	long ret = dblock_channel_command(file, command, argument);

	memalloc_nofs_restore(nofs);
	return ret;
}

#ifdef CONFIG_COMPAT
static long dblock_channel_compat_ioctl(struct file *file, unsigned int command,
					unsigned long argument)
{
	/* That of EXCHANGE is a number, and compat_ptr() may change one. */
	if (command != DBLOCK_IOC_EXCHANGE)
		argument = (unsigned long)compat_ptr(argument);
	return dblock_channel_ioctl(file, command, argument);
}
#endif

const struct file_operations dblock_channel_fops = {
	.owner		= THIS_MODULE,
	.open		= dblock_channel_open,
	.flush		= dblock_channel_flush,
	.release	= dblock_channel_release,
	.poll		= dblock_channel_poll,
	.unlocked_ioctl	= dblock_channel_ioctl,
#ifdef CONFIG_COMPAT
	.compat_ioctl	= dblock_channel_compat_ioctl,
#endif
	.llseek		= noop_llseek,
};
