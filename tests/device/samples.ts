/** What `dblock metrics` says, in the words of Prometheus, taken apart: one sample of one disk at a time. */
import { assert } from "@std/assert";

/** Labels that a sample has, beside others. */
export type Labels = Readonly<Record<string, string>>;

/** The value of the disk's sample `dblock_NAME` with these labels; undefined if there is none. */
export type Samples = (disk: string, name: string, labels?: Labels) => number | undefined;

/** The samples of a scrape. */
export function samplesOf(text: string): Samples {
  return (disk, name, labels = {}) => {
    const wanted = Object.entries({ disk, ...labels }).map(([key, value]) => `${key}="${value}"`);
    const lines = text.split("\n").filter((line) =>
      line.startsWith(`dblock_${name}{`) && wanted.every((one) => line.includes(one))
    );
    assert(lines.length <= 1, `${name} ${wanted} is there ${lines.length} times`);
    return lines[0] === undefined ? undefined : Number(lines[0].slice(lines[0].lastIndexOf(" ")));
  };
}
