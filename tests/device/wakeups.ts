/** A load under which a server falls asleep and is woken again and again: jobs with one request each, and pauses. */
import { assert, assertEquals } from "@std/assert";
import { fio, fioErrors, slowestMs } from "./fio.ts";
import { assertWithin, figure } from "./harness.ts";
import { infoOf } from "./server.ts";

/** A request that waits so long waits for a wake-up that was lost. */
export const stallMs = 5_000;
const runsMax = 10;
const batchesPerSecond = 20;

/**
 * Runs the load on a disk until its server was handed requests often enough, and fails if a request waited for
 * {@linkcode stallMs}. How often the server slept before it was handed some is not counted; the pauses make that most times.
 *
 * @param beside runs beside each run of fio
 */
export async function wakeAgain(
  name: string,
  { jobs, seconds, beside = () => Promise.resolve() }: {
    readonly jobs: number;
    readonly seconds: number;
    readonly beside?: () => Promise<void>;
  },
): Promise<void> {
  const before = infoOf(name)!.batch_count;
  let [longestMs, batches] = [0, 0];
  // Few a run, if the jobs leave the server little of the CPUs: then a batch has a request of each of them.
  for (let run = 0; run < runsMax && batches <= batchesPerSecond * seconds; run++) {
    const done = beside();
    // Pauses of no particular length, so that the server is met at every stage of its falling asleep.
    const result = await fio(
      `--name=${name} --filename=/dev/${name} --direct=1 --ioengine=psync --rw=randrw --bs=4k --numjobs=${jobs} ` +
        `--thinktime=${jobs * 60}us --thinktime_blocks_type=issue --time_based --runtime=${seconds} --size=64M`,
      { timeoutMs: (seconds + 60) * 1000 },
    );
    await done;
    assertEquals([result.status, ...fioErrors(result)], [0, ...Array(jobs).fill(0)], result.stderr);
    longestMs = Math.max(longestMs, slowestMs(result));
    batches = infoOf(name)!.batch_count - before;
  }
  figure({
    "times a server that sleeps in between was handed requests": batches,
    "longest wait": [longestMs / 1000, "s"],
  });
  assert(batches > batchesPerSecond * seconds, `the server was handed requests ${batches} times only`);
  assertWithin(stallMs, longestMs, "a request was answered");
}
