/** Programs that want more memory than the machine has, so that what they have written goes to swap and comes back. */
import { sh } from "./harness.ts";
import { PAGE_BYTES } from "./syscall.ts";

/** Fills so many MiB with a pattern, and looks at all of it again, twice. Prints how many were not as they should be. */
const hog = (mib: number) => `
  my @memory;
  push @memory, chr($_ % 251) x 2**20 for 1..${mib};
  my $wrong = 0;
  for my $round (1..2) { for (1..${mib}) { $wrong++ if $memory[$_ - 1] ne chr($_ % 251) x 2**20 } }
  print $wrong;`;
/** So many at once: several threads that want memory are what leaves a server without. */
const HOGS = 3;

/** What the programs saw, and what the machine did meanwhile. */
export interface Hogged {
  /** For each program, how many MiB were not as it had left them: "0" is right. */
  readonly wrong: readonly string[];
  readonly outMib: number;
  readonly inMib: number;
}

/** Runs them to their end. All together want so much more than there is free. */
export async function runHogs(excessMib: number, timeoutMs: number): Promise<Hogged> {
  const each = Math.round((availableMib() + excessMib) / HOGS);
  const started = performance.now();
  const before = [swappedMib("out"), swappedMib("in")] as const;
  const hogs = Array.from({ length: HOGS }, () => sh(`choom -n 1000 -- perl -e '${hog(each)}'`, { timeoutMs }));
  const wrong = (await Promise.all(hogs)).map(({ stdout }) => stdout);
  const [outMib, inMib] = [swappedMib("out") - before[0], swappedMib("in") - before[1]];
  console.log(`${HOGS} times ${each} MiB in ${performance.now() - started} ms: ${outMib} MiB out, ${inMib} MiB in`);
  return { wrong, outMib, inMib };
}

function availableMib(): number {
  return Number(/^MemAvailable:\s+(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/meminfo"))![1]) / 1024;
}

/** What was swapped out or in since the machine started. */
function swappedMib(direction: "out" | "in"): number {
  const pages = new RegExp(`^pswp${direction} (\\d+)$`, "m").exec(Deno.readTextFileSync("/proc/vmstat"))![1];
  return Number(pages) * PAGE_BYTES / 2 ** 20;
}
