// In each of the three ways to serve, the thread that serves is an I/O flusher; where that is refused, serve() says so and
// goes on; and a program that begins with becomeIoFlusher() has no thread that is none. Hard case E2; ramdisk_memory_test.ts
// has the executable, memory_pressure_test.ts what it is good for.
import { assert, assertEquals } from "@std/assert";
import { waitFor } from "./harness.ts";
import { Program } from "./program.ts";
import { destroyDevice, threadsInDblock } from "./server.ts";
import { ioFlushers, isIoFlusher } from "./threads.ts";

const name = "flusher0";
const ways = ["event loop", "module", "mapped"];

/** Runs the program, and `look` while it serves its queues. Returns what it logged. */
async function whileServed(
  { way, prefix = [], first = [] }: { way: string; prefix?: readonly string[]; first?: readonly string[] },
  look: (pid: number, queueCount: number) => void | Promise<void>,
): Promise<string> {
  await using program = new Program("io_flusher_main.ts", [name, way, ...first], { prefix });
  const queueCount = parseInt(await program.line());
  await look(program.pid, queueCount);
  assertEquals(await destroyDevice(name), 0);
  const { code, stderr } = await program.end();
  assertEquals(code, 0, stderr);
  return stderr;
}

/** The threads that serve: the program's main thread, or its Workers, which wait in EXCHANGE. */
async function servingThreads(way: string, pid: number, queueCount: number): Promise<number[]> {
  if (way === "event loop") return [pid];
  await waitFor("every Worker waits in EXCHANGE", () => threadsInDblock(pid).length === queueCount);
  return threadsInDblock(pid);
}

for (const way of ways) {
  Deno.test(`the thread that serves is an I/O flusher: ${way}`, async () => {
    const logged = await whileServed({ way }, async (pid, queueCount) => {
      const threads = await servingThreads(way, pid, queueCount);
      assertEquals(threads.map((tid) => isIoFlusher(pid, tid)), Array(queueCount).fill(true));
      // V8's are not, so the flags do tell the difference.
      assert(ioFlushers(pid).includes(false));
    });
    assertEquals(logged, "");
  });
}

// What Workers say is said in one place, whatever they serve.
for (const way of ["event loop", "mapped"]) {
  Deno.test(`where PR_SET_IO_FLUSHER is refused, serve() says so once and serves: ${way}`, async () => {
    const prefix = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"];
    const logged = await whileServed({ way, prefix }, async (pid, queueCount) => {
      await servingThreads(way, pid, queueCount);
      assertEquals(ioFlushers(pid).includes(true), false);
    });
    const isSaid = /^\/dev\/flusher0: PR_SET_IO_FLUSHER is refused .*\n$/.test(logged);
    assertEquals(isSaid, true, logged);
  });
}

Deno.test("every thread is an I/O flusher in a program that begins with becomeIoFlusher()", async () => {
  const logged = await whileServed({ way: "event loop", first: ["first"] }, (pid) => {
    assertEquals(ioFlushers(pid).includes(false), false);
  });
  assertEquals(logged, "");
});
