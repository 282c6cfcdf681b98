// SPDX-License-Identifier: GPL-2.0
/*
 * The bell of a server that sleeps in an event loop of its own, among all else that
 * it waits for: an eventfd, which it gives at ATTACH. An EXCHANGE that finds nothing,
 * and is the last before the server sleeps, puts it on the queue's wait list. There
 * whatever would end the wait of an EXCHANGE rings it, once, and takes it off again.
 * One eventfd may be the bell of many files, so a file whose bell has rung says so to
 * poll(), although what rang it be gone.
 */
#include <linux/eventfd.h>
#include <linux/list.h>
#include <linux/wait.h>

#include "compat.h"
#include "dblock.h"

/* Under the lock of the wait list. */
static int dblock_bell_ring(struct wait_queue_entry *entry, unsigned int mode,
			    int flags, void *key)
{
	struct dblock_bell *bell = container_of(entry, struct dblock_bell, entry);

	list_del_init(&entry->entry);
	WRITE_ONCE(bell->rung, true);
	dblock_eventfd_signal(bell->eventfd);
	return 0;
}

/* Return: whether it was waiting to be rung. */
static bool dblock_bell_disarm(struct dblock_channel *channel)
{
	struct wait_queue_entry *entry = &channel->bell.entry;
	struct dblock_queue *queue = channel->queue;
	unsigned long flags;
	bool armed;

	spin_lock_irqsave(&queue->wait.lock, flags);
	armed = !list_empty(&entry->entry);
	list_del_init(&entry->entry);
	spin_unlock_irqrestore(&queue->wait.lock, flags);
	return armed;
}

/**
 * dblock_bell_arm() - EXCHANGE is about to say EAGAIN, and the server to sleep
 * @channel: in EXCHANGE
 *
 * Return: false if something is there after all, and it has to look again. True:
 * the bell rings when that is so, if there is a bell.
 */
bool dblock_bell_arm(struct dblock_channel *channel)
{
	struct wait_queue_entry *entry = &channel->bell.entry;
	struct dblock_queue *queue = channel->queue;
	unsigned long flags;

	if (!channel->bell.eventfd)
		return true;
	spin_lock_irqsave(&queue->wait.lock, flags);
	/* After epoll's: who hears the bell finds the file among those that
	 * are ready.
	 */
	if (list_empty(&entry->entry))
		__add_wait_queue_entry_tail(&queue->wait, entry);
	spin_unlock_irqrestore(&queue->wait.lock, flags);
	/* Pairs with wq_has_sleeper(): either a request that comes now sees the
	 * bell, or this thread sees the request.
	 */
	smp_mb();
	if (!dblock_queue_ready(queue, channel))
		return true;
	dblock_bell_disarm(channel);
	return false;
}

/**
 * dblock_bell_set() - from now on this is the channel's bell
 * @channel: attached; its EXCHANGE is kept out, or it is being released
 * @eventfd: the bell, whose reference is the channel's from now on, or NULL
 *
 * Who still sleeps with the bell before is woken.
 */
void dblock_bell_set(struct dblock_channel *channel,
		     struct eventfd_ctx *eventfd)
{
	struct dblock_bell *bell = &channel->bell;

	if (bell->eventfd) {
		if (dblock_bell_disarm(channel)) {
			WRITE_ONCE(bell->rung, true);
			dblock_eventfd_signal(bell->eventfd);
		}
		eventfd_ctx_put(bell->eventfd);
	}
	bell->eventfd = eventfd;
	init_waitqueue_func_entry(&bell->entry, dblock_bell_ring);
	INIT_LIST_HEAD(&bell->entry.entry);
}
