// SPDX-License-Identifier: GPL-2.0
/*
 * EXCHANGE may look for the next request for a while before it sleeps. That pays
 * where a user waits for each answer before the next request: to wake the server
 * can take longer than all the rest. It does not pay where many requests are under
 * way: while the server sleeps they gather, and one call takes them all. Nor where
 * processors are short: a server that polls takes time from those it waits for. So
 * both ways are tried now and then, and the time from request to request decides.
 */
#include <linux/math64.h>
#include <linux/moduleparam.h>
#include <linux/sched/clock.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/wait.h>

#include "dblock.h"

/* Twice the time to wake a server where that is slow, in an emulator: see
 * tests/bench/README.md, "Ideas tried".
 */
static unsigned int poll_us = 200;
module_param(poll_us, uint, 0644);
MODULE_PARM_DESC(poll_us, "How long a server may look for the next request before it sleeps, where that turns out to be faster, in microseconds (default 200, at most 10000; 0: it sleeps at once)");

#define DBLOCK_POLL_US_MAX	10000
/* A trial lasts so many requests; a guess. */
#define DBLOCK_POLL_TRIAL	32
/* The better way is kept for so many requests, twice as many each time the same
 * way wins again. If the load changes and polling finds nothing, it ends after a
 * quarter of a trial.
 */
#define DBLOCK_POLL_SETTLED_MIN	(16 * DBLOCK_POLL_TRIAL)
#define DBLOCK_POLL_SETTLED_MAX	(128 * DBLOCK_POLL_TRIAL)

/* After so many moments in which nothing came, in a row, only one in so many is
 * waited for; both are guesses.
 */
#define DBLOCK_LINGER_MISSES	4
#define DBLOCK_LINGER_AGAIN	16

static u64 dblock_poll_limit(void)
{
	return (u64)min_t(u32, READ_ONCE(poll_us), DBLOCK_POLL_US_MAX) *
	       NSEC_PER_USEC;
}

static void dblock_poll_begin(struct dblock_poll *poll,
			      enum dblock_poll_phase phase, u64 now)
{
	poll->phase = phase;
	poll->began_ns = now;
	poll->count = 0;
	poll->quiet_count = 0;
}

/* At the end of a trial: the time per request, averaged with the trial before. */
static u32 dblock_poll_cost(const struct dblock_poll *poll, u64 now, u32 before)
{
	u32 cost = min_t(u64, div_u64(now - poll->began_ns, poll->count),
			 U32_MAX / 2);

	return before ? (before + cost) / 2 : cost;
}

static void dblock_poll_settle(struct dblock_poll *poll)
{
	/* Polling wins even if it was slower by up to an eighth. A trial is too
	 * short to show that the submitter need not wake anybody: see
	 * tests/bench/README.md, "Ideas tried".
	 */
	bool pays = poll->cost_ns[true] <
		    poll->cost_ns[false] + poll->cost_ns[false] / 8;

	if (pays == poll->pays && poll->settled_count)
		poll->settled_count = min_t(u32, 2 * poll->settled_count,
					    DBLOCK_POLL_SETTLED_MAX);
	else
		poll->settled_count = DBLOCK_POLL_SETTLED_MIN;
	poll->pays = pays;
}

/* What was decided, and why, for who looks at it in sysfs. */
void dblock_poll_tell(const struct dblock_poll *poll,
		      struct dblock_queue *queue)
{
	WRITE_ONCE(queue->wait_cost_ns[false], poll->cost_ns[false]);
	WRITE_ONCE(queue->wait_cost_ns[true], poll->cost_ns[true]);
	WRITE_ONCE(queue->polls, poll->pays);
}

/* Whether the queue's server polls: as far as anybody outside EXCHANGE can tell. */
bool dblock_poll_pays(const struct dblock_queue *queue)
{
	return READ_ONCE(queue->polls) && dblock_poll_limit();
}

/**
 * dblock_poll_wait() - no request is there: look for one a little, where that pays
 * @channel: in EXCHANGE
 * @nonblock: O_NONBLOCK: a server that has requests in hand goes back to them
 *
 * Context: any other task that wants this CPU ends it, as does a signal.
 */
void dblock_poll_wait(struct dblock_channel *channel, bool nonblock)
{
	struct dblock_poll *poll = &channel->poll;
	u64 limit = dblock_poll_limit();
	u64 now = local_clock();

	if (!poll->waits_since_ns)
		poll->waits_since_ns = now;
	if (!limit || !(poll->phase == DBLOCK_POLL_TRY_POLLING ||
			(poll->phase == DBLOCK_POLL_SETTLED && poll->pays)))
		return;
	if (nonblock && READ_ONCE(channel->queue->handed_count))
		return;
	limit += poll->waits_since_ns;
	while (!dblock_queue_ready(channel->queue, channel) &&
	       single_task_running() && !need_resched() &&
	       !signal_pending(current) && local_clock() < limit)
		cpu_relax();
}

/**
 * dblock_poll_linger() - sleep a moment for a request, where EAGAIN would be next
 * @channel: in EXCHANGE, with O_NONBLOCK
 *
 * To sleep among all else that a program waits for takes a server several calls
 * and its event loop's turn. Who asks again at once is there before that.
 *
 * Return: 0 if something is there, -ETIME if not, -ERESTARTSYS for a signal
 */
int dblock_poll_linger(struct dblock_channel *channel)
{
	struct dblock_queue *queue = channel->queue;
	u64 limit = dblock_poll_limit();
	int err;

	if (!limit || READ_ONCE(queue->handed_count))
		return -ETIME;
	if (channel->linger_misses >= DBLOCK_LINGER_MISSES &&
	    channel->linger_misses++ % DBLOCK_LINGER_AGAIN)
		return -ETIME;
	err = wait_event_interruptible_hrtimeout(queue->wait,
						 dblock_queue_ready(queue,
								    channel),
						 ns_to_ktime(limit));
	if (!err)
		channel->linger_misses = 0;
	else if (channel->linger_misses < DBLOCK_LINGER_MISSES)
		channel->linger_misses++;
	return err;
}

/**
 * dblock_poll_learn() - EXCHANGE has got requests
 * @channel: in EXCHANGE
 * @count: how many
 */
void dblock_poll_learn(struct dblock_channel *channel, unsigned int count)
{
	struct dblock_poll *poll = &channel->poll;
	u64 arrived = READ_ONCE(channel->queue->arrived_ns);
	u64 limit = dblock_poll_limit();
	u64 quiet = 0;
	u64 now;

	if (!limit)
		return;
	now = local_clock();
	if (poll->waits_since_ns && arrived > poll->waits_since_ns)
		quiet = arrived - poll->waits_since_ns;
	poll->waits_since_ns = 0;
	if (!poll->began_ns) {
		dblock_poll_begin(poll, DBLOCK_POLL_TRY_SLEEPING, now);
		return;
	}
	poll->count += count;
	if (quiet > limit) {
		/* Nobody asked for longer than a poll lasts. Neither way of
		 * waiting made that time long, so it does not count.
		 */
		poll->began_ns += quiet - limit;
		poll->quiet_count++;
	}
	if (poll->quiet_count > DBLOCK_POLL_TRIAL / 4 &&
	    poll->quiet_count > poll->count / 4) {
		memset(poll, 0, sizeof(*poll));
		dblock_poll_tell(poll, channel->queue);
		return;
	}
	switch (poll->phase) {
	case DBLOCK_POLL_TRY_SLEEPING:
		if (poll->count < DBLOCK_POLL_TRIAL)
			return;
		poll->cost_ns[false] = dblock_poll_cost(poll, now,
							poll->cost_ns[false]);
		dblock_poll_begin(poll, DBLOCK_POLL_TRY_POLLING, now);
		return;
	case DBLOCK_POLL_TRY_POLLING:
		if (poll->count < DBLOCK_POLL_TRIAL)
			return;
		poll->cost_ns[true] = dblock_poll_cost(poll, now,
						       poll->cost_ns[true]);
		dblock_poll_settle(poll);
		dblock_poll_tell(poll, channel->queue);
		dblock_poll_begin(poll, DBLOCK_POLL_SETTLED, now);
		return;
	case DBLOCK_POLL_SETTLED:
		if (poll->count >= poll->settled_count)
			dblock_poll_begin(poll, DBLOCK_POLL_TRY_SLEEPING, now);
		return;
	}
}
