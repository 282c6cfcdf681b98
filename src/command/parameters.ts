// SPDX-License-Identifier: MIT
/** Named values after a SPEC (`?size=4GiB&direct`): which there are, and what is wrong with those that were typed. */
import { parseCount, parseSize, UsageError } from "./cli.ts";
import { didYouMean } from "./words.ts";

/** A parameter that may be there. */
export interface Parameter {
  readonly name: string;
  /** What its value is called in `--help`; without it, the parameter has none. */
  readonly value?: string;
  /** What it does. */
  readonly text: string;
}

/** The parameters that were typed, read by their names. */
export class Parameters {
  readonly #of: string;
  readonly #values: ReadonlyMap<string, string>;

  /**
   * Takes what was typed.
   *
   * @param of whose they are, for messages: "disk.img?sise=1GiB"
   * @throws {UsageError} a name that is not in `known`, a value that is missing or too much.
   */
  constructor(of: string, values: ReadonlyMap<string, string>, known: readonly Parameter[]) {
    for (const [name, value] of values) {
      const parameter = known.find((one) => one.name === name);
      if (parameter === undefined) {
        const names = known.map((one) => one.name);
        const rest = names.length === 0 ? "; it has none" : didYouMean(name, names);
        // Of a set: "mirror:a.img?size=1GiB,b.img" has a parameter of one of its disks.
        const inside = /^(concat|stripe|mirror|slice):/.exec(of);
        const hint = inside === null ? "" : ` (one of its disks': ${inside[0]}[./a.img?${name}=…])`;
        throw new UsageError(`${of}: there is no parameter ${name}${rest}${hint}`);
      }
      if (parameter.value === undefined && value !== "") throw new UsageError(`${of}: ${name} takes no value`);
      if (parameter.value !== undefined && value === "") {
        throw new UsageError(`${of}: ${name} needs a value: ${name}=${parameter.value}`);
      }
    }
    this.#of = of;
    this.#values = values;
  }

  /** Whether it was typed. */
  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** Its value as it was typed. */
  text(name: string): string | undefined {
    return this.#values.get(name);
  }

  /** A size in bytes: a positive multiple of 512. */
  size(name: string): number | undefined {
    return this.#read(name, (text) => diskSize(text, 512, name));
  }

  /** A whole number. */
  count(name: string, min: number, max: number): number | undefined {
    return this.#read(name, (text) => parseCount(text, name, min, max));
  }

  #read<T>(name: string, read: (text: string) => T): T | undefined {
    const text = this.#values.get(name);
    if (text === undefined) return undefined;
    try {
      return read(text);
    } catch (error) {
      throw error instanceof UsageError ? new UsageError(`${this.#of}: ${error.message}`) : error;
    }
  }
}

/**
 * The size of a disk, as people write it.
 *
 * @param multipleOf what it has to be a multiple of, in bytes
 * @param what it is called
 * @throws {UsageError} with sizes near it that would do.
 */
export function diskSize(text: string, multipleOf = 512, what = "size"): number {
  const sizeBytes = parseSize(text, what);
  if (sizeBytes === 0) throw new UsageError(`${what} ${text}: it is at least ${multipleOf} bytes`);
  if (sizeBytes % multipleOf === 0) return sizeBytes;
  const below = Math.floor(sizeBytes / multipleOf) * multipleOf;
  const near = below === 0 ? multipleOf : `${below} or ${below + multipleOf}`;
  throw new UsageError(`${what} ${text} is ${sizeBytes} bytes, not a multiple of ${multipleOf} (near it: ${near})`);
}
