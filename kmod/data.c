// SPDX-License-Identifier: GPL-2.0
/*
 * Copies between a request's pages and a server's memory. Which request, which
 * direction and how much comes from the request alone; the address is the
 * server's word and may be anything.
 *
 * Copying never sleeps: a page that is not there ends the copy early. The
 * caller lets go of the request, faults the pages in, takes the request again
 * if it is still there, and goes on. So a server whose memory never answers
 * (userfaultfd, a dead network file) stalls nothing but its own call.
 */
#include <linux/highmem.h>
#include <linux/kasan-checks.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "dblock.h"

#define DBLOCK_FAULT_IN_PAGES	16
/* One copy ends after so much, for who else wants the processor, and for who
 * kills the server: some 100 us.
 */
#define DBLOCK_COPY_BYTES	SZ_1M
/* The pause before memory is asked for again. With DBLOCK_FAULT_ROUNDS_MAX of
 * them in a row there is none for ten seconds.
 */
#define DBLOCK_NO_MEMORY_MS	10

/* Whether a server can have memory there; on a 32-bit machine an address has half
 * of its bits.
 */
bool dblock_user_range(u64 address, u64 bytes)
{
	return address == (unsigned long)address &&
	       bytes == (unsigned long)bytes &&
	       access_ok(u64_to_user_ptr(address), bytes);
}

/* Without the checks of copy_to_user(), whose business is what a program may see
 * of a kernel object: these bytes are a disk's content wherever they lie, be it
 * in a slab (journal blocks of 1 KiB do) or across pages of several folios. What
 * else copy_to_user() does is done here. KASAN is told; KCSAN is not: programs
 * may write to a page that is on its way to the disk.
 */
static unsigned long dblock_copy_bytes(void *data, void __user *user,
				       size_t length, bool to_user)
{
	if (to_user) {
		kasan_check_read(data, length);
		return raw_copy_to_user(user, data, length);
	}
	kasan_check_write(data, length);
	return raw_copy_from_user(data, user, length);
}

/* Copies @length bytes at @offset of @run, which lies in one piece in memory.
 * Where the kernel does not see all memory at once that is done page by page.
 *
 * Return: how many bytes are copied.
 */
static size_t dblock_copy_run(const struct bio_vec *run, size_t offset,
			      size_t length, void __user *user, bool to_user)
{
	size_t copied = 0;

	while (copied < length) {
		size_t at = run->bv_offset + offset + copied;
		struct page *page = run->bv_page + (at >> PAGE_SHIFT);
		size_t part = length - copied;
		unsigned long left;
		unsigned int i;
		void *mapped;

		if (IS_ENABLED(CONFIG_HIGHMEM))
			part = min_t(size_t, part,
				     PAGE_SIZE - offset_in_page(at));
		mapped = dblock_map_page(page);
		left = dblock_copy_bytes(mapped + offset_in_page(at),
					 user + copied, part, to_user);
		dblock_unmap_page(mapped);
		/* New content of pages that others may have mapped; nothing to
		 * do on x86.
		 */
		for (i = 0; !to_user && i << PAGE_SHIFT <
			    offset_in_page(at) + part; i++)
			flush_dcache_page(page + i);
		copied += part - left;
		if (left)
			break;
	}
	return copied;
}

/**
 * dblock_data_copy() - copy a request's data from or to user memory
 * @rq: a READ (data goes into its pages) or a WRITE (out of them)
 * @address: where the data of the whole request begins in user memory
 * @done: how many bytes were copied before; they are skipped
 *
 * Context: does not sleep. The caller owns @rq.
 * Return: how many bytes are copied now, @done included; less than the request
 * has if a page was not there, or after DBLOCK_COPY_BYTES.
 */
size_t dblock_data_copy(struct request *rq, u64 address, size_t done)
{
	bool to_user = rq_data_dir(rq) == WRITE;
	size_t budget = DBLOCK_COPY_BYTES;
	struct req_iterator iter;
	struct bio_vec run;
	size_t skip = done;

	if (!dblock_user_range(address, blk_rq_bytes(rq)))
		return done;
	/* The check above must not be speculated past. */
	barrier_nospec();
	pagefault_disable();
	rq_for_each_bvec(run, rq, iter) {
		void __user *user = u64_to_user_ptr(address + done);
		size_t length, copied;

		if (skip >= run.bv_len) {
			skip -= run.bv_len;
			continue;
		}
		length = min_t(size_t, run.bv_len - skip, budget);
		copied = dblock_copy_run(&run, skip, length, user, to_user);
		skip = 0;
		done += copied;
		budget -= copied;
		if (copied < length || !budget)
			break;
	}
	pagefault_enable();
	return done;
}

/**
 * dblock_data_fault_in() - make user memory usable, for the next copy
 * @address: where it begins
 * @bytes: how much will be copied; only the beginning of it is looked at
 * @write: whether it will be written
 *
 * As if the CPU had met each page: one that is there may still have to be marked
 * as used, or written to, before an access works (NUMA balancing takes
 * permissions away to see who comes; some CPUs leave those marks to us). So
 * get_user_pages() is not enough.
 *
 * Nothing is written to the memory. The pages may be gone again before they
 * are used; then the caller comes back. So does it when there is no memory for
 * them: that passes, as others give some back, or it is the end of a process,
 * perhaps of this one.
 *
 * Context: sleeps as long as the fault takes; only a fatal signal ends that.
 * Others that want the CPU get it. The caller is in a memalloc scope.
 * Return: 0, -EFAULT, or -EINTR.
 */
int dblock_data_fault_in(u64 address, size_t bytes, bool write)
{
	unsigned long at = address & PAGE_MASK;
	unsigned long pages = DIV_ROUND_UP(bytes + offset_in_page(address),
					   PAGE_SIZE);
	struct mm_struct *mm = current->mm;
	bool unlocked = false;
	unsigned int i;
	int err = 0;

	if (address != (unsigned long)address)
		return -EFAULT;
	cond_resched();
	if (fatal_signal_pending(current) || mmap_read_lock_killable(mm))
		return -EINTR;
	pages = min_t(unsigned long, pages, DBLOCK_FAULT_IN_PAGES);
	for (i = 0; !err && i < pages; i++, at += PAGE_SIZE)
		err = fixup_user_fault(mm, at, write ? FAULT_FLAG_WRITE : 0,
				       &unlocked);
	mmap_read_unlock(mm);
	/* A later page may be no memory: the first will do to go on. */
	if (i > 1)
		err = 0;
	if (err == -ENOMEM)
		schedule_timeout_killable(msecs_to_jiffies(DBLOCK_NO_MEMORY_MS));
	if (fatal_signal_pending(current))
		return -EINTR;
	return err && err != -ENOMEM ? -EFAULT : 0;
}
