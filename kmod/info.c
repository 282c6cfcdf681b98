// SPDX-License-Identifier: GPL-2.0
/*
 * INFO: everything that there is to tell about a device, for the ioctl, LIST and
 * the files in sysfs.
 */
#include <linux/errno.h>
#include <linux/string.h>

#include "dblock.h"

static void dblock_queue_info(struct dblock_queue *queue,
			      struct dblock_info *info)
{
	const struct dblock_file_counts *by_file = &queue->file_counts;
	int i;

	spin_lock(&queue->lock);
	info->waiting_count += queue->waiting_count + queue->blocked_count;
	info->handed_count += queue->handed_count;
	info->passed_count += atomic_read(&by_file->open);
	info->quarantined_count += queue->quarantined_count;
	for (i = 0; i < DBLOCK_OPERATION_COUNT; i++) {
		info->requests[i] += queue->requests[i] +
				     atomic64_read(&by_file->requests[i]);
		info->bytes[i] += queue->bytes[i] +
				  atomic64_read(&by_file->bytes[i]);
	}
	info->error_count += queue->error_count +
			     atomic64_read(&by_file->errors);
	info->timeout_count += queue->timeout_count;
	info->stale_count += queue->stale_count;
	info->refused_count += queue->refused_count;
	info->replayed_count += queue->replayed_count;
	info->batch_count += queue->batch_count;
	info->handed_total += queue->handed_total;
	spin_unlock(&queue->lock);
}

/* Everything about the device, whatever its state. */
void dblock_device_info(struct dblock_device *device, struct dblock_info *info)
{
	const struct dblock_create *p = &device->params;
	u32 i;

	memset(info, 0, sizeof(*info));
	mutex_lock(&device->lock);
	info->flags = p->flags;
	memcpy(info->name, p->name, sizeof(info->name));
	info->id = p->id;
	info->size_bytes = p->size_bytes;
	info->logical_block_bytes = p->logical_block_bytes;
	info->physical_block_bytes = p->physical_block_bytes;
	info->io_opt_bytes = p->io_opt_bytes;
	info->max_io_bytes = p->max_io_bytes;
	info->queue_count = p->queue_count;
	info->queue_depth = p->queue_depth;
	info->timeout_ms = p->timeout_ms;
	info->on_death = p->on_death;
	info->discard_granularity_bytes = p->discard_granularity_bytes;
	info->max_discard_bytes = p->max_discard_bytes;
	info->max_write_zeroes_bytes = p->max_write_zeroes_bytes;
	info->minor = p->minor;
	info->state = device->state;
	info->open_count = device->open_count;
	info->server_pid = device->attached_count ? device->server_pid : 0;
	info->attached_count = device->attached_count;
	info->death_count = device->death_count;
	info->leave_count = device->leave_count;
	if (device->state >= DBLOCK_STATE_LIVE && device->disk_added) {
		info->disk_major = device->disk->major;
		info->disk_minor = device->disk->first_minor;
	}
	for (i = 0; i < p->queue_count; i++)
		dblock_queue_info(&device->queues[i], info);
	mutex_unlock(&device->lock);
}

/**
 * dblock_device_info_checked() - INFO as a caller asks for it
 * @device: the device; the caller has a reference
 * @info: what the caller gave; everything about the device
 *
 * Return: 0, -EINVAL or -ESTALE; @info is as it was then.
 */
int dblock_device_info_checked(struct dblock_device *device,
			       struct dblock_info *info)
{
	if (!dblock_is_zero(info->reserved, sizeof(info->reserved)))
		return -EINVAL;
	if (!dblock_device_is(device, info->id))
		return -ESTALE;
	dblock_device_info(device, info);
	return 0;
}
