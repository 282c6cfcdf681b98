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
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "dblock.h"

#define DBLOCK_FAULT_IN_PAGES	16

/* New content of pages that others may have mapped; nothing to do on x86. */
static void dblock_flush_dcache(const struct bio_vec *run)
{
	unsigned int i;

	for (i = 0; i < DIV_ROUND_UP(run->bv_offset + run->bv_len, PAGE_SIZE);
	     i++)
		flush_dcache_page(run->bv_page + i);
}

/**
 * dblock_data_copy() - copy a request's data from or to user memory
 * @rq: a READ (data goes into its pages) or a WRITE (out of them)
 * @address: where the data of the whole request begins in user memory
 * @done: how many bytes were copied before; they are skipped
 *
 * Context: does not sleep. The caller owns @rq.
 * Return: how many bytes are copied now, @done included; less than the request
 * has if a page was not there.
 */
size_t dblock_data_copy(struct request *rq, u64 address, size_t done)
{
	bool to_user = rq_data_dir(rq) == WRITE;
	struct req_iterator iter;
	struct bio_vec run;
	size_t skip = done;

	if (!access_ok((void __user *)(uintptr_t)address, blk_rq_bytes(rq)))
		return done;
	pagefault_disable();
	rq_for_each_bvec(run, rq, iter) {
		void __user *user = (void __user *)(uintptr_t)(address + done);
		unsigned long left;
		size_t length;
		void *data;

		if (skip >= run.bv_len) {
			skip -= run.bv_len;
			continue;
		}
		data = page_address(run.bv_page) + run.bv_offset + skip;
		length = run.bv_len - skip;
		skip = 0;
		/* Without the checks of copy_to_user(), whose business is what
		 * a program may see of a kernel object: these bytes are a
		 * disk's content wherever they lie, be it in a slab (journal
		 * blocks of 1 KiB do) or across pages of several folios.
		 */
		if (to_user) {
			left = raw_copy_to_user(user, data, length);
		} else {
			left = raw_copy_from_user(data, user, length);
			dblock_flush_dcache(&run);
		}
		done += length - left;
		if (left)
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
 * are used; then the caller comes back.
 *
 * Context: sleeps as long as the fault takes; only a fatal signal ends that.
 * Return: 0, -EFAULT, or -EINTR.
 */
int dblock_data_fault_in(u64 address, size_t bytes, bool write)
{
	unsigned long at = address & PAGE_MASK;
	unsigned long pages = DIV_ROUND_UP(bytes + offset_in_page(address),
					   PAGE_SIZE);
	struct mm_struct *mm = current->mm;
	bool unlocked = false;
	unsigned int noio;
	unsigned int i;
	int err = 0;

	if (fatal_signal_pending(current) || mmap_read_lock_killable(mm))
		return -EINTR;
	/* This may be memory for our own disk's answer: no I/O to get it. */
	noio = memalloc_noio_save();
	pages = min_t(unsigned long, pages, DBLOCK_FAULT_IN_PAGES);
	for (i = 0; !err && i < pages; i++, at += PAGE_SIZE)
		err = fixup_user_fault(mm, at, write ? FAULT_FLAG_WRITE : 0,
				       &unlocked);
	memalloc_noio_restore(noio);
	mmap_read_unlock(mm);
	if (fatal_signal_pending(current))
		return -EINTR;
	/* A later page may be no memory: the first will do to go on. */
	return err && i == 1 ? -EFAULT : 0;
}
