// 100,000 seeded calls on control and server nodes, from two processes of two threads each, do the kernel no harm.
// Not covered: addresses that come from the seed alone, as the kernel would write over the fuzzer itself; and what the
// calls return, but for a check that each ioctl succeeded often enough to get past its own checks.
// time limit: 180 s
import { assert } from "@std/assert";
import type { Tally } from "./fuzz_worker.ts";
import { figure, scaled, sh, slowed } from "./harness.ts";
import { Control } from "./server.ts";

const [processes, threads, callsPerThread] = [2, 2, scaled(Number(Deno.env.get("FUZZ_CALLS") ?? 25_000))];
const limitMs = 150_000 * Math.max(1, callsPerThread / 25_000);
const names = ["fuzz0", "fuzz1", "fuzz2", "fuzz-3.x"];
const reapMs = slowed(500);
/** What the seed decides cannot be told apart from what it does not, so only this is asked of every run. */
const wanted = ["VERSION", "CREATE", "DESTROY", "LIST", "INFO", "ATTACH", "START", "EXCHANGE", "COMMIT", "RESIZE"];

/** Frees the threads that wait for a server which none of them is. */
async function reap(signal: AbortSignal): Promise<void> {
  using control = new Control();
  const removeAll = () => Promise.all(control.list().map(({ name }) => control.destroy(name, { force: true })));
  while (!signal.aborted) {
    await removeAll();
    await new Promise((resolve) => setTimeout(resolve, reapMs));
  }
  // With names that nobody thought of, too.
  await removeAll();
}

/** Reads and writes the disks, whoever serves them, if anybody does. */
const traffic = `
  until [ -e /tmp/fuzzed ]; do
    for name in ${names.join(" ")}; do
      [ -b /dev/$name ] || continue
      timeout 2 dd if=/dev/$name of=/dev/null bs=4k count=4 iflag=direct,nonblock
      timeout 2 dd if=/dev/zero of=/dev/$name bs=8k count=4 conv=nocreat oflag=direct,nonblock
    done
    sleep 0.05
  done 2>/dev/null; rm /tmp/fuzzed`;

Deno.test(`${processes * threads * callsPerThread} fuzzed calls`, async () => {
  const seed = Number(Deno.env.get("FUZZ_SEED") ?? crypto.getRandomValues(new Uint16Array(1))[0]);
  console.log(
    `seed ${seed}; replay: FUZZ_SEED=${seed} deno test -A tests/device/fuzz_test.ts, in the VM (make vm-shell)`,
  );
  const abort = new AbortController();
  const reaper = reap(abort.signal);
  const submitter = sh(traffic, { timeoutMs: limitMs + 20_000 });
  await sh("modprobe loop && truncate -s 4M /tmp/content");
  const content = (await sh("losetup --find --show /tmp/content")).stdout.trim();
  const command =
    "exec deno run -A --no-check --import-map=src/build/standins/import_map.json tests/device/fuzz_main.ts";
  const runs = await Promise.all(
    Array.from(
      { length: processes },
      (_, i) => sh(`${command} ${seed + i} ${callsPerThread} ${threads} ${content}`, { timeoutMs: limitMs }),
    ),
  );
  await Deno.writeTextFile("/tmp/fuzzed", "");
  await submitter;
  abort.abort();
  await reaper;
  await sh(`losetup -d ${content}`);
  const sum: Tally = {};
  for (const tally of runs.flatMap((run) => JSON.parse(run.stdout) as Tally[])) {
    for (const [key, count] of Object.entries(tally)) sum[key] = (sum[key] ?? 0) + count;
  }
  const calls = Object.values(sum).reduce((total, count) => total + count, 0);
  console.log(Object.entries(sum).sort().map(([key, count]) => `${key}: ${count}`).join(", "));
  figure({ "fuzzed calls": calls });
  assert(calls >= processes * threads * callsPerThread, `only ${calls} calls were made`);
  // A run of a part of it may go without the rarest.
  if (calls < 100_000) return;
  for (const ioctl of wanted) assert((sum[`${ioctl} 0`] ?? 0) >= 5, `${ioctl} succeeded ${sum[`${ioctl} 0`]} times`);
});
