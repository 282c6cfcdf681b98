// SPDX-License-Identifier: GPL-2.0
/*
 * The states of a device: their names, which may follow which, and what the
 * queues do in each. README.md draws them; who moves the state is in device.c.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitops.h>

#include "dblock.h"

const char * const dblock_state_names[] = {
	[DBLOCK_STATE_CREATED]	= "created",
	[DBLOCK_STATE_STARTING]	= "starting",
	[DBLOCK_STATE_LIVE]	= "live",
	[DBLOCK_STATE_HELD]	= "held",
	[DBLOCK_STATE_FAILED]	= "failed",
	[DBLOCK_STATE_REMOVING]	= "removing",
	[DBLOCK_STATE_GONE]	= "gone",
};

static const unsigned long dblock_next_states[] = {
	[DBLOCK_STATE_CREATED]	= BIT(DBLOCK_STATE_STARTING) |
				  BIT(DBLOCK_STATE_REMOVING),
	[DBLOCK_STATE_STARTING]	= BIT(DBLOCK_STATE_LIVE) |
				  BIT(DBLOCK_STATE_REMOVING),
	[DBLOCK_STATE_LIVE]	= BIT(DBLOCK_STATE_HELD) |
				  BIT(DBLOCK_STATE_FAILED) |
				  BIT(DBLOCK_STATE_REMOVING),
	[DBLOCK_STATE_HELD]	= BIT(DBLOCK_STATE_LIVE) |
				  BIT(DBLOCK_STATE_REMOVING),
	[DBLOCK_STATE_FAILED]	= BIT(DBLOCK_STATE_LIVE) |
				  BIT(DBLOCK_STATE_REMOVING),
	[DBLOCK_STATE_REMOVING]	= BIT(DBLOCK_STATE_GONE),
	[DBLOCK_STATE_GONE]	= 0,
};

static const enum dblock_mode dblock_modes[] = {
	[DBLOCK_STATE_CREATED]	= DBLOCK_MODE_HOLD,
	[DBLOCK_STATE_STARTING]	= DBLOCK_MODE_SERVE,
	[DBLOCK_STATE_LIVE]	= DBLOCK_MODE_SERVE,
	[DBLOCK_STATE_HELD]	= DBLOCK_MODE_HOLD,
	[DBLOCK_STATE_FAILED]	= DBLOCK_MODE_FAIL,
	[DBLOCK_STATE_REMOVING]	= DBLOCK_MODE_FAIL,
	[DBLOCK_STATE_GONE]	= DBLOCK_MODE_FAIL,
};

/* The only place that changes the state; the queues follow. */
void dblock_device_set_state(struct dblock_device *device,
			     enum dblock_state state)
{
	u32 i;

	lockdep_assert_held(&device->lock);
	WARN_ON_ONCE(!(dblock_next_states[device->state] & BIT(state)));
	dblock_note(device, "state %s to %s\n",
		    dblock_state_names[device->state],
		    dblock_state_names[state]);
	device->state = state;
	for (i = 0; i < device->params.queue_count; i++)
		dblock_queue_set_mode(&device->queues[i], dblock_modes[state],
				      state >= DBLOCK_STATE_REMOVING);
}

/* Whoever waits for a queue, whichever that is, looks again. */
void dblock_device_wake(struct dblock_device *device)
{
	u32 i;

	for (i = 0; i < device->params.queue_count; i++)
		wake_up_all(&device->queues[i].wait);
}
