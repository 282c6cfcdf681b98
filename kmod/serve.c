// SPDX-License-Identifier: GPL-2.0
/*
 * A queue, as its server sees it: handing requests out, delivering their data,
 * and taking the answers. Where requests wait and how they end without a server
 * is in queue.c.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bottom_half.h>
#include <linux/errno.h>
#include <linux/err.h>

#include "compat.h"
#include "dblock.h"

/* Faulting in and copying again may lose against reclaim now and then. So
 * often in a row, with not a byte copied in between, is no bad luck.
 */
#define DBLOCK_FAULT_ROUNDS_MAX	1000

/* What the block layer can pass on of a server's errno. Left out on purpose:
 * those with a meaning inside the kernel (EAGAIN, EBUSY, EREMCHG).
 */
static blk_status_t dblock_status_of(u32 error)
{
	switch (error) {
	case EOPNOTSUPP:
	case ETIMEDOUT:
	case ENOSPC:
	case ENOLINK:
	case EREMOTEIO:
	case EBADE:
	case ENODATA:
	case EILSEQ:
	case ENOMEM:
		return errno_to_blk_status(-(int)error);
	default:
		return BLK_STS_IOERR;
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
	       !READ_ONCE(queue->successor) &&
	       READ_ONCE(queue->waiting_count) && READ_ONCE(queue->free_count);
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
		.flags = (rq->cmd_flags & REQ_FUA ? DBLOCK_REQUEST_FUA : 0) |
			 (operation == DBLOCK_OPERATION_WRITE_ZEROES &&
			  rq->cmd_flags & REQ_NOUNMAP ?
			  DBLOCK_REQUEST_NO_UNMAP : 0) |
			 (dblock_io_of(rq)->replayed ?
			  DBLOCK_REQUEST_REPLAYED : 0),
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
	while (!err && count < max && queue->free_count) {
		io = list_first_entry_or_null(&queue->waiting,
					      struct dblock_io, node);
		if (!io)
			break;
		list_del_init(&io->node);
		queue->waiting_count--;
		index = queue->free[--queue->free_count];
		slot = &queue->slots[index];
		slot->rq = blk_mq_rq_from_pdu(io);
		slot->state = DBLOCK_SLOT_HANDED;
		if (!++slot->generation)
			slot->generation = 1;
		slot->batch = queue->batch;
		io->slot = index;
		io->sequence = queue->handed_total++;
		queue->handed_count++;
		queue->replayed_count += io->replayed;
		dblock_describe(slot, index, &requests[count++]);
	}
	queue->batch_count += first && count;
	spin_unlock(&queue->lock);
	return err ?: count;
}

/* The slot that @index and @generation speak of, if its request is still with
 * the server; else NULL, and @status says why.
 */
static struct dblock_slot *dblock_slot_find(struct dblock_channel *channel,
					    u16 index, u32 generation,
					    u16 *status)
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
			queue->quarantined_count--;
			dblock_slot_free(queue, slot);
			dblock_queue_wake(queue);
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
		queue->quarantined_count--;
		dblock_slot_free(queue, slot);
	} else if (slot->state == DBLOCK_SLOT_HANDED) {
		io = dblock_io_of(slot->rq);
		replayed = io->replayed;
		queue->handed_total--;
		queue->replayed_count -= replayed;
		dblock_slot_replay(queue, slot);
		io->replayed = replayed;
	}
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
	while (queue->channel == channel && count-- > 0) {
		slot = &queue->slots[requests[count].slot];
		if (slot->generation == requests[count].generation)
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
static void dblock_slot_release(struct dblock_channel *channel,
				struct dblock_slot *slot,
				struct list_head *failed)
{
	struct dblock_queue *queue = channel->queue;

	lockdep_assert_held(&queue->lock);
	slot->state = DBLOCK_SLOT_HANDED;
	if (queue->mode == DBLOCK_MODE_FAIL) {
		/* set_mode() passed by while we were copying. */
		queue->error_count++;
		list_add_tail(&dblock_slot_take(queue, slot)->node, failed);
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
 * Return: 0, also if the request is gone by now; -EFAULT or -EINTR if the
 * buffer is not to be had.
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
		u16 ignored;
		int err;

		spin_lock(&queue->lock);
		slot = dblock_slot_find(channel, request->slot,
					request->generation, &ignored);
		if (slot)
			slot->state = DBLOCK_SLOT_COPYING;
		spin_unlock(&queue->lock);
		if (!slot)
			return 0;
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

/* A completion under way, and where it stands. */
struct dblock_answer {
	struct dblock_slot *slot;	/* ours while COPYING, else NULL */
	struct request *rq;		/* valid with @slot, and when to be ended */
	u64 address;			/* of the data */
	size_t copied;			/* bytes of it */
	blk_status_t status;
	bool to_server;			/* direction of the data */
	bool done;			/* nothing more to do but to end @rq */
};

/* Checks one completion against its request, and takes the request if it is
 * good. Called again for an entry that had to let go.
 */
static void dblock_answer_claim(struct dblock_channel *channel,
				struct dblock_completion *completion,
				struct dblock_answer *answer)
{
	struct dblock_queue *queue = channel->queue;
	struct dblock_slot *slot;

	lockdep_assert_held(&queue->lock);
	slot = dblock_slot_find(channel, completion->slot,
				completion->generation, &completion->status);
	if (!slot) {
		if (completion->status == DBLOCK_STATUS_STALE)
			queue->stale_count++;
	} else if (completion->error > MAX_ERRNO) {
		completion->status = DBLOCK_STATUS_BAD_FIELD;
	} else if (!completion->error &&
		   completion->length_bytes > blk_rq_bytes(slot->rq)) {
		completion->status = DBLOCK_STATUS_BAD_LENGTH;
	} else {
		slot->state = DBLOCK_SLOT_COPYING;
		answer->slot = slot;
		answer->rq = slot->rq;
		return;
	}
	queue->refused_count++;
	answer->done = true;
}

/* Decides how a request ends, and moves its data as far as that goes.
 *
 * Return: whether all is moved.
 */
static bool dblock_answer_copy(struct dblock_channel *channel,
			       const struct dblock_completion *completion,
			       struct dblock_answer *answer)
{
	const struct dblock_create *params = &channel->device->params;
	bool direct = params->flags & DBLOCK_DEVICE_DIRECT;
	struct request *rq = answer->rq;

	if (completion->error) {
		answer->status = dblock_status_of(completion->error);
		return true;
	}
	if (completion->length_bytes < blk_rq_bytes(rq)) {
		answer->status = BLK_STS_IOERR;
		return true;
	}
	answer->status = BLK_STS_OK;
	answer->to_server = req_op(rq) == REQ_OP_WRITE;
	if (req_op(rq) != REQ_OP_READ && !(direct && answer->to_server))
		return true;

	answer->address = completion->address;
	if (!answer->address && !direct)
		answer->address = channel->buffer_address +
				  (u64)completion->slot * params->max_io_bytes;
	answer->copied = dblock_data_copy(rq, answer->address, answer->copied);
	return answer->copied == blk_rq_bytes(rq);
}

/* Gives the slot of a settled request free, and counts it. */
static void dblock_answer_settle(struct dblock_queue *queue,
				 struct dblock_answer *answer)
{
	u8 operation = dblock_operation_of(answer->rq);

	lockdep_assert_held(&queue->lock);
	dblock_queue_handed_less(queue);
	dblock_io_of(answer->rq)->slot = DBLOCK_NO_SLOT;
	dblock_slot_free(queue, answer->slot);
	answer->slot = NULL;
	answer->done = true;
	if (answer->status) {
		queue->error_count++;
	} else {
		queue->requests[operation]++;
		queue->bytes[operation] += blk_rq_bytes(answer->rq);
	}
}

/* One round over what is left of a chunk: take every request, copy until a page
 * is missing, end what is settled, let go of the rest.
 *
 * Return: the index of the answer whose data is missing, or @count.
 */
static unsigned int dblock_answer_round(struct dblock_channel *channel,
					struct dblock_completion *completions,
					struct dblock_answer *answers,
					unsigned int from, unsigned int count)
{
	struct dblock_queue *queue = channel->queue;
	unsigned int stop = count;
	LIST_HEAD(failed);
	unsigned int i;

	spin_lock(&queue->lock);
	for (i = from; i < count; i++)
		if (!answers[i].done)
			dblock_answer_claim(channel, &completions[i],
					    &answers[i]);
	spin_unlock(&queue->lock);

	for (i = from; i < count; i++) {
		if (answers[i].slot &&
		    !dblock_answer_copy(channel, &completions[i],
					&answers[i])) {
			stop = i;
			break;
		}
	}

	spin_lock(&queue->lock);
	for (i = from; i < count; i++) {
		if (!answers[i].slot)
			continue;
		if (i < stop) {
			dblock_answer_settle(queue, &answers[i]);
		} else {
			dblock_slot_release(channel, answers[i].slot, &failed);
			answers[i].slot = NULL;
			answers[i].rq = NULL;
		}
	}
	spin_unlock(&queue->lock);

	local_bh_disable();
	for (i = from; i < stop; i++)
		if (answers[i].rq)
			blk_mq_end_request(answers[i].rq, answers[i].status);
	local_bh_enable();
	dblock_end_list(&failed, BLK_STS_IOERR);
	return stop;
}

/* Ends a request whose data is not to be had from the server. */
static void dblock_answer_fault(struct dblock_channel *channel,
				struct dblock_completion *completion,
				struct dblock_answer *answer)
{
	struct dblock_queue *queue = channel->queue;

	spin_lock(&queue->lock);
	dblock_answer_claim(channel, completion, answer);
	if (answer->slot) {
		answer->status = BLK_STS_IOERR;
		completion->status = DBLOCK_STATUS_FAULT;
		queue->refused_count++;
		dblock_answer_settle(queue, answer);
	}
	spin_unlock(&queue->lock);
	if (!answer->rq)
		return;
	pr_warn_ratelimited("%s: a request ends in EIO: its data cannot be copied %s the address that the server named\n",
			    channel->device->params.name,
			    answer->to_server ? "to" : "from");
	local_bh_disable();
	blk_mq_end_request(answer->rq, answer->status);
	local_bh_enable();
}

/**
 * dblock_queue_complete() - take a chunk of answers
 * @channel: who answers
 * @completions: the kernel's own copy, @status zero; the outcome is set
 * @count: how many, up to DBLOCK_CHUNK
 *
 * Return: 0, or -EINTR if the server is being killed; then what is left of the
 * chunk is still with it.
 */
int dblock_queue_complete(struct dblock_channel *channel,
			  struct dblock_completion *completions,
			  unsigned int count)
{
	struct dblock_answer answers[DBLOCK_CHUNK] = { };
	struct dblock_answer *answer;
	unsigned int rounds = 0;
	size_t before = 0;
	unsigned int i = 0;
	int err;

	while ((i = dblock_answer_round(channel, completions, answers, i,
					count)) < count) {
		answer = &answers[i];
		/* Starts anew with each answer: none has copied as much. */
		rounds = answer->copied == before ? rounds + 1 : 0;
		before = answer->copied;
		err = -EFAULT;
		if (rounds <= DBLOCK_FAULT_ROUNDS_MAX)
			err = dblock_data_fault_in(answer->address +
						   answer->copied,
						   completions[i].length_bytes -
						   answer->copied,
						   answer->to_server);
		if (err == -EINTR)
			return err;
		if (err) {
			dblock_answer_fault(channel, &completions[i], answer);
			i++;
		}
	}
	return 0;
}
