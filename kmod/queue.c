// SPDX-License-Identifier: GPL-2.0
/*
 * A queue: requests that wait for a server, and slots for those that a server
 * is at. Everything that decides the fate of a request is here: hand it out,
 * take its answer, time it out, fail it, or give it to the next server.
 *
 * A request is in exactly one place, and the queue's lock guards the move:
 *
 *	waiting ---hand out---> HANDED <---> COPYING ---> ended
 *	   ^ |                    | |
 *	   | +--timeout, fail-----|-+--timeout, fail---> ended, slot QUARANTINED
 *	   +------server died-----+
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bottom_half.h>
#include <linux/errno.h>
#include <linux/slab.h>
#include <linux/mm.h>

#include "compat.h"
#include "dblock.h"

/* Faulting in and copying again may lose against reclaim now and then. So
 * often in a row, with not a byte copied in between, is no bad luck.
 */
#define DBLOCK_FAULT_ROUNDS_MAX	1000

static struct dblock_io *dblock_io_of(struct request *rq)
{
	return blk_mq_rq_to_pdu(rq);
}

static u8 dblock_operation_of(struct request *rq)
{
	switch (req_op(rq)) {
	case REQ_OP_READ:
		return DBLOCK_OPERATION_READ;
	case REQ_OP_WRITE:
		return DBLOCK_OPERATION_WRITE;
	case REQ_OP_FLUSH:
		return DBLOCK_OPERATION_FLUSH;
	case REQ_OP_DISCARD:
		return DBLOCK_OPERATION_DISCARD;
	case REQ_OP_WRITE_ZEROES:
		return DBLOCK_OPERATION_WRITE_ZEROES;
	default:
		return DBLOCK_OPERATION_COUNT;
	}
}

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

/* Ending a request may drop the last reference of a file, and so release the
 * very disk; with bottom halves off that is left to a later moment.
 */
static void dblock_end_list(struct list_head *ended, blk_status_t status)
{
	struct dblock_io *io;

	local_bh_disable();
	while ((io = list_first_entry_or_null(ended, struct dblock_io, node))) {
		list_del_init(&io->node);
		blk_mq_end_request(blk_mq_rq_from_pdu(io), status);
	}
	local_bh_enable();
}

static void dblock_queue_wake(struct dblock_queue *queue)
{
	if (wq_has_sleeper(&queue->wait))
		wake_up_all(&queue->wait);
}

/* One request less is with the server. Its successor waits for the last. */
static void dblock_queue_handed_less(struct dblock_queue *queue)
{
	lockdep_assert_held(&queue->lock);
	if (!--queue->handed_count && queue->successor)
		dblock_queue_wake(queue);
}

static void dblock_slot_free(struct dblock_queue *queue,
			     struct dblock_slot *slot)
{
	slot->rq = NULL;
	slot->state = DBLOCK_SLOT_FREE;
	queue->free[queue->free_count++] = slot - queue->slots;
}

/* Takes the request out of its slot; what becomes of the slot depends on
 * whether somebody may still answer it.
 */
static struct dblock_io *dblock_slot_take(struct dblock_queue *queue,
					  struct dblock_slot *slot)
{
	struct dblock_io *io = dblock_io_of(slot->rq);

	io->slot = DBLOCK_NO_SLOT;
	dblock_queue_handed_less(queue);
	if (queue->channel) {
		slot->rq = NULL;
		slot->state = DBLOCK_SLOT_QUARANTINED;
		queue->quarantined_count++;
	} else {
		dblock_slot_free(queue, slot);
	}
	return io;
}

/* Back to the head of the line, for the next server. */
static void dblock_slot_replay(struct dblock_queue *queue,
			       struct dblock_slot *slot)
{
	struct dblock_io *io = dblock_io_of(slot->rq);

	io->slot = DBLOCK_NO_SLOT;
	io->replayed = true;
	list_add(&io->node, &queue->waiting);
	queue->waiting_count++;
	dblock_queue_handed_less(queue);
	dblock_slot_free(queue, slot);
}

/*
 * The block layer's side
 */

static blk_status_t dblock_queue_rq(struct blk_mq_hw_ctx *hctx,
				    const struct blk_mq_queue_data *bd)
{
	struct dblock_queue *queue = hctx->driver_data;
	struct dblock_io *io = dblock_io_of(bd->rq);

	if (dblock_operation_of(bd->rq) == DBLOCK_OPERATION_COUNT)
		return BLK_STS_NOTSUPP;

	INIT_LIST_HEAD(&io->node);
	io->slot = DBLOCK_NO_SLOT;
	io->replayed = false;
	blk_mq_start_request(bd->rq);
	spin_lock(&queue->lock);
	if (queue->mode == DBLOCK_MODE_FAIL) {
		queue->error_count++;
		spin_unlock(&queue->lock);
		return BLK_STS_IOERR;
	}
	list_add_tail(&io->node, &queue->waiting);
	queue->waiting_count++;
	spin_unlock(&queue->lock);
	if (bd->last)
		dblock_queue_wake(queue);
	return BLK_STS_OK;
}

static void dblock_commit_rqs(struct blk_mq_hw_ctx *hctx)
{
	dblock_queue_wake(hctx->driver_data);
}

/* Ends what nobody answered in time. No timeout runs while there is nobody who
 * could answer (HELD), nor while the data is being copied.
 */
static enum blk_eh_timer_return dblock_timeout(DBLOCK_TIMEOUT_ARGS(rq))
{
	struct dblock_queue *queue = rq->mq_hctx->driver_data;
	struct dblock_device *device = queue->device;
	struct dblock_io *io = dblock_io_of(rq);
	struct dblock_slot *slot = NULL;

	if (!device->params.timeout_ms)
		return BLK_EH_RESET_TIMER;

	spin_lock(&queue->lock);
	if (io->slot != DBLOCK_NO_SLOT)
		slot = &queue->slots[io->slot];
	if (!slot && list_empty(&io->node)) {
		/* Somebody else has just ended it. */
		spin_unlock(&queue->lock);
		return BLK_EH_DONE;
	}
	if (queue->mode == DBLOCK_MODE_HOLD ||
	    (slot && slot->state == DBLOCK_SLOT_COPYING)) {
		spin_unlock(&queue->lock);
		return BLK_EH_RESET_TIMER;
	}
	if (slot) {
		dblock_slot_take(queue, slot);
	} else {
		list_del_init(&io->node);
		queue->waiting_count--;
	}
	queue->timeout_count++;
	queue->error_count++;
	spin_unlock(&queue->lock);

	pr_warn_ratelimited("%s: operation %u of %u bytes at %llu ends in EIO: the server did not answer in %u ms; see if it is stuck, or create the device with a longer timeout\n",
			    device->params.name, dblock_operation_of(rq),
			    blk_rq_bytes(rq),
			    (u64)blk_rq_pos(rq) << SECTOR_SHIFT,
			    device->params.timeout_ms);
	local_bh_disable();
	blk_mq_end_request(rq, BLK_STS_IOERR);
	local_bh_enable();
	return BLK_EH_DONE;
}

static int dblock_init_hctx(struct blk_mq_hw_ctx *hctx, void *data,
			    unsigned int index)
{
	struct dblock_device *device = data;

	hctx->driver_data = &device->queues[index];
	return 0;
}

const struct blk_mq_ops dblock_mq_ops = {
	.queue_rq	= dblock_queue_rq,
	.commit_rqs	= dblock_commit_rqs,
	.timeout	= dblock_timeout,
	.init_hctx	= dblock_init_hctx,
};

/*
 * Life
 */

int dblock_queue_init(struct dblock_queue *queue, struct dblock_device *device)
{
	u32 depth = device->params.queue_depth;
	u32 i;

	spin_lock_init(&queue->lock);
	INIT_LIST_HEAD(&queue->waiting);
	init_waitqueue_head(&queue->wait);
	queue->device = device;
	queue->mode = DBLOCK_MODE_HOLD;
	queue->slots = kvcalloc(depth, sizeof(*queue->slots), GFP_KERNEL);
	queue->free = kvcalloc(depth, sizeof(*queue->free), GFP_KERNEL);
	if (!queue->slots || !queue->free) {
		dblock_queue_free(queue);
		return -ENOMEM;
	}
	/* Low slots are used first: they keep the server's buffer warm. */
	for (i = 0; i < depth; i++)
		queue->free[i] = depth - 1 - i;
	queue->free_count = depth;
	return 0;
}

void dblock_queue_free(struct dblock_queue *queue)
{
	kvfree(queue->slots);
	kvfree(queue->free);
	queue->slots = NULL;
	queue->free = NULL;
}

/**
 * dblock_queue_set_mode() - follow the state of the device
 * @queue: the queue
 * @mode: FAIL ends everything that waits or is handed out, with EIO
 * @gone: the server is to be told to stop
 */
void dblock_queue_set_mode(struct dblock_queue *queue, enum dblock_mode mode,
			   bool gone)
{
	struct dblock_device *device = queue->device;
	struct dblock_slot *slot;
	LIST_HEAD(ended);
	u32 i;

	spin_lock(&queue->lock);
	queue->mode = mode;
	queue->gone = gone;
	if (mode == DBLOCK_MODE_FAIL) {
		list_splice_init(&queue->waiting, &ended);
		queue->error_count += queue->waiting_count;
		queue->waiting_count = 0;
		for (i = 0; i < device->params.queue_depth; i++) {
			slot = &queue->slots[i];
			/* A COPYING one ends by the hand that copies it. */
			if (slot->state != DBLOCK_SLOT_HANDED)
				continue;
			list_add_tail(&dblock_slot_take(queue, slot)->node,
				      &ended);
			queue->error_count++;
		}
	}
	spin_unlock(&queue->lock);
	dblock_end_list(&ended, BLK_STS_IOERR);
	wake_up_all(&queue->wait);
}

/**
 * dblock_queue_attach() - this channel serves the queue from now on
 * @queue: the queue
 * @channel: who serves
 * @take_over: from the channel that serves it now, once that has answered all
 *	it was handed; from now on it is handed nothing
 *
 * A channel that serves it already starts over: what it was handed and has not
 * answered is handed out again.
 *
 * Return: 0; -EBUSY if another channel serves it, or takes it over; with
 * @take_over -EINPROGRESS while the channel before is not done.
 */
int dblock_queue_attach(struct dblock_queue *queue,
			struct dblock_channel *channel, bool take_over)
{
	bool busy = queue->channel && queue->channel != channel;

	/* Both change under the device's lock and the queue's. */
	lockdep_assert_held(&queue->device->lock);
	if (queue->successor ? queue->successor != channel : busy && !take_over)
		return -EBUSY;
	if (busy) {
		spin_lock(&queue->lock);
		queue->successor = channel;
		busy = queue->handed_count;
		spin_unlock(&queue->lock);
		if (busy)
			return -EINPROGRESS;
	}
	dblock_queue_detach(queue, queue->channel);
	spin_lock(&queue->lock);
	queue->channel = channel;
	queue->successor = NULL;
	spin_unlock(&queue->lock);
	return 0;
}

/* Whether the channel before has answered all, died, or the device goes. */
bool dblock_queue_drained(struct dblock_queue *queue)
{
	return !READ_ONCE(queue->handed_count) || !READ_ONCE(queue->channel) ||
	       READ_ONCE(queue->gone);
}

/* The successor does not wait any more; the channel before goes on. */
void dblock_queue_give_up(struct dblock_queue *queue)
{
	lockdep_assert_held(&queue->device->lock);
	spin_lock(&queue->lock);
	queue->successor = NULL;
	spin_unlock(&queue->lock);
	wake_up_all(&queue->wait);
}

/**
 * dblock_queue_detach() - this channel serves the queue no more
 * @queue: the queue
 * @channel: who may have served it
 *
 * What it was handed goes back to wait for the next server, and no answer is
 * due any more.
 *
 * Return: whether it served.
 */
bool dblock_queue_detach(struct dblock_queue *queue,
			 struct dblock_channel *channel)
{
	struct dblock_device *device = queue->device;
	struct dblock_slot *slot;
	u32 i;

	lockdep_assert_held(&device->lock);
	spin_lock(&queue->lock);
	if (!channel || queue->channel != channel) {
		spin_unlock(&queue->lock);
		return false;
	}
	queue->channel = NULL;
	for (i = device->params.queue_depth; i-- > 0; ) {
		slot = &queue->slots[i];
		if (slot->state == DBLOCK_SLOT_HANDED) {
			dblock_slot_replay(queue, slot);
		} else if (slot->state == DBLOCK_SLOT_QUARANTINED) {
			queue->quarantined_count--;
			dblock_slot_free(queue, slot);
		}
	}
	spin_unlock(&queue->lock);
	wake_up_all(&queue->wait);
	return true;
}

/*
 * The server's side
 */

/* True when EXCHANGE has something to say. Without the lock: who sleeps on
 * this is woken after each change, and looks again.
 */
bool dblock_queue_ready(struct dblock_queue *queue,
			struct dblock_channel *channel)
{
	if (READ_ONCE(queue->gone) || READ_ONCE(queue->channel) != channel)
		return true;
	return READ_ONCE(queue->mode) == DBLOCK_MODE_SERVE &&
	       !READ_ONCE(queue->successor) && READ_ONCE(queue->waiting_count) && READ_ONCE(queue->free_count);
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
		io->slot = index;
		queue->handed_count++;
		queue->handed_total++;
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
	bool replayed;
	u16 ignored;

	spin_lock(&queue->lock);
	while (count-- > 0) {
		slot = dblock_slot_find(channel, requests[count].slot,
					requests[count].generation, &ignored);
		if (!slot)
			continue;
		replayed = requests[count].flags & DBLOCK_REQUEST_REPLAYED;
		queue->handed_total--;
		queue->replayed_count -= replayed;
		dblock_slot_replay(queue, slot);
		list_first_entry(&queue->waiting, struct dblock_io,
				 node)->replayed = replayed;
	}
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
