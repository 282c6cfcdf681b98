/** The threads of a server, as the kernel sees them. */

/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, as PR_SET_IO_FLUSHER sets them. */
const flusherFlags = 0x00180000;

/** Whether a thread is an I/O flusher, whose allocations never wait for a disk. */
export function isIoFlusher(pid: number, tid: number): boolean {
  const stat = Deno.readTextFileSync(`/proc/${pid}/task/${tid}/stat`);
  const flags = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[6]);
  return (flags & flusherFlags) === flusherFlags;
}

/** For each thread of a process: whether it is an I/O flusher. */
export function ioFlushers(pid: number): boolean[] {
  return [...Deno.readDirSync(`/proc/${pid}/task`)].map(({ name }) => isIoFlusher(pid, Number(name)));
}
