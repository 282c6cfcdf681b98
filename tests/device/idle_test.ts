// time limit: 300 s
// 64 disks of one `dblock serve` that nobody uses: their server does not run, and each further one takes little memory; used
// again, each is there. By Workers that share them (memory) and by the event loop (a module of the user's).
import { assert, assertEquals } from "@std/assert";
import { figure, sh, slowed } from "./harness.ts";
import { Serving } from "./serving.ts";

const COUNT = 64;
const QUIET_MS = 10_000;
const WINDOWS = 6;
/** One a second for each disk would be 640. */
const WAKES_MAX = 5;
const KIB = 1024;

const MODULE = `
export default ({ sizeBytes }) => {
  const store = new Uint8Array(sizeBytes);
  return {
    sizeBytes,
    read: async (buffer, offset) => void buffer.set(store.subarray(offset, offset + buffer.length)),
    write: async (buffer, offset) => void store.set(buffer, offset),
  };
};`;

/** By thread: how often it has gone to sleep, and so has woken. No load of the machine changes that. */
function wakes(pid: number): Map<string, number> {
  const ofThreads = new Map<string, number>();
  for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
    const status = Deno.readTextFileSync(`/proc/${pid}/task/${name}/status`);
    ofThreads.set(name, Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)![1]));
  }
  return ofThreads;
}

function residentBytes(pid: number): number {
  return KIB * Number(/^VmRSS:\s+(\d+) kB$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]);
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function serve(spec: string, count: number): Promise<Serving> {
  const words = Array.from({ length: count }, (_, i) => [spec, "--name", `idle${i}`]).flat();
  const serving = await Serving.start(["serve", ...words]);
  await sh("udevadm settle || true");
  return serving;
}

// Measured: 0.1 and 0.1 MB. Those of a module have memory for requests, of which the kernel's first reads touch some.
for (
  const [how, spec, furtherBytesMax] of [
    ["in memory", "memory:4MiB", 5e5],
    ["of a module", "/tmp/idle.js?size=64KiB", 1e6],
  ] as const
) {
  Deno.test(`${COUNT} disks ${how} that nobody uses cost nothing but memory`, async () => {
    Deno.writeTextFileSync("/tmp/idle.js", MODULE);
    let oneBytes: number;
    {
      await using one = await serve(spec, 1);
      await sleep(slowed(1000));
      oneBytes = residentBytes(one.pid);
    }
    await using all = await serve(spec, COUNT);
    // V8 compiles, and collects twice what the start has left.
    let woken = Infinity;
    for (let i = 0; i < WINDOWS && woken > WAKES_MAX; i++) {
      const before = wakes(all.pid);
      await sleep(QUIET_MS);
      woken = 0;
      for (const [thread, count] of wakes(all.pid)) woken += count - (before.get(thread) ?? 0);
    }
    const furtherBytes = (residentBytes(all.pid) - oneBytes) / (COUNT - 1);
    figure({
      [`most wake-ups of the server of ${COUNT} disks ${how} in 10 s without a request`]: woken,
      [`most memory of each further disk ${how}`]: [furtherBytes / 1e6, "MB"],
    });
    for (let i = 0; i < COUNT; i += 9) {
      const path = `/dev/idle${i}`;
      await sh(`head -c 4096 /dev/urandom >/tmp/in; dd if=/tmp/in of=${path} bs=4k seek=3 oflag=direct status=none`);
      await sh(`dd if=${path} bs=4k skip=3 count=1 iflag=direct status=none | cmp - /tmp/in`);
    }
    assert(furtherBytes < furtherBytesMax, `each further disk takes ${furtherBytes} bytes`);
    assert(woken <= WAKES_MAX, `the server's threads woke ${woken} times in ${QUIET_MS} ms`);
    all.child.kill("SIGTERM");
    assertEquals((await all.end(60_000)).code, 0);
  });
}
