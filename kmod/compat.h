/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What changed in the kernel between 5.10 and 7.2, as far as dblock meets it.
 * The only file with conditions on kernel versions; each names the version and
 * what changed in it. The rest of the module is written for the newest kernel.
 */
#ifndef _DBLOCK_COMPAT_H
#define _DBLOCK_COMPAT_H

#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/device.h>
#include <linux/highmem.h>
#include <linux/list_sort.h>
#include <linux/nospec.h>
#include <linux/sched/signal.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 10, 0)
#error "dblock needs Linux 5.10 or newer"
#endif

/* 5.13 made the arguments of list_sort()'s comparison const, and so did some later
 * 5.10.x. The cast does for both.
 */
#define dblock_list_sort(head, compare) \
	list_sort(NULL, head, (void *)(compare))

/* 5.16 moved struct gendisk to blkdev.h. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0)
#include <linux/genhd.h>
#endif

/* 5.17 gave the flag against partitions another name. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 17, 0)
#define DBLOCK_GENHD_NO_PART	GENHD_FL_NO_PART_SCAN
#else
#define DBLOCK_GENHD_NO_PART	GENHD_FL_NO_PART
#endif

/* 5.11 lets a page be mapped for a moment without preemption being off. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define dblock_map_page(page)		kmap_atomic(page)
#define dblock_unmap_page(address)	kunmap_atomic(address)
#else
#define dblock_map_page(page)		kmap_local_page(page)
#define dblock_unmap_page(address)	kunmap_local(address)
#endif

/* 5.17 made a core dump an exit like any other. What has one of these flags never
 * returns to user space.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 17, 0)
#define DBLOCK_SIGNAL_EXITS	(SIGNAL_GROUP_EXIT | SIGNAL_GROUP_COREDUMP)
#else
#define DBLOCK_SIGNAL_EXITS	SIGNAL_GROUP_EXIT
#endif

/* 6.3 made every architecture have it, and gave it to older kernels later. */
#ifndef barrier_nospec
#define barrier_nospec()	do { } while (0)
#endif

/* 6.8 made every signal of an eventfd count one. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define dblock_eventfd_signal(eventfd)	eventfd_signal(eventfd, 1)
#else
#define dblock_eventfd_signal(eventfd)	eventfd_signal(eventfd)
#endif

/* 5.16 dropped the second result of asynchronous I/O. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0)
#define DBLOCK_KIOCB_COMPLETE_ARGS(iocb, result) \
	struct kiocb *iocb, long result, long result2
#define DBLOCK_KIOCB_COMPLETED(iocb, result)	iocb, result, 0
#else
#define DBLOCK_KIOCB_COMPLETE_ARGS(iocb, result) \
	struct kiocb *iocb, long result
#define DBLOCK_KIOCB_COMPLETED(iocb, result)	iocb, result
#endif

/* 6.6 has functions for who writes to a file and does not wait: the file system
 * is not frozen meanwhile, and lockdep knows that another thread ends it.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
static inline void dblock_kiocb_start_write(struct kiocb *iocb)
{
	struct inode *inode = file_inode(iocb->ki_filp);

	if (!S_ISREG(inode->i_mode))
		return;
	sb_start_write(inode->i_sb);
	__sb_writers_release(inode->i_sb, SB_FREEZE_WRITE);
}

static inline void dblock_kiocb_end_write(struct kiocb *iocb)
{
	struct inode *inode = file_inode(iocb->ki_filp);

	if (!S_ISREG(inode->i_mode))
		return;
	__sb_writers_acquired(inode->i_sb, SB_FREEZE_WRITE);
	sb_end_write(inode->i_sb);
}
#else
static inline void dblock_kiocb_start_write(struct kiocb *iocb)
{
	if (S_ISREG(file_inode(iocb->ki_filp)->i_mode))
		kiocb_start_write(iocb);
}

static inline void dblock_kiocb_end_write(struct kiocb *iocb)
{
	if (S_ISREG(file_inode(iocb->ki_filp)->i_mode))
		kiocb_end_write(iocb);
}
#endif

/* 5.18 has a status for a device that is gone: ENODEV. File systems take it for
 * final, where EIO may be worth another try (XFS).
 */
#ifndef BLK_STS_OFFLINE
#define BLK_STS_OFFLINE		BLK_STS_IOERR
#endif

/* 5.16 ends requests together: their tags, and the queue's count of users, are
 * given back once for all of them. Failures are not for a batch: what the third
 * argument means differs between kernels.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0)
struct dblock_end_batch { };

static inline void dblock_end_request(struct dblock_end_batch *batch,
				      struct request *rq, blk_status_t status)
{
	blk_mq_end_request(rq, status);
}

static inline void dblock_end_batch(struct dblock_end_batch *batch)
{
}
#else
struct dblock_end_batch {
	struct io_comp_batch batch;
};

static inline void dblock_end_request(struct dblock_end_batch *batch,
				      struct request *rq, blk_status_t status)
{
	if (status || !blk_mq_add_to_batch(rq, &batch->batch, 0,
					   blk_mq_end_request_batch))
		blk_mq_end_request(rq, status);
}

static inline void dblock_end_batch(struct dblock_end_batch *batch)
{
	if (batch->batch.complete)
		blk_mq_end_request_batch(&batch->batch);
}
#endif

/* 6.0 dropped the "reserved" argument of blk_mq_ops.timeout. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 0, 0)
#define DBLOCK_TIMEOUT_ARGS(rq)	struct request *rq, bool reserved
#else
#define DBLOCK_TIMEOUT_ARGS(rq)	struct request *rq
#endif

/* 6.5 gave block_device_operations.open the disk, and release no mode. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define DBLOCK_OPEN_ARGS	struct block_device *bdev, fmode_t mode
#define DBLOCK_OPEN_DISK	(bdev->bd_disk)
#define DBLOCK_RELEASE_ARGS(disk)	struct gendisk *disk, fmode_t mode
#else
#define DBLOCK_OPEN_ARGS	struct gendisk *opened, blk_mode_t mode
#define DBLOCK_OPEN_DISK	opened
#define DBLOCK_RELEASE_ARGS(disk)	struct gendisk *disk
#endif

/* 5.15 brought a flag against a default I/O scheduler (before: see
 * dblock_gendisk_add()); 6.14 dropped the one that asks for merging, which is
 * always done since. STACKING: a CPU that goes offline waits for no request of
 * ours, which may be held for as long as nobody serves.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 15, 0)
#define DBLOCK_TAG_SET_FLAGS	(BLK_MQ_F_SHOULD_MERGE | BLK_MQ_F_STACKING)
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
#define DBLOCK_TAG_SET_FLAGS \
	(BLK_MQ_F_SHOULD_MERGE | BLK_MQ_F_STACKING | \
	 BLK_MQ_F_NO_SCHED_BY_DEFAULT)
#else
#define DBLOCK_TAG_SET_FLAGS \
	(BLK_MQ_F_STACKING | BLK_MQ_F_NO_SCHED_BY_DEFAULT)
#endif

/* 6.4 dropped the owner of a class. */
static inline struct class *dblock_class_create(const char *name)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
	return class_create(THIS_MODULE, name);
#else
	return class_create(name);
#endif
}

/* A mask: the CPU copies from and to any address. The block layer takes 0 for
 * "not set", so the mask is that of most drives. Since 6.0 direct I/O asks for no
 * more alignment of memory than this; before, for that of a logical block.
 */
#define DBLOCK_DMA_ALIGNMENT	3

/* 6.9 takes the limits when a disk is made, and 6.11 its features among them;
 * before, each has a setter. This structure stands for both. The largest I/O is
 * also set as what the user wants: the kernel's default is 1280 KiB at most.
 */
struct dblock_limits {
	unsigned int logical_block_bytes;
	unsigned int physical_block_bytes;
	unsigned int io_opt_bytes;
	unsigned int max_io_bytes;
	unsigned int discard_granularity_bytes;
	unsigned int max_discard_bytes;
	unsigned int max_write_zeroes_bytes;
	bool write_cache;
	bool fua;
	bool rotational;
};

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
static inline void dblock_set_features(struct request_queue *q,
				       const struct dblock_limits *l)
{
	blk_queue_write_cache(q, l->write_cache, l->fua);
	if (l->rotational)
		blk_queue_flag_clear(QUEUE_FLAG_NONROT, q);
	else
		blk_queue_flag_set(QUEUE_FLAG_NONROT, q);
}
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
static inline void dblock_set_limits(struct request_queue *q,
				     const struct dblock_limits *l)
{
	blk_queue_logical_block_size(q, l->logical_block_bytes);
	blk_queue_physical_block_size(q, l->physical_block_bytes);
	blk_queue_io_min(q, l->physical_block_bytes);
	blk_queue_io_opt(q, l->io_opt_bytes);
	blk_queue_max_hw_sectors(q, l->max_io_bytes >> SECTOR_SHIFT);
	q->limits.max_sectors = q->limits.max_hw_sectors;
	blk_queue_dma_alignment(q, DBLOCK_DMA_ALIGNMENT);
	blk_queue_max_segments(q, USHRT_MAX);
	blk_queue_max_segment_size(q, UINT_MAX);
	q->limits.discard_granularity = l->discard_granularity_bytes;
	blk_queue_max_discard_sectors(q, l->max_discard_bytes >> SECTOR_SHIFT);
	blk_queue_max_write_zeroes_sectors(q, l->max_write_zeroes_bytes >>
					      SECTOR_SHIFT);
	/* 5.19 derives it from the maximum. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 19, 0)
	if (l->max_discard_bytes)
		blk_queue_flag_set(QUEUE_FLAG_DISCARD, q);
#endif
}
#else
static inline void dblock_fill_limits(struct queue_limits *lim,
				      const struct dblock_limits *l)
{
	lim->logical_block_size = l->logical_block_bytes;
	lim->physical_block_size = l->physical_block_bytes;
	lim->io_min = l->physical_block_bytes;
	lim->io_opt = l->io_opt_bytes;
	lim->max_hw_sectors = l->max_io_bytes >> SECTOR_SHIFT;
	lim->max_user_sectors = lim->max_hw_sectors;
	lim->dma_alignment = DBLOCK_DMA_ALIGNMENT;
	lim->max_segments = USHRT_MAX;
	lim->max_segment_size = UINT_MAX;
	lim->discard_granularity = l->discard_granularity_bytes;
	lim->max_hw_discard_sectors = l->max_discard_bytes >> SECTOR_SHIFT;
	lim->max_write_zeroes_sectors = l->max_write_zeroes_bytes >>
					SECTOR_SHIFT;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	if (l->write_cache)
		lim->features |= BLK_FEAT_WRITE_CACHE;
	if (l->fua)
		lim->features |= BLK_FEAT_FUA;
	if (l->rotational)
		lim->features |= BLK_FEAT_ROTATIONAL;
#endif
}
#endif

/* 5.15 makes disk and queue in one. */
static inline struct gendisk *
dblock_gendisk_alloc(struct blk_mq_tag_set *set, const struct dblock_limits *l)
{
	struct gendisk *disk;
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 15, 0)
	struct request_queue *q = blk_mq_init_queue(set);

	if (IS_ERR(q))
		return ERR_CAST(q);
	disk = alloc_disk(0);
	if (!disk) {
		blk_cleanup_queue(q);
		return ERR_PTR(-ENOMEM);
	}
	disk->queue = q;
	disk->flags |= GENHD_FL_EXT_DEVT;
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
	disk = blk_mq_alloc_disk(set, NULL);
	if (IS_ERR(disk))
		return disk;
#else
	struct queue_limits lim = { };

	dblock_fill_limits(&lim, l);
	disk = blk_mq_alloc_disk(set, &lim, NULL);
	if (IS_ERR(disk))
		return disk;
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
	dblock_set_limits(disk->queue, l);
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
	dblock_set_features(disk->queue, l);
#endif
	return disk;
}

/* 5.15 made device_add_disk() able to fail, and brought the flag against a
 * default I/O scheduler. Before it, the one against any is set for a moment: to
 * put in one that nobody asked for takes longer than all the rest of START.
 */
static inline int dblock_gendisk_add(struct gendisk *disk,
				     const struct attribute_group **groups)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 15, 0)
	struct blk_mq_tag_set *set = disk->queue->tag_set;
	struct device *other;

	/* A disk whose name is taken would be half there, and crash when it
	 * is removed.
	 */
	other = class_find_device_by_name(disk_to_dev(disk)->class,
					  disk->disk_name);
	if (other) {
		put_device(other);
		return -EEXIST;
	}
	set->flags |= BLK_MQ_F_NO_SCHED;
	device_add_disk(NULL, disk, groups);
	set->flags &= ~BLK_MQ_F_NO_SCHED;
	return 0;
#else
	return device_add_disk(NULL, disk, groups);
#endif
}

/* Before 5.11 whoever made a disk smaller also dropped what file systems have
 * in memory of it, and waited for them: no task of a thread that serves them.
 */
static inline void dblock_gendisk_resize(struct gendisk *disk, sector_t sectors)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
	char *changes[] = { "RESIZE=1", NULL };
	struct block_device *bdev = bdget_disk(disk, 0);

	set_capacity(disk, sectors);
	if (bdev) {
		bd_set_nr_sectors(bdev, sectors);
		bdput(bdev);
	}
	kobject_uevent_env(&disk_to_dev(disk)->kobj, KOBJ_CHANGE, changes);
#else
	set_capacity_and_notify(disk, sectors);
#endif
}

/* 5.17 lets a driver say that the disk is dead before it is removed: file systems
 * on it then do not try to write first. Before 6.0 the queue of a removed disk
 * is shut down separately.
 */
static inline void dblock_gendisk_del(struct gendisk *disk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 17, 0)
	blk_mark_disk_dead(disk);
#endif
	del_gendisk(disk);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 0, 0)
	blk_cleanup_queue(disk->queue);
#endif
}

/* Drops the last reference of a disk. From 5.15 to 5.19 a disk that was never
 * added has a function of its own; before, its queue is separate.
 */
static inline void dblock_gendisk_put(struct gendisk *disk, bool was_added)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 15, 0)
	if (!was_added) {
		blk_cleanup_queue(disk->queue);
		/* put_disk() of a disk never added must not drop the queue. */
		disk->queue = NULL;
	}
	put_disk(disk);
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 0, 0)
	if (was_added)
		put_disk(disk);
	else
		blk_cleanup_disk(disk);
#else
	put_disk(disk);
#endif
}

#endif /* _DBLOCK_COMPAT_H */
