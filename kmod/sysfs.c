// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/block/NAME/dblock/: what INFO tells, a value a file, for people and
 * scripts. README.md lists the files.
 */
#include <linux/device.h>
#include <linux/kernel.h>

#include "compat.h"
#include "dblock.h"

static const char * const dblock_on_death_names[] = {
	[DBLOCK_ON_DEATH_REMOVE] = "remove",
	[DBLOCK_ON_DEATH_FAIL]	 = "fail",
	[DBLOCK_ON_DEATH_HOLD]	 = "hold",
};

/* A file, and where its value is in struct dblock_info. */
struct dblock_attribute {
	struct device_attribute attr;
	size_t offset;
	size_t size;
	const char * const *names;	/* of an enum's values, or NULL */
};

static ssize_t dblock_show(struct device *dev, struct device_attribute *attr,
			   char *buf)
{
	const struct dblock_attribute *a =
		container_of(attr, struct dblock_attribute, attr);
	struct dblock_info info;
	const char *field = (const char *)&info + a->offset;

	/* Removing the disk waits for us, so the device stays. */
	dblock_device_info(dev_to_disk(dev)->private_data, &info);
	if (a->names)
		return sysfs_emit(buf, "%s\n", a->names[*(const u32 *)field]);
	if (a->size == sizeof(u64))
		return sysfs_emit(buf, "%llu\n", *(const u64 *)field);
	return sysfs_emit(buf, "%u\n", *(const u32 *)field);
}

/* A line a queue: how its server waits, and what a request took either way. */
static ssize_t queue_waits_show(struct device *dev,
				struct device_attribute *attr, char *buf)
{
	struct dblock_device *device = dev_to_disk(dev)->private_data;
	const struct dblock_queue *queue;
	ssize_t length = 0;
	u32 i;

	for (i = 0; i < device->params.queue_count; i++) {
		queue = &device->queues[i];
		length += sysfs_emit_at(buf, length, "%u %s %u %u\n", i,
					dblock_poll_pays(queue) ? "polls"
								: "sleeps",
					READ_ONCE(queue->wait_cost_ns[false]),
					READ_ONCE(queue->wait_cost_ns[true]));
	}
	return length;
}
static DEVICE_ATTR_RO(queue_waits);

#define DBLOCK_ATTRIBUTE_NAMED(file, field, value_names)		\
	static struct dblock_attribute dblock_attr_##file = {		\
		.attr = __ATTR(file, 0444, dblock_show, NULL),		\
		.offset = offsetof(struct dblock_info, field),		\
		.size = sizeof_field(struct dblock_info, field),	\
		.names = value_names,					\
	}
#define DBLOCK_ATTRIBUTE(field)	DBLOCK_ATTRIBUTE_NAMED(field, field, NULL)
#define DBLOCK_OPERATION_ATTRIBUTES(name, operation)			\
	DBLOCK_ATTRIBUTE_NAMED(name##_requests, requests[operation], NULL); \
	DBLOCK_ATTRIBUTE_NAMED(name##_bytes, bytes[operation], NULL)

DBLOCK_ATTRIBUTE_NAMED(state, state, dblock_state_names);
DBLOCK_ATTRIBUTE_NAMED(on_death, on_death, dblock_on_death_names);
DBLOCK_ATTRIBUTE(id);
DBLOCK_ATTRIBUTE(queue_count);
DBLOCK_ATTRIBUTE(queue_depth);
DBLOCK_ATTRIBUTE(max_io_bytes);
DBLOCK_ATTRIBUTE(timeout_ms);
DBLOCK_ATTRIBUTE(server_pid);
DBLOCK_ATTRIBUTE(attached_count);
DBLOCK_ATTRIBUTE(open_count);
DBLOCK_ATTRIBUTE(death_count);
DBLOCK_ATTRIBUTE(leave_count);
DBLOCK_ATTRIBUTE(waiting_count);
DBLOCK_ATTRIBUTE(handed_count);
DBLOCK_ATTRIBUTE(passed_count);
DBLOCK_ATTRIBUTE(quarantined_count);
DBLOCK_OPERATION_ATTRIBUTES(read, DBLOCK_OPERATION_READ);
DBLOCK_OPERATION_ATTRIBUTES(write, DBLOCK_OPERATION_WRITE);
DBLOCK_OPERATION_ATTRIBUTES(flush, DBLOCK_OPERATION_FLUSH);
DBLOCK_OPERATION_ATTRIBUTES(discard, DBLOCK_OPERATION_DISCARD);
DBLOCK_OPERATION_ATTRIBUTES(write_zeroes, DBLOCK_OPERATION_WRITE_ZEROES);
DBLOCK_ATTRIBUTE(error_count);
DBLOCK_ATTRIBUTE(timeout_count);
DBLOCK_ATTRIBUTE(stale_count);
DBLOCK_ATTRIBUTE(refused_count);
DBLOCK_ATTRIBUTE(replayed_count);
DBLOCK_ATTRIBUTE(batch_count);
DBLOCK_ATTRIBUTE(handed_total);

static struct attribute *dblock_attributes[] = {
	&dblock_attr_state.attr.attr,
	&dblock_attr_on_death.attr.attr,
	&dblock_attr_id.attr.attr,
	&dblock_attr_queue_count.attr.attr,
	&dblock_attr_queue_depth.attr.attr,
	&dblock_attr_max_io_bytes.attr.attr,
	&dblock_attr_timeout_ms.attr.attr,
	&dblock_attr_server_pid.attr.attr,
	&dblock_attr_attached_count.attr.attr,
	&dblock_attr_open_count.attr.attr,
	&dblock_attr_death_count.attr.attr,
	&dblock_attr_leave_count.attr.attr,
	&dblock_attr_waiting_count.attr.attr,
	&dblock_attr_handed_count.attr.attr,
	&dblock_attr_passed_count.attr.attr,
	&dblock_attr_quarantined_count.attr.attr,
	&dblock_attr_read_requests.attr.attr,
	&dblock_attr_read_bytes.attr.attr,
	&dblock_attr_write_requests.attr.attr,
	&dblock_attr_write_bytes.attr.attr,
	&dblock_attr_flush_requests.attr.attr,
	&dblock_attr_flush_bytes.attr.attr,
	&dblock_attr_discard_requests.attr.attr,
	&dblock_attr_discard_bytes.attr.attr,
	&dblock_attr_write_zeroes_requests.attr.attr,
	&dblock_attr_write_zeroes_bytes.attr.attr,
	&dblock_attr_error_count.attr.attr,
	&dblock_attr_timeout_count.attr.attr,
	&dblock_attr_stale_count.attr.attr,
	&dblock_attr_refused_count.attr.attr,
	&dblock_attr_replayed_count.attr.attr,
	&dblock_attr_batch_count.attr.attr,
	&dblock_attr_handed_total.attr.attr,
	&dev_attr_queue_waits.attr,
	NULL
};

static const struct attribute_group dblock_attribute_group = {
	.name	= "dblock",
	.attrs	= dblock_attributes,
};

const struct attribute_group *dblock_attribute_groups[] = {
	&dblock_attribute_group,
	NULL
};
