// SPDX-License-Identifier: MIT
/** The seeds a simulation runs with. */
import { Random } from "../../src/disk/random.ts";

export { Random };

/**
 * The seeds to run: DBLOCK_SEED alone, or `count` new ones (DBLOCK_SIM_COUNT says how many instead).
 *
 * A failure prints its seed and `DBLOCK_SEED=… src/build/deno.sh test -A FILE`, which repeats it.
 */
export function seeds(count: number): number[] {
  const given = Deno.env.get("DBLOCK_SEED");
  if (given !== undefined) return [Number(given)];
  const many = Number(Deno.env.get("DBLOCK_SIM_COUNT") ?? count);
  const first = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
  return Array.from({ length: many }, (_, i) => (first + i) >>> 0);
}

/** Runs a simulation for each seed; says how to repeat the one that fails. */
export async function forEachSeed(
  count: number,
  file: string,
  run: (random: Random) => Promise<void> | void,
): Promise<void> {
  for (const seed of seeds(count)) {
    try {
      await run(new Random(seed));
    } catch (error) {
      console.error(`seed ${seed}; again with: DBLOCK_SEED=${seed} src/build/deno.sh test -A ${file}`);
      throw error;
    }
  }
}
