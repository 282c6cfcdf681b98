// SPDX-License-Identifier: MIT
/*
 * A disk served from a file in memory, in C, by kmod/uapi/dblock.h alone: what is
 * not in that header, a server need not know. Runs on any machine that Linux does;
 * smoke.sh takes it through a disk's life.
 *
 *	server serve NAME FILE [direct] [hold]	creates the disk NAME with the size
 *		and content of FILE, or serves it again after a server's death; prints
 *		"ready"; ends with 0 when the disk is destroyed
 *	server info NAME [STATE]	prints state, waiting, handed and replayed counts;
 *		with a number: waits up to 10 s for that state
 *	server destroy NAME [force]
 *	server verify DISK SEED	writes all of a disk in random order, then reads and
 *		compares it, past all caches
 *	server verify DISK SEED on	the same again and again, each time with
 *		the next seed, until SIGTERM; the round then begun is the last
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../kmod/uapi/dblock.h"

#define QUEUES		2
#define DEPTH		32
#define IO_BYTES	(256 << 10)
#define VERIFY_BYTES	(64 << 10)

struct queue {
	pthread_t thread;
	unsigned int depth, io_bytes;
	int fd;
	int direct;
	struct dblock_ring_header *header;
	struct dblock_request *requests;
	struct dblock_completion *completions;
	char *buffer;
};

static char *store;

static void fail(const char *what)
{
	fprintf(stderr, "server: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t address_of(const void *p)
{
	return (uintptr_t)p;
}

static void *memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("mmap");
	return p;
}

static int open_control(void)
{
	struct dblock_version version = { 0 };
	int fd = open(DBLOCK_CONTROL_PATH, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail(DBLOCK_CONTROL_PATH);
	if (ioctl(fd, DBLOCK_IOC_VERSION, &version))
		fail("VERSION");
	if (version.abi_version != DBLOCK_ABI_VERSION) {
		errno = EPROTO;
		fail("another version of the ABI");
	}
	return fd;
}

static int get_info(int control, const char *name, struct dblock_info *info)
{
	memset(info, 0, sizeof(*info));
	snprintf(info->name, sizeof(info->name), "%s", name);
	return ioctl(control, DBLOCK_IOC_INFO, info);
}

/*
 * serve
 */

/* Does one request, and says so. */
static void answer(const struct queue *queue, const struct dblock_request *request,
		   struct dblock_completion *completion)
{
	char *slot = queue->buffer + (size_t)request->slot * queue->io_bytes;
	char *data = store + request->offset_bytes;

	memset(completion, 0, sizeof(*completion));
	completion->slot = request->slot;
	completion->generation = request->generation;
	completion->length_bytes = request->length_bytes;
	switch (request->operation) {
	case DBLOCK_OPERATION_READ:
		/* Either the kernel finds the data in the store, or in the slot. */
		if (queue->direct)
			completion->address = address_of(data);
		else
			memcpy(slot, data, request->length_bytes);
		break;
	case DBLOCK_OPERATION_WRITE:
		if (queue->direct)
			completion->address = address_of(data);
		else
			memcpy(data, slot, request->length_bytes);
		break;
	case DBLOCK_OPERATION_FLUSH:
		break;	/* the file is in memory: nothing makes it more durable */
	case DBLOCK_OPERATION_DISCARD:
	case DBLOCK_OPERATION_WRITE_ZEROES:
		memset(data, 0, request->length_bytes);
		break;
	default:
		completion->error = EOPNOTSUPP;
	}
}

static void *serve_queue(void *argument)
{
	struct queue *queue = argument;
	int count = 0;
	int i;

	/* The kernel may need this thread in order to get memory. */
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		fail("PR_SET_IO_FLUSHER");
	for (;;) {
		count = ioctl(queue->fd, DBLOCK_IOC_EXCHANGE, (unsigned long)count);
		if (count < 0 && errno == ENODEV)
			return NULL;
		if (count < 0)
			fail("EXCHANGE");
		if (queue->header->refused_count) {
			errno = EBADMSG;
			fail("an answer was refused");
		}
		for (i = 0; i < count; i++)
			answer(queue, &queue->requests[i], &queue->completions[i]);
	}
}

static void attach(struct queue *queue, const struct dblock_info *info,
		   unsigned int index)
{
	struct dblock_attach attach = { .queue = index };
	char path[64];
	char *ring;

	queue->depth = info->queue_depth;
	queue->io_bytes = info->max_io_bytes;
	queue->direct = !!(info->flags & DBLOCK_DEVICE_DIRECT);
	snprintf(path, sizeof(path), "/dev/%s-ctl", info->name);
	/* Nobody else must keep a dead server's file open. */
	queue->fd = open(path, O_RDWR | O_CLOEXEC);
	if (queue->fd < 0)
		fail(path);
	attach.ring_bytes = DBLOCK_RING_BYTES(queue->depth);
	ring = memory(attach.ring_bytes);
	attach.ring_address = address_of(ring);
	if (!queue->direct) {
		attach.buffer_bytes = (uint64_t)queue->depth * queue->io_bytes;
		queue->buffer = memory(attach.buffer_bytes);
		attach.buffer_address = address_of(queue->buffer);
	}
	queue->header = (void *)ring;
	queue->requests = (void *)(queue->header + 1);
	queue->completions = (void *)(queue->requests + queue->depth);
	if (ioctl(queue->fd, DBLOCK_IOC_ATTACH, &attach))
		fail("ATTACH");
}

static void create(int control, const char *name, uint64_t bytes,
		   unsigned int flags, unsigned int on_death)
{
	struct dblock_create create = {
		/* The cache is the file's pages, which outlive this process. */
		.flags = flags | DBLOCK_DEVICE_WRITE_CACHE |
			 DBLOCK_DEVICE_CACHE_SURVIVES |
			 DBLOCK_DEVICE_DISCARD | DBLOCK_DEVICE_WRITE_ZEROES,
		.size_bytes = bytes,
		.logical_block_bytes = 512,
		.physical_block_bytes = 4096,
		.max_io_bytes = IO_BYTES,
		.queue_count = QUEUES,
		.queue_depth = DEPTH,
		.on_death = on_death,
		.discard_granularity_bytes = 4096,
		.max_discard_bytes = 1 << 20,
		.max_write_zeroes_bytes = 1 << 20,
	};

	snprintf(create.name, sizeof(create.name), "%s", name);
	if (ioctl(control, DBLOCK_IOC_CREATE, &create))
		fail("CREATE");
}

static int serve(const char *name, const char *file, int direct, int hold)
{
	struct queue queues[DBLOCK_QUEUE_COUNT_MAX] = { 0 };
	struct dblock_start start = { 0 };
	int control = open_control();
	struct dblock_info info;
	struct stat stat;
	unsigned int i;
	int fd;

	fd = open(file, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &stat))
		fail(file);
	store = mmap(NULL, stat.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (store == MAP_FAILED)
		fail(file);
	if (get_info(control, name, &info)) {
		create(control, name, stat.st_size, direct ? DBLOCK_DEVICE_DIRECT : 0,
		       hold ? DBLOCK_ON_DEATH_HOLD : DBLOCK_ON_DEATH_REMOVE);
		if (get_info(control, name, &info))
			fail("INFO");
	}
	for (i = 0; i < info.queue_count; i++)
		attach(&queues[i], &info, i);
	for (i = 0; i < info.queue_count; i++)
		if (pthread_create(&queues[i].thread, NULL, serve_queue, &queues[i]))
			fail("pthread_create");
	/* The threads answer while this waits for the partition table. */
	if (ioctl(queues[0].fd, DBLOCK_IOC_START, &start))
		fail("START");
	printf("ready\n");
	fflush(stdout);
	for (i = 0; i < info.queue_count; i++)
		pthread_join(queues[i].thread, NULL);
	return 0;
}

/*
 * info, destroy, verify
 */

static int show_info(const char *name, const char *state)
{
	int control = open_control();
	struct dblock_info info;
	int i;

	for (i = 0; i < 1000; i++) {
		if (get_info(control, name, &info))
			fail(name);
		if (!state || info.state == strtoul(state, NULL, 10)) {
			printf("%u %u %u %llu\n", info.state, info.waiting_count,
			       info.handed_count,
			       (unsigned long long)info.replayed_count);
			return 0;
		}
		usleep(10000);
	}
	errno = ETIMEDOUT;
	fail(name);
	return 1;
}

static int destroy(const char *name, int force)
{
	struct dblock_destroy destroy = {
		.flags = force ? DBLOCK_DESTROY_FORCE : 0,
	};

	snprintf(destroy.name, sizeof(destroy.name), "%s", name);
	if (ioctl(open_control(), DBLOCK_IOC_DESTROY, &destroy))
		fail(name);
	return 0;
}

/* What belongs at a place of the disk. */
static void pattern(uint32_t *words, uint64_t at, uint32_t seed)
{
	uint64_t x = at * 0x9e3779b97f4a7c15ULL + seed;
	size_t i;

	for (i = 0; i < VERIFY_BYTES / sizeof(*words); i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		words[i] = x >> 32;
	}
}

static volatile sig_atomic_t is_last;

static void be_last(int number)
{
	(void)number;
	is_last = 1;
}

static int round_of(int fd, const uint64_t *order, uint64_t count, uint32_t seed)
{
	static char *wanted, *found;
	uint64_t i, at;

	if (!wanted) {
		wanted = memory(VERIFY_BYTES);
		found = memory(VERIFY_BYTES);
	}
	for (i = 0; i < count; i++) {
		at = order[i] * VERIFY_BYTES;
		pattern((uint32_t *)wanted, at, seed);
		if (pwrite(fd, wanted, VERIFY_BYTES, at) != VERIFY_BYTES)
			fail("write");
	}
	if (fsync(fd))
		fail("fsync");
	for (i = 0; i < count; i++) {
		at = order[count - 1 - i] * VERIFY_BYTES;
		pattern((uint32_t *)wanted, at, seed);
		if (pread(fd, found, VERIFY_BYTES, at) != VERIFY_BYTES)
			fail("read");
		if (memcmp(wanted, found, VERIFY_BYTES)) {
			fprintf(stderr, "server: the bytes at %llu are not what was written\n",
				(unsigned long long)at);
			return 1;
		}
	}
	printf("%llu bytes\n", (unsigned long long)count * VERIFY_BYTES);
	return 0;
}

static int verify(const char *disk, uint32_t seed, int is_endless)
{
	int fd = open(disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	uint64_t count, i, j, *order;

	if (fd < 0)
		fail(disk);
	signal(SIGTERM, be_last);
	count = lseek(fd, 0, SEEK_END) / VERIFY_BYTES;
	order = memory(count * sizeof(*order));
	srandom(seed);
	for (i = 0; i < count; i++) {
		j = random() % (i + 1);
		order[i] = order[j];
		order[j] = i;
	}
	do {
		if (round_of(fd, order, count, seed++))
			return 1;
	} while (is_endless && !is_last);
	return 0;
}

static int given(int argc, char **argv, const char *word)
{
	while (argc-- > 3)
		if (!strcmp(argv[argc], word))
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 2 ? argv[1] : "";

	if (!strcmp(command, "serve") && argc > 3)
		return serve(argv[2], argv[3], given(argc, argv, "direct"),
			     given(argc, argv, "hold"));
	if (!strcmp(command, "info"))
		return show_info(argv[2], argv[3]);
	if (!strcmp(command, "destroy"))
		return destroy(argv[2], given(argc, argv, "force"));
	if (!strcmp(command, "verify") && argc > 3)
		return verify(argv[2], strtoul(argv[3], NULL, 10),
			      given(argc, argv, "on"));
	fprintf(stderr, "usage: server serve NAME FILE [direct] [hold] | info NAME [STATE] | destroy NAME [force] | verify DISK SEED [on]\n");
	return 2;
}
