// SPDX-License-Identifier: GPL-2.0
/*
 * EXCHANGE and COMMIT: answers come in from the server's ring, requests go out
 * to it. What an answer does to its request is in answer.c, what is handed out
 * in serve.c; here is only the ring.
 */
#include <linux/fs.h>
#include <linux/math64.h>
#include <linux/moduleparam.h>
#include <linux/sched/clock.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/uaccess.h>

#include "dblock.h"

/* Twice what it takes to wake a server where that is slow: in an emulator. */
static unsigned int poll_us = 200;
module_param(poll_us, uint, 0644);
MODULE_PARM_DESC(poll_us, "How long a server looks for the next request before it sleeps, if they come one at a time and soon, in microseconds (default 200, at most 10000; 0: it sleeps at once)");

#define DBLOCK_POLL_US_MAX	10000
/* Of so many lone requests in a row, ... */
#define DBLOCK_POLL_CYCLE	256
/* ... these many are slept for, as many polled for, to see what is better. */
#define DBLOCK_POLL_TRIAL	8
/* What comes in this part of the time that a sleeping server waits is no reply
 * to an answer, but one of many under way.
 */
#define DBLOCK_POLL_HASTE	8

/* Takes @count completions from the server's memory.
 *
 * Return: 0 or an errno; @taken and @refused count up in any case.
 */
static int dblock_take(struct dblock_channel *channel,
		       struct dblock_completion __user *from, u32 count,
		       u32 *taken, u32 *refused)
{
	struct dblock_completion chunk[DBLOCK_CHUNK];
	u32 i, n;
	int err;

	while (*taken < count) {
		n = min_t(u32, count - *taken, DBLOCK_CHUNK);
		if (copy_from_user(chunk, from + *taken, n * sizeof(*chunk)))
			return -EFAULT;
		for (i = 0; i < n; i++)
			chunk[i].status = DBLOCK_STATUS_TAKEN;
		err = dblock_queue_complete(channel, chunk, n);
		if (err)
			return err;
		for (i = 0; i < n; i++) {
			if (chunk[i].status == DBLOCK_STATUS_TAKEN)
				continue;
			(*refused)++;
			if (put_user(chunk[i].status,
				     &from[*taken + i].status))
				err = -EFAULT;
		}
		*taken += n;
		if (err)
			return err;
	}
	return 0;
}

/* Writes requests to the server's memory, data first.
 *
 * Return: how many it was told of, or an errno if that is none.
 */
static int dblock_tell(struct dblock_channel *channel,
		       struct dblock_request __user *to,
		       const struct dblock_request *requests,
		       unsigned int count)
{
	bool direct = channel->device->params.flags & DBLOCK_DEVICE_DIRECT;
	unsigned int good = count;
	unsigned int i;
	int err = 0;

	for (i = 0; i < count && !direct && !err; i++) {
		if (requests[i].operation != DBLOCK_OPERATION_WRITE)
			continue;
		err = dblock_queue_deliver(channel, &requests[i]);
		if (err)
			good = i;
	}
	if (good && copy_to_user(to, requests, good * sizeof(*requests))) {
		good = 0;
		err = -EFAULT;
	}
	if (good < count)
		dblock_queue_hand_back(channel, requests + good, count - good);
	return good ?: err;
}

/* Hands out what waits, up to the ring's size.
 *
 * Return: how many, 0 if there is nothing; an errno only if it is none.
 */
static int dblock_give(struct dblock_channel *channel)
{
	struct dblock_request chunk[DBLOCK_CHUNK];
	u32 depth = channel->device->params.queue_depth;
	u32 given = 0;
	int count, told;

	while (given < depth) {
		count = dblock_queue_hand_out(channel, chunk,
					      min_t(u32, depth - given,
						    DBLOCK_CHUNK), !given);
		if (count <= 0)
			return given ?: count;
		told = dblock_tell(channel, channel->requests + given, chunk,
				   count);
		if (told < 0)
			return given ?: told;
		given += told;
		if (told < DBLOCK_CHUNK)
			break;
	}
	return given;
}

/* Whether to look for the next request instead of sleeping. That is for those
 * who wait for each answer before they ask again: being woken may take longer
 * than all the rest. With many requests under way sleeping is better: they
 * gather, and one call takes them all. And where CPUs are short (a crowded
 * host) polling takes from those it waits for; so both are tried and timed.
 */
static bool dblock_poll_pays(const struct dblock_channel *channel)
{
	u32 turn = channel->lone_count % DBLOCK_POLL_CYCLE;

	if (turn < 2 * DBLOCK_POLL_TRIAL)
		return turn >= DBLOCK_POLL_TRIAL;
	return channel->wait_ns[true] < channel->wait_ns[false];
}

static void dblock_poll(struct dblock_channel *channel, u64 until)
{
	while (!dblock_queue_ready(channel->queue, channel) &&
	       single_task_running() && !need_resched() &&
	       !signal_pending(current) && local_clock() < until)
		cpu_relax();
}

/* A wait has ended with @count requests. */
static void dblock_poll_learn(struct dblock_channel *channel, bool polled,
			      u64 waited_ns, u64 limit_ns, int count)
{
	s64 more = waited_ns - channel->wait_ns[polled];

	if (count != 1 || waited_ns >= limit_ns ||
	    (polled && waited_ns * DBLOCK_POLL_HASTE <
		       channel->wait_ns[false])) {
		channel->lone_count = 0;
		return;
	}
	channel->lone_count++;
	channel->wait_ns[polled] += div_s64(more, DBLOCK_POLL_TRIAL);
}

/* Waits for requests and hands them out. What ends the wait without one is no
 * error of the call: @why says it.
 */
static int dblock_await(struct dblock_channel *channel, bool nonblock, u32 *why)
{
	u64 poll_ns = (u64)min_t(u32, READ_ONCE(poll_us), DBLOCK_POLL_US_MAX) *
		      NSEC_PER_USEC;
	struct dblock_queue *queue = channel->queue;
	bool polled = false;
	u64 began = 0;
	int given;

	for (;;) {
		given = dblock_give(channel);
		if (given) {
			dblock_poll_learn(channel, polled,
					  began ? local_clock() - began :
						  U64_MAX, poll_ns, given);
			return given;
		}
		if (nonblock) {
			*why = EAGAIN;
			return 0;
		}
		if (!began) {
			began = local_clock();
			polled = poll_ns && dblock_poll_pays(channel);
			if (polled)
				dblock_poll(channel, began + poll_ns);
		}
		if (wait_event_interruptible(queue->wait,
					     dblock_queue_ready(queue,
								channel))) {
			*why = EINTR;
			return 0;
		}
	}
}

long dblock_exchange(struct file *file, unsigned long count)
{
	struct dblock_channel *channel = file->private_data;
	struct dblock_device *device = channel->device;
	struct dblock_ring_header header = { };
	int ret;

	if (!smp_load_acquire(&channel->queue))
		return -ENOTCONN;
	if (channel->mm != current->mm)
		return -EPERM;
	if (test_and_set_bit_lock(0, &channel->exchanging))
		return -EBUSY;
	ret = -EINVAL;
	if (count <= device->params.queue_depth)
		ret = dblock_take(channel, channel->completions, count,
				  &header.completion_count,
				  &header.refused_count);
	if (!ret)
		ret = dblock_await(channel, file->f_flags & O_NONBLOCK,
				   &header.error);
	if (ret < 0)
		header.error = -ret;
	else
		header.request_count = ret;
	header.state = READ_ONCE(device->state);
	if (copy_to_user(channel->header, &header,
			 offsetof(struct dblock_ring_header, reserved))) {
		if (ret > 0)
			dblock_queue_hand_back_batch(channel);
		ret = -EFAULT;
	}
	clear_bit_unlock(0, &channel->exchanging);
	return ret;
}

int dblock_commit(struct dblock_channel *channel, struct dblock_commit *p)
{
	p->completion_count = 0;
	p->refused_count = 0;
	if (p->reserved || p->completions_address % 8 ||
	    p->count > channel->device->params.queue_depth)
		return -EINVAL;
	if (!smp_load_acquire(&channel->queue))
		return -ENOTCONN;
	if (channel->mm != current->mm)
		return -EPERM;
	if (READ_ONCE(channel->queue->gone))
		return -ENODEV;
	return dblock_take(channel, u64_to_user_ptr(p->completions_address),
			   p->count, &p->completion_count, &p->refused_count);
}
