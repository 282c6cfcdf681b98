// SPDX-License-Identifier: GPL-2.0
/*
 * The disk that everybody else sees: the block layer's gendisk and tag set of a
 * device, made from what CREATE asked for. When it comes and goes is decided in
 * device.c; requests are in queue.c.
 */
#include <linux/sched/mm.h>

#include "compat.h"
#include "dblock.h"

/**
 * dblock_disk_alloc() - make the disk, not visible yet
 * @device: what CREATE asked for
 * @operations: what opens and closes the disk
 *
 * Return: 0 or -ENOMEM and the like; dblock_disk_free() cleans up either way.
 */
int dblock_disk_alloc(struct dblock_device *device,
		      const struct block_device_operations *operations)
{
	const struct dblock_create *p = &device->params;
	const struct dblock_limits limits = {
		.logical_block_bytes = p->logical_block_bytes,
		.physical_block_bytes = p->physical_block_bytes,
		.io_opt_bytes = p->io_opt_bytes,
		.max_io_bytes = p->max_io_bytes,
		.discard_granularity_bytes = p->discard_granularity_bytes,
		.max_discard_bytes = p->max_discard_bytes,
		.max_write_zeroes_bytes = p->max_write_zeroes_bytes,
		.write_cache = p->flags & DBLOCK_DEVICE_WRITE_CACHE,
		.fua = p->flags & DBLOCK_DEVICE_FUA,
		.rotational = p->flags & DBLOCK_DEVICE_ROTATIONAL,
	};
	struct blk_mq_tag_set *set = &device->tag_set;
	struct gendisk *disk;
	int err;

	set->ops = &dblock_mq_ops;
	set->nr_hw_queues = p->queue_count;
	set->queue_depth = p->queue_depth;
	set->numa_node = NUMA_NO_NODE;
	set->cmd_size = sizeof(struct dblock_io);
	set->flags = DBLOCK_TAG_SET_FLAGS;
	set->driver_data = device;
	/* Off means that dblock_timeout() looks now and then and says no. */
	set->timeout = p->timeout_ms ? msecs_to_jiffies(p->timeout_ms) :
				       3600 * HZ;
	err = blk_mq_alloc_tag_set(set);
	if (err)
		return err;
	device->tag_set_ready = true;

	disk = dblock_gendisk_alloc(set, &limits);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	strscpy(disk->disk_name, p->name, sizeof(disk->disk_name));
	disk->fops = operations;
	disk->private_data = device;
	set_capacity(disk, p->size_bytes >> SECTOR_SHIFT);
	if (p->flags & DBLOCK_DEVICE_READ_ONLY)
		set_disk_ro(disk, true);
	if (p->flags & DBLOCK_DEVICE_NO_PART_SCAN)
		disk->flags |= DBLOCK_GENHD_NO_PART;
	device->disk = disk;
	return 0;
}

/**
 * dblock_disk_add() - the disk appears, and its partition table is read
 * @device: after dblock_disk_alloc()
 *
 * Context: sleeps until the server has answered the first reads.
 */
int dblock_disk_add(struct dblock_device *device)
{
	return dblock_gendisk_add(device->disk, dblock_attribute_groups);
}

/* The disk disappears. Every request must fail by now, or this waits. */
void dblock_disk_del(struct dblock_device *device)
{
	if (device->disk_added)
		dblock_gendisk_del(device->disk);
}

/* Last, when nobody has it open any more. */
void dblock_disk_free(struct dblock_device *device)
{
	if (device->disk)
		dblock_gendisk_put(device->disk, device->disk_added);
	if (device->tag_set_ready)
		blk_mq_free_tag_set(&device->tag_set);
}

/* Tells the block layer, file systems and udev of a new size. To tell udev may
 * take as long as a disk that nobody serves is held, in reclaim, and that may be
 * this disk.
 */
void dblock_disk_set_size(struct dblock_device *device, u64 size_bytes)
{
	unsigned int noio = memalloc_noio_save();

	dblock_gendisk_resize(device->disk, size_bytes >> SECTOR_SHIFT);
	memalloc_noio_restore(noio);
}
