// SPDX-License-Identifier: MIT
/** Random numbers that a seed repeats (mulberry32), and the seeds a simulation runs with. */

/** A source of random numbers. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 (inclusive) to 1 (exclusive). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from 0 to `end` - 1. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(list: readonly T[]): T {
    const one = list[this.below(list.length)];
    if (one === undefined) throw new RangeError("nothing to pick from");
    return one;
  }

  fill(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.below(256);
  }
}

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
