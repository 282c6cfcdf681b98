// One call may answer gigabytes. Others get the processor meanwhile, on a kernel that does not take it from a system call by
// itself, and a server that is killed in the middle is gone soon. Hard case I8.
// kernel: preempt=voluntary
// memory: 3072 MiB
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { commitAll, loadedQueue, readers, readMib } from "./big_batch.ts";
import { figure, requires, sh } from "./harness.ts";
import { Running } from "./running.ts";
import { destroyDevice, infoOf, MIB } from "./server.ts";

/** Whether the kernel lets a system call run until it says so itself: full preemption and PREEMPT_RT do not. */
function isVoluntary(): boolean {
  try {
    return Deno.readTextFileSync("/sys/kernel/debug/sched/preempt").includes("(voluntary)");
  } catch {
    return false;
  }
}

const ignore = !requires("a kernel whose preemption can be chosen", isVoluntary());

/** Looks at the clock all the time, on one processor. Says when it begins, and prints the longest time it did not get to, in ms. */
const spinner = `
  use Time::HiRes qw(time);
  $| = 1;
  print "spins\\n";
  my ($longest, $last) = (0, time);
  $SIG{TERM} = sub { printf "%d", $longest * 1000; exit };
  while (1) { my $now = time; $longest = $now - $last if $now - $last > $longest; $last = $now }`;

/** How long a call took that answered everything, and how long a spinner beside it did not get to the processor meanwhile. */
async function measure(name: string, ioMib: number): Promise<{ tookMs: number; longestMs: number }> {
  const load = await loadedQueue(name, ioMib);
  assert(load.requests.length >= readers * readMib / ioMib, `${load.requests.length} requests`);
  await using spinning = new Running("the spinner", ["taskset", "1", "perl", "-e", spinner]);
  await spinning.ready((stdout) => stdout.includes("spins"));
  await sh(`taskset -pc 0 ${Deno.pid}`);
  const { errno, refused, tookMs } = commitAll(load, ioMib);
  await sh(`taskset -apc 0-1 ${Deno.pid}`);
  spinning.child.kill("SIGTERM");
  await spinning.end();
  const longestMs = Number(spinning.stdout.replace("spins\n", ""));
  await load.reading;
  assertEquals([errno, refused, infoOf(name)!.error_count], [0, 0, 0]);
  console.log(`${load.requests.length} answers took ${tookMs} ms; the spinner waited ${longestMs} ms at most`);
  assert(tookMs > 200, `the call took only ${tookMs} ms, which proves nothing`);
  assertEquals(await destroyDevice(name), 0);
  return { tookMs, longestMs };
}

/**
 * The spinner waits for a fiftieth of the call; without the pauses, for 0.38 of it and more. What the host takes from the
 * machine may make it wait as well, but not three times.
 */
const [partMax, attemptsMax] = [1 / 4, 3];

// A copy ends after each MiB, so that answers up to that size alone depend on the pauses between them.
for (const ioMib of [readMib, 1]) {
  Deno.test(
    `a spinner on the same processor is not kept from it while a call answers everything, ${ioMib} MiB each`,
    { ignore },
    async () => {
      const parts: number[] = [];
      do {
        const { tookMs, longestMs } = await measure(`batch${ioMib}x${parts.length}`, ioMib);
        parts.push(longestMs / tookMs);
        if (parts.at(-1)! < partMax) figure({ "longest wait for a processor beside a big answer": [longestMs, "ms"] });
      } while (parts.at(-1)! >= partMax && parts.length < attemptsMax);
      assert(parts.at(-1)! < partMax, `the spinner waited for ${parts.map((part) => part.toFixed(2))} of the calls`);
    },
  );
}

/** Kills a server that has begun to answer. Returns how many bytes it has answered after the signal. */
async function answeredByKilled(name: string): Promise<number> {
  const read = () => Number(infoOf(name)!.bytes[abi.DBLOCK_OPERATION_READ]);
  await using server = new Running("the server", [
    ...[Deno.execPath(), "run", "-A", "--no-check", "--import-map=src/build/standins/import_map.json"],
    ...["tests/device/big_batch_main.ts", name],
  ]);
  await server.ready((stdout) => stdout.includes("loaded"));
  const before = read();
  while (read() === before && server.ended === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
  server.child.kill("SIGKILL");
  const atSignal = read();
  await server.end();
  const answered = read() - atSignal;
  assertEquals(await destroyDevice(name), 0);
  assertEquals(server.stdout, "loaded\n");
  return answered;
}

/** 6 MiB where the call itself sees the signal; up to 400 MiB where watch.c has to, twice a second. */
const answeredMax = 32 * MIB;

Deno.test("a server that is killed in the middle of such a call answers nothing more", { ignore }, async () => {
  // The middle one of three: what the host takes from the machine may come between the signal and who looks for it.
  const answered: number[] = [];
  for (const name of ["killed0", "killed1", "killed2"]) answered.push(await answeredByKilled(name));
  console.log(`killed servers answered ${answered} bytes of ${readers * readMib * MIB}`);
  assert(answered.sort((a, b) => a - b)[1]! < answeredMax, `the killed servers answered ${answered} bytes`);
});
