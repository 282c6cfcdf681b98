/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * dblock: block devices that a process answers for.
 *
 * The whole contract between dblock.ko and a server, and nothing else. Rules:
 *
 * - Every structure has the same layout for 32-bit and 64-bit callers, has no
 *   implicit padding and is a multiple of 8 bytes.
 * - Fields marked "in" are read, "out" are written, "in/out" both. What is not
 *   marked is "in". Reserved fields must be zero and are checked.
 * - An ioctl that fails returns -1 with errno as always, and also writes the
 *   errno (a positive number) to the structure's @error: callers that cannot
 *   read errno reliably need not. @error stays untouched only when the
 *   structure itself cannot be written (EFAULT), when the ioctl does not exist
 *   (ENOTTY), and where EXCHANGE says so.
 * - The kernel shares no memory. It copies a structure in once, checks its own
 *   copy, and never looks at the caller's again.
 * - A device has an @id: a number from 1 to 2^53 - 1 that no other device has
 *   while the module is loaded; after the module is loaded anew the numbers
 *   begin somewhere else. A name can be used again, an @id cannot. Where a
 *   structure has an @id to give, 0 means any device; another number must be
 *   the device's own, or the call fails with ESTALE and does nothing.
 * - Every ioctl needs CAP_SYS_ADMIN when it is made, except VERSION, EXCHANGE
 *   and COMMIT. So a server may drop the capability after START.
 *
 * What a server has to do, apart from answering:
 *
 * - Open every file with O_CLOEXEC. A program that inherits the file by exec()
 *   cannot serve, as its memory is another; the queue would have a server that
 *   never answers.
 * - Ask for PR_SET_IO_FLUSHER for its threads, or be able to answer without
 *   memory: freeing memory may need the disk itself.
 */
#ifndef _UAPI_DBLOCK_H
#define _UAPI_DBLOCK_H

#include <linux/types.h>
#include <linux/ioctl.h>

#define DBLOCK_ABI_VERSION		2
#define DBLOCK_CONTROL_PATH		"/dev/dblockctl"

/* Limits. Each count and size that a caller gives has one of these. */
#define DBLOCK_NAME_BYTES		32	/* with the closing NUL */
#define DBLOCK_QUEUE_COUNT_MAX		64
#define DBLOCK_QUEUE_DEPTH_MAX		1024
#define DBLOCK_BLOCK_BYTES_MIN		512
#define DBLOCK_BLOCK_BYTES_MAX		4096
#define DBLOCK_IO_BYTES_MIN		4096
#define DBLOCK_IO_BYTES_MAX		(16U << 20)
#define DBLOCK_SIZE_BYTES_MAX		(1ULL << 60)
#define DBLOCK_TIMEOUT_MS_MIN		1000
#define DBLOCK_TIMEOUT_MS_MAX		1200000
#define DBLOCK_RANGE_BYTES_MAX		(1U << 31)	/* DISCARD, WRITE_ZEROES */

/* Features: bit n below 32 of &struct dblock_version.features says that flag n
 * of &struct dblock_create.flags, of the same name, is known to this module. The
 * bits from 32 on are about the rest. A flag that is not known is refused.
 */
#define DBLOCK_FEATURE_READ_ONLY	(1ULL << 0)
#define DBLOCK_FEATURE_WRITE_CACHE	(1ULL << 1)
#define DBLOCK_FEATURE_FUA		(1ULL << 2)
#define DBLOCK_FEATURE_DISCARD		(1ULL << 3)
#define DBLOCK_FEATURE_WRITE_ZEROES	(1ULL << 4)
#define DBLOCK_FEATURE_ROTATIONAL	(1ULL << 5)
#define DBLOCK_FEATURE_DIRECT		(1ULL << 6)
#define DBLOCK_FEATURE_NO_PART_SCAN	(1ULL << 7)
#define DBLOCK_FEATURE_TIMEOUT_IS_DEATH	(1ULL << 8)
#define DBLOCK_FEATURE_CACHE_SURVIVES	(1ULL << 9)
#define DBLOCK_FEATURE_ON_DEATH		(1ULL << 32)	/* FAIL and HOLD */
#define DBLOCK_FEATURE_RESIZE		(1ULL << 33)
#define DBLOCK_FEATURE_TAKE_OVER	(1ULL << 34)
#define DBLOCK_FEATURE_COMMIT_FLUSHED	(1ULL << 35)
#define DBLOCK_FEATURE_EVENTFD		(1ULL << 36)
#define DBLOCK_FEATURE_LINGER		(1ULL << 37)
#define DBLOCK_FEATURE_COMMIT_LEAVES	(1ULL << 38)	/* and @leave_count of INFO */
#define DBLOCK_FEATURE_ATTACH_FILE	(1ULL << 39)	/* and @passed_count of INFO */

/**
 * struct dblock_version - what this module speaks (DBLOCK_IOC_VERSION)
 * @error: out: 0 or errno
 * @abi_version: out: DBLOCK_ABI_VERSION of the module
 * @features: out: DBLOCK_FEATURE_*
 * @queue_count_max: out: the most queues a device can have on this machine
 *	(never more than possible CPUs)
 * @device_count_max: out: the module's max_devices parameter
 * @reserved: out: 0
 */
struct dblock_version {
	__u32 error;
	__u32 abi_version;
	__u64 features;
	__u32 queue_count_max;
	__u32 device_count_max;
	__u64 reserved[4];
};

/* &struct dblock_create.flags and &struct dblock_info.flags */
#define DBLOCK_DEVICE_READ_ONLY		(1U << 0)	/* writes are refused and never sent */
#define DBLOCK_DEVICE_WRITE_CACHE	(1U << 1)	/* FLUSH is sent; without: an answered WRITE is durable */
#define DBLOCK_DEVICE_FUA		(1U << 2)	/* FUA is sent as a flag; needs WRITE_CACHE */
#define DBLOCK_DEVICE_DISCARD		(1U << 3)
#define DBLOCK_DEVICE_WRITE_ZEROES	(1U << 4)
#define DBLOCK_DEVICE_ROTATIONAL	(1U << 5)
#define DBLOCK_DEVICE_DIRECT		(1U << 6)	/* completions name addresses; nothing is delivered */
#define DBLOCK_DEVICE_NO_PART_SCAN	(1U << 7)	/* the kernel looks for no partitions */
#define DBLOCK_DEVICE_TIMEOUT_IS_DEATH	(1U << 8)	/* @timeout_ms; needs one */
#define DBLOCK_DEVICE_CACHE_SURVIVES	(1U << 9)	/* the server's death loses no answered WRITE; needs WRITE_CACHE */

/*
 * A timeout. A request has the whole of @timeout_ms from each time that it is
 * handed out, so anew after a recovery; what waits has it from its arrival, or
 * from the moment at which its server came. Then it ends in EIO. The server is
 * not told, and owns the request's slot until it answers (STALE) or ends:
 * meanwhile no other WRITE, DISCARD or WRITE_ZEROES that overlaps the one that
 * timed out is handed out, so that what the server does late replaces nothing
 * newer. With DBLOCK_DEVICE_TIMEOUT_IS_DEATH nothing ends: the server is taken
 * for dead, all its files of the device serve no more, and on_death applies.
 *
 * A server that is dead, or taken for dead, may still have a write under way to
 * where it keeps the data: a thread of it is stuck there, or the data is on its way
 * through a network. The module does not see that. So whoever serves next first
 * makes sure that nothing of the other can arrive any more, as by a lock that ends
 * with the other's files.
 *
 * A volatile cache. With DBLOCK_DEVICE_WRITE_CACHE, what was answered and not
 * flushed may be lost with the server. So if the server dies with WRITEs (without
 * FUA), DISCARDs or WRITE_ZEROES that no FLUSH has covered, every FLUSH under way
 * ends in EIO, and so does the next one that comes. With
 * DBLOCK_DEVICE_CACHE_SURVIVES none does: the cache is not in the process (a
 * file's page cache is not). Nor does one after a server that has made everything
 * durable and said so before it left (DBLOCK_COMMIT_FLUSHED). As one FLUSH fails,
 * one of those who rely on the disk hears of the loss, whoever is the first to ask.
 * Nobody can take such a disk over from a server that is alive (EOPNOTSUPP), whose
 * cache would be the older one: that server leaves, and the next one attaches.
 */

/**
 * enum dblock_on_death - what becomes of a live device when its server dies
 * @DBLOCK_ON_DEATH_REMOVE: everything fails, and the device goes
 * @DBLOCK_ON_DEATH_FAIL: everything gets EIO until a server attaches
 * @DBLOCK_ON_DEATH_HOLD: everything waits until a server attaches; requests
 *	that were handed out and not answered are handed out again, flagged
 *	DBLOCK_REQUEST_REPLAYED
 */
enum dblock_on_death {
	DBLOCK_ON_DEATH_REMOVE	= 0,
	DBLOCK_ON_DEATH_FAIL	= 1,
	DBLOCK_ON_DEATH_HOLD	= 2,
};

/**
 * struct dblock_create - make a device (DBLOCK_IOC_CREATE)
 * @error: out: 0 or errno
 * @flags: DBLOCK_DEVICE_*
 * @name: the name of the node in /dev: a letter or digit, then letters,
 *	digits, '.', '_' and '-', up to 31 in all, not ending in "-ctl"
 * @id: out: the device's
 * @size_bytes: @logical_block_bytes to DBLOCK_SIZE_BYTES_MAX, a multiple of
 *	@logical_block_bytes
 * @logical_block_bytes: 512, 1024, 2048 or 4096
 * @physical_block_bytes: a power of two, @logical_block_bytes to 1 MiB
 * @io_opt_bytes: preferred size of an I/O, a multiple of
 *	@physical_block_bytes up to DBLOCK_IO_BYTES_MAX; 0: no preference
 * @max_io_bytes: the largest READ or WRITE, DBLOCK_IO_BYTES_MIN (or a page,
 *	where pages are larger) to DBLOCK_IO_BYTES_MAX, a multiple of 4096; also
 *	the size of a slot of the delivered buffer
 * @queue_count: in/out: 1 to DBLOCK_QUEUE_COUNT_MAX; the kernel lowers it to
 *	&dblock_version.queue_count_max
 * @queue_depth: requests per queue at once, 1 to DBLOCK_QUEUE_DEPTH_MAX
 * @timeout_ms: 0 (off) or DBLOCK_TIMEOUT_MS_MIN to DBLOCK_TIMEOUT_MS_MAX
 * @on_death: enum dblock_on_death
 * @discard_granularity_bytes: with DISCARD: a power of two, from
 *	@logical_block_bytes to 1 GiB; 0 otherwise
 * @max_discard_bytes: with DISCARD: a multiple of @logical_block_bytes up to
 *	DBLOCK_RANGE_BYTES_MAX, not less than @discard_granularity_bytes and
 *	@physical_block_bytes; 0 otherwise
 * @max_write_zeroes_bytes: with WRITE_ZEROES: a multiple of
 *	@logical_block_bytes up to DBLOCK_RANGE_BYTES_MAX; 0 otherwise
 * @minor: out: minor number of the device's server node
 * @reserved: 0
 *
 * Until the first ATTACH a device belongs to the process that made it, whatever
 * files that has open, and goes when that process ends. So a server that becomes
 * a daemon makes the device after its fork().
 *
 * Errors: EPERM (no CAP_SYS_ADMIN), EINVAL (a field), EOPNOTSUPP (a flag),
 * EEXIST (the name is in use), ENOSPC (max_devices reached), ENOMEM.
 */
struct dblock_create {
	__u32 error;
	__u32 flags;
	char  name[DBLOCK_NAME_BYTES];
	__u64 id;
	__u64 size_bytes;
	__u32 logical_block_bytes;
	__u32 physical_block_bytes;
	__u32 io_opt_bytes;
	__u32 max_io_bytes;
	__u32 queue_count;
	__u32 queue_depth;
	__u32 timeout_ms;
	__u32 on_death;
	__u32 discard_granularity_bytes;
	__u32 max_discard_bytes;
	__u32 max_write_zeroes_bytes;
	__u32 minor;
	__u64 reserved[9];
};

#define DBLOCK_DESTROY_FORCE		(1U << 0)	/* even if somebody has it open */

/**
 * struct dblock_destroy - remove a device by name (DBLOCK_IOC_DESTROY)
 * @error: out: 0 or errno
 * @flags: DBLOCK_DESTROY_*
 * @name: as in CREATE
 * @id: 0, or the device's
 * @open_count: out: how many have the disk open (mounts included)
 * @reserved: 0
 *
 * Returns when the device is gone and the name is free. Errors: EPERM, EINVAL,
 * EOPNOTSUPP (a flag), ENOENT (no such device), ESTALE (it is not the one with
 * @id), EBUSY (it is open and FORCE is not given), EINTR (a signal ended the wait;
 * the removal goes on by itself).
 *
 * Right after START the kernel itself, having read the partition table, and
 * udev may have the disk open for a moment: EBUSY then ends by itself.
 */
struct dblock_destroy {
	__u32 error;
	__u32 flags;
	char  name[DBLOCK_NAME_BYTES];
	__u64 id;
	__u32 open_count;
	__u32 reserved[7];
};

/**
 * enum dblock_state - the life of a device, drawn in kmod/README.md
 * @DBLOCK_STATE_CREATED: made; no disk yet. @attached_count says whether it has
 *	a server; without any it goes with its creator
 * @DBLOCK_STATE_STARTING: START is adding the disk; its first reads are served
 * @DBLOCK_STATE_LIVE: the disk is there and served
 * @DBLOCK_STATE_HELD: the server died; I/O waits for the next one
 * @DBLOCK_STATE_FAILED: the server died; I/O gets EIO until the next one
 * @DBLOCK_STATE_REMOVING: on its way out; requests get ENODEV, as from a disk
 *	that was pulled out (before Linux 5.18: EIO)
 * @DBLOCK_STATE_GONE: only open files are left
 */
enum dblock_state {
	DBLOCK_STATE_CREATED	= 0,
	DBLOCK_STATE_STARTING	= 1,
	DBLOCK_STATE_LIVE	= 2,
	DBLOCK_STATE_HELD	= 3,
	DBLOCK_STATE_FAILED	= 4,
	DBLOCK_STATE_REMOVING	= 5,
	DBLOCK_STATE_GONE	= 6,
};

/**
 * enum dblock_operation - what a request asks for
 * @DBLOCK_OPERATION_READ: data goes from the server to the request
 * @DBLOCK_OPERATION_WRITE: data goes from the request to the server
 * @DBLOCK_OPERATION_FLUSH: everything answered so far must become durable;
 *	offset and length are 0
 * @DBLOCK_OPERATION_DISCARD: the range is not needed any more
 * @DBLOCK_OPERATION_WRITE_ZEROES: the range must read as zeroes
 */
enum dblock_operation {
	DBLOCK_OPERATION_READ		= 0,
	DBLOCK_OPERATION_WRITE		= 1,
	DBLOCK_OPERATION_FLUSH		= 2,
	DBLOCK_OPERATION_DISCARD	= 3,
	DBLOCK_OPERATION_WRITE_ZEROES	= 4,
};
#define DBLOCK_OPERATION_COUNT		5

/**
 * struct dblock_info - everything about a device (DBLOCK_IOC_INFO, _LIST)
 * @error: out: 0 or errno
 * @flags: out: as created
 * @name: in on the control node (which device), out elsewhere
 * @id: in: 0, or the device's; out: the device's
 * @size_bytes: out: as it is now
 * @logical_block_bytes: out
 * @physical_block_bytes: out
 * @io_opt_bytes: out
 * @max_io_bytes: out
 * @queue_count: out
 * @queue_depth: out
 * @timeout_ms: out
 * @on_death: out: enum dblock_on_death
 * @discard_granularity_bytes: out
 * @max_discard_bytes: out
 * @max_write_zeroes_bytes: out
 * @minor: out: minor number of the server node
 * @state: out: enum dblock_state
 * @open_count: out: how many have the disk open
 * @server_pid: out: process id of the server that attached last; 0 without one
 * @attached_count: out: queues that have a server
 * @waiting_count: out: requests no server has seen yet
 * @handed_count: out: requests a server is at
 * @quarantined_count: out: slots whose request timed out with its answer due
 * @disk_major: out: device number of the disk; 0 before START
 * @disk_minor: out
 * @death_count: out: servers that died, or ended without a word
 * @requests: out: answered requests by enum dblock_operation
 * @bytes: out: the bytes of those
 * @error_count: out: requests that ended with an error
 * @timeout_count: out: requests ended by the timeout
 * @stale_count: out: completions refused as stale
 * @refused_count: out: completions refused for any reason
 * @replayed_count: out: requests handed out again
 * @batch_count: out: EXCHANGEs that handed out at least one request
 * @handed_total: out: requests handed out, replays included
 * @leave_count: out: servers that left (DBLOCK_COMMIT_LEAVES); they are not in
 *	@death_count
 * @passed_count: out: requests that the server's file is at (DBLOCK_ATTACH_FILE)
 * @reserved: 0
 *
 * Errors: EPERM, EINVAL, ENOENT (no such device), ESTALE (it is not the one with
 * @id).
 */
struct dblock_info {
	__u32 error;
	__u32 flags;
	char  name[DBLOCK_NAME_BYTES];
	__u64 id;
	__u64 size_bytes;
	__u32 logical_block_bytes;
	__u32 physical_block_bytes;
	__u32 io_opt_bytes;
	__u32 max_io_bytes;
	__u32 queue_count;
	__u32 queue_depth;
	__u32 timeout_ms;
	__u32 on_death;
	__u32 discard_granularity_bytes;
	__u32 max_discard_bytes;
	__u32 max_write_zeroes_bytes;
	__u32 minor;
	__u32 state;
	__u32 open_count;
	__u32 server_pid;
	__u32 attached_count;
	__u32 waiting_count;
	__u32 handed_count;
	__u32 quarantined_count;
	__u32 disk_major;
	__u32 disk_minor;
	__u32 death_count;
	__u64 requests[DBLOCK_OPERATION_COUNT];
	__u64 bytes[DBLOCK_OPERATION_COUNT];
	__u64 error_count;
	__u64 timeout_count;
	__u64 stale_count;
	__u64 refused_count;
	__u64 replayed_count;
	__u64 batch_count;
	__u64 handed_total;
	__u64 leave_count;
	__u64 passed_count;
	__u64 reserved[10];
};

/**
 * struct dblock_list - all devices (DBLOCK_IOC_LIST)
 * @error: out: 0 or errno
 * @capacity: how many &struct dblock_info fit at @infos_address
 * @count: out: how many were written
 * @total: out: how many devices there are; more than @count: ask again
 * @infos_address: user address of an array of &struct dblock_info
 * @reserved: 0
 */
struct dblock_list {
	__u32 error;
	__u32 capacity;
	__u32 count;
	__u32 total;
	__u64 infos_address;
	__u64 reserved[4];
};

/*
 * The ring: one piece of the server's memory per queue, 8-byte aligned:
 *
 *	struct dblock_ring_header	header;
 *	struct dblock_request		requests[queue_depth];
 *	struct dblock_completion	completions[queue_depth];
 */

/**
 * struct dblock_ring_header - the outcome of an EXCHANGE
 * @error: out: 0; or why there are fewer requests than hoped for: EAGAIN
 *	(O_NONBLOCK and nothing is there), EINTR (a signal came); or why the
 *	call failed: see DBLOCK_IOC_EXCHANGE
 * @request_count: out: how many of requests[] were written
 * @completion_count: out: how many of completions[] were looked at
 * @refused_count: out: how many of those were refused or faulted; each says
 *	why in its @status
 * @state: out: enum dblock_state
 * @queue: out: which queue this is
 * @id: out: the device's
 * @reserved: not touched
 *
 * @queue and @id are there for a server that has many rings. A call that serves
 * many of them at once is not there yet; kept for it are the number 0x15, the
 * first word of @reserved (how many of completions[] to take) and the reserved
 * words of requests and completions.
 */
struct dblock_ring_header {
	__u32 error;
	__u32 request_count;
	__u32 completion_count;
	__u32 refused_count;
	__u32 state;
	__u32 queue;
	__u64 id;
	__u64 reserved[4];
};

/* &struct dblock_request.flags. Bits 0 to 15 are part of what is asked for: a
 * server answers EOPNOTSUPP to one that it does not know. Bits 16 to 31 are
 * hints, as the kernel has them, and may be ignored.
 */
#define DBLOCK_REQUEST_FUA		(1U << 0)	/* answer only when durable */
#define DBLOCK_REQUEST_REPLAYED		(1U << 1)	/* a server before may have done it */
#define DBLOCK_REQUEST_NO_UNMAP		(1U << 2)	/* WRITE_ZEROES: keep the space allocated */
#define DBLOCK_REQUEST_META		(1U << 16)	/* a file system's own data */
#define DBLOCK_REQUEST_SYNC		(1U << 17)	/* somebody waits for this WRITE */
#define DBLOCK_REQUEST_READ_AHEAD	(1U << 18)	/* nobody waits for this READ yet */
#define DBLOCK_REQUEST_SWAP		(1U << 19)	/* memory that is swapped out or in */

/* &struct dblock_request.priority: ioprio's class and its level in it, 0 where
 * nobody has set one.
 */
#define DBLOCK_PRIORITY_CLASS_SHIFT	3	/* above: IOPRIO_CLASS_* of linux/ioprio.h */
#define DBLOCK_PRIORITY_LEVEL_MASK	7	/* 0 (first) to 7 (last) */

/**
 * struct dblock_request - what the server is to do
 * @offset_bytes: where on the disk, a multiple of the logical block size
 * @length_bytes: how much; 0 for FLUSH
 * @generation: tells this use of @slot from every other; never 0
 * @slot: 0 to queue_depth - 1; in delivered mode the data of a WRITE is at
 *	buffer_address + slot * max_io_bytes
 * @operation: enum dblock_operation
 * @priority: class << DBLOCK_PRIORITY_CLASS_SHIFT | level
 * @flags: DBLOCK_REQUEST_*
 * @reserved: 0
 */
struct dblock_request {
	__u64 offset_bytes;
	__u32 length_bytes;
	__u32 generation;
	__u16 slot;
	__u8  operation;
	__u8  priority;
	__u32 flags;
	__u64 reserved;
};

/**
 * enum dblock_status - what became of a completion
 * @DBLOCK_STATUS_TAKEN: the request has ended
 * @DBLOCK_STATUS_UNKNOWN: no such slot
 * @DBLOCK_STATUS_STALE: the slot holds no such generation: answered before,
 *	timed out, or never handed out
 * @DBLOCK_STATUS_BAD_LENGTH: more bytes than the request has; it is still open
 * @DBLOCK_STATUS_BAD_FIELD: @error out of range, a reserved field not zero, or an
 *	offset that no file has; the request is still open
 * @DBLOCK_STATUS_FAULT: the data could not be copied; the request ended in EIO
 */
enum dblock_status {
	DBLOCK_STATUS_TAKEN		= 0,
	DBLOCK_STATUS_UNKNOWN		= 1,
	DBLOCK_STATUS_STALE		= 2,
	DBLOCK_STATUS_BAD_LENGTH	= 3,
	DBLOCK_STATUS_BAD_FIELD		= 4,
	DBLOCK_STATUS_FAULT		= 5,
};

/**
 * struct dblock_completion - the server's answer to a request
 * @address: READ: where the data is; WRITE in direct mode: where the data is
 *	to go; 0 in delivered mode: the request's slot of the buffer. With
 *	DBLOCK_ATTACH_FILE an offset in the file. Ignored otherwise
 * @length_bytes: how much was done: the length of the request. Less is a short
 *	answer, and the request ends in EIO. Ignored with an error
 * @generation: of the request
 * @slot: of the request
 * @status: out: enum dblock_status, written only when it is not TAKEN
 * @error: 0 or a positive errno up to 4095; one that the block layer does not
 *	know becomes EIO
 * @reserved: 0
 */
struct dblock_completion {
	__u64 address;
	__u32 length_bytes;
	__u32 generation;
	__u16 slot;
	__u16 status;
	__u32 error;
	__u64 reserved;
};

#define DBLOCK_ATTACH_TAKE_OVER		(1U << 0)	/* from the server that has the queue */
#define DBLOCK_ATTACH_EVENTFD		(1U << 1)	/* @event_fd is one */
#define DBLOCK_ATTACH_FILE		(1U << 2)	/* @file_fd is the disk's content */

/**
 * struct dblock_attach - this open file serves a queue (DBLOCK_IOC_ATTACH)
 * @error: out: 0 or errno
 * @flags: DBLOCK_ATTACH_*
 * @id: 0, or the device's
 * @ring_address: user address of the ring, a multiple of 8
 * @ring_bytes: DBLOCK_RING_BYTES(queue_depth)
 * @buffer_address: delivered mode: user address of queue_depth slots of
 *	max_io_bytes each, a multiple of 4096; 0 in direct mode
 * @buffer_bytes: queue_depth * max_io_bytes; 0 in direct mode
 * @queue: 0 to queue_count - 1
 * @event_fd: with EVENTFD: a descriptor of an eventfd; 0 otherwise
 * @file_fd: with FILE: a descriptor of a file; 0 otherwise
 * @reserved: 0
 *
 * With EVENTFD, for a server that waits in an event loop of its own: after an
 * EXCHANGE with DBLOCK_EXCHANGE_ARM that ends in EAGAIN, 1 is added to the eventfd
 * once, as soon as the next EXCHANGE has something to say, and also when the file is
 * released. It does not have to be read for that to happen again. The kernel keeps
 * the eventfd, and not its descriptor, which may be closed. This is for those who want
 * no system call but a read between two EXCHANGEs. Many files may have one eventfd:
 * from the addition on poll() says POLLIN of its file, until the next EXCHANGE.
 *
 * With FILE, in direct mode and for a device whose cache is not volatile: @address of
 * a completion is no address but an offset in that file, a regular one or a block
 * device, open with O_DIRECT for reading and, unless the device is read-only, for
 * writing. READs and WRITEs are then done by the kernel, with the request's own
 * pages. From such an answer on a request is no business of the server: its slot is
 * free, no timeout runs, a take-over does not wait for it, and it ends as the file's
 * read or write does, also after the server's death. The call that takes the answer
 * may sleep as pread() and pwrite() do. The kernel keeps the file, and not its
 * descriptor.
 *
 * A file that serves the queue already may attach it again: what it was handed
 * and did not answer is handed out again, flagged DBLOCK_REQUEST_REPLAYED; it does
 * nothing of that any more, nor of what timed out. The eventfd of the ATTACH before
 * is not used any more.
 *
 * With TAKE_OVER a queue that has a server changes hands while the disk is in
 * use: the server before is handed nothing new, answers what it has, also the
 * WRITEs, DISCARDs and WRITE_ZEROES that timed out, and then gets ENOTCONN from
 * EXCHANGE and COMMIT; this call waits for that. If that server dies first, what it
 * had is replayed, as after any death, but @on_death of the device does not apply. A
 * device's queues are taken over one by one, by one process: from its first call
 * until it has all that the server before had, neither of the two is handed anything
 * on any queue, and nobody else can attach (EBUSY). If the heir leaves before, that
 * is the death of a server.
 *
 * Errors: EPERM, EOPNOTSUPP (a flag; or TAKE_OVER of a volatile cache), EINVAL (a
 * field), ESTALE (@id), EFAULT (an address), EBUSY (the queue has a server, or
 * somebody else is taking it over, or its server owes late answers to what changes the
 * disk, or this file serves another queue, or is in EXCHANGE), ENODEV (the device is
 * going), ENOMEM, EINTR (a signal ended the wait; the server before goes on), EBADF
 * (this file was closed meanwhile: the same).
 */
struct dblock_attach {
	__u32 error;
	__u32 flags;
	__u64 id;
	__u64 ring_address;
	__u64 ring_bytes;
	__u64 buffer_address;
	__u64 buffer_bytes;
	__u32 queue;
	__u32 event_fd;
	__u32 file_fd;
	__u32 reserved[7];
};

#define DBLOCK_START_NO_WAIT		(1U << 0)	/* return at once; the ring header tells the state */

/**
 * struct dblock_start - the disk appears (DBLOCK_IOC_START)
 * @error: out: 0 or errno
 * @flags: DBLOCK_START_*
 * @id: 0, or the device's
 * @reserved: 0
 *
 * Every queue must be attached. The kernel reads the partition table, so the
 * queues must be served while this runs. On a HELD or FAILED device with every
 * queue attached again it sets I/O going. If the disk cannot be added the
 * device is removed and its name is free.
 *
 * Errors: EPERM, EINVAL, EOPNOTSUPP (a flag), ESTALE, ENOTCONN (a queue without a
 * server), EALREADY (it is live), EINTR (the start goes on; the call can be made
 * again), ENODEV, and what adding a disk may say (EEXIST, ENOMEM).
 */
struct dblock_start {
	__u32 error;
	__u32 flags;
	__u64 id;
	__u64 reserved[4];
};

/* &struct dblock_commit.flags */
#define DBLOCK_COMMIT_FLUSHED		(1U << 0)	/* all that was answered is durable */
#define DBLOCK_COMMIT_LEAVES		(1U << 1)	/* this server is about to end, on purpose */

/**
 * struct dblock_commit - completions only (DBLOCK_IOC_COMMIT)
 * @error: out: 0 or errno, as EXCHANGE
 * @count: how many, 0 to queue_depth
 * @completion_count: out: how many were looked at
 * @refused_count: out: how many of those were refused or faulted
 * @completions_address: user address of the completions, a multiple of 8
 * @flags: DBLOCK_COMMIT_*
 * @reserved: 0
 *
 * With DBLOCK_COMMIT_FLUSHED the server says, as if it answered a FLUSH, that all
 * that was answered so far on every queue of the device is durable, these
 * completions included. So nothing may be answered on another queue meanwhile. A
 * server that leaves says it last: its end is then a death that loses nothing. A
 * call that fails has not said it.
 *
 * With DBLOCK_COMMIT_LEAVES the calling process says, for all its files of the device,
 * that their end is no accident. The device does the same as after a death; but
 * @leave_count of INFO counts that end, and @death_count does not. ATTACH of a file
 * takes it back for that file.
 *
 * Errors: as EXCHANGE; EOPNOTSUPP (a flag).
 */
struct dblock_commit {
	__u32 error;
	__u32 count;
	__u32 completion_count;
	__u32 refused_count;
	__u64 completions_address;
	__u32 flags;
	__u32 reserved[3];
};

/**
 * struct dblock_resize - a new size (DBLOCK_IOC_RESIZE)
 * @error: out: 0 or errno
 * @flags: 0
 * @id: 0, or the device's
 * @size_bytes: as in CREATE
 * @reserved: 0
 *
 * A device without a server takes it, too. When the disk becomes smaller,
 * requests that wait or that a server was handed may lie beyond the new end,
 * wholly or in part, and are not taken back. The server answers them as it can:
 * with an errno (EIO, ENOSPC), or by doing them, if its store is still there.
 *
 * Errors: EPERM, EINVAL, EOPNOTSUPP (a flag), ESTALE, ENODEV (before START has made
 * the disk, or the device is going).
 */
struct dblock_resize {
	__u32 error;
	__u32 flags;
	__u64 id;
	__u64 size_bytes;
	__u64 reserved[4];
};

#define DBLOCK_IOC_TYPE			0xDB

/* On /dev/dblockctl */
#define DBLOCK_IOC_VERSION	_IOR(DBLOCK_IOC_TYPE, 0x00, struct dblock_version)
#define DBLOCK_IOC_CREATE	_IOWR(DBLOCK_IOC_TYPE, 0x01, struct dblock_create)
#define DBLOCK_IOC_DESTROY	_IOWR(DBLOCK_IOC_TYPE, 0x02, struct dblock_destroy)
#define DBLOCK_IOC_LIST		_IOWR(DBLOCK_IOC_TYPE, 0x03, struct dblock_list)

/* On /dev/dblockctl (by name) and on /dev/NAME-ctl */
#define DBLOCK_IOC_INFO		_IOWR(DBLOCK_IOC_TYPE, 0x04, struct dblock_info)

/* On /dev/NAME-ctl */
#define DBLOCK_IOC_ATTACH	_IOWR(DBLOCK_IOC_TYPE, 0x10, struct dblock_attach)
#define DBLOCK_IOC_START	_IOWR(DBLOCK_IOC_TYPE, 0x11, struct dblock_start)
#define DBLOCK_IOC_COMMIT	_IOWR(DBLOCK_IOC_TYPE, 0x13, struct dblock_commit)
#define DBLOCK_IOC_RESIZE	_IOWR(DBLOCK_IOC_TYPE, 0x14, struct dblock_resize)

/*
 * DBLOCK_IOC_EXCHANGE: "here are n completions; give me what is next".
 *
 * The argument is n, 0 to queue_depth, with flags: completions[0..n) of the ring
 * are taken, then the call waits until a request is there, writes as many as
 * there are to requests[] and the outcome to the header, and returns how many
 * requests that is. It never restarts by itself; interrupted or (O_NONBLOCK)
 * out of work it returns 0 with EINTR or EAGAIN in the header. O_NONBLOCK does
 * not wait at all. With DBLOCK_EXCHANGE_LINGER, and no request in the server's
 * hands, it looks for one for up to the module parameter poll_us (200 by default),
 * where that pays, and then sleeps for up to that time, unless requests have lately
 * come later: for a thread with nothing else to do that cannot wait so long. Without
 * O_NONBLOCK that flag says nothing. DBLOCK_EXCHANGE_ARM is for files with an
 * eventfd. A request that could not be written out is handed out by the next call.
 *
 * Errors: ENODEV (the device is gone: stop serving), ENOTCONN (this file
 * serves its queue no more: another has taken it over), EINVAL (n, or ARM without
 * an eventfd), EFAULT
 * (the ring or the buffer; completion_count says what was taken, if the header
 * can be written), EINTR (the caller is being killed; likewise). With the
 * header untouched, as it is not the caller's or in use: ENOTCONN (no ATTACH
 * before), EPERM (another process attached), EBUSY (another thread is in
 * EXCHANGE on this queue).
 *
 * poll() on the file, level-triggered: POLLIN when EXCHANGE would not wait, and
 * after an eventfd was written to for this file;
 * POLLIN and POLLHUP when it would say ENODEV or ENOTCONN; POLLERR before
 * ATTACH. An epoll set may have the file from before ATTACH on.
 *
 * A server is dead when the process that attached a queue has closed its last
 * descriptor of that file, has ended, is being killed or dumps core (though a
 * thread of it be stuck), or has become another program by exec(): whatever it
 * left to children, or to that program. It is noticed within a second. One queue
 * is enough: a device without a server for each queue is not served. A file
 * that served in this way attaches nothing any more (EBADF).
 */
#define DBLOCK_IOC_EXCHANGE	_IO(DBLOCK_IOC_TYPE, 0x12)
#define DBLOCK_EXCHANGE_ARM	(1U << 31)	/* EAGAIN: the eventfd tells when to come again */
#define DBLOCK_EXCHANGE_LINGER	(1U << 30)	/* sleep for a moment before EAGAIN */

#define DBLOCK_RING_BYTES(queue_depth) \
	(sizeof(struct dblock_ring_header) + \
	 (__u64)(queue_depth) * (sizeof(struct dblock_request) + \
				 sizeof(struct dblock_completion)))

#endif /* _UAPI_DBLOCK_H */
