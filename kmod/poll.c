// SPDX-License-Identifier: GPL-2.0
/*
 * Whether EXCHANGE looks for the next request for a while before it sleeps. For
 * who waits for each answer before he asks again, being woken may take longer
 * than all the rest. With many requests under way sleeping can be better: they
 * gather, and one call takes them all. And where CPUs are short (a crowded
 * host) polling takes from those it waits for. So nothing is guessed: both are
 * tried now and then, and what a request takes from one to the next decides.
 */
#include <linux/math64.h>
#include <linux/moduleparam.h>
#include <linux/sched/clock.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>

#include "dblock.h"

/* Twice what it takes to wake a server where that is slow: in an emulator. */
static unsigned int poll_us = 200;
module_param(poll_us, uint, 0644);
MODULE_PARM_DESC(poll_us, "How long a server may look for the next request before it sleeps, where that turns out to be faster, in microseconds (default 200, at most 10000; 0: it sleeps at once)");

#define DBLOCK_POLL_US_MAX	10000
/* How many requests a trial lasts. */
#define DBLOCK_POLL_TRIAL	32
/* ... and what was found better after it: longer each time it is found again.
 * On a change of load, polling without a use ends after a quarter of it.
 */
#define DBLOCK_POLL_SETTLED_MIN	(16 * DBLOCK_POLL_TRIAL)
#define DBLOCK_POLL_SETTLED_MAX	(128 * DBLOCK_POLL_TRIAL)

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

/* The end of a trial: what a request took. */
static u32 dblock_poll_cost(const struct dblock_poll *poll, u64 now, u32 before)
{
	u32 cost = min_t(u64, div_u64(now - poll->began_ns, poll->count),
			 U32_MAX / 2);

	return before ? (before + cost) / 2 : cost;
}

static void dblock_poll_settle(struct dblock_poll *poll)
{
	/* Trials are short. A server that polls spares who asks the waking,
	 * which shows only in the long run.
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

/**
 * dblock_poll_wait() - nothing is there; look for it a little, where that pays
 * @channel: in EXCHANGE
 * @nonblock: the server has other things to do: those it was handed, if any
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
		/* Nobody asked: no matter of how we wait. */
		poll->began_ns += quiet - limit;
		poll->quiet_count++;
	}
	if (poll->quiet_count > DBLOCK_POLL_TRIAL / 4 &&
	    poll->quiet_count > poll->count / 4) {
		memset(poll, 0, sizeof(*poll));
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
		dblock_poll_begin(poll, DBLOCK_POLL_SETTLED, now);
		return;
	case DBLOCK_POLL_SETTLED:
		if (poll->count >= poll->settled_count)
			dblock_poll_begin(poll, DBLOCK_POLL_TRY_SLEEPING, now);
		return;
	}
}
