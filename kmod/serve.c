// SPDX-License-Identifier: GPL-2.0
/*
 * Requests on their way to the server: handing them out, delivering the data
 * of a WRITE, and taking back what the server was not told of. Where requests
 * wait and how they end without a server is in queue.c.
 */
#include <linux/errno.h>
#include <linux/ioprio.h>

#include "compat.h"
#include "dblock.h"

/* Whether what waited for the end of a quarantine is to be looked at again. */
static bool dblock_queue_unblockable(struct dblock_queue *queue)
{
	return READ_ONCE(queue->blocked_count) &&
	       READ_ONCE(queue->blocked_ends) !=
	       atomic_read(&queue->device->quarantine_ends);
}

/* The next request that may be handed out. Those that have to wait for the end
 * of a quarantine are put aside. Others go on, so two writes that overlap may be
 * made in another order then; whoever minds waits for the first before the second.
 */
static struct dblock_io *dblock_queue_next(struct dblock_queue *queue,
					   struct list_head *failed)
{
	struct dblock_device *device = queue->device;
	struct dblock_io *io;
	int ends;

	lockdep_assert_held(&queue->lock);
	for (;;) {
		/* Read before the list is looked at: an end that comes between
		 * is seen as news.
		 */
		ends = atomic_read(&device->quarantine_ends);
		smp_rmb();
		io = list_first_entry_or_null(&queue->waiting,
					      struct dblock_io, node);
		if (!io)
			return NULL;
		list_del_init(&io->node);
		queue->waiting_count--;
		if (dblock_flush_lost(device, blk_mq_rq_from_pdu(io))) {
			io->ending = true;
			queue->error_count++;
			list_add_tail(&io->node, failed);
			continue;
		}
		if (!dblock_request_blocked(device, blk_mq_rq_from_pdu(io)))
			return io;
		if (!queue->blocked_count)
			WRITE_ONCE(queue->blocked_ends, ends);
		list_add_tail(&io->node, &queue->blocked);
		io->blocked = true;
		queue->blocked_count++;
	}
}

/* True when EXCHANGE has something to say. Without the lock: who sleeps on
 * this is woken after each change, and looks again.
 */
bool dblock_queue_ready(struct dblock_queue *queue,
			struct dblock_channel *channel)
{
	if (READ_ONCE(queue->gone) || READ_ONCE(queue->channel) != channel)
		return true;
	return READ_ONCE(queue->mode) == DBLOCK_MODE_SERVE &&
	       !READ_ONCE(queue->successor) && READ_ONCE(queue->free_count) &&
	       (READ_ONCE(queue->waiting_count) ||
		dblock_queue_unblockable(queue));
}

/* What is asked for, and what the kernel knows beside it. */
static u32 dblock_request_flags(struct request *rq, u8 operation)
{
	u32 flags = 0;

	if (rq->cmd_flags & REQ_FUA)
		flags |= DBLOCK_REQUEST_FUA;
	if (operation == DBLOCK_OPERATION_WRITE_ZEROES &&
	    rq->cmd_flags & REQ_NOUNMAP)
		flags |= DBLOCK_REQUEST_NO_UNMAP;
	if (dblock_io_of(rq)->replayed)
		flags |= DBLOCK_REQUEST_REPLAYED;
	if (rq->cmd_flags & REQ_META)
		flags |= DBLOCK_REQUEST_META;
	if (operation == DBLOCK_OPERATION_WRITE && rq->cmd_flags & REQ_SYNC)
		flags |= DBLOCK_REQUEST_SYNC;
	if (operation == DBLOCK_OPERATION_READ && rq->cmd_flags & REQ_RAHEAD)
		flags |= DBLOCK_REQUEST_READ_AHEAD;
	if (rq->cmd_flags & REQ_SWAP)
		flags |= DBLOCK_REQUEST_SWAP;
	return flags;
}

static u8 dblock_request_priority(struct request *rq)
{
	unsigned int prio = req_get_ioprio(rq);

	return IOPRIO_PRIO_CLASS(prio) << DBLOCK_PRIORITY_CLASS_SHIFT |
	       (prio & DBLOCK_PRIORITY_LEVEL_MASK);
}

static void dblock_describe(const struct dblock_slot *slot, u16 index,
			    struct dblock_request *request)
{
	struct request *rq = slot->rq;
	u8 operation = dblock_operation_of(rq);
	bool flush = operation == DBLOCK_OPERATION_FLUSH;

	*request = (struct dblock_request) {
		.offset_bytes = flush ? 0 :
				(u64)blk_rq_pos(rq) << SECTOR_SHIFT,
		.length_bytes = flush ? 0 : blk_rq_bytes(rq),
		.generation = slot->generation,
		.slot = index,
		.operation = operation,
		.priority = dblock_request_priority(rq),
		.flags = dblock_request_flags(rq, operation),
	};
}

/**
 * dblock_queue_hand_out() - give waiting requests a slot each
 * @channel: who asks
 * @requests: out: what to tell the server
 * @max: how many of them
 * @first: whether this begins a batch, for the count of batches
 *
 * Return: how many; -ENODEV if the device is gone, -ENOTCONN if @channel does
 * not serve the queue any more.
 */
int dblock_queue_hand_out(struct dblock_channel *channel,
			  struct dblock_request *requests, unsigned int max,
			  bool first)
{
	struct dblock_queue *queue = channel->queue;
	struct dblock_slot *slot;
	struct dblock_io *io;
	unsigned int count = 0;
	LIST_HEAD(failed);
	u16 index;
	int err = 0;

	spin_lock(&queue->lock);
	if (queue->gone)
		err = -ENODEV;
	else if (queue->channel != channel)
		err = -ENOTCONN;
	else if (queue->mode != DBLOCK_MODE_SERVE || queue->successor)
		max = 0;
	if (first)
		queue->batch++;
	if (dblock_queue_unblockable(queue))
		dblock_queue_unblock(queue);
	while (!err && count < max && queue->free_count) {
		io = dblock_queue_next(queue, &failed);
		if (!io)
			break;
		io->since = jiffies;
		index = queue->free[--queue->free_count];
		slot = &queue->slots[index];
		slot->rq = blk_mq_rq_from_pdu(io);
		slot->state = DBLOCK_SLOT_HANDED;
		if (!++slot->generation)
			slot->generation = 1;
		slot->batch = queue->batch;
		if (dblock_operation_of(slot->rq) == DBLOCK_OPERATION_FLUSH)
			slot->covers = dblock_device_changes(queue->device);
		io->slot = index;
		if (io->sequence == U64_MAX)
			io->sequence = queue->sequence++;
		queue->handed_total++;
		queue->handed_count++;
		queue->replayed_count += io->replayed;
		dblock_describe(slot, index, &requests[count++]);
	}
	queue->batch_count += first && count;
	spin_unlock(&queue->lock);
	dblock_end_list(&failed, BLK_STS_IOERR);
	return err ?: count;
}

/* The slot that @index and @generation speak of, if its request is still with
 * the server; else NULL, and @status says why.
 */
struct dblock_slot *dblock_slot_find(struct dblock_channel *channel, u16 index,
				     u32 generation, u16 *status)
{
	struct dblock_queue *queue = channel->queue;
	struct dblock_slot *slot;

	lockdep_assert_held(&queue->lock);
	if (index >= queue->device->params.queue_depth) {
		*status = DBLOCK_STATUS_UNKNOWN;
		return NULL;
	}
	slot = &queue->slots[index];
	if (queue->channel == channel && slot->generation == generation) {
		if (slot->state == DBLOCK_SLOT_HANDED)
			return slot;
		if (slot->state == DBLOCK_SLOT_QUARANTINED) {
			/* The late answer: now nothing is due from the slot. */
			dblock_slot_end_quarantine(queue, slot);
		}
	}
	*status = DBLOCK_STATUS_STALE;
	return NULL;
}

/* Undoes the hand-out of a slot that the server was not told of. */
static void dblock_slot_hand_back(struct dblock_queue *queue,
				  struct dblock_slot *slot)
{
	struct dblock_io *io;
	bool replayed;

	if (slot->state == DBLOCK_SLOT_QUARANTINED) {
		/* It timed out, and no answer is due. */
		dblock_slot_end_quarantine(queue, slot);
	} else if (slot->state == DBLOCK_SLOT_HANDED) {
		io = dblock_io_of(slot->rq);
		replayed = io->replayed;
		queue->handed_total--;
		queue->replayed_count -= replayed;
		dblock_slot_replay(queue, slot);
		io->replayed = replayed;
	}
}

/* The slot of a hand-out that is still this channel's, or NULL. */
static struct dblock_slot *dblock_slot_of(struct dblock_channel *channel,
					  const struct dblock_request *request)
{
	struct dblock_queue *queue = channel->queue;
	struct dblock_slot *slot = &queue->slots[request->slot];

	lockdep_assert_held(&queue->lock);
	if (queue->channel != channel || slot->generation != request->generation)
		return NULL;
	return slot;
}

/**
 * dblock_queue_hand_back() - the server was never told of these
 * @channel: whose call failed
 * @requests: as handed out, in order
 * @count: how many of them
 */
void dblock_queue_hand_back(struct dblock_channel *channel,
			    const struct dblock_request *requests,
			    unsigned int count)
{
	struct dblock_queue *queue = channel->queue;
	struct dblock_slot *slot;

	spin_lock(&queue->lock);
	while (count-- > 0) {
		slot = dblock_slot_of(channel, &requests[count]);
		if (slot)
			dblock_slot_hand_back(queue, slot);
	}
	spin_unlock(&queue->lock);
}

/**
 * dblock_queue_hand_back_batch() - the server does not know how many it got
 * @channel: whose EXCHANGE could not write the header
 */
void dblock_queue_hand_back_batch(struct dblock_channel *channel)
{
	struct dblock_queue *queue = channel->queue;
	u32 i;

	spin_lock(&queue->lock);
	for (i = queue->device->params.queue_depth; i-- > 0; )
		if (queue->channel == channel &&
		    queue->slots[i].batch == queue->batch)
			dblock_slot_hand_back(queue, &queue->slots[i]);
	spin_unlock(&queue->lock);
}

/* Lets go of a request whose data could not be copied in one go. */
void dblock_slot_release(struct dblock_channel *channel,
			 struct dblock_slot *slot, struct list_head *failed)
{
	struct dblock_queue *queue = channel->queue;
	struct dblock_io *io;

	lockdep_assert_held(&queue->lock);
	slot->state = DBLOCK_SLOT_HANDED;
	if (queue->mode == DBLOCK_MODE_FAIL) {
		/* set_mode() passed by while we were copying. */
		queue->error_count++;
		io = dblock_slot_take(queue, slot, channel);
		list_add_tail(&io->node, failed);
	} else if (queue->channel != channel) {
		dblock_slot_replay(queue, slot);
		dblock_queue_wake(queue);
	}
}

/**
 * dblock_queue_deliver() - copy the data of a WRITE to its slot of the buffer
 * @channel: who is told of the request next
 * @request: as handed out
 *
 * Return: 0; -ENOENT if the request has ended meanwhile, and then its slot is
 * free again; -EFAULT or -EINTR if the buffer is not to be had.
 */
int dblock_queue_deliver(struct dblock_channel *channel,
			 const struct dblock_request *request)
{
	struct dblock_queue *queue = channel->queue;
	u64 address = channel->buffer_address + (u64)request->slot *
		      queue->device->params.max_io_bytes;
	unsigned int rounds = 0;
	size_t done = 0;

	while (done < request->length_bytes) {
		struct dblock_slot *slot;
		size_t before = done;
		LIST_HEAD(failed);
		int err;

		spin_lock(&queue->lock);
		slot = dblock_slot_of(channel, request);
		if (slot && slot->state != DBLOCK_SLOT_HANDED) {
			/* The server, which was not told, owes no answer. */
			dblock_slot_hand_back(queue, slot);
			slot = NULL;
		}
		if (slot)
			slot->state = DBLOCK_SLOT_COPYING;
		spin_unlock(&queue->lock);
		if (!slot)
			return -ENOENT;
		done = dblock_data_copy(slot->rq, address, done);
		spin_lock(&queue->lock);
		dblock_slot_release(channel, slot, &failed);
		spin_unlock(&queue->lock);
		dblock_end_list(&failed, BLK_STS_IOERR);
		if (done == request->length_bytes)
			return 0;
		rounds = done == before ? rounds + 1 : 0;
		if (rounds > DBLOCK_FAULT_ROUNDS_MAX)
			return -EFAULT;
		err = dblock_data_fault_in(address + done,
					   request->length_bytes - done, true);
		if (err)
			return err;
	}
	return 0;
}
