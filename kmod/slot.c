// SPDX-License-Identifier: GPL-2.0
/*
 * The slots of a queue: who has each of them, and every way in and out. A server
 * answers by slot. The tag that blk-mq gave the request is another thing: a
 * request that ends before its answer leaves the slot behind.
 *
 * state       | who may still answer  | next state, and which function moves the
 *             | (the request)         | slot there, when
 * ------------+-----------------------+------------------------------------------
 * FREE        | nobody (none)         | HANDED: hand_out(), a request is next
 * HANDED      | the server (open)     | COPYING: claim(), its answer is taken
 *             |                       | COPYING: claim_untold(), the data of a
 *             |                       |   WRITE is delivered before its request
 *             |                       | QUARANTINED: take(), the request times
 *             |                       |   out, or take_all(), the device fails
 *             |                       |   or goes; and the server is still there
 *             |                       | FREE: take(), take_all(), if it is not
 *             |                       | FREE: replay_all(), the server ended, or
 *             |                       |   another one has the queue
 *             |                       | FREE: hand_back(), the server could not
 *             |                       |   be told of the request
 * COPYING     | nobody; the thread    | FREE: settle(), the request ends by its
 *             | that copies has the   |   answer, or its server's file is at it
 *             | slot (open)           | HANDED: release(), the data is delivered,
 *             |                       |   or a page of the server is missing
 *             |                       | as from HANDED: release(), if the device
 *             |                       |   failed or the server left meanwhile
 * QUARANTINED | the server, too late: | FREE: find(), the late answer has come
 *             | the answer is refused | FREE: replay_all(), no answer can come
 *             | as STALE (ended)      | FREE: hand_back(), claim_untold(), the
 *             |                       |   server was never told of the request
 *
 * The callers hold the queue's lock, which guards all of it.
 */
#include <linux/errno.h>
#include <linux/mm.h>
#include <linux/nospec.h>

#include "compat.h"
#include "dblock.h"

/* Return: 0 or -ENOMEM; dblock_slots_exit() cleans up either way. */
int dblock_slots_init(struct dblock_queue *queue)
{
	u32 depth = queue->device->params.queue_depth;
	u32 i;

	queue->slots = kvcalloc(depth, sizeof(*queue->slots), GFP_KERNEL);
	queue->free = kvcalloc(depth, sizeof(*queue->free), GFP_KERNEL);
	if (!queue->slots || !queue->free)
		return -ENOMEM;
	/* Low slots are used first: they keep the server's buffer warm. */
	for (i = 0; i < depth; i++) {
		queue->free[i] = depth - 1 - i;
		INIT_LIST_HEAD(&queue->slots[i].quarantine);
	}
	queue->free_count = depth;
	return 0;
}

void dblock_slots_exit(struct dblock_queue *queue)
{
	kvfree(queue->slots);
	kvfree(queue->free);
	queue->slots = NULL;
	queue->free = NULL;
}

/* One request less is with the server. The successor waits for the last. */
static void dblock_slot_handed_less(struct dblock_queue *queue)
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
	/* Somebody may sleep beside requests that had no slot to go to. */
	if (queue->free_count == 1 &&
	    (queue->waiting_count || queue->blocked_count))
		dblock_queue_wake(queue);
}

/* The server may do the request at any time from now on, though it has ended. */
static void dblock_slot_quarantine(struct dblock_queue *queue,
				   struct dblock_slot *slot)
{
	struct request *rq = slot->rq;

	slot->rq = NULL;
	slot->state = DBLOCK_SLOT_QUARANTINED;
	queue->quarantined_count++;
	queue->owed_count += dblock_quarantine_add(queue->device, slot, rq);
}

/* No answer is due from the slot any more. */
static void dblock_slot_end_quarantine(struct dblock_queue *queue,
				       struct dblock_slot *slot)
{
	queue->quarantined_count--;
	queue->owed_count -= !list_empty(&slot->quarantine);
	dblock_slot_free(queue, slot);
	dblock_quarantine_del(queue->device, slot);
}

/* Gives a request, taken off its list, one of the free slots: HANDED then. */
struct dblock_slot *dblock_slot_hand_out(struct dblock_queue *queue,
					 struct dblock_io *io)
{
	struct dblock_slot *slot;

	lockdep_assert_held(&queue->lock);
	io->since = jiffies;
	io->slot = queue->free[--queue->free_count];
	if (io->sequence == U64_MAX)
		io->sequence = queue->sequence++;
	slot = &queue->slots[io->slot];
	slot->rq = blk_mq_rq_from_pdu(io);
	slot->state = DBLOCK_SLOT_HANDED;
	if (!++slot->generation)
		slot->generation = 1;
	slot->batch = queue->batch;
	if (dblock_operation_of(slot->rq) == DBLOCK_OPERATION_FLUSH)
		slot->covers = dblock_cache_changes(queue->device);
	queue->handed_total++;
	queue->handed_count++;
	queue->replayed_count += io->replayed;
	return slot;
}

/**
 * dblock_slot_find() - the slot that a server speaks of
 * @channel: the server's file
 * @index: which slot, as the server says: any number
 * @generation: which use of the slot, likewise
 * @status: out, without a slot: enum dblock_status
 *
 * A late answer, to a request that has ended, gives its slot free.
 *
 * Return: the slot, HANDED; or NULL.
 */
struct dblock_slot *dblock_slot_find(struct dblock_channel *channel, u16 index,
				     u32 generation, u16 *status)
{
	struct dblock_queue *queue = channel->queue;
	u32 depth = queue->device->params.queue_depth;
	struct dblock_slot *slot;

	lockdep_assert_held(&queue->lock);
	if (index >= depth) {
		*status = DBLOCK_STATUS_UNKNOWN;
		return NULL;
	}
	slot = &queue->slots[array_index_nospec(index, depth)];
	if (queue->channel == channel && slot->generation == generation) {
		if (slot->state == DBLOCK_SLOT_HANDED)
			return slot;
		if (slot->state == DBLOCK_SLOT_QUARANTINED)
			dblock_slot_end_quarantine(queue, slot);
	}
	*status = DBLOCK_STATUS_STALE;
	return NULL;
}

/* Until release or settle nobody else touches the HANDED slot's request. */
void dblock_slot_claim(struct dblock_slot *slot)
{
	slot->state = DBLOCK_SLOT_COPYING;
}

/**
 * dblock_slot_take() - take a request, which is to be ended, out of its slot
 * @queue: the queue
 * @slot: HANDED
 * @handed_to: the channel that was handed the request. If it still serves, it
 *	may still answer, and the slot is quarantined
 *
 * Return: the request's, marked as about to end. The caller ends it.
 */
struct dblock_io *dblock_slot_take(struct dblock_queue *queue,
				   struct dblock_slot *slot,
				   const struct dblock_channel *handed_to)
{
	struct dblock_io *io = dblock_io_of(slot->rq);

	lockdep_assert_held(&queue->lock);
	io->slot = DBLOCK_NO_SLOT;
	io->ending = true;
	dblock_slot_handed_less(queue);
	if (handed_to && queue->channel == handed_to)
		dblock_slot_quarantine(queue, slot);
	else
		dblock_slot_free(queue, slot);
	return io;
}

/**
 * dblock_slots_take_all() - take every request, to be ended, out of its slot
 * @queue: the queue
 * @ended: where they go; the caller ends them. A request that is being copied
 *	is left to the thread that copies
 */
void dblock_slots_take_all(struct dblock_queue *queue, struct list_head *ended)
{
	struct dblock_slot *slot;
	struct dblock_io *io;
	u32 i;

	lockdep_assert_held(&queue->lock);
	for (i = 0; i < queue->device->params.queue_depth; i++) {
		slot = &queue->slots[i];
		if (slot->state != DBLOCK_SLOT_HANDED)
			continue;
		io = dblock_slot_take(queue, slot, queue->channel);
		list_add_tail(&io->node, ended);
		queue->error_count++;
	}
}

/* Takes a request out of its slot, to wait again. @replays is where, until
 * dblock_slots_wait_again().
 */
static struct dblock_io *dblock_slot_replay(struct dblock_queue *queue,
					    struct dblock_slot *slot,
					    struct list_head *replays)
{
	struct dblock_io *io = dblock_io_of(slot->rq);

	io->slot = DBLOCK_NO_SLOT;
	list_add_tail(&io->node, replays);
	queue->waiting_count++;
	dblock_slot_handed_less(queue);
	dblock_slot_free(queue, slot);
	return io;
}

static int dblock_slot_compare(void *unused, const struct list_head *a,
			       const struct list_head *b)
{
	return list_entry(a, struct dblock_io, node)->sequence >
	       list_entry(b, struct dblock_io, node)->sequence;
}

/* The requests go back to the head of the line. Of those that were handed out
 * before, who was first stays first, whatever slots they had: writes that overlap
 * are made in the same order again.
 */
void dblock_slots_wait_again(struct dblock_queue *queue,
			     struct list_head *replays)
{
	struct dblock_io *io, *next;

	lockdep_assert_held(&queue->lock);
	if (list_empty(replays))
		return;
	list_for_each_entry_safe(io, next, &queue->waiting, node) {
		if (io->sequence == U64_MAX)
			break;
		list_move_tail(&io->node, replays);
	}
	dblock_list_sort(replays, dblock_slot_compare);
	list_splice(replays, &queue->waiting);
	/* Who looked meanwhile found nothing, and may sleep. */
	dblock_queue_wake(queue);
}

/**
 * dblock_slots_replay_all() - the server is another one from now on, or none
 * @queue: the queue
 *
 * What the server before was handed waits again, in the old order, and no answer
 * to what has ended is due.
 */
void dblock_slots_replay_all(struct dblock_queue *queue)
{
	struct dblock_slot *slot;
	LIST_HEAD(replays);
	u32 i;

	lockdep_assert_held(&queue->lock);
	for (i = queue->device->params.queue_depth; i-- > 0; ) {
		slot = &queue->slots[i];
		if (slot->state == DBLOCK_SLOT_HANDED)
			dblock_slot_replay(queue, slot, &replays)->replayed =
				true;
		else if (slot->state == DBLOCK_SLOT_QUARANTINED)
			dblock_slot_end_quarantine(queue, slot);
	}
	dblock_slots_wait_again(queue, &replays);
}

/* Undoes the hand-out of a slot that the server was not told of. @replays: as
 * dblock_slot_replay().
 */
void dblock_slot_hand_back(struct dblock_queue *queue, struct dblock_slot *slot,
			   struct list_head *replays)
{
	lockdep_assert_held(&queue->lock);
	if (slot->state == DBLOCK_SLOT_QUARANTINED) {
		/* The request timed out, and no answer is due. */
		dblock_slot_end_quarantine(queue, slot);
	} else if (slot->state == DBLOCK_SLOT_HANDED) {
		queue->handed_total--;
		queue->replayed_count -= dblock_io_of(slot->rq)->replayed;
		dblock_slot_replay(queue, slot, replays);
	}
}

/* The slot of a hand-out that is still this channel's, or NULL. */
struct dblock_slot *dblock_slot_of(struct dblock_channel *channel,
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
 * dblock_slot_claim_untold() - claim a request that the server does not know yet
 * @channel: who is to be told next
 * @request: as handed out
 *
 * Return: the slot, COPYING; or NULL if the request has ended meanwhile, and then
 * the slot is free, as the server owes no answer; or if somebody answers it.
 */
struct dblock_slot *
dblock_slot_claim_untold(struct dblock_channel *channel,
			 const struct dblock_request *request)
{
	struct dblock_slot *slot = dblock_slot_of(channel, request);

	if (!slot)
		return NULL;
	if (slot->state == DBLOCK_SLOT_HANDED) {
		dblock_slot_claim(slot);
		return slot;
	}
	if (slot->state == DBLOCK_SLOT_QUARANTINED)
		dblock_slot_end_quarantine(channel->queue, slot);
	return NULL;
}

/**
 * dblock_slot_release() - let go of a request that is not answered yet
 * @channel: who was handed it
 * @slot: COPYING
 * @failed: where the request goes if it is to fail; the caller ends those
 */
void dblock_slot_release(struct dblock_channel *channel,
			 struct dblock_slot *slot, struct list_head *failed)
{
	struct dblock_queue *queue = channel->queue;
	struct dblock_io *io;
	LIST_HEAD(replays);

	lockdep_assert_held(&queue->lock);
	slot->state = DBLOCK_SLOT_HANDED;
	if (queue->mode == DBLOCK_MODE_FAIL) {
		/* set_mode() passed by while we were copying. */
		queue->error_count++;
		io = dblock_slot_take(queue, slot, channel);
		list_add_tail(&io->node, failed);
	} else if (queue->channel != channel) {
		dblock_slot_replay(queue, slot, &replays)->replayed = true;
		dblock_slots_wait_again(queue, &replays);
	}
}

/* The COPYING slot's request ends by its answer: the caller ends it. */
void dblock_slot_settle(struct dblock_queue *queue, struct dblock_slot *slot)
{
	struct dblock_io *io = dblock_io_of(slot->rq);

	lockdep_assert_held(&queue->lock);
	dblock_slot_handed_less(queue);
	io->slot = DBLOCK_NO_SLOT;
	io->ending = true;
	dblock_slot_free(queue, slot);
}
