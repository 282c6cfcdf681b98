// SPDX-License-Identifier: GPL-2.0
/*
 * Answers on their way from the server. Each goes through three phases: it claims
 * its request, if it is a good answer to one; its data is copied; the request is
 * settled, and ends. If a page of the server's memory is missing, the answer lets
 * go of the request, the page is faulted in, and it begins again with the claim:
 * the request may have ended meanwhile.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blkdev.h>
#include <linux/bottom_half.h>
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/file.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>

#include "compat.h"
#include "dblock.h"

/* Answers are ended together up to this much data, measured in a VM with fio:
 * tests/bench/README.md.
 */
#define DBLOCK_ROUND_BYTES	SZ_32K

/* What the block layer can pass on of a server's errno, or a file's. Left out on
 * purpose: those with a meaning inside the kernel (EAGAIN, EBUSY, EREMCHG).
 */
blk_status_t dblock_status_of(u32 error)
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

/**
 * enum dblock_answer_phase - where an answer stands
 * @DBLOCK_ANSWER_OPEN: it has no request: not looked at yet, or let go
 * @DBLOCK_ANSWER_CLAIMED: its slot is COPYING, and so the request its own
 * @DBLOCK_ANSWER_SETTLED: its slot is free, and the request is to be ended
 * @DBLOCK_ANSWER_PASSED: its slot is free, and the server's file is to be read or
 *	written for the request
 * @DBLOCK_ANSWER_REFUSED: it has no request; the completion's status says why
 */
enum dblock_answer_phase {
	DBLOCK_ANSWER_OPEN,
	DBLOCK_ANSWER_CLAIMED,
	DBLOCK_ANSWER_SETTLED,
	DBLOCK_ANSWER_PASSED,
	DBLOCK_ANSWER_REFUSED,
};

struct dblock_answer {
	enum dblock_answer_phase phase;
	struct dblock_slot *slot;	/* while CLAIMED */
	struct request *rq;		/* while CLAIMED, SETTLED or PASSED */
	blk_status_t status;		/* how @rq ends */
	struct file *file;		/* that has the data, or NULL */
	/* Of the data. These outlast a let-go: the copy goes on from there. */
	u64 address;			/* set by the first claim */
	size_t copied;			/* bytes */
	size_t copied_before;		/* a fault ago */
	unsigned int faults;		/* in a row that brought no byte */
	bool to_server;			/* direction */
};

/* First phase: an OPEN answer is CLAIMED or REFUSED. */
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
	} else if (completion->error > MAX_ERRNO || completion->reserved ||
		   (channel->file &&
		    completion->address > S64_MAX - blk_rq_bytes(slot->rq))) {
		completion->status = DBLOCK_STATUS_BAD_FIELD;
	} else if (!completion->error &&
		   completion->length_bytes > blk_rq_bytes(slot->rq)) {
		completion->status = DBLOCK_STATUS_BAD_LENGTH;
	} else {
		dblock_slot_claim(slot);
		answer->phase = DBLOCK_ANSWER_CLAIMED;
		answer->slot = slot;
		answer->rq = slot->rq;
		/* ATTACH may name another buffer before the copy is done. */
		if (!answer->address)
			answer->address = completion->address;
		if (!answer->address && !(params->flags & DBLOCK_DEVICE_DIRECT))
			answer->address = channel->buffer_address +
					  (u64)completion->slot *
					  params->max_io_bytes;
		if (channel->file && !completion->error &&
		    completion->length_bytes == blk_rq_bytes(slot->rq) &&
		    dblock_file_does(slot->rq))
			answer->file = get_file(channel->file);
		return;
	}
	queue->refused_count++;
	answer->phase = DBLOCK_ANSWER_REFUSED;
}

/* Whether the answer's data is copied from or to the server. */
static bool dblock_answer_copies(struct dblock_channel *channel,
				 struct request *rq)
{
	return req_op(rq) == REQ_OP_READ ||
	       (req_op(rq) == REQ_OP_WRITE &&
		channel->device->params.flags & DBLOCK_DEVICE_DIRECT);
}

/* Second phase: decides how a CLAIMED request ends, and moves its data as far as
 * that goes.
 *
 * Return: whether all is moved.
 */
static bool dblock_answer_copy(struct dblock_channel *channel,
			       const struct dblock_completion *completion,
			       struct dblock_answer *answer)
{
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
	if (answer->file || !dblock_answer_copies(channel, rq))
		return true;

	answer->copied = dblock_data_copy(rq, answer->address, answer->copied);
	return answer->copied == blk_rq_bytes(rq);
}

/* Third phase: a CLAIMED answer is SETTLED, or PASSED. The slot is free, and the
 * request counted unless a file is to be asked first; dblock_answer_finish() goes
 * on, without the lock.
 */
static void dblock_answer_settle(struct dblock_channel *channel,
				 struct dblock_answer *answer)
{
	struct dblock_queue *queue = channel->queue;
	u8 operation = dblock_operation_of(answer->rq);

	lockdep_assert_held(&queue->lock);
	if (answer->file) {
		dblock_slot_settle(queue, answer->slot);
		answer->phase = DBLOCK_ANSWER_PASSED;
		answer->slot = NULL;
		return;
	}
	if (dblock_flush_lost(queue->device, answer->rq))
		answer->status = BLK_STS_IOERR;
	if (!answer->status)
		dblock_cache_answered(channel, answer->slot, operation);
	dblock_slot_settle(queue, answer->slot);
	answer->phase = DBLOCK_ANSWER_SETTLED;
	answer->slot = NULL;
	if (answer->status) {
		queue->error_count++;
	} else {
		queue->requests[operation]++;
		queue->bytes[operation] += blk_rq_bytes(answer->rq);
	}
}

/* A CLAIMED answer is OPEN again. */
static void dblock_answer_let_go(struct dblock_channel *channel,
				 struct dblock_answer *answer,
				 struct list_head *failed)
{
	dblock_slot_release(channel, answer->slot, failed);
	if (answer->file)
		fput(answer->file);
	answer->file = NULL;
	answer->phase = DBLOCK_ANSWER_OPEN;
	answer->slot = NULL;
	answer->rq = NULL;
}

/* Ends the requests of those that are SETTLED. */
static void dblock_answer_finish(struct dblock_answer *answers,
				 unsigned int count)
{
	struct dblock_end_batch batch = { };
	unsigned int i;

	local_bh_disable();
	for (i = 0; i < count; i++)
		if (answers[i].phase == DBLOCK_ANSWER_SETTLED)
			dblock_end_request(&batch, answers[i].rq,
					   answers[i].status);
	dblock_end_batch(&batch);
	local_bh_enable();
}

/* Has the server's file answer those that are PASSED; what they become on its disk
 * sets out together.
 */
static void dblock_answer_pass(struct dblock_queue *queue,
			       struct dblock_answer *answers,
			       unsigned int count)
{
	struct blk_plug plug;
	unsigned int i;

	blk_start_plug(&plug);
	for (i = 0; i < count; i++)
		if (answers[i].phase == DBLOCK_ANSWER_PASSED)
			dblock_file_begin(queue, answers[i].rq, answers[i].file,
					  answers[i].address);
	blk_finish_plug(&plug);
}

/* One round over what is left of a chunk: all three phases for each answer, until
 * a page is missing. The answers from there on are let go. Who waits for the first
 * of some big copies need not wait for the others: @end comes down to where the
 * round ended.
 *
 * Return: the index of the answer whose data is missing, or @end; @work grows by
 * the bytes that were to be copied.
 */
static unsigned int dblock_answer_round(struct dblock_channel *channel,
					struct dblock_completion *completions,
					struct dblock_answer *answers,
					unsigned int from, unsigned int *end,
					size_t *work)
{
	struct dblock_queue *queue = channel->queue;
	unsigned int count = *end;
	bool passes = false;
	unsigned int stop;
	LIST_HEAD(failed);
	unsigned int i;
	u64 bytes = 0;

	spin_lock(&queue->lock);
	for (i = from; i < count && bytes < DBLOCK_ROUND_BYTES; i++) {
		if (answers[i].phase == DBLOCK_ANSWER_OPEN)
			dblock_answer_claim(channel, &completions[i],
					    &answers[i]);
		if (answers[i].phase == DBLOCK_ANSWER_CLAIMED &&
		    !completions[i].error && !answers[i].file &&
		    dblock_answer_copies(channel, answers[i].rq))
			bytes += completions[i].length_bytes;
	}
	spin_unlock(&queue->lock);
	*end = count = i;
	*work += bytes;

	for (stop = from; stop < count; stop++)
		if (answers[stop].phase == DBLOCK_ANSWER_CLAIMED &&
		    !dblock_answer_copy(channel, &completions[stop],
					&answers[stop]))
			break;

	spin_lock(&queue->lock);
	for (i = from; i < count; i++) {
		if (answers[i].phase != DBLOCK_ANSWER_CLAIMED)
			continue;
		passes |= !!answers[i].file;
		if (i < stop)
			dblock_answer_settle(channel, &answers[i]);
		else
			dblock_answer_let_go(channel, &answers[i], &failed);
	}
	spin_unlock(&queue->lock);
	if (passes)
		dblock_answer_pass(queue, answers + from, stop - from);
	dblock_answer_finish(answers + from, stop - from);
	dblock_end_list(&failed, dblock_queue_failure(queue));
	return stop;
}

/* Ends a request whose data is not to be had from the server. */
static void dblock_answer_fail(struct dblock_channel *channel,
			       struct dblock_completion *completion,
			       struct dblock_answer *answer)
{
	struct dblock_queue *queue = channel->queue;

	spin_lock(&queue->lock);
	dblock_answer_claim(channel, completion, answer);
	if (answer->phase == DBLOCK_ANSWER_CLAIMED) {
		answer->status = BLK_STS_IOERR;
		completion->status = DBLOCK_STATUS_FAULT;
		queue->refused_count++;
		dblock_answer_settle(channel, answer);
	}
	spin_unlock(&queue->lock);
	if (answer->phase != DBLOCK_ANSWER_SETTLED)
		return;
	pr_warn_ratelimited("%s: a request ends in EIO: its data cannot be copied %s the address that the server named; see that the server has memory there\n",
			    channel->device->params.name,
			    answer->to_server ? "to" : "from");
	dblock_answer_finish(answer, 1);
}

/* Faults in what the copy of an OPEN answer stopped at.
 *
 * Return: 0; -EFAULT if there is no memory to be had; -EINTR if the server is
 * being killed.
 */
static int dblock_answer_fault_in(const struct dblock_completion *completion,
				  struct dblock_answer *answer)
{
	answer->faults = answer->copied == answer->copied_before ?
			 answer->faults + 1 : 1;
	answer->copied_before = answer->copied;
	if (answer->faults > DBLOCK_FAULT_ROUNDS_MAX)
		return -EFAULT;
	return dblock_data_fault_in(answer->address + answer->copied,
				    completion->length_bytes - answer->copied,
				    answer->to_server);
}

/**
 * dblock_queue_complete() - take a chunk of answers
 * @channel: who answers
 * @completions: the kernel's own copy, @status zero; the outcome is set
 * @count: how many, up to DBLOCK_CHUNK
 * @work: see dblock_pause()
 *
 * Return: 0, or -EINTR if the server is being killed; then what is left of the
 * chunk is still with it.
 */
int dblock_queue_complete(struct dblock_channel *channel,
			  struct dblock_completion *completions,
			  unsigned int count, size_t *work)
{
	struct dblock_answer answers[DBLOCK_CHUNK] = { };
	unsigned int end;
	unsigned int i = 0;
	int err;

	while (i < count) {
		err = dblock_pause(work);
		if (err)
			return err;
		end = count;
		i = dblock_answer_round(channel, completions, answers, i, &end,
					work);
		if (i == end)
			continue;
		err = dblock_answer_fault_in(&completions[i], &answers[i]);
		if (err == -EINTR)
			return err;
		if (err) {
			dblock_answer_fail(channel, &completions[i],
					   &answers[i]);
			i++;
		}
	}
	return 0;
}
