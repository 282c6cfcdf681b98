// SPDX-License-Identifier: GPL-2.0
/*
 * A queue, as the block layer sees it: requests that wait for a server, the
 * timeout, and what becomes of them all when the server comes or goes. Those that
 * a server is at are in slots, slot.c; how they get there and back is in serve.c
 * and answer.c.
 *
 * A request is in exactly one place, and the queue's lock guards the move:
 * README.md draws it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bottom_half.h>
#include <linux/errno.h>
#include <linux/sched/clock.h>

#include "compat.h"
#include "dblock.h"

/* enum dblock_operation, or DBLOCK_OPERATION_COUNT for what is not ours. */
u8 dblock_operation_of(struct request *rq)
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

/* Ending a request may drop the last reference of a file, and so release the
 * very disk; with bottom halves off that is left to a later moment. They are let
 * in after each chunk: a thousand requests may end here, each of many pages.
 */
void dblock_end_list(struct list_head *ended, blk_status_t status)
{
	struct dblock_io *io;
	unsigned int i;

	while (!list_empty(ended)) {
		local_bh_disable();
		for (i = 0; i < DBLOCK_CHUNK && !list_empty(ended); i++) {
			io = list_first_entry(ended, struct dblock_io, node);
			list_del_init(&io->node);
			blk_mq_end_request(blk_mq_rq_from_pdu(io), status);
		}
		local_bh_enable();
		cond_resched();
	}
}

/* How requests end while the queue is in DBLOCK_MODE_FAIL: for now, or for good. */
blk_status_t dblock_queue_failure(const struct dblock_queue *queue)
{
	return READ_ONCE(queue->gone) ? BLK_STS_OFFLINE : BLK_STS_IOERR;
}

void dblock_queue_wake(struct dblock_queue *queue)
{
	if (wq_has_sleeper(&queue->wait))
		wake_up_all(&queue->wait);
}

/*
 * The block layer's side
 */

static blk_status_t dblock_queue_rq(struct blk_mq_hw_ctx *hctx,
				    const struct blk_mq_queue_data *bd)
{
	struct dblock_queue *queue = hctx->driver_data;
	struct dblock_device *device = queue->device;
	struct dblock_io *io = dblock_io_of(bd->rq);
	blk_status_t status = BLK_STS_OK;

	if (dblock_operation_of(bd->rq) == DBLOCK_OPERATION_COUNT)
		return BLK_STS_NOTSUPP;

	INIT_LIST_HEAD(&io->node);
	io->sequence = U64_MAX;
	io->since = jiffies;
	io->cache_losses = atomic_read(&device->cache_losses);
	io->slot = DBLOCK_NO_SLOT;
	io->blocked = false;
	io->replayed = false;
	io->ending = false;
	blk_mq_start_request(bd->rq);
	spin_lock(&queue->lock);
	if (queue->mode == DBLOCK_MODE_FAIL)
		status = dblock_queue_failure(queue);
	else if ((op_is_write(req_op(bd->rq)) &&
		  device->params.flags & DBLOCK_DEVICE_READ_ONLY) ||
		 dblock_cache_fails(device, bd->rq))
		status = BLK_STS_IOERR;
	if (status) {
		queue->error_count++;
		spin_unlock(&queue->lock);
		return status;
	}
	list_add_tail(&io->node, &queue->waiting);
	if (!queue->waiting_count++)
		WRITE_ONCE(queue->arrived_ns, local_clock());
	spin_unlock(&queue->lock);
	if (bd->last)
		dblock_queue_wake(queue);
	return BLK_STS_OK;
}

static void dblock_commit_rqs(struct blk_mq_hw_ctx *hctx)
{
	dblock_queue_wake(hctx->driver_data);
}

/* For how long, in jiffies, an answer may still come: a request has its whole time
 * from each hand-out, and what waits from the moment at which its server came.
 */
static long dblock_time_left(const struct dblock_queue *queue,
			     const struct dblock_io *io)
{
	unsigned long since = io->since;

	if (io->slot == DBLOCK_NO_SLOT && time_after(queue->serving_since, since))
		since = queue->serving_since;
	return since + msecs_to_jiffies(queue->device->params.timeout_ms) -
	       jiffies;
}

static void dblock_log_timeout(const struct dblock_device *device,
			       struct request *rq)
{
	const char *name = device->params.name;
	u32 timeout_ms = device->params.timeout_ms;

	if (dblock_operation_of(rq) == DBLOCK_OPERATION_FLUSH)
		pr_warn_ratelimited("%s: a flush ends in EIO: the server did not answer in %u ms; see if it is stuck, or create the device with a longer timeout\n",
				    name, timeout_ms);
	else
		pr_warn_ratelimited("%s: operation %u of %u bytes at %llu ends in EIO: the server did not answer in %u ms; see if it is stuck, or create the device with a longer timeout\n",
				    name, dblock_operation_of(rq),
				    blk_rq_bytes(rq),
				    (u64)blk_rq_pos(rq) << SECTOR_SHIFT,
				    timeout_ms);
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
	long left;

	if (!device->params.timeout_ms)
		return BLK_EH_RESET_TIMER;

	spin_lock(&queue->lock);
	if (io->ending) {
		spin_unlock(&queue->lock);
		return BLK_EH_DONE;
	}
	if (io->slot != DBLOCK_NO_SLOT)
		slot = &queue->slots[io->slot];
	if (queue->channel && dblock_channel_orphaned(queue->channel)) {
		/* Dead, and nobody has noticed: what follows is on_death. */
		spin_unlock(&queue->lock);
		dblock_watch_now();
		return BLK_EH_RESET_TIMER;
	}
	left = dblock_time_left(queue, io);
	if (left > 0 && queue->mode == DBLOCK_MODE_SERVE) {
		spin_unlock(&queue->lock);
		rq->timeout = left;
		return BLK_EH_RESET_TIMER;
	}
	rq->timeout = msecs_to_jiffies(device->params.timeout_ms);
	/* Without a slot and on no list it is on its way to us. */
	if (queue->mode == DBLOCK_MODE_HOLD ||
	    (!slot && list_empty(&io->node)) ||
	    (slot && slot->state == DBLOCK_SLOT_COPYING)) {
		spin_unlock(&queue->lock);
		return BLK_EH_RESET_TIMER;
	}
	if (device->params.flags & DBLOCK_DEVICE_TIMEOUT_IS_DEATH) {
		/* Without a server it waits for the heir of one that died. */
		if (queue->channel && !queue->overdue)
			queue->timeout_count++;
		queue->overdue = queue->channel != NULL;
		spin_unlock(&queue->lock);
		dblock_watch_now();
		return BLK_EH_RESET_TIMER;
	}
	if (slot) {
		dblock_slot_take(queue, slot, queue->channel);
	} else {
		list_del_init(&io->node);
		if (io->blocked)
			queue->blocked_count--;
		else
			queue->waiting_count--;
		io->ending = true;
	}
	queue->timeout_count++;
	queue->error_count++;
	spin_unlock(&queue->lock);

	dblock_log_timeout(device, rq);
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
	.complete	= dblock_file_done,
	.timeout	= dblock_timeout,
	.init_hctx	= dblock_init_hctx,
};

/*
 * Life
 */

int dblock_queue_init(struct dblock_queue *queue, struct dblock_device *device)
{
	int err;

	spin_lock_init(&queue->lock);
	INIT_LIST_HEAD(&queue->waiting);
	INIT_LIST_HEAD(&queue->blocked);
	init_waitqueue_head(&queue->wait);
	queue->device = device;
	queue->mode = DBLOCK_MODE_HOLD;
	err = dblock_slots_init(queue);
	if (err)
		dblock_slots_exit(queue);
	return err;
}

void dblock_queue_free(struct dblock_queue *queue)
{
	dblock_slots_exit(queue);
}

/**
 * dblock_queue_set_mode() - follow the state of the device
 * @queue: the queue
 * @mode: FAIL ends everything that waits or is handed out, with an error
 * @gone: the server is to be told to stop
 */
void dblock_queue_set_mode(struct dblock_queue *queue, enum dblock_mode mode,
			   bool gone)
{
	struct dblock_io *io;
	LIST_HEAD(ended);

	spin_lock(&queue->lock);
	queue->mode = mode;
	queue->gone = gone;
	queue->serving_since = jiffies;
	if (mode == DBLOCK_MODE_FAIL) {
		dblock_queue_unblock(queue);
		list_for_each_entry(io, &queue->waiting, node)
			io->ending = true;
		list_splice_init(&queue->waiting, &ended);
		queue->error_count += queue->waiting_count;
		queue->waiting_count = 0;
		dblock_slots_take_all(queue, &ended);
	}
	spin_unlock(&queue->lock);
	dblock_end_list(&ended, dblock_queue_failure(queue));
	wake_up_all(&queue->wait);
}

/* After this the channel owns the queue, or nobody does if it is NULL. What the
 * owner before was handed waits for the next one.
 */
static void dblock_queue_set_channel(struct dblock_queue *queue,
				     struct dblock_channel *channel)
{
	lockdep_assert_held(&queue->lock);
	queue->channel = channel;
	queue->serving_since = jiffies;
	queue->overdue = false;
	dblock_slots_replay_all(queue);
}

/**
 * dblock_queue_attach() - this channel serves the queue from now on
 * @queue: the queue
 * @channel: who serves
 * @take_over: from the channel that serves it now, once that has answered all
 *	it was handed, and all that timed out and changes the disk; from now on
 *	it is handed nothing
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
		busy = queue->handed_count || queue->owed_count;
		spin_unlock(&queue->lock);
		if (busy)
			return -EINPROGRESS;
	}
	spin_lock(&queue->lock);
	dblock_queue_set_channel(queue, channel);
	queue->successor = NULL;
	spin_unlock(&queue->lock);
	dblock_poll_tell(&channel->poll, queue);
	wake_up_all(&queue->wait);
	return 0;
}

/* Whether the channel before has answered all, died, or the device goes. */
bool dblock_queue_drained(struct dblock_queue *queue)
{
	return (!READ_ONCE(queue->handed_count) &&
		!READ_ONCE(queue->owed_count)) ||
	       !READ_ONCE(queue->channel) || READ_ONCE(queue->gone);
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
 * Return: whether it served.
 */
bool dblock_queue_detach(struct dblock_queue *queue,
			 struct dblock_channel *channel)
{
	lockdep_assert_held(&queue->device->lock);
	spin_lock(&queue->lock);
	if (!channel || queue->channel != channel) {
		spin_unlock(&queue->lock);
		return false;
	}
	dblock_queue_set_channel(queue, NULL);
	spin_unlock(&queue->lock);
	wake_up_all(&queue->wait);
	return true;
}
