// SPDX-License-Identifier: GPL-2.0
/*
 * The account of a volatile write cache. What a server answered and did not
 * flush is lost with the server, and a FLUSH that was to make it durable has to
 * fail then.
 */
#include "compat.h"
#include "dblock.h"

/* How many answers a FLUSH that is handed out now makes durable. */
u64 dblock_cache_changes(const struct dblock_device *device)
{
	u64 changes = 0;
	u32 i;

	for (i = 0; i < device->params.queue_count; i++)
		changes += READ_ONCE(device->queues[i].changes);
	return changes;
}

/* Whether a server's death takes along what it answered and did not flush. */
bool dblock_cache_volatile(const struct dblock_device *device)
{
	u32 flags = device->params.flags;

	return flags & DBLOCK_DEVICE_WRITE_CACHE &&
	       !(flags & DBLOCK_DEVICE_CACHE_SURVIVES);
}

/* The FLUSHes that are under way are to fail, and the next one that comes. */
static void dblock_cache_fail_flushes(struct dblock_device *device)
{
	atomic_inc(&device->cache_losses);
	atomic_set(&device->flush_fails, 1);
}

/* A request of @operation was answered with success, its slot still COPYING. */
void dblock_cache_answered(const struct dblock_channel *channel,
			   const struct dblock_slot *slot, u8 operation)
{
	struct dblock_queue *queue = channel->queue;
	struct dblock_device *device = queue->device;

	lockdep_assert_held(&queue->lock);
	if (operation == DBLOCK_OPERATION_FLUSH) {
		spin_lock(&device->quarantine_lock);
		device->flushed = max(device->flushed, slot->covers);
		spin_unlock(&device->quarantine_lock);
	} else if (operation != DBLOCK_OPERATION_READ &&
		   !(slot->rq->cmd_flags & REQ_FUA)) {
		/* Its server was found dead while the answer was taken. */
		if (queue->channel != channel && dblock_cache_volatile(device))
			dblock_cache_fail_flushes(device);
		else
			WRITE_ONCE(queue->changes, queue->changes + 1);
	}
}

/* The server of this file says that all that was answered is durable. Under the
 * device's lock nobody takes the queue over, and answers what this does not cover.
 *
 * Return: 0, or -ENOTCONN if the file serves its queue no more.
 */
int dblock_cache_flushed(struct dblock_channel *channel)
{
	struct dblock_device *device = channel->device;
	u64 changes;
	int err = -ENOTCONN;

	mutex_lock(&device->lock);
	if (channel->queue->channel == channel) {
		changes = dblock_cache_changes(device);
		spin_lock(&device->quarantine_lock);
		device->flushed = max(device->flushed, changes);
		spin_unlock(&device->quarantine_lock);
		err = 0;
	}
	mutex_unlock(&device->lock);
	return err;
}

/* A server is gone, and its cache with it, unless that is somewhere else. Every
 * FLUSH that is under way fails, and the next one that comes: so does a drive
 * that lost its power. Where several rely on the disk, one of them hears of it.
 */
void dblock_cache_lost(struct dblock_device *device)
{
	u64 changes = dblock_cache_changes(device);
	bool lost;

	lockdep_assert_held(&device->lock);
	if (!dblock_cache_volatile(device))
		return;
	spin_lock(&device->quarantine_lock);
	lost = device->flushed != changes;
	device->flushed = changes;
	spin_unlock(&device->quarantine_lock);
	if (lost)
		dblock_cache_fail_flushes(device);
}

/* Whether this request, which has just come, is the FLUSH that fails for those
 * that the server's death would have had fail and that were not there yet.
 */
bool dblock_cache_fails(struct dblock_device *device, struct request *rq)
{
	return dblock_operation_of(rq) == DBLOCK_OPERATION_FLUSH &&
	       atomic_cmpxchg(&device->flush_fails, 1, 0);
}

/* Whether a server died after this FLUSH came, with what it was to make durable. */
bool dblock_flush_lost(const struct dblock_device *device, struct request *rq)
{
	return dblock_operation_of(rq) == DBLOCK_OPERATION_FLUSH &&
	       dblock_io_of(rq)->cache_losses !=
	       atomic_read(&device->cache_losses);
}
