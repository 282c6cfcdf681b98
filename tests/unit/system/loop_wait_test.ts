// SPDX-License-Identifier: MIT
// The event loop itself waits for files: on real files (eventfds), with real system calls; and what happens where it cannot.
import { assert, assertEquals } from "@std/assert";
import { linux } from "../../../src/system/libc.ts";
import { libc } from "../../../src/system/library.ts";
import { LoopWait, type LoopWaitCalls } from "../../../src/system/loop_wait.ts";
import { Poller } from "../../../src/system/waiting.ts";

const EFD_NONBLOCK = 0o4000;
/** More waits than the kernel keeps the ends of. */
const MANY = 300;

const openCount = () => [...Deno.readDirSync("/proc/self/fd")].length;

/** What a thread is in the midst of: "232 0x5 …" is system call 232 with 5 as its first argument. */
function callsWithin(): string[] {
  return [...Deno.readDirSync("/proc/self/task")].map(({ name }) =>
    Deno.readTextFileSync(`/proc/self/task/${name}/syscall`)
  );
}

/** A poller with these calls, and a file of it. */
function waiting(calls: LoopWaitCalls = libc()) {
  const files = linux.openPollFiles();
  const here = LoopWait.open(calls, files.epoll);
  const poller = new Poller(libc(), files, { here });
  const fd = libc().eventfd(0, EFD_NONBLOCK);
  poller.watch(fd);
  return {
    here,
    /** Whether another thread waits for the set. */
    hasThread: () => callsWithin().some((call) => call.split(" ")[1] === `0x${files.epoll.toString(16)}`),
    wait: () => poller.wait(fd),
    fill: () => void libc().eventfd_write(fd, 1n),
    empty: () => void libc().eventfd_read(fd, new BigUint64Array(1)),
    [Symbol.dispose]: () => {
      poller.forget(fd);
      here?.[Symbol.dispose]();
      linux.closePollFiles(files);
      libc().close(fd);
    },
  };
}

/** A turn of the event loop and more. */
const later = () => new Promise((resolve) => setTimeout(resolve, 50));

Deno.test(`${MANY} waits happen on the event loop, and no thread has a part in them`, async () => {
  using one = waiting();
  assert(one.here !== undefined, "this Deno's event loop cannot be made to wait");
  for (let i = 0; i < MANY; i++) {
    let isOver = false;
    const wait = one.wait().then(() => isOver = true);
    if (i % 100 === 0) {
      await later();
      assertEquals([isOver, one.hasThread()], [false, false]);
    } else if (i % 2 === 0) await new Promise((resolve) => setImmediate(resolve));
    one.fill();
    await wait;
    one.empty();
  }
});

Deno.test("a file that is ready before it is waited for is found at once", async () => {
  using one = waiting();
  one.fill();
  for (let i = 0; i < 5; i++) await one.wait();
  one.empty();
  const wait = one.wait();
  await later();
  one.fill();
  await wait;
});

for (const name of ["io_setup", "eventfd"] as const) {
  Deno.test(`another thread waits where ${name} fails, and nothing is left open`, async () => {
    const before = openCount();
    {
      const failing = { io_setup: () => -1n, eventfd: () => -1 }[name];
      using one = waiting({ ...calls(), [name]: failing });
      assertEquals(one.here, undefined);
      const wait = one.wait();
      for (let i = 0; i < 200 && !one.hasThread(); i++) await later();
      assert(one.hasThread());
      one.fill();
      await wait;
    }
    for (let i = 0; i < 100 && openCount() > before; i++) await later();
    assertEquals(openCount(), before);
  });
}

Deno.test("another thread waits from the moment on at which the kernel refuses to watch the set", async () => {
  let isRefusing = false;
  using one = waiting({
    ...calls(),
    io_submit: (...words) => isRefusing ? -1n : libc().io_submit(...words),
  });
  for (let i = 0; i < 4; i++) {
    isRefusing = i >= 2;
    const wait = one.wait();
    await later();
    one.fill();
    await wait;
    one.empty();
  }
});

/** libc's functions are made when they are first used, one by one. */
function calls(): LoopWaitCalls {
  const { eventfd, close, epoll_waitHere, io_setup, io_destroy, io_submit, io_getevents } = libc();
  return { eventfd, close, epoll_waitHere, io_setup, io_destroy, io_submit, io_getevents };
}
