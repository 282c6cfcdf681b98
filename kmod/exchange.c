// SPDX-License-Identifier: GPL-2.0
/*
 * EXCHANGE and COMMIT: answers come in from the server's ring, requests go out
 * to it. What an answer does to its request is in answer.c, what is handed out
 * in serve.c; here is only the ring.
 */
#include <linux/fs.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>

#include "dblock.h"

/* After so much work others may have the CPU: some 100 us of copying. */
#define DBLOCK_PAUSE_BYTES	SZ_1M
/* A request without data is as much work as a copy of so much; a guess. */
#define DBLOCK_REQUEST_BYTES	SZ_4K

/**
 * dblock_pause() - between two pieces of a call that can be long
 * @work: the bytes that were copied since the last pause
 *
 * A server that copies gigabytes in one call must not keep others from the CPU,
 * nor its own end from coming. A pause after each piece would be dear: those who
 * got their answers ask again at once, one by one, and the next batch is small.
 *
 * Return: 0, or -EINTR if the server is being killed.
 */
int dblock_pause(size_t *work)
{
	if (fatal_signal_pending(current))
		return -EINTR;
	if (*work >= DBLOCK_PAUSE_BYTES) {
		*work = 0;
		cond_resched();
	}
	return 0;
}

/* Takes @count completions from the server's memory.
 *
 * Return: 0 or an errno; @taken and @refused count up in any case.
 */
static int dblock_take(struct dblock_channel *channel,
		       struct dblock_completion __user *from, u32 count,
		       u32 *taken, u32 *refused)
{
	struct dblock_completion chunk[DBLOCK_CHUNK];
	size_t work = 0;
	u32 i, n;
	int err;

	while (*taken < count) {
		n = min_t(u32, count - *taken, DBLOCK_CHUNK);
		if (copy_from_user(chunk, from + *taken, n * sizeof(*chunk)))
			return -EFAULT;
		for (i = 0; i < n; i++)
			chunk[i].status = DBLOCK_STATUS_TAKEN;
		err = dblock_queue_complete(channel, chunk, n, &work);
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
		work += n * DBLOCK_REQUEST_BYTES;
		if (err)
			return err;
	}
	return 0;
}

/* Writes requests to the server's memory, data first. Those that have ended
 * meanwhile are left out.
 *
 * Return: how many it was told of, or an errno if that is none.
 */
static int dblock_tell(struct dblock_channel *channel,
		       struct dblock_request __user *to,
		       struct dblock_request *requests, unsigned int count,
		       size_t *work)
{
	bool direct = channel->device->params.flags & DBLOCK_DEVICE_DIRECT;
	unsigned int good = 0;
	unsigned int i;
	int err = 0;

	for (i = 0; i < count; i++) {
		if (!direct && requests[i].operation == DBLOCK_OPERATION_WRITE) {
			err = dblock_pause(work);
			if (!err)
				err = dblock_queue_deliver(channel,
							   &requests[i]);
			*work += requests[i].length_bytes;
		}
		if (err && err != -ENOENT)
			break;
		if (!err)
			requests[good++] = requests[i];
		err = 0;
	}
	if (i < count)
		dblock_queue_hand_back(channel, requests + i, count - i);
	if (good && copy_to_user(to, requests, good * sizeof(*requests))) {
		dblock_queue_hand_back(channel, requests, good);
		good = 0;
		err = -EFAULT;
	}
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
	size_t work = 0;
	u32 given = 0;
	int count, told;

	while (given < depth) {
		count = dblock_queue_hand_out(channel, chunk,
					      min_t(u32, depth - given,
						    DBLOCK_CHUNK), !given);
		if (count <= 0)
			return given ?: count;
		told = dblock_tell(channel, channel->requests + given, chunk,
				   count, &work);
		if (told < 0)
			return given ?: told;
		given += told;
		if (told < DBLOCK_CHUNK)
			break;
	}
	return given;
}

/* Waits for requests and hands them out. What ends the wait without one is no
 * error of the call: @why says it.
 */
static int dblock_await(struct dblock_channel *channel, bool nonblock,
			u32 flags, u32 *why)
{
	struct dblock_queue *queue = channel->queue;
	bool lingers = nonblock && flags & DBLOCK_EXCHANGE_LINGER;
	/* A thread with several queues would keep one waiting for another. */
	bool may_look = !nonblock || lingers;
	bool waited = false;
	int given, err;

	for (;;) {
		given = dblock_give(channel);
		if (given > 0 && may_look)
			dblock_poll_learn(channel, given);
		if (given)
			return given;
		if (!waited) {
			waited = true;
			if (may_look)
				dblock_poll_wait(channel, nonblock);
			if (dblock_queue_ready(queue, channel))
				continue;
		}
		err = -ETIME;
		if (lingers)
			err = dblock_poll_linger(channel);
		else if (!nonblock)
			err = wait_event_interruptible(queue->wait,
						       dblock_queue_ready(queue,
									  channel));
		lingers = false;
		if (!err)
			continue;
		if (err == -ERESTARTSYS) {
			*why = EINTR;
			return 0;
		}
		if (flags & DBLOCK_EXCHANGE_ARM && !dblock_bell_arm(channel))
			continue;
		*why = EAGAIN;
		return 0;
	}
}

/* Answers in, requests out; the ring's header says how it went. The channel's
 * EXCHANGE is the caller's.
 */
static int dblock_exchange_ring(struct dblock_channel *channel, bool nonblock,
				unsigned long argument)
{
	u32 flags = argument & (DBLOCK_EXCHANGE_ARM | DBLOCK_EXCHANGE_LINGER);
	unsigned long count = argument & ~(unsigned long)flags;
	struct dblock_device *device = channel->device;
	struct dblock_ring_header header = { };
	int ret = -EINVAL;

	WRITE_ONCE(channel->bell.rung, false);
	if (count <= device->params.queue_depth &&
	    (!(flags & DBLOCK_EXCHANGE_ARM) || channel->bell.eventfd))
		ret = dblock_take(channel, channel->completions, count,
				  &header.completion_count,
				  &header.refused_count);
	if (!ret)
		ret = dblock_await(channel, nonblock, flags,
				   &header.error);
	if (ret < 0)
		header.error = -ret;
	else
		header.request_count = ret;
	header.state = READ_ONCE(device->state);
	header.queue = channel->queue - device->queues;
	header.id = device->params.id;
	if (copy_to_user(channel->header, &header,
			 offsetof(struct dblock_ring_header, reserved))) {
		if (ret > 0)
			dblock_queue_hand_back_batch(channel);
		ret = -EFAULT;
	}
	return ret;
}

/* A thread that is killed takes all of its process along. The file knows it only
 * when the last of them has ended, which may wait for this very disk.
 */
static void dblock_exchange_killed(struct dblock_channel *channel)
{
	if (fatal_signal_pending(current) &&
	    task_tgid(current) == channel->process)
		dblock_channel_detach(channel);
}

long dblock_exchange(struct file *file, unsigned long argument)
{
	struct dblock_channel *channel = file->private_data;
	int ret;

	if (!smp_load_acquire(&channel->queue))
		return -ENOTCONN;
	if (channel->mm != current->mm)
		return -EPERM;
	if (test_and_set_bit_lock(0, &channel->exchanging))
		return -EBUSY;
	ret = dblock_exchange_ring(channel, file->f_flags & O_NONBLOCK,
				   argument);
	clear_bit_unlock(0, &channel->exchanging);
	dblock_exchange_killed(channel);
	return ret;
}

int dblock_commit(struct dblock_channel *channel, struct dblock_commit *p)
{
	struct dblock_queue *queue = smp_load_acquire(&channel->queue);
	int err;

	p->completion_count = 0;
	p->refused_count = 0;
	if (p->flags & ~(DBLOCK_COMMIT_FLUSHED | DBLOCK_COMMIT_LEAVES))
		return -EOPNOTSUPP;
	if (!dblock_is_zero(p->reserved, sizeof(p->reserved)) ||
	    p->completions_address % 8 ||
	    p->count > channel->device->params.queue_depth)
		return -EINVAL;
	if (!queue)
		return -ENOTCONN;
	if (channel->mm != current->mm)
		return -EPERM;
	if (READ_ONCE(queue->gone))
		return -ENODEV;
	if (READ_ONCE(queue->channel) != channel)
		return -ENOTCONN;
	if (!dblock_user_range(p->completions_address,
			       p->count * sizeof(struct dblock_completion)))
		return -EFAULT;
	err = dblock_take(channel, u64_to_user_ptr(p->completions_address),
			  p->count, &p->completion_count, &p->refused_count);
	if (!err && p->flags & DBLOCK_COMMIT_FLUSHED)
		err = dblock_cache_flushed(channel);
	if (!err && p->flags & DBLOCK_COMMIT_LEAVES)
		err = dblock_channel_leave(channel);
	return err;
}
