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
	struct bio_vec segment;
	size_t skip = done;

	if (!access_ok((void __user *)(uintptr_t)address, blk_rq_bytes(rq)))
		return done;
	pagefault_disable();
	rq_for_each_segment(segment, rq, iter) {
		void __user *user = (void __user *)(uintptr_t)(address + done);
		unsigned long left;
		size_t length;
		void *pages;

		if (skip >= segment.bv_len) {
			skip -= segment.bv_len;
			continue;
		}
		pages = page_address(segment.bv_page) + segment.bv_offset +
			skip;
		length = segment.bv_len - skip;
		skip = 0;
		if (to_user) {
			left = __copy_to_user_inatomic(user, pages, length);
		} else {
			left = __copy_from_user_inatomic(pages, user, length);
			flush_dcache_page(segment.bv_page);
		}
		done += length - left;
		if (left)
			break;
	}
	pagefault_enable();
	return done;
}

/**
 * dblock_data_fault_in() - make user memory present, for the next copy
 * @address: where it begins
 * @bytes: how much will be copied; only the beginning of it is looked at
 * @write: whether it will be written
 *
 * Nothing is written to the memory. The pages may be gone again before they
 * are used; then the caller comes back.
 *
 * Context: sleeps as long as the fault takes; only a fatal signal ends that.
 * Return: 0, -EFAULT, or -EINTR.
 */
int dblock_data_fault_in(u64 address, size_t bytes, bool write)
{
	struct page *pages[DBLOCK_FAULT_IN_PAGES];
	unsigned long start = address & PAGE_MASK;
	unsigned long wanted = DIV_ROUND_UP(bytes + offset_in_page(address),
					    PAGE_SIZE);
	unsigned int noio;
	int got;
	int i;

	if (fatal_signal_pending(current))
		return -EINTR;
	/* This may be memory for our own disk's answer: no I/O to get it. */
	noio = memalloc_noio_save();
	got = get_user_pages_fast(start, min_t(unsigned long, wanted,
					       DBLOCK_FAULT_IN_PAGES),
				  write ? FOLL_WRITE : 0, pages);
	memalloc_noio_restore(noio);
	for (i = 0; i < got; i++)
		put_page(pages[i]);
	if (got > 0)
		return 0;
	if (got == -EINTR || fatal_signal_pending(current))
		return -EINTR;
	return -EFAULT;
}
