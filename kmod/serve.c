// SPDX-License-Identifier: GPL-2.0
/*
 * Requests on their way to the server: which is next, what the server is told of
 * it, the delivery of a WRITE's data, and taking back what the server was not told
 * of. What that does to a slot is in slot.c. Where requests wait and how they end
 * without a server is in queue.c.
 */
#include <linux/errno.h>
#include <linux/ioprio.h>

#include "compat.h"
#include "dblock.h"

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
		/* Before the list of quarantines: see dblock_queue_block(). */
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
		if (!dblock_queue_block(queue, io, ends))
			return io;
	}
}

/* While a server takes the device over from another, neither is handed anything,
 * on any queue: what one of them remembers, the other may change.
 */
static bool dblock_queue_changes_hands(const struct dblock_queue *queue)
{
	return READ_ONCE(queue->successor) || READ_ONCE(queue->device->heir);
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
	       !dblock_queue_changes_hands(queue) &&
	       READ_ONCE(queue->free_count) &&
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
	int err = 0;

	spin_lock(&queue->lock);
	if (queue->gone)
		err = -ENODEV;
	else if (queue->channel != channel)
		err = -ENOTCONN;
	else if (queue->mode != DBLOCK_MODE_SERVE ||
		 dblock_queue_changes_hands(queue))
		max = 0;
	if (first)
		queue->batch++;
	if (dblock_queue_unblockable(queue))
		dblock_queue_unblock(queue);
	while (!err && count < max && queue->free_count) {
		io = dblock_queue_next(queue, &failed);
		if (!io)
			break;
		slot = dblock_slot_hand_out(queue, io);
		dblock_describe(slot, io->slot, &requests[count++]);
	}
	queue->batch_count += first && count;
	spin_unlock(&queue->lock);
	dblock_end_list(&failed, BLK_STS_IOERR);
	return err ?: count;
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
	LIST_HEAD(replays);

	spin_lock(&queue->lock);
	while (count-- > 0) {
		slot = dblock_slot_of(channel, &requests[count]);
		if (slot)
			dblock_slot_hand_back(queue, slot, &replays);
	}
	dblock_slots_wait_again(queue, &replays);
	spin_unlock(&queue->lock);
}

/**
 * dblock_queue_hand_back_batch() - the server does not know how many it got
 * @channel: whose EXCHANGE could not write the header
 */
void dblock_queue_hand_back_batch(struct dblock_channel *channel)
{
	struct dblock_queue *queue = channel->queue;
	LIST_HEAD(replays);
	u32 i;

	spin_lock(&queue->lock);
	for (i = queue->device->params.queue_depth; i-- > 0; )
		if (queue->channel == channel &&
		    queue->slots[i].batch == queue->batch)
			dblock_slot_hand_back(queue, &queue->slots[i],
					      &replays);
	dblock_slots_wait_again(queue, &replays);
	spin_unlock(&queue->lock);
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
		slot = dblock_slot_claim_untold(channel, request);
		spin_unlock(&queue->lock);
		if (!slot)
			return -ENOENT;
		done = dblock_data_copy(slot->rq, address, done);
		spin_lock(&queue->lock);
		dblock_slot_release(channel, slot, &failed);
		spin_unlock(&queue->lock);
		dblock_end_list(&failed, dblock_queue_failure(queue));
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
