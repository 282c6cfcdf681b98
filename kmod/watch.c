// SPDX-License-Identifier: GPL-2.0
/*
 * Notices dead servers whose files do not say so. The kernel closes a process's
 * files when the last of its threads lets go of them. That is late if a thread
 * is stuck (it may wait for this very disk), or while the process dumps core; and
 * it never comes if the process becomes another program, by exec(), that has
 * inherited the file. So whoever attached is looked at twice a second while there
 * is a server at all, and whenever its death would make a difference. Before the
 * first ATTACH that is who made the device.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "dblock.h"

#define DBLOCK_WATCH_MS		500

static struct workqueue_struct *dblock_watch_workqueue;
static struct delayed_work dblock_watch_work;

/**
 * dblock_process_ended() - whether none of its threads sees user space again
 * @process: the process that attached
 * @mm: the memory it had then; another one means exec(). NULL: no matter
 *
 * Context: any; nothing is waited for.
 */
bool dblock_process_ended(struct pid *process, const struct mm_struct *mm)
{
	const struct task_struct *leader;
	const struct mm_struct *now;
	bool ended = true;

	rcu_read_lock();
	leader = pid_task(process, PIDTYPE_TGID);
	if (leader) {
		/* A leader that has ended before its threads has none. */
		now = READ_ONCE(leader->mm);
		ended = READ_ONCE(leader->signal->flags) & DBLOCK_SIGNAL_EXITS ||
			!atomic_read(&leader->signal->live) ||
			(mm && now && now != mm);
	}
	rcu_read_unlock();
	return ended;
}

/* The caller holds the device's lock, or that of the queue it serves. */
bool dblock_channel_orphaned(const struct dblock_channel *channel)
{
	return dblock_process_ended(channel->process, channel->mm);
}

/* The process that did not answer a request of some queue in time, where that is
 * its death. Of several, one: the others have their turn in the next look.
 *
 * Return: what the caller has to put, or NULL.
 */
static struct pid *dblock_device_overdue(const struct dblock_device *device)
{
	const struct dblock_queue *queue;
	u32 i;

	lockdep_assert_held(&device->lock);
	for (i = 0; i < device->params.queue_count; i++) {
		queue = &device->queues[i];
		if (READ_ONCE(queue->overdue) && queue->channel)
			return get_pid(queue->channel->process);
	}
	return NULL;
}

/* Return: whether there is anybody to be watched. */
static bool dblock_watch_device(struct dblock_device *device)
{
	struct dblock_channel *channel;
	struct pid *overdue;
	bool watched;
	u32 i;

	/* Who is at it is no reason to keep the others waiting. */
	if (!mutex_trylock(&device->lock))
		return true;
	overdue = dblock_device_overdue(device);
	if (overdue)
		pr_warn_ratelimited("%s: the server (process %d) did not answer in %u ms: it is taken for dead\n",
				    device->params.name, pid_nr(overdue),
				    device->params.timeout_ms);
	for (i = 0; i < device->params.queue_count; i++) {
		channel = device->queues[i].channel;
		if (channel && (channel->process == overdue ||
				dblock_channel_orphaned(channel)))
			dblock_channel_detach_locked(channel);
	}
	put_pid(overdue);
	if (device->creator && dblock_process_ended(device->creator, NULL)) {
		dblock_note(device, "its creator has ended, and nobody has attached\n");
		dblock_device_remove(device);
	}
	watched = device->attached_count || device->creator;
	mutex_unlock(&device->lock);
	return watched;
}

static void dblock_watch(struct work_struct *work)
{
	if (dblock_device_any(dblock_watch_device))
		dblock_watch_begin();
}

/* There is a server now, or somebody who may become one. */
void dblock_watch_begin(void)
{
	queue_delayed_work(dblock_watch_workqueue, &dblock_watch_work,
			   msecs_to_jiffies(DBLOCK_WATCH_MS));
}

/* A server has been seen dead by somebody who cannot do anything about it. */
void dblock_watch_now(void)
{
	mod_delayed_work(dblock_watch_workqueue, &dblock_watch_work, 0);
}

int dblock_watch_init(void)
{
	INIT_DELAYED_WORK(&dblock_watch_work, dblock_watch);
	/* It must get on where no memory is to be had: that may be all that
	 * ends the shortage.
	 */
	dblock_watch_workqueue = alloc_workqueue("dblock-watch", WQ_UNBOUND |
						 WQ_MEM_RECLAIM, 1);
	return dblock_watch_workqueue ? 0 : -ENOMEM;
}

/* No device is left. */
void dblock_watch_exit(void)
{
	cancel_delayed_work_sync(&dblock_watch_work);
	destroy_workqueue(dblock_watch_workqueue);
}
