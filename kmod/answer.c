// SPDX-License-Identifier: GPL-2.0
/*
 * Answers on their way from the server: each is checked against its request,
 * the data is copied, and the request ends.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bottom_half.h>
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>

#include "compat.h"
#include "dblock.h"

/* Answers are ended together up to this much data, measured in a VM with fio:
 * tests/bench/README.md.
 */
#define DBLOCK_ROUND_BYTES	SZ_32K

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

/* A completion under way, and where it stands. */
struct dblock_answer {
	struct dblock_slot *slot;	/* ours while COPYING, else NULL */
	struct request *rq;		/* valid with @slot, and when to be ended */
	u64 address;			/* of the data; set by the first claim */
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
	const struct dblock_create *params = &channel->device->params;
	struct dblock_queue *queue = channel->queue;
	struct dblock_slot *slot;

	lockdep_assert_held(&queue->lock);
	slot = dblock_slot_find(channel, completion->slot,
				completion->generation, &completion->status);
	if (!slot) {
		if (completion->status == DBLOCK_STATUS_STALE)
			queue->stale_count++;
	} else if (completion->error > MAX_ERRNO || completion->reserved) {
		completion->status = DBLOCK_STATUS_BAD_FIELD;
	} else if (!completion->error &&
		   completion->length_bytes > blk_rq_bytes(slot->rq)) {
		completion->status = DBLOCK_STATUS_BAD_LENGTH;
	} else {
		dblock_slot_claim(slot);
		answer->slot = slot;
		answer->rq = slot->rq;
		/* ATTACH may name another buffer before the copy is done. */
		if (!answer->address)
			answer->address = completion->address;
		if (!answer->address && !(params->flags & DBLOCK_DEVICE_DIRECT))
			answer->address = channel->buffer_address +
					  (u64)completion->slot *
					  params->max_io_bytes;
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
	bool direct = channel->device->params.flags & DBLOCK_DEVICE_DIRECT;
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

	answer->copied = dblock_data_copy(rq, answer->address, answer->copied);
	return answer->copied == blk_rq_bytes(rq);
}

/* Gives the slot of a settled request free, and counts it. */
static void dblock_answer_settle(struct dblock_queue *queue,
				 struct dblock_answer *answer)
{
	u8 operation = dblock_operation_of(answer->rq);

	lockdep_assert_held(&queue->lock);
	if (dblock_flush_lost(queue->device, answer->rq))
		answer->status = BLK_STS_IOERR;
	if (!answer->status)
		dblock_cache_answered(queue, answer->slot, operation);
	dblock_slot_settle(queue, answer->slot);
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
	pr_warn_ratelimited("%s: a request ends in EIO: its data cannot be copied %s the address that the server named; see that the server has memory there\n",
			    channel->device->params.name,
			    answer->to_server ? "to" : "from");
	local_bh_disable();
	blk_mq_end_request(answer->rq, answer->status);
	local_bh_enable();
}

/* Who waits for the first of some big answers need not wait for the copies of
 * the others.
 */
static unsigned int dblock_answer_end(const struct dblock_completion *completions,
				      unsigned int from, unsigned int count)
{
	u64 bytes = 0;

	while (from < count && bytes < DBLOCK_ROUND_BYTES)
		bytes += completions[from++].length_bytes;
	return from;
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
	unsigned int stuck = count;	/* the answer that @rounds is about */
	unsigned int rounds = 0;
	size_t before = 0;
	unsigned int end;
	unsigned int i = 0;
	int err;

	while (i < count) {
		cond_resched();
		if (fatal_signal_pending(current))
			return -EINTR;
		end = dblock_answer_end(completions, i, count);
		i = dblock_answer_round(channel, completions, answers, i, end);
		if (i == end)
			continue;
		answer = &answers[i];
		rounds = stuck == i && answer->copied == before ? rounds + 1 : 0;
		stuck = i;
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
