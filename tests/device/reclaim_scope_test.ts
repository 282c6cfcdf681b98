// While a server's call needs memory, for the server's ring or for its buffer, no file system is asked to give some back: the
// file system may be on this very disk, and wait for this server. The kernel's own record of its allocations says so. Not
// covered: that reclaim would really have waited, which takes a machine short of memory (memory_pressure).
import { assert, assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { exists, requires, sh, waitFor } from "./harness.ts";
import { NR, syscall } from "./syscall.ts";

const MADV_DONTNEED = 4;
const tracing = "/sys/kernel/tracing";
const [major] = Deno.osRelease().split(".").map(Number) as [number];

/** Whether this kernel can be asked. Before 5.13 the record has the flags as asked for, not as used. */
function requiresTracing(): boolean {
  const events = ["kmem/mm_page_alloc", "raw_syscalls/sys_enter"];
  return requires(
    "a record of allocations and system calls",
    events.every((event) => exists(`${tracing}/events/${event}`)),
  ) &&
    requires("Linux 6", major >= 6);
}

const set = (file: string, text: string) => Deno.writeTextFileSync(`${tracing}/${file}`, text);

/** What the kernel allocated for this thread's ioctls while `action` ran: the flags of each allocation. */
function allocationsOf(action: () => void): string[] {
  const events = ["kmem/mm_page_alloc", "raw_syscalls/sys_enter", "raw_syscalls/sys_exit"];
  const thread = Deno.readLinkSync("/proc/thread-self").split("/").at(-1);
  set("trace", "");
  for (const event of events) {
    set(`events/${event}/filter`, `common_pid == ${thread}`);
    set(`events/${event}/enable`, "1");
  }
  try {
    action();
  } finally {
    for (const event of events) {
      set(`events/${event}/enable`, "0");
      set(`events/${event}/filter`, "0");
    }
  }
  const flags: string[] = [];
  let inside = false;
  for (const line of Deno.readTextFileSync(`${tracing}/trace`).split("\n")) {
    const call = /sys_(enter|exit): NR (\d+)/.exec(line);
    if (call !== null) inside = call[1] === "enter" && Number(call[2]) === NR.ioctl;
    const allocation = /mm_page_alloc: .*gfp_flags=(\S+)/.exec(line);
    if (inside && allocation !== null) flags.push(allocation[1]!);
  }
  return flags;
}

Deno.test("memory for a server's ring and buffer is sought without file systems", {
  ignore: !requiresTracing(),
}, async () => {
  await using disk = await TestDisk.start({ name: "scope0" });
  await disk.pause();
  const queue = disk.queues[0]!;
  const write = sh(`dd if=/dev/zero of=${disk.path} bs=64k count=1 oflag=direct`, { check: false });
  await waitFor("the write waits", () => disk.info().waiting_count === 1);
  for (const { address, bytes } of [queue.ring, queue.buffer!]) {
    assertEquals(syscall(NR.madvise, address, bytes.length, MADV_DONTNEED), 0);
  }
  let result = 0;
  const flags = allocationsOf(() => result = queue.exchangeOnly());
  assertEquals(result, 1);
  // The ring, and the pages of the write or one large one.
  assert(flags.length >= 2, `${flags.length} allocations were seen`);
  const unwanted = flags.filter((flag) => /GFP_(HIGHUSER|USER|KERNEL|TRANSHUGE)|__GFP_FS/.test(flag));
  assertEquals(unwanted, []);
  const { requests } = queue.read(result, 0);
  assertEquals(queue.commit(requests.map((request) => disk.fulfil(request))).refusedCount, 0);
  assertEquals((await write).status, 0);
  disk.serve();
  await disk.assertIdle();
});
