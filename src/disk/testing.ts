// SPDX-License-Identifier: MIT
/**
 * The contract of a backend as tests, for any test runner of Deno: no root, no kernel. `testBackend()` registers them for
 * one backend, `testFilter()` for a filter.
 *
 * ```ts
 * import { testBackend } from "./testing.ts";
 *
 * testBackend("my disk", () => {
 *   const store = new Uint8Array(1 << 20);
 *   return {
 *     sizeBytes: store.length,
 *     read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
 *     write: (buffer, offset) => store.set(buffer, offset),
 *   };
 * });
 * ```
 *
 * @module
 */
import type { Backend } from "./backend.ts";
import { requestOptions } from "./request.ts";
import { CONTENT_TESTS } from "./testing/content_tests.ts";
import { DURABILITY_TESTS } from "./testing/durability_tests.ts";
import { newContent, PLAYED, type TestFilterOptions, tests, type WrapBackend } from "./testing/filter_tests.ts";
import type { BackendTest, TestBackendOptions } from "./testing/options.ts";
import { PlayedDisk, type PlayedDiskOptions } from "./testing/played_disk.ts";
import { closes, SHAPE_TESTS, type TrialTest } from "./testing/shape_tests.ts";
import { Trial } from "./testing/trial.ts";

export type { BackendTest, ExpectedError, TestBackendOptions } from "./testing/options.ts";
export type { TestFilterOptions, WrapBackend } from "./testing/filter_tests.ts";
export { PlayedDisk, type PlayedDiskOptions, type PlayedFailure, type PlayedRequest } from "./testing/played_disk.ts";

/**
 * Registers a `Deno.test` for each thing that the contract asks of a backend. `make` is called once or more in each test; what
 * it gives is closed at the test's end. Failing tests that work by chance print their seed and the command that repeats them.
 *
 * Not covered: that two programs do not serve the same store, what happens when memory or descriptors run out, speed.
 *
 * @param name what is tested; the tests are called `NAME: what has to hold`
 */
export function testBackend(
  name: string,
  make: () => Backend | Promise<Backend>,
  options: TestBackendOptions = {},
): void {
  for (const test of backendTests(make, options)) register(name, test, options);
}

/**
 * Registers tests for a filter: those of `testBackend()` for the filter in front of several disks of memory (some answer
 * later, some have awkward limits or nothing that is optional), and that it passes on what it has to pass on.
 *
 * ```ts
 * import { testFilter } from "./testing.ts";
 *
 * testFilter("nothing", (backend) => backend);
 * ```
 */
export function testFilter(name: string, wrap: WrapBackend, options: TestFilterOptions = {}): void {
  for (const test of filterTests(wrap, options)) register(name, test, options);
}

/** The tests that `testBackend()` registers, to be run by other means. */
export function backendTests(
  make: () => Backend | Promise<Backend>,
  options: TestBackendOptions = {},
): BackendTest[] {
  const trials = [...SHAPE_TESTS, ...CONTENT_TESTS, ...(options.reopen === undefined ? [] : DURABILITY_TESTS)];
  return [
    ...trials.map((test) => ({ name: test.name, run: (seed: number) => runTrial(test, make, seed, options) })),
    { name: "can be closed for each reason, used or not", run: () => closes(make, useIt) },
  ];
}

async function useIt(backend: Backend): Promise<void> {
  await backend.read(new Uint8Array(backend.limits?.blockBytes ?? 512), 0, requestOptions());
}

/** The tests that `testFilter()` registers, to be run by other means. */
export function filterTests(wrap: WrapBackend, options: TestFilterOptions = {}): BackendTest[] {
  const behind = new Map<Backend, { readonly disk: PlayedDisk; readonly content: number }>();
  const front = async (disk: PlayedDisk, content: number): Promise<Backend> => {
    const filter = await wrap(disk, content);
    behind.set(filter, { disk, content });
    return filter;
  };
  const reopen = async (filter: Backend, how: "left" | "died"): Promise<Backend> => {
    const { disk, content } = behind.get(filter) ?? {};
    if (disk === undefined || content === undefined) {
      throw new TypeError("it is another filter than the one that was made");
    }
    const next = how === "left" ? disk.reopened() : disk.crashed(() => (crashes = (crashes * 5 + 3) % 8) / 8);
    // The disk does nothing any more: whatever the filter tries now comes too late. It lets go of its files.
    if (how === "died") await Promise.resolve(filter.close?.("left")).catch(() => {});
    return await front(next, content);
  };
  let crashes = 1;
  const onDisks = PLAYED.flatMap(({ what, options: played }) => {
    const disks: PlayedDisk[] = [];
    const make = () => front(newDisk(played, disks), newContent());
    return backendTests(make, { ...options, reopen }).map(({ name, run }) => ({
      name: what + name,
      run: async (seed: number) => {
        disks.length = 0;
        await run(seed);
        const wrong = disks.flatMap(({ violations }) => violations)[0];
        if (wrong !== undefined) throw new Error(`its backend was asked what it must not be asked: ${wrong}`);
      },
    }));
  });
  return [...tests(wrap, options), ...onDisks];
}

function newDisk(options: PlayedDiskOptions, made: PlayedDisk[]): PlayedDisk {
  const disk = new PlayedDisk(options);
  made.push(disk);
  return disk;
}

async function runTrial(
  test: TrialTest,
  make: () => Backend | Promise<Backend>,
  seed: number,
  options: TestBackendOptions,
): Promise<void> {
  const trial = new Trial(await make(), seed, options);
  try {
    await test.run(trial);
    await trial.end("destroyed");
  } catch (error) {
    // What it says is not as interesting as why the test failed.
    await trial.close("destroyed").catch(() => {});
    throw error;
  }
}

function register(
  name: string,
  test: BackendTest,
  { command = "deno test -A", keepsOpen = false }: Pick<TestBackendOptions, "command" | "keepsOpen">,
): void {
  const full = `${name}: ${test.name}`;
  // What is still open, or still waits, after the end was forgotten by the backend.
  Deno.test({ name: full, sanitizeOps: true, sanitizeResources: !keepsOpen }, async (t) => {
    const seed = seedOf();
    try {
      await test.run(seed);
    } catch (error) {
      const file = t.origin.replace(/^file:\/\//, "");
      console.error(`seed ${seed}; again with: DBLOCK_SEED=${seed} ${command} --filter ${quote(full)} ${quote(file)}`);
      throw error;
    }
  });
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** DBLOCK_SEED, if that is set and may be read; else another one each time. */
function seedOf(): number {
  try {
    const given = Deno.env.get("DBLOCK_SEED");
    if (given !== undefined) return Number(given);
  } catch {
    // Tests may run without --allow-env.
  }
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}
