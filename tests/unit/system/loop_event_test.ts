// SPDX-License-Identifier: MIT
// The event loop itself waits for an eventfd, with real system calls; and what happens where it cannot.
import { assert, assertEquals } from "@std/assert";
import { linux, openEvent } from "../../../src/system/libc.ts";
import { libc } from "../../../src/system/library.ts";
import { LoopEvent } from "../../../src/system/loop_event.ts";

const MANY = 300;

const openCount = () => [...Deno.readDirSync("/proc/self/fd")].length;
/** A turn of the event loop and more. */
const later = () => new Promise((resolve) => setTimeout(resolve, 50));
const ring = (fd: number) => void libc().eventfd_write(fd, 1n);

/** The files that the event loop closes are closed at the end of a turn. */
async function assertOpenCount(wanted: number): Promise<void> {
  for (let i = 0; i < 200 && openCount() !== wanted; i++) await later();
  assertEquals(openCount(), wanted);
}

function open(): LoopEvent {
  const event = LoopEvent.open(libc());
  assert(event !== undefined, "this Deno's event loop cannot be made to wait");
  return event;
}

/** Threads that are in a system call with this file as its first argument. */
function threadsIn(fd: number): number {
  const calls = [...Deno.readDirSync("/proc/self/task")].map(({ name }) =>
    Deno.readTextFileSync(`/proc/self/task/${name}/syscall`)
  );
  return calls.filter((call) => call.split(" ")[1] === `0x${fd.toString(16)}`).length;
}

Deno.test(`${MANY} waits happen on the event loop, and no thread has a part in them`, async () => {
  using event = open();
  for (let i = 0; i < MANY; i++) {
    let isOver = false;
    const wait = event.wait().then(() => isOver = true);
    if (i % 100 === 0) {
      await later();
      assertEquals([isOver, threadsIn(event.fd)], [false, 0]);
    } else if (i % 2 === 0) await new Promise((resolve) => setImmediate(resolve));
    ring(event.fd);
    await wait;
  }
});

Deno.test("what is written in the turn of the wait is found, twice is once, and what nobody waited for is forgotten", async () => {
  using event = open();
  ring(event.fd);
  ring(event.fd);
  await event.wait();
  ring(event.fd);
  await later();
  let isOver = false;
  const wait = event.wait().then(() => isOver = true);
  await later();
  assertEquals(isOver, false);
  ring(event.fd);
  await wait;
});

Deno.test("disposing ends a wait, and leaves nothing open; so does a wait after it", async () => {
  await later();
  const before = openCount();
  const event = open();
  assertEquals(openCount(), before + 1);
  const wait = event.wait();
  event[Symbol.dispose]();
  event[Symbol.dispose]();
  await wait;
  await event.wait();
  await assertOpenCount(before);
});

Deno.test("without a file there is no event, and nothing is left open", async () => {
  const before = openCount();
  assertEquals(LoopEvent.open({ eventfd: () => -1, close: (fd) => libc().close(fd) }), undefined);
  await assertOpenCount(before);
});

Deno.test("where the event loop cannot wait, another thread does", async () => {
  linux.closePollFiles(linux.openPollFiles()); // the bell, which stays open
  await later();
  const before = openCount();
  const { openEvent: own } = linux;
  linux.openEvent = () => undefined;
  try {
    using event = openEvent("Cannot test");
    for (let i = 0; i < 3; i++) {
      const wait = event.wait();
      await later();
      ring(event.fd);
      await wait;
    }
  } finally {
    linux.openEvent = own;
  }
  await assertOpenCount(before);
});

Deno.test("an event that nobody waits for does not keep a program alive, and one that is waited for does", async () => {
  const module = new URL("../../../src/system/libc.ts", import.meta.url).href;
  const run = async (more: string) => {
    const code = `import { linux } from ${JSON.stringify(module)}; const event = linux.openEvent(); ${more}`;
    const command = new Deno.Command(Deno.execPath(), { args: ["eval", "--no-check", code], stdout: "piped" });
    const { success, stdout } = await command.output();
    assert(success);
    return new TextDecoder().decode(stdout);
  };
  assertEquals(await run("console.log('over')"), "over\n");
  assertEquals(
    await run("setTimeout(() => event[Symbol.dispose](), 200); await event.wait(); console.log('woken')"),
    "woken\n",
  );
});
