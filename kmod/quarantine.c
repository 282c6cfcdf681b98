// SPDX-License-Identifier: GPL-2.0
/*
 * The quarantine of a device: where a server that is late may still change the
 * disk, and the requests that wait for the end of that. A request that timed out
 * has ended, but its server may do it at any time. So nothing that changes the
 * same blocks is handed out until the late answer has come or the server has
 * ended: older data would replace newer. Which slots are in quarantine is in
 * slot.c.
 */
#include "compat.h"
#include "dblock.h"

static bool dblock_changes_disk(struct request *rq)
{
	switch (dblock_operation_of(rq)) {
	case DBLOCK_OPERATION_WRITE:
	case DBLOCK_OPERATION_DISCARD:
	case DBLOCK_OPERATION_WRITE_ZEROES:
		return true;
	default:
		return false;
	}
}

/* @rq, which is about to end, may still be done by whoever has its @slot.
 *
 * Return: whether that matters: it changes the disk.
 */
bool dblock_quarantine_add(struct dblock_device *device,
			   struct dblock_slot *slot, struct request *rq)
{
	if (!dblock_changes_disk(rq))
		return false;
	slot->sector = blk_rq_pos(rq);
	slot->sector_count = blk_rq_sectors(rq);
	spin_lock(&device->quarantine_lock);
	list_add_tail(&slot->quarantine, &device->quarantine);
	spin_unlock(&device->quarantine_lock);
	return true;
}

/* The slot's request is done, or never will be. */
void dblock_quarantine_del(struct dblock_device *device,
			   struct dblock_slot *slot)
{
	u32 i;

	if (list_empty(&slot->quarantine))
		return;
	spin_lock(&device->quarantine_lock);
	list_del_init(&slot->quarantine);
	spin_unlock(&device->quarantine_lock);
	atomic_inc(&device->quarantine_ends);
	/* What overlapped it may wait in any queue. */
	for (i = 0; i < device->params.queue_count; i++)
		dblock_queue_wake(&device->queues[i]);
}

/* Whether a late answer may change blocks that this request changes, too. */
static bool dblock_quarantine_overlaps(struct dblock_device *device,
				       struct request *rq)
{
	const struct dblock_slot *slot;
	bool overlaps = false;

	/* Who ended the older request put it on the list before, and whoever
	 * relies on the order submitted this one after that.
	 */
	if (list_empty_careful(&device->quarantine) || !dblock_changes_disk(rq))
		return false;
	spin_lock(&device->quarantine_lock);
	list_for_each_entry(slot, &device->quarantine, quarantine) {
		if (blk_rq_pos(rq) < slot->sector + slot->sector_count &&
		    slot->sector < blk_rq_pos(rq) + blk_rq_sectors(rq)) {
			overlaps = true;
			break;
		}
	}
	spin_unlock(&device->quarantine_lock);
	return overlaps;
}

/**
 * dblock_queue_block() - put a request aside if it has to wait for a quarantine
 * @queue: the queue
 * @io: the request's, on no list
 * @ends: device->quarantine_ends, read before @io was looked for: an end that
 *	comes between is seen as news
 *
 * Return: whether the request waits now.
 */
bool dblock_queue_block(struct dblock_queue *queue, struct dblock_io *io,
			int ends)
{
	lockdep_assert_held(&queue->lock);
	if (!dblock_quarantine_overlaps(queue->device, blk_mq_rq_from_pdu(io)))
		return false;
	if (!queue->blocked_count)
		WRITE_ONCE(queue->blocked_ends, ends);
	list_add_tail(&io->node, &queue->blocked);
	io->blocked = true;
	queue->blocked_count++;
	return true;
}

/* Whether what was put aside is to be looked at again. */
bool dblock_queue_unblockable(struct dblock_queue *queue)
{
	return READ_ONCE(queue->blocked_count) &&
	       READ_ONCE(queue->blocked_ends) !=
	       atomic_read(&queue->device->quarantine_ends);
}

/* What was put aside waits among the others again: before what came later, behind
 * what is replayed and was handed out earlier.
 */
void dblock_queue_unblock(struct dblock_queue *queue)
{
	struct dblock_io *io, *next, *at;

	lockdep_assert_held(&queue->lock);
	list_for_each_entry_safe_reverse(io, next, &queue->blocked, node) {
		list_for_each_entry(at, &queue->waiting, node)
			if (at->sequence >= io->sequence)
				break;
		list_move_tail(&io->node, &at->node);
		io->blocked = false;
	}
	queue->waiting_count += queue->blocked_count;
	queue->blocked_count = 0;
}
