// time limit: 300 s
// 64 disks of one `dblock serve` that nobody uses: their server does not run, and each further one takes little memory; used
// again, each is there. By Workers that share them (memory) and by the event loop (a module of the user's).
import { assert, assertEquals } from "@std/assert";
import { figure, sh, slowed } from "./harness.ts";
import { Serving } from "./serving.ts";

const COUNT = 64;
const QUIET_MS = 10_000;
/** A thousandth of the time: V8 looks after its heap now and then. */
const RUNS_MS_MAX = QUIET_MS / 1000;
const FURTHER_BYTES_MAX = 2_000_000;
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

/** For how long all threads of a process have run, in ms. */
function ranMs(pid: number): number {
  const threads = [...Deno.readDirSync(`/proc/${pid}/task`)];
  const ns = threads.map(({ name }) =>
    Number(Deno.readTextFileSync(`/proc/${pid}/task/${name}/schedstat`).split(" ")[0])
  );
  return ns.reduce((sum, one) => sum + one, 0) / 1e6;
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

for (const [how, spec] of [["in memory", "memory:4MiB"], ["of a module", "/tmp/idle.js?size=1MiB"]] as const) {
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
      [`${COUNT} disks ${how}, used by nobody for 10 s: their server ran`]: [ran, "ms"],
      [`memory of each further disk ${how}`]: [furtherBytes / 1e6, "MB"],
    });
    for (let i = 0; i < COUNT; i += 9) {
      const path = `/dev/idle${i}`;
      await sh(`head -c 4096 /dev/urandom >/tmp/in; dd if=/tmp/in of=${path} bs=4k seek=3 oflag=direct status=none`);
      await sh(`dd if=${path} bs=4k skip=3 count=1 iflag=direct status=none | cmp - /tmp/in`);
    }
    assert(furtherBytes < FURTHER_BYTES_MAX, `each further disk takes ${furtherBytes} bytes`);
    assert(ran < RUNS_MS_MAX, `the server ran for ${ran} ms in ${QUIET_MS} ms`);
    all.child.kill("SIGTERM");
    assertEquals((await all.end(60_000)).code, 0);
  });
}
