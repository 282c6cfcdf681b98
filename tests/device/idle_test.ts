// time limit: 300 s
// 64 disks of one `dblock serve` that nobody uses: their server does not run, and each further one takes little memory; used
// again, each is there. By Workers that share them (memory) and by the event loop (a module of the user's).
import { assert, assertEquals } from "@std/assert";
import { figure, sh, slowed } from "./harness.ts";
import { Serving } from "./serving.ts";

const COUNT = 64;
const QUIET_MS = 10_000;
/** A hundredth of the time: V8 looks after its heap now and then. A wake-up a second for each disk would be more. */
const RUNS_MS_MAX = QUIET_MS / 100;
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

/** For how long a process has run, threads that have ended included, in ms; exact to 10. */
function ranMs(pid: number): number {
  const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).replace(/^.*\) /s, "").split(" ");
  return 10 * (Number(fields[11]) + Number(fields[12]));
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

// Measured: 0.2 and 2.3 MB. Those of a module have memory for requests, of which the kernel's first reads touch some.
for (
  const [how, spec, furtherBytesMax] of [
    ["in memory", "memory:4MiB", 1e6],
    ["of a module", "/tmp/idle.js?size=64KiB", 3e6],
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
    await sleep(slowed(3000)); // V8 compiles, and collects what the start has left
    const before = ranMs(all.pid);
    await sleep(QUIET_MS);
    const ran = ranMs(all.pid) - before;
    const furtherBytes = (residentBytes(all.pid) - oneBytes) / (COUNT - 1);
    figure({
      [`longest that the server of ${COUNT} disks ${how} ran in 10 s without a request`]: [ran, "ms"],
      [`most memory of each further disk ${how}`]: [furtherBytes / 1e6, "MB"],
    });
    for (let i = 0; i < COUNT; i += 9) {
      const path = `/dev/idle${i}`;
      await sh(`head -c 4096 /dev/urandom >/tmp/in; dd if=/tmp/in of=${path} bs=4k seek=3 oflag=direct status=none`);
      await sh(`dd if=${path} bs=4k skip=3 count=1 iflag=direct status=none | cmp - /tmp/in`);
    }
    assert(furtherBytes < furtherBytesMax, `each further disk takes ${furtherBytes} bytes`);
    assert(ran <= RUNS_MS_MAX, `the server ran for ${ran} ms in ${QUIET_MS} ms`);
    all.child.kill("SIGTERM");
    assertEquals((await all.end(60_000)).code, 0);
  });
}
