// SPDX-License-Identifier: MIT
/*
 * A ramdisk behind the kernel's ublk driver, for comparison: what a server in C does that is written for speed. One
 * thread and one io_uring a queue, answers and the next wait in one system call, threads not bound to processors (on two
 * of them that is several times faster). Not for any other use: it ends by being killed.
 *
 *   ublk_memory ID MIB QUEUES     serves /dev/ublkbID; says "ready" when it is there
 *   ublk_memory ID                deletes it
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/ublk_cmd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH 128
#define MAX_IO_BYTES (512 << 10)
#define CONTROL(number) _IOWR('u', number, struct ublksrv_ctrl_cmd)
#define IO(number) _IOWR('u', number, struct ublksrv_io_cmd)

struct ring {
	int fd;
	unsigned sqe_bytes;
	char *sqes;
	unsigned *sq_tail, *cq_head, *cq_tail;
	unsigned sq_mask, cq_mask;
	struct io_uring_cqe *cqes;
	unsigned to_submit;
};

static char *store;
/* /dev/ublkcID: the driver lets it be opened once. */
static int device_fd;

static void die(const char *what, int error)
{
	fprintf(stderr, "ublk_memory: %s: %s\n", what, strerror(error));
	exit(1);
}

static void *map(size_t bytes, int flags, int fd, off_t offset, int protection)
{
	void *address = mmap(NULL, bytes, protection, flags, fd, offset);

	if (address == MAP_FAILED)
		die("mmap", errno);
	return address;
}

static void open_ring(struct ring *ring, unsigned entries, unsigned flags)
{
	struct io_uring_params params = { .flags = flags };
	size_t sq_bytes, cq_bytes;
	unsigned *array;
	char *rings;

	ring->fd = syscall(SYS_io_uring_setup, entries, &params);
	if (ring->fd < 0)
		die("io_uring_setup", errno);
	sq_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
	cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
	rings = map(sq_bytes > cq_bytes ? sq_bytes : cq_bytes, MAP_SHARED | MAP_POPULATE, ring->fd,
		    IORING_OFF_SQ_RING, PROT_READ | PROT_WRITE);
	ring->sqe_bytes = flags & IORING_SETUP_SQE128 ? 128 : 64;
	ring->sqes = map(params.sq_entries * ring->sqe_bytes, MAP_SHARED | MAP_POPULATE, ring->fd,
			 IORING_OFF_SQES, PROT_READ | PROT_WRITE);
	ring->sq_tail = (unsigned *)(rings + params.sq_off.tail);
	ring->sq_mask = params.sq_entries - 1;
	ring->cq_head = (unsigned *)(rings + params.cq_off.head);
	ring->cq_tail = (unsigned *)(rings + params.cq_off.tail);
	ring->cq_mask = params.cq_entries - 1;
	ring->cqes = (struct io_uring_cqe *)(rings + params.cq_off.cqes);
	array = (unsigned *)(rings + params.sq_off.array);
	for (unsigned i = 0; i < params.sq_entries; i++)
		array[i] = i;
	ring->to_submit = 0;
}

/* Adds a command; there is always room, for a ring has an entry for each of its commands. */
static void *push(struct ring *ring, int fd, unsigned command, uint64_t user_data)
{
	unsigned tail = *ring->sq_tail;
	struct io_uring_sqe *sqe = (void *)(ring->sqes + (size_t)(tail & ring->sq_mask) * ring->sqe_bytes);

	memset(sqe, 0, ring->sqe_bytes);
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = fd;
	sqe->off = command; /* the kernel's cmd_op */
	sqe->user_data = user_data;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	ring->to_submit++;
	return (char *)sqe + 48; /* the kernel's cmd */
}

static void enter(struct ring *ring)
{
	int taken = syscall(SYS_io_uring_enter, ring->fd, ring->to_submit, 1, IORING_ENTER_GETEVENTS, NULL, 0);

	if (taken >= 0)
		ring->to_submit -= taken;
	else if (errno != EINTR)
		die("io_uring_enter", errno);
}

/* One command to /dev/ublk-control, to its end. */
static int control(unsigned number, const struct ublksrv_ctrl_cmd *command)
{
	int fd = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
	struct ring ring;
	int result;

	if (fd < 0)
		die("/dev/ublk-control", errno);
	open_ring(&ring, 4, IORING_SETUP_SQE128);
	memcpy(push(&ring, fd, number, 0), command, sizeof(*command));
	do
		enter(&ring);
	while (*ring.cq_head == __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE));
	result = ring.cqes[*ring.cq_head & ring.cq_mask].res;
	close(ring.fd);
	close(fd);
	return result;
}

static int answer(const struct ublksrv_io_desc *request)
{
	size_t bytes = (size_t)request->nr_sectors << 9;
	char *data = store + (request->start_sector << 9);

	switch (ublksrv_get_op(request)) {
	case UBLK_IO_OP_READ:
		memcpy((void *)(uintptr_t)request->addr, data, bytes);
		return bytes;
	case UBLK_IO_OP_WRITE:
		memcpy(data, (void *)(uintptr_t)request->addr, bytes);
		return bytes;
	case UBLK_IO_OP_FLUSH:
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static void *serve(void *argument)
{
	unsigned queue = (uintptr_t)argument;
	size_t bytes = (DEPTH * sizeof(struct ublksrv_io_desc) + 4095) & ~4095UL;
	off_t offset = UBLKSRV_CMD_BUF_OFFSET + queue * UBLK_MAX_QUEUE_DEPTH * sizeof(struct ublksrv_io_desc);
	const struct ublksrv_io_desc *requests;
	struct ring ring;
	char *buffers;

	requests = map(bytes, MAP_SHARED | MAP_POPULATE, device_fd, offset, PROT_READ);
	buffers = map((size_t)DEPTH * MAX_IO_BYTES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, PROT_READ | PROT_WRITE);
	open_ring(&ring, DEPTH, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	for (unsigned tag = 0; tag < DEPTH; tag++) {
		struct ublksrv_io_cmd *io = push(&ring, device_fd, IO(UBLK_IO_FETCH_REQ), tag);

		*io = (struct ublksrv_io_cmd){ .q_id = queue, .tag = tag, .result = -1 };
		io->addr = (uintptr_t)(buffers + (size_t)tag * MAX_IO_BYTES);
	}
	for (;;) {
		unsigned head = *ring.cq_head, tail;

		enter(&ring);
		tail = __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE);
		for (; head != tail; head++) {
			const struct io_uring_cqe *cqe = &ring.cqes[head & ring.cq_mask];
			unsigned tag = cqe->user_data;
			struct ublksrv_io_cmd *io;

			if (cqe->res == UBLK_IO_RES_ABORT)
				return NULL;
			if (cqe->res != UBLK_IO_RES_OK)
				die("a command of a queue", -cqe->res);
			io = push(&ring, device_fd, IO(UBLK_IO_COMMIT_AND_FETCH_REQ), tag);
			*io = (struct ublksrv_io_cmd){ .q_id = queue, .tag = tag, .result = answer(&requests[tag]) };
			io->addr = (uintptr_t)(buffers + (size_t)tag * MAX_IO_BYTES);
		}
		__atomic_store_n(ring.cq_head, head, __ATOMIC_RELEASE);
	}
}

/* Returns how many queues the device has: no more than there are processors. */
static unsigned add(uint32_t id, uint64_t size_bytes, unsigned queue_count)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = queue_count, .queue_depth = DEPTH, .max_io_buf_bytes = MAX_IO_BYTES,
		.dev_id = id, .ublksrv_pid = getpid(),
	};
	struct ublk_params params = {
		.len = sizeof(params), .types = UBLK_PARAM_TYPE_BASIC,
		.basic = { .logical_bs_shift = 9, .physical_bs_shift = 12, .io_opt_shift = 12, .io_min_shift = 9,
			   .max_sectors = MAX_IO_BYTES >> 9, .dev_sectors = size_bytes >> 9 },
	};
	struct ublksrv_ctrl_cmd command = { .dev_id = id, .queue_id = -1, .len = sizeof(info), .addr = (uintptr_t)&info };
	int result = control(CONTROL(UBLK_CMD_ADD_DEV), &command);

	if (result < 0)
		die("ADD_DEV", -result);
	command.len = sizeof(params);
	command.addr = (uintptr_t)&params;
	result = control(CONTROL(UBLK_CMD_SET_PARAMS), &command);
	if (result < 0)
		die("SET_PARAMS", -result);
	return info.nr_hw_queues;
}

int main(int count, char **arguments)
{
	struct ublksrv_ctrl_cmd command = { .queue_id = -1 };
	uint64_t size_bytes;
	unsigned queue_count;
	pthread_t thread;
	char node[32];
	int result;

	command.dev_id = count > 1 ? atoi(arguments[1]) : 0;
	if (count != 4)
		return control(CONTROL(UBLK_CMD_DEL_DEV), &command) < 0;
	size_bytes = strtoull(arguments[2], NULL, 10) << 20;
	queue_count = atoi(arguments[3]);
	store = map(size_bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, PROT_READ | PROT_WRITE);
	queue_count = add(command.dev_id, size_bytes, queue_count);
	/* The node is made by a thread of the kernel. */
	snprintf(node, sizeof(node), "/dev/ublkc%u", command.dev_id);
	for (int i = 0; i < 500 && access(node, F_OK) != 0; i++)
		usleep(10000);
	device_fd = open(node, O_RDWR | O_CLOEXEC);
	if (device_fd < 0)
		die(node, errno);
	for (unsigned queue = 0; queue < queue_count; queue++)
		if (pthread_create(&thread, NULL, serve, (void *)(uintptr_t)queue) != 0)
			die("pthread_create", EAGAIN);
	command.data[0] = getpid();
	result = control(CONTROL(UBLK_CMD_START_DEV), &command);
	if (result < 0)
		die("START_DEV", -result);
	puts("ready");
	fflush(stdout);
	pause();
	return 0;
}
