/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the module share: the objects, the locks that guard them,
 * and each file's functions under its name. What user space sees is in
 * uapi/dblock.h.
 *
 * Locks, in the order in which they are taken:
 *
 *	(the block layer's open_mutex, in disk open and release)
 *	dblock_nodes_lock	mutex: who makes or removes server nodes
 *	dblock_registry_lock	mutex: names, minor numbers, who may look up whom
 *	dblock_device.resizing	mutex: who tells of a new size
 *	dblock_device.lock	mutex: state, attachment, open count, size
 *	dblock_queue.lock	spinlock: waiting requests, slots, counters
 *	dblock_device.quarantine_lock	spinlock: ranges that a late answer may change
 *
 * None of them is held while user memory is touched.
 */
#ifndef _DBLOCK_H
#define _DBLOCK_H

#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "uapi/dblock.h"

#define DBLOCK_NO_SLOT		U32_MAX
/* How many requests or completions are worked on between two lock rounds, or are
 * ended in one go. They lie on the stack: 32 bytes each, and a pointer.
 */
#define DBLOCK_CHUNK		16
/* Faulting in and copying again may lose against reclaim now and then. So
 * often in a row, with not a byte copied in between, is no bad luck.
 */
#define DBLOCK_FAULT_ROUNDS_MAX	1000

struct dblock_channel;
struct dblock_device;
struct eventfd_ctx;

/* The reserved fields of a caller's structure are. */
static inline bool dblock_is_zero(const void *field, size_t bytes)
{
	return !memchr_inv(field, 0, bytes);
}

/**
 * enum dblock_slot_state - who has a slot; slot.c has every way between them
 * @DBLOCK_SLOT_FREE: nobody; the slot is on the free stack
 * @DBLOCK_SLOT_HANDED: the server; the timeout, a force destroy or the server's
 *	death may take the request away
 * @DBLOCK_SLOT_COPYING: a thread that copies the request's data. The thread
 *	never sleeps in this state, and nobody else touches the request meanwhile
 * @DBLOCK_SLOT_QUARANTINED: the server, but the request has ended
 */
enum dblock_slot_state {
	DBLOCK_SLOT_FREE,
	DBLOCK_SLOT_HANDED,
	DBLOCK_SLOT_COPYING,
	DBLOCK_SLOT_QUARANTINED,
};

struct dblock_slot {
	struct request *rq;		/* while HANDED or COPYING */
	u32 generation;			/* of the last hand-out */
	u32 batch;			/* the EXCHANGE that handed it out */
	enum dblock_slot_state state;
	/* While QUARANTINED, of what would change the disk: where that is. On
	 * dblock_device.quarantine, or empty.
	 */
	struct list_head quarantine;
	u64 sector;
	u64 sector_count;
	u64 covers;			/* FLUSH: the device's changes before it */
};

/* Behind each request, kept by blk-mq; guarded by the queue's lock. */
struct dblock_io {
	struct list_head node;		/* on dblock_queue.waiting, or empty */
	u64 sequence;			/* of the first hand-out, or U64_MAX */
	unsigned long since;		/* jiffies: arrival, or last hand-out */
	u32 slot;			/* or DBLOCK_NO_SLOT */
	int cache_losses;		/* of the device, when it arrived */
	bool blocked;			/* @node is on dblock_queue.blocked */
	bool replayed;
	bool ending;			/* somebody is about to end it */
	/* While the server's file has to do with it: file.c's alone. */
	struct file *file;
	union {
		struct kiocb iocb;	/* READ, WRITE */
		struct work_struct work;	/* FLUSH */
	};
	struct bio_vec *vectors;	/* or NULL */
	long result;
};

static inline struct dblock_io *dblock_io_of(struct request *rq)
{
	return blk_mq_rq_to_pdu(rq);
}

/**
 * enum dblock_mode - what a queue does with requests; follows the device state
 * @DBLOCK_MODE_HOLD: they wait and are not handed out
 * @DBLOCK_MODE_SERVE: they are handed out
 * @DBLOCK_MODE_FAIL: they get an error at once
 */
enum dblock_mode {
	DBLOCK_MODE_HOLD,
	DBLOCK_MODE_SERVE,
	DBLOCK_MODE_FAIL,
};

/* Requests that a server's file answers: their end takes no lock. */
struct dblock_file_counts {
	atomic64_t requests[DBLOCK_OPERATION_COUNT];
	atomic64_t bytes[DBLOCK_OPERATION_COUNT];
	atomic64_t errors;
	atomic_t open;			/* under way */
};

struct dblock_queue {
	spinlock_t lock;
	enum dblock_mode mode;
	bool gone;			/* the device is on its way out */
	struct dblock_channel *channel;	/* who serves; there while locked */
	struct dblock_channel *successor; /* who waits to take over, or NULL */
	struct list_head waiting;	/* dblock_io.node, by sequence */
	u64 sequence;			/* of the next first hand-out */
	u32 waiting_count;
	/* What overlaps a slot in quarantine, in the order of arrival. It is
	 * looked at again when dblock_device.quarantine_ends is another.
	 */
	struct list_head blocked;
	u32 blocked_count;
	int blocked_ends;
	unsigned long serving_since;	/* jiffies: of this server, or state */
	bool overdue;			/* a timeout is this server's death */
	u64 arrived_ns;			/* of the last that found none waiting */
	u32 handed_count;		/* HANDED and COPYING */
	u32 quarantined_count;
	u32 owed_count;			/* of them, those that change the disk */
	u32 free_count;
	u32 batch;			/* number of the last EXCHANGE */
	u16 *free;			/* stack of free slots */
	struct dblock_slot *slots;	/* queue_depth of them */
	wait_queue_head_t wait;		/* EXCHANGE and poll */
	u32 wait_cost_ns[2];		/* as dblock_poll.cost_ns, for sysfs */
	bool polls;			/* as dblock_poll.pays, likewise */
	struct dblock_device *device;

	/* Counters for INFO, under @lock. */
	u64 requests[DBLOCK_OPERATION_COUNT];
	u64 bytes[DBLOCK_OPERATION_COUNT];
	u64 error_count;
	u64 timeout_count;
	u64 stale_count;
	u64 refused_count;
	u64 replayed_count;
	u64 batch_count;
	u64 handed_total;
	u64 changes;			/* answered, and durable after a FLUSH */
	struct dblock_file_counts file_counts;
} ____cacheline_aligned_in_smp;

struct dblock_device {
	struct kref ref;		/* registry, channels, openers, lookups */
	struct dblock_create params;	/* as checked; size_bytes under @lock */
	struct mutex resizing;
	struct mutex lock;
	enum dblock_state state;
	unsigned int open_count;
	unsigned int attached_count;
	unsigned int death_count;
	unsigned int leave_count;
	pid_t server_pid;
	struct pid *creator;		/* until the first ATTACH, or NULL */
	struct pid *heir;		/* takes over from @predecessor, */
	struct pid *predecessor;	/* or NULL, both: see attach.c */
	int start_error;
	struct completion started;	/* START has an outcome */
	struct completion removed;	/* the name is free */
	struct work_struct start_work;
	struct work_struct remove_work;
	struct workqueue_struct *flush_workqueue;	/* see file.c, or NULL */
	struct blk_mq_tag_set tag_set;
	struct gendisk *disk;		/* from START on */
	bool tag_set_ready;
	bool disk_added;
	struct dblock_queue *queues;	/* params.queue_count of them */
	spinlock_t quarantine_lock;	/* of the list, and what is on it */
	struct list_head quarantine;	/* dblock_slot.quarantine */
	atomic_t quarantine_ends;	/* how many left the list */
	u64 flushed;			/* changes that a FLUSH has covered */
	atomic_t cache_losses;		/* deaths that may have lost changes */
	atomic_t flush_fails;		/* 1: so does the next FLUSH that comes */
};

enum dblock_poll_phase {
	DBLOCK_POLL_TRY_SLEEPING,
	DBLOCK_POLL_TRY_POLLING,
	DBLOCK_POLL_SETTLED,
};

/* What poll.c knows of a channel's load; all zero is a beginning. */
struct dblock_poll {
	enum dblock_poll_phase phase;
	u64 began_ns;			/* of the phase, less what was quiet */
	u64 waits_since_ns;		/* 0: it does not */
	u32 count;			/* requests of the phase */
	u32 quiet_count;		/* of them, those that took long to come */
	u32 settled_count;		/* requests until the next trial */
	u32 cost_ns[2];			/* of a request: sleeping, polling */
	bool pays;
};

/* What bell.c rings; on dblock_queue.wait while it is to be rung. */
struct dblock_bell {
	struct eventfd_ctx *eventfd;	/* or NULL */
	struct wait_queue_entry entry;
	bool rung;			/* since the last EXCHANGE began */
};

/**
 * struct dblock_channel - an open file of /dev/NAME-ctl
 * @queue: the queue it serves, or NULL; set once, under the device's lock. It
 *	serves as long as queue->channel points back here
 * @wait: who polls since before there was a queue
 * @polled_early: whether there is anybody
 * @relay: on the queue's list, for @wait; with a function if it is
 * @process: the server; set before queue->channel or ->successor points here,
 *	and not changed while one of them does
 * @mm: whose addresses the rest is in; compared, never used. As @process
 * @files: the server's file table; compared, never used
 * @leaves: the server has said that its end is no death; under the device's lock
 */
struct dblock_channel {
	struct dblock_device *device;
	struct dblock_queue *queue;
	unsigned long exchanging;	/* bit 0: a thread is in EXCHANGE */
	struct dblock_poll poll;	/* whose thread is in EXCHANGE */
	u32 linger_misses;		/* likewise: in a row, see poll.c */
	struct dblock_bell bell;	/* likewise, or in ATTACH */
	wait_queue_head_t wait;
	bool polled_early;
	struct wait_queue_entry relay;
	struct pid *process;
	struct mm_struct *mm;
	fl_owner_t files;
	bool closed;			/* by the server: it attaches no more */
	bool leaves;
	struct dblock_ring_header __user *header;
	struct dblock_request __user *requests;
	struct dblock_completion __user *completions;
	u64 buffer_address;		/* delivered mode */
	struct file *file;		/* or NULL; under the queue's lock */
};

/* main.c */
extern struct workqueue_struct *dblock_start_workqueue;
extern struct workqueue_struct *dblock_remove_workqueue;
extern bool dblock_debug;

/* For those who look into what happens: with the parameter debug, or by dynamic
 * debug where the kernel has that. pr_fmt() is the caller's.
 */
#define dblock_note(device, fmt, ...)					\
do {									\
	if (READ_ONCE(dblock_debug))					\
		pr_info("%s: " fmt, (device)->params.name, ##__VA_ARGS__); \
	else								\
		pr_debug("%s: " fmt, (device)->params.name, ##__VA_ARGS__); \
} while (0)

/* control.c */
int dblock_control_init(void);
void dblock_control_exit(void);

/* registry.c */
int dblock_registry_init(void);
void dblock_registry_exit(void);
int dblock_registry_add(struct dblock_device *device);
void dblock_registry_remove(struct dblock_device *device);
struct dblock_device *dblock_device_by_name(const char *name);
struct dblock_device *dblock_device_by_minor(unsigned int minor);
struct dblock_device *dblock_device_next(unsigned int *minor);
bool dblock_device_any(bool (*look)(struct dblock_device *device));
unsigned int dblock_device_count_max(void);
bool dblock_device_get_disk(struct gendisk *disk);
void dblock_device_forget_disk(struct gendisk *disk);

/* device.c */
struct dblock_device *dblock_device_create(const struct dblock_create *params);
void dblock_device_put(struct dblock_device *device);
void dblock_device_remove(struct dblock_device *device);
int dblock_device_destroy(struct dblock_device *device, bool force,
			  unsigned int *open_count);
int dblock_device_start(struct dblock_device *device, bool wait);
int dblock_device_resize(struct dblock_device *device, u64 size_bytes);
void dblock_device_server_gone(struct dblock_device *device, bool left);
bool dblock_device_is(const struct dblock_device *device, u64 id);

/* state.c */
extern const char * const dblock_state_names[];
void dblock_device_set_state(struct dblock_device *device,
			     enum dblock_state state);
void dblock_device_wake(struct dblock_device *device);

/* info.c */
void dblock_device_info(struct dblock_device *device, struct dblock_info *info);
int dblock_device_info_checked(struct dblock_device *device,
			       struct dblock_info *info);

/* disk.c */
int dblock_disk_alloc(struct dblock_device *device,
		      const struct block_device_operations *operations);
int dblock_disk_add(struct dblock_device *device);
void dblock_disk_del(struct dblock_device *device);
void dblock_disk_free(struct dblock_device *device);
void dblock_disk_set_size(struct dblock_device *device, u64 size_bytes);

/* sysfs.c */
extern const struct attribute_group *dblock_attribute_groups[];

/* queue.c */
extern const struct blk_mq_ops dblock_mq_ops;
u8 dblock_operation_of(struct request *rq);
void dblock_end_list(struct list_head *ended, blk_status_t status);
blk_status_t dblock_queue_failure(const struct dblock_queue *queue);
void dblock_queue_wake(struct dblock_queue *queue);
int dblock_queue_init(struct dblock_queue *queue, struct dblock_device *device);
void dblock_queue_free(struct dblock_queue *queue);
void dblock_queue_set_mode(struct dblock_queue *queue, enum dblock_mode mode,
			   bool gone);
int dblock_queue_attach(struct dblock_queue *queue,
			struct dblock_channel *channel, bool take_over);
bool dblock_queue_drained(struct dblock_queue *queue);
void dblock_queue_give_up(struct dblock_queue *queue);
bool dblock_queue_detach(struct dblock_queue *queue,
			 struct dblock_channel *channel);

/* slot.c */
int dblock_slots_init(struct dblock_queue *queue);
void dblock_slots_exit(struct dblock_queue *queue);
struct dblock_slot *dblock_slot_hand_out(struct dblock_queue *queue,
					 struct dblock_io *io);
struct dblock_slot *dblock_slot_find(struct dblock_channel *channel, u16 index,
				     u32 generation, u16 *status);
void dblock_slot_claim(struct dblock_slot *slot);
struct dblock_slot *dblock_slot_of(struct dblock_channel *channel,
				   const struct dblock_request *request);
struct dblock_slot *
dblock_slot_claim_untold(struct dblock_channel *channel,
			 const struct dblock_request *request);
void dblock_slot_release(struct dblock_channel *channel,
			 struct dblock_slot *slot, struct list_head *failed);
void dblock_slot_settle(struct dblock_queue *queue, struct dblock_slot *slot);
struct dblock_io *dblock_slot_take(struct dblock_queue *queue,
				   struct dblock_slot *slot,
				   const struct dblock_channel *handed_to);
void dblock_slots_take_all(struct dblock_queue *queue, struct list_head *ended);
void dblock_slots_replay_all(struct dblock_queue *queue);
void dblock_slot_hand_back(struct dblock_queue *queue, struct dblock_slot *slot,
			   struct list_head *replays);
void dblock_slots_wait_again(struct dblock_queue *queue,
			     struct list_head *replays);

/* quarantine.c */
bool dblock_quarantine_add(struct dblock_device *device,
			   struct dblock_slot *slot, struct request *rq);
void dblock_quarantine_del(struct dblock_device *device,
			   struct dblock_slot *slot);
bool dblock_queue_block(struct dblock_queue *queue, struct dblock_io *io,
			int ends);
bool dblock_queue_unblockable(struct dblock_queue *queue);
void dblock_queue_unblock(struct dblock_queue *queue);

/* cache.c */
u64 dblock_cache_changes(const struct dblock_device *device);
bool dblock_cache_volatile(const struct dblock_device *device);
void dblock_cache_answered(const struct dblock_channel *channel,
			   const struct dblock_slot *slot, u8 operation);
int dblock_cache_flushed(struct dblock_channel *channel);
void dblock_cache_lost(struct dblock_device *device);
bool dblock_cache_fails(struct dblock_device *device, struct request *rq);
bool dblock_flush_lost(const struct dblock_device *device, struct request *rq);

/* serve.c */
bool dblock_queue_ready(struct dblock_queue *queue,
			struct dblock_channel *channel);
int dblock_queue_hand_out(struct dblock_channel *channel,
			  struct dblock_request *requests, unsigned int max,
			  bool first);
void dblock_queue_hand_back(struct dblock_channel *channel,
			    const struct dblock_request *requests,
			    unsigned int count);
void dblock_queue_hand_back_batch(struct dblock_channel *channel);
int dblock_queue_deliver(struct dblock_channel *channel,
			 const struct dblock_request *request);

/* answer.c */
blk_status_t dblock_status_of(u32 error);
int dblock_queue_complete(struct dblock_channel *channel,
			  struct dblock_completion *completions,
			  unsigned int count, size_t *work);

/* poll.c */
void dblock_poll_wait(struct dblock_channel *channel, bool nonblock);
void dblock_poll_tell(const struct dblock_poll *poll,
		      struct dblock_queue *queue);
bool dblock_poll_pays(const struct dblock_queue *queue);
int dblock_poll_linger(struct dblock_channel *channel);
void dblock_poll_learn(struct dblock_channel *channel, unsigned int count);

/* bell.c */
bool dblock_bell_arm(struct dblock_channel *channel);
void dblock_bell_set(struct dblock_channel *channel,
		     struct eventfd_ctx *eventfd);

/* exchange.c */
int dblock_pause(size_t *work);
long dblock_exchange(struct file *file, unsigned long argument);
int dblock_commit(struct dblock_channel *channel, struct dblock_commit *p);

/* channel.c */
extern const struct file_operations dblock_channel_fops;
void dblock_channel_relay(struct dblock_channel *channel);

/* attach.c */
void dblock_channel_detach_locked(struct dblock_channel *channel);
void dblock_channel_detach(struct dblock_channel *channel);
int dblock_channel_leave(struct dblock_channel *channel);
int dblock_attach(struct dblock_channel *channel, struct dblock_attach *p);

/* watch.c */
bool dblock_process_ended(struct pid *process, const struct mm_struct *mm);
bool dblock_channel_orphaned(const struct dblock_channel *channel);
void dblock_watch_begin(void);
void dblock_watch_now(void);
int dblock_watch_init(void);
void dblock_watch_exit(void);

/* data.c */
bool dblock_user_range(u64 address, u64 bytes);
size_t dblock_data_copy(struct request *rq, u64 address, size_t done);
int dblock_data_fault_in(u64 address, size_t bytes, bool write);

/* file.c */
bool dblock_file_does(struct request *rq);
struct file *dblock_file_get(struct dblock_device *device, u32 fd);
void dblock_file_begin(struct dblock_queue *queue, struct request *rq,
		       struct file *file, u64 offset);
void dblock_file_done(struct request *rq);

#endif /* _DBLOCK_H */
