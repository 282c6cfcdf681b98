// SPDX-License-Identifier: GPL-2.0
/*
 * Requests whose data is in a file of the server's. The server says where, and the
 * kernel reads or writes the file with the request's own pages: nothing is copied,
 * and nobody has to come back when the data has. From the server's answer on the
 * request is no business of the server: its slot is free, its timeout is over, and
 * the server's end changes nothing for it. Like that of any disk over another one,
 * it ends when the store's does.
 */
#include <linux/bio.h>
#include <linux/bottom_half.h>
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "dblock.h"

/* Of the device alone: the store below a flush may be another dblock disk, whose
 * own flush this one waits for. While memory is short, each has a thread that has
 * nothing else to do.
 *
 * Return: 0 or -ENOMEM.
 */
static int dblock_file_workqueue(struct dblock_device *device)
{
	struct workqueue_struct *workqueue;

	if (READ_ONCE(device->flush_workqueue))
		return 0;
	workqueue = alloc_workqueue("dblock-flush%llu",
				    WQ_UNBOUND | WQ_MEM_RECLAIM, 0,
				    device->params.id);
	if (!workqueue)
		return -ENOMEM;
	/* Another queue's ATTACH may have been quicker. */
	if (cmpxchg(&device->flush_workqueue, NULL, workqueue))
		destroy_workqueue(workqueue);
	return 0;
}

/**
 * dblock_file_get() - the file that an ATTACH names
 * @device: the device
 * @fd: a descriptor of the caller's
 *
 * Return: the file, with a reference, or -EINVAL or -ENOMEM.
 */
struct file *dblock_file_get(struct dblock_device *device, u32 fd)
{
	fmode_t needs = FMODE_READ;
	struct file *file = fget(fd);
	int err = -EINVAL;
	umode_t mode;

	if (!file)
		return ERR_PTR(-EINVAL);
	if (!(device->params.flags & DBLOCK_DEVICE_READ_ONLY))
		needs |= FMODE_WRITE;
	mode = file_inode(file)->i_mode;
	if ((S_ISREG(mode) || S_ISBLK(mode)) && file->f_flags & O_DIRECT &&
	    (file->f_mode & needs) == needs && file->f_op->read_iter &&
	    (!(needs & FMODE_WRITE) || file->f_op->write_iter))
		err = dblock_file_workqueue(device);
	if (!err)
		return file;
	fput(file);
	return ERR_PTR(err);
}

/* Whether this is what a file does for a request. */
bool dblock_file_does(struct request *rq)
{
	return req_op(rq) == REQ_OP_READ || req_op(rq) == REQ_OP_WRITE ||
	       req_op(rq) == REQ_OP_FLUSH;
}

/* Ends the request, in the context in which disks do that. */
void dblock_file_done(struct request *rq)
{
	struct dblock_queue *queue = rq->mq_hctx->driver_data;
	struct dblock_file_counts *counts = &queue->file_counts;
	u8 operation = dblock_operation_of(rq);
	struct dblock_io *io = dblock_io_of(rq);
	blk_status_t status = BLK_STS_OK;

	if (io->result != blk_rq_bytes(rq))
		status = dblock_status_of(io->result < 0 ? -io->result : EIO);
	kfree(io->vectors);
	fput(io->file);
	if (status) {
		atomic64_inc(&counts->errors);
	} else {
		atomic64_inc(&counts->requests[operation]);
		atomic64_add(blk_rq_bytes(rq), &counts->bytes[operation]);
	}
	atomic_dec(&counts->open);
	blk_mq_end_request(rq, status);
}

/* The file's file system has done it; in any context. */
static void dblock_file_ended(DBLOCK_KIOCB_COMPLETE_ARGS(iocb, result))
{
	struct dblock_io *io = container_of(iocb, struct dblock_io, iocb);
	struct request *rq = blk_mq_rq_from_pdu(io);

	if (rq_data_dir(rq) == WRITE)
		dblock_kiocb_end_write(iocb);
	io->result = result;
	blk_mq_complete_request(rq);
}

/* The request's pages, in one array: a request that the block layer has put
 * together has several. The page cache takes memory that begins anywhere.
 *
 * Return: 0 or -ENOMEM.
 */
static int dblock_file_vectors(struct dblock_queue *queue, struct request *rq,
			       struct iov_iter *iter)
{
	u32 block_bytes = queue->device->params.logical_block_bytes;
	struct dblock_io *io = dblock_io_of(rq);
	struct bio *bio = rq->bio;
	struct bio_vec *vectors;
	struct req_iterator at;
	unsigned int count = 0;
	unsigned int edges = 0;
	size_t skip = 0;
	struct bio_vec run;

	rq_for_each_bvec(run, rq, at) {
		edges |= run.bv_offset | run.bv_len;
		count++;
	}
	if (bio == rq->biotail) {
		vectors = &bio->bi_io_vec[bio->bi_iter.bi_idx];
		skip = bio->bi_iter.bi_bvec_done;
	} else {
		vectors = kmalloc_array(count, sizeof(*vectors), GFP_NOIO);
		if (!vectors)
			return -ENOMEM;
		io->vectors = vectors;
		count = 0;
		rq_for_each_bvec(run, rq, at)
			vectors[count++] = run;
	}
	if (edges & (block_bytes - 1))
		io->iocb.ki_flags &= ~IOCB_DIRECT;
	iov_iter_bvec(iter, rq_data_dir(rq), vectors, count, blk_rq_bytes(rq));
	iter->iov_offset = skip;
	return 0;
}

static ssize_t dblock_file_move(struct dblock_queue *queue, struct request *rq,
				u64 offset)
{
	struct dblock_io *io = dblock_io_of(rq);
	struct kiocb *iocb = &io->iocb;
	struct iov_iter iter;
	int err;

	init_sync_kiocb(iocb, io->file);
	iocb->ki_pos = offset;
	iocb->ki_ioprio = req_get_ioprio(rq);
	iocb->ki_complete = dblock_file_ended;
	err = dblock_file_vectors(queue, rq, &iter);
	if (rq_data_dir(rq) == READ)
		return err ?: io->file->f_op->read_iter(iocb, &iter);
	iocb->ki_flags |= IOCB_WRITE;
	if (rq->cmd_flags & REQ_FUA)
		iocb->ki_flags |= IOCB_DSYNC;
	dblock_kiocb_start_write(iocb);
	return err ?: io->file->f_op->write_iter(iocb, &iter);
}

/* A thread of the kernel's waits until the store has everything. */
static void dblock_file_flush(struct work_struct *work)
{
	struct dblock_io *io = container_of(work, struct dblock_io, work);
	unsigned int noio = memalloc_noio_save();

	io->result = vfs_fsync(io->file, 1);
	memalloc_noio_restore(noio);
	/* As dblock_end_list(). */
	local_bh_disable();
	blk_mq_complete_request(blk_mq_rq_from_pdu(io));
	local_bh_enable();
}

/**
 * dblock_file_begin() - have the file do a request
 * @queue: the queue that the request came by
 * @rq: dblock_file_does() it, and nobody else ends it any more
 * @file: the file; the reference is taken over
 * @offset: where in the file, as the server says
 *
 * Context: sleeps, as read(2) and write(2) do.
 */
void dblock_file_begin(struct dblock_queue *queue, struct request *rq,
		       struct file *file, u64 offset)
{
	struct dblock_io *io = dblock_io_of(rq);
	ssize_t result;

	atomic_inc(&queue->file_counts.open);
	io->file = file;
	io->vectors = NULL;
	if (req_op(rq) == REQ_OP_FLUSH) {
		INIT_WORK(&io->work, dblock_file_flush);
		queue_work(queue->device->flush_workqueue, &io->work);
		return;
	}
	result = dblock_file_move(queue, rq, offset);
	if (result == -EIOCBQUEUED)
		return;
	local_bh_disable();
	dblock_file_ended(DBLOCK_KIOCB_COMPLETED(&io->iocb, result));
	local_bh_enable();
}
