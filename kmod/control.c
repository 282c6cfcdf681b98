// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/dblockctl: makes, removes and lists devices. Everything a caller may get
 * wrong in CREATE is checked here, before anything is made.
 */
#include <linux/capability.h>
#include <linux/ctype.h>
#include <linux/log2.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "dblock.h"

#define DBLOCK_FEATURES							\
	(DBLOCK_FEATURE_READ_ONLY | DBLOCK_FEATURE_WRITE_CACHE |	\
	 DBLOCK_FEATURE_FUA | DBLOCK_FEATURE_DISCARD |			\
	 DBLOCK_FEATURE_WRITE_ZEROES | DBLOCK_FEATURE_ROTATIONAL |	\
	 DBLOCK_FEATURE_DIRECT | DBLOCK_FEATURE_NO_PART_SCAN |		\
	 DBLOCK_FEATURE_TIMEOUT_IS_DEATH |				\
	 DBLOCK_FEATURE_CACHE_SURVIVES | DBLOCK_FEATURE_ON_DEATH |	\
	 DBLOCK_FEATURE_RESIZE | DBLOCK_FEATURE_TAKE_OVER |		\
	 DBLOCK_FEATURE_COMMIT_FLUSHED | DBLOCK_FEATURE_EVENTFD |	\
	 DBLOCK_FEATURE_LINGER | DBLOCK_FEATURE_COMMIT_LEAVES |		\
	 DBLOCK_FEATURE_ATTACH_FILE)

#define DBLOCK_DEVICE_FLAGS						\
	(DBLOCK_DEVICE_READ_ONLY | DBLOCK_DEVICE_WRITE_CACHE |		\
	 DBLOCK_DEVICE_FUA | DBLOCK_DEVICE_DISCARD |			\
	 DBLOCK_DEVICE_WRITE_ZEROES | DBLOCK_DEVICE_ROTATIONAL |	\
	 DBLOCK_DEVICE_DIRECT | DBLOCK_DEVICE_NO_PART_SCAN |		\
	 DBLOCK_DEVICE_TIMEOUT_IS_DEATH | DBLOCK_DEVICE_CACHE_SURVIVES)

/* The layout is a promise: it must not change by accident, on any machine. */
static_assert(sizeof(struct dblock_version) == 56);
static_assert(sizeof(struct dblock_create) == 176);
static_assert(offsetof(struct dblock_create, id) == 40);
static_assert(offsetof(struct dblock_create, reserved) == 104);
static_assert(sizeof(struct dblock_destroy) == 80);
static_assert(offsetof(struct dblock_destroy, id) == 40);
static_assert(sizeof(struct dblock_info) == 376);
static_assert(offsetof(struct dblock_info, id) == 40);
static_assert(offsetof(struct dblock_info, requests) == 144);
static_assert(offsetof(struct dblock_info, leave_count) == 280);
static_assert(offsetof(struct dblock_info, passed_count) == 288);
static_assert(offsetof(struct dblock_info, reserved) == 296);
static_assert(sizeof(struct dblock_list) == 56);
static_assert(sizeof(struct dblock_ring_header) == 64);
static_assert(offsetof(struct dblock_ring_header, reserved) == 32);
static_assert(sizeof(struct dblock_request) == 32);
static_assert(offsetof(struct dblock_request, slot) == 16);
static_assert(sizeof(struct dblock_completion) == 32);
static_assert(offsetof(struct dblock_completion, slot) == 16);
static_assert(sizeof(struct dblock_attach) == 88);
static_assert(offsetof(struct dblock_attach, queue) == 48);
static_assert(sizeof(struct dblock_start) == 48);
static_assert(sizeof(struct dblock_commit) == 40);
static_assert(sizeof(struct dblock_resize) == 56);

static unsigned int dblock_queue_count_max(void)
{
	/* blk-mq makes no more queues than there are CPUs. */
	return min_t(unsigned int, nr_cpu_ids, DBLOCK_QUEUE_COUNT_MAX);
}

static bool dblock_name_valid(const char name[DBLOCK_NAME_BYTES])
{
	size_t length = strnlen(name, DBLOCK_NAME_BYTES);
	size_t i;

	if (!length || length == DBLOCK_NAME_BYTES || !isalnum(name[0]))
		return false;
	for (i = 0; i < length; i++)
		if (!isascii(name[i]) ||
		    !(isalnum(name[i]) || strchr("._-", name[i])))
			return false;
	/* What follows the name is the caller's padding: zero, too. */
	if (memchr_inv(name + length, 0, DBLOCK_NAME_BYTES - length))
		return false;
	return length < 4 || strcmp(name + length - 4, "-ctl");
}

static bool dblock_power_of_two(u32 value, u32 min, u32 max)
{
	return is_power_of_2(value) && value >= min && value <= max;
}

/* A maximum of DISCARD or WRITE_ZEROES: only there when the flag is. */
static bool dblock_range_valid(u32 max_bytes, bool wanted, u32 block_bytes)
{
	if (!wanted)
		return !max_bytes;
	return max_bytes && max_bytes <= DBLOCK_RANGE_BYTES_MAX &&
	       !(max_bytes & (block_bytes - 1));
}

static bool dblock_size_valid(u64 size_bytes, u32 block_bytes)
{
	return size_bytes && size_bytes <= DBLOCK_SIZE_BYTES_MAX &&
	       !(size_bytes & (block_bytes - 1));
}

static int dblock_create_check(const struct dblock_create *p)
{
	u32 block_bytes = p->logical_block_bytes;
	bool discard = p->flags & DBLOCK_DEVICE_DISCARD;

	if (p->flags & ~DBLOCK_DEVICE_FLAGS)
		return -EOPNOTSUPP;
	if ((p->flags & (DBLOCK_DEVICE_FUA | DBLOCK_DEVICE_CACHE_SURVIVES)) &&
	    !(p->flags & DBLOCK_DEVICE_WRITE_CACHE))
		return -EINVAL;
	if ((p->flags & DBLOCK_DEVICE_TIMEOUT_IS_DEATH) && !p->timeout_ms)
		return -EINVAL;
	if (!dblock_name_valid(p->name) ||
	    !dblock_is_zero(p->reserved, sizeof(p->reserved)))
		return -EINVAL;
	if (!dblock_power_of_two(block_bytes, DBLOCK_BLOCK_BYTES_MIN,
				 DBLOCK_BLOCK_BYTES_MAX) ||
	    !dblock_power_of_two(p->physical_block_bytes, block_bytes, SZ_1M) ||
	    !dblock_size_valid(p->size_bytes, block_bytes))
		return -EINVAL;
	if (p->io_opt_bytes > DBLOCK_IO_BYTES_MAX ||
	    p->io_opt_bytes & (p->physical_block_bytes - 1))
		return -EINVAL;
	if (p->max_io_bytes < max_t(u32, DBLOCK_IO_BYTES_MIN, PAGE_SIZE) ||
	    p->max_io_bytes > DBLOCK_IO_BYTES_MAX || p->max_io_bytes % SZ_4K)
		return -EINVAL;
	if (!p->queue_count || p->queue_count > DBLOCK_QUEUE_COUNT_MAX ||
	    !p->queue_depth || p->queue_depth > DBLOCK_QUEUE_DEPTH_MAX)
		return -EINVAL;
	if (p->timeout_ms && (p->timeout_ms < DBLOCK_TIMEOUT_MS_MIN ||
			      p->timeout_ms > DBLOCK_TIMEOUT_MS_MAX))
		return -EINVAL;
	if (p->on_death > DBLOCK_ON_DEATH_HOLD)
		return -EINVAL;
	if (discard ? !dblock_power_of_two(p->discard_granularity_bytes,
					   block_bytes, SZ_1G) :
		      p->discard_granularity_bytes)
		return -EINVAL;
	if (!dblock_range_valid(p->max_discard_bytes, discard, block_bytes) ||
	    !dblock_range_valid(p->max_write_zeroes_bytes,
				p->flags & DBLOCK_DEVICE_WRITE_ZEROES,
				block_bytes))
		return -EINVAL;
	/* The block layer does not split what is smaller than a grain. */
	if (discard && p->max_discard_bytes < max(p->discard_granularity_bytes,
						  p->physical_block_bytes))
		return -EINVAL;
	return 0;
}

/* With a reference in *@created, if it is made. */
static int dblock_create(struct dblock_create *p,
			 struct dblock_device **created)
{
	struct dblock_device *device;
	int err = dblock_create_check(p);

	if (err)
		return err;
	p->queue_count = min(p->queue_count, dblock_queue_count_max());
	device = dblock_device_create(p);
	if (IS_ERR(device))
		return PTR_ERR(device);
	p->id = device->params.id;
	p->minor = device->params.minor;
	*created = device;
	return 0;
}

static int dblock_destroy(struct dblock_destroy *p)
{
	struct dblock_device *device;
	int err;

	p->open_count = 0;
	if (p->flags & ~DBLOCK_DESTROY_FORCE)
		return -EOPNOTSUPP;
	if (!dblock_is_zero(p->reserved, sizeof(p->reserved)) ||
	    !dblock_name_valid(p->name))
		return -EINVAL;
	device = dblock_device_by_name(p->name);
	if (!device)
		return -ENOENT;
	err = -ESTALE;
	if (dblock_device_is(device, p->id))
		err = dblock_device_destroy(device,
					    p->flags & DBLOCK_DESTROY_FORCE,
					    &p->open_count);
	dblock_device_put(device);
	return err;
}

static int dblock_info_by_name(struct dblock_info *p)
{
	struct dblock_device *device;
	int err;

	if (!dblock_name_valid(p->name))
		return -EINVAL;
	device = dblock_device_by_name(p->name);
	if (!device)
		return -ENOENT;
	err = dblock_device_info_checked(device, p);
	dblock_device_put(device);
	return err;
}

static int dblock_list(struct dblock_list *p)
{
	struct dblock_info __user *infos = u64_to_user_ptr(p->infos_address);
	struct dblock_device *device;
	struct dblock_info info;
	unsigned int minor;
	int err = 0;

	if (!dblock_is_zero(p->reserved, sizeof(p->reserved)))
		return -EINVAL;
	p->count = 0;
	p->total = 0;
	for (minor = 0; (device = dblock_device_next(&minor)); minor++) {
		p->total++;
		if (p->count < p->capacity) {
			dblock_device_info(device, &info);
			if (copy_to_user(&infos[p->count], &info, sizeof(info)))
				err = -EFAULT;
			else
				p->count++;
		}
		dblock_device_put(device);
		if (err)
			break;
	}
	return err;
}

static int dblock_version(struct dblock_version *p)
{
	*p = (struct dblock_version) {
		.abi_version = DBLOCK_ABI_VERSION,
		.features = DBLOCK_FEATURES,
		.queue_count_max = dblock_queue_count_max(),
		.device_count_max = dblock_device_count_max(),
	};
	return 0;
}

/* Copies the argument in, does what it asks for, copies it out with @error,
 * which is the first field of every one.
 */
static long dblock_control_ioctl(struct file *file, unsigned int command,
				 unsigned long argument)
{
	union {
		u32 error;
		struct dblock_version version;
		struct dblock_create create;
		struct dblock_destroy destroy;
		struct dblock_info info;
		struct dblock_list list;
	} p;
	void __user *user = (void __user *)argument;
	struct dblock_device *created = NULL;
	size_t size = _IOC_SIZE(command);
	unsigned int open_count;
	int err;

	switch (command) {
	case DBLOCK_IOC_VERSION:
	case DBLOCK_IOC_CREATE:
	case DBLOCK_IOC_DESTROY:
	case DBLOCK_IOC_LIST:
	case DBLOCK_IOC_INFO:
		break;
	default:
		return -ENOTTY;
	}
	memset(&p, 0, sizeof(p));
	if (_IOC_DIR(command) & _IOC_WRITE && copy_from_user(&p, user, size))
		return -EFAULT;
	if (command == DBLOCK_IOC_VERSION)
		err = dblock_version(&p.version);
	else if (!capable(CAP_SYS_ADMIN))
		err = -EPERM;
	else if (command == DBLOCK_IOC_CREATE)
		err = dblock_create(&p.create, &created);
	else if (command == DBLOCK_IOC_DESTROY)
		err = dblock_destroy(&p.destroy);
	else if (command == DBLOCK_IOC_LIST)
		err = dblock_list(&p.list);
	else
		err = dblock_info_by_name(&p.info);
	p.error = -err;
	if (copy_to_user(user, &p, size)) {
		err = -EFAULT;
		/* Nobody would know that it is there. */
		if (created)
			dblock_device_destroy(created, true, &open_count);
	}
	if (created)
		dblock_device_put(created);
	return err;
}

static const struct file_operations dblock_control_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= dblock_control_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

static struct miscdevice dblock_control = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dblockctl",
	.fops	= &dblock_control_fops,
	.mode	= 0600,
};

int dblock_control_init(void)
{
	return misc_register(&dblock_control);
}

void dblock_control_exit(void)
{
	misc_deregister(&dblock_control);
}
