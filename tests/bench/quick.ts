/**
 * `make bench QUICK=1`: is this slower than an earlier commit? Both are measured in turn, each time in a VM of its own, so
 * that the answer does not depend on the machine that other figures were recorded on.
 */
import { join } from "node:path";
import { buildProgram } from "../vm/architecture.ts";
import { UserError } from "../vm/host.ts";
import { buildModule } from "../vm/module.ts";
import { checkOutBase } from "./base.ts";
import { disks, type DiskSpec, reference } from "./disks.ts";
import { describeFalls, type Fall, findFalls, percentLost, toleratedCounted, toleratedTimed } from "./guard.ts";
import type { Job } from "./jobs.ts";
import { measure, type Subject } from "./measure.ts";
import type { Line, Plan } from "./plan.ts";
import { type Figures, summarize } from "./results.ts";
import { formatRatios } from "./table.ts";

/** How often each of the two has its turn. */
const turns = 2;

/** Options of {@linkcode quick}. */
export interface QuickOptions {
  /** The commit to compare with; "": the one whose figures are recorded. */
  readonly base: string;
  readonly jobs: readonly Job[];
  /** Disks of ours; the reference is measured beside them. */
  readonly disks: readonly DiskSpec[];
  readonly runtimeMs: number;
  readonly rampMs: number;
  /** Count instructions instead of time. */
  readonly counted: boolean;
  /** Called with each line as it comes. */
  readonly onLine: (line: Line) => void;
}

/** Prints ratios of both, and what fell. What seems to have fallen is measured once more before it counts. */
export async function quick(subject: Subject, options: QuickOptions): Promise<number> {
  const { commit, dir } = await checkOutBase(options.base);
  const moduleFile = await buildModule(subject.kernel, { sourceDir: join(dir, "kmod"), variant: `base-${commit}` });
  const programFile = await buildProgram(subject.kernel.architecture, dir);
  const base: Subject = { ...subject, moduleFile, programFile, sourceDir: dir };
  const tolerated = options.counted ? toleratedCounted : toleratedTimed;
  console.log(`compared with ${commit}`);
  const compare = async (of: readonly Job[]): Promise<Fall[]> => {
    const before: Line[] = [];
    const after: Line[] = [];
    for (let turn = 1; turn <= turns; turn++) {
      before.push(...await measureOnce(base, of, commit, turn, options));
      after.push(...await measureOnce(subject, of, "this", turn, options));
    }
    const figures: Figures[] = [before, after].map((lines) => summarize(lines, "quick").figures);
    console.log(`\n${commit}\n${formatRatios(of, figures[0]!, reference)}`);
    console.log(`\nthis\n${formatRatios(of, figures[1]!, reference)}\n`);
    return findFalls(figures[0]!, figures[1]!, options.disks.map(({ name }) => name), tolerated);
  };
  let falls = await compare(options.jobs);
  if (falls.length > 0) {
    const first = falls;
    console.log(`${describeFalls(first, commit, tolerated)}; once more:`);
    const again = await compare(options.jobs.filter(({ name }) => first.some(({ job }) => job === name)));
    falls = again.filter((fall) => first.some(({ job, disk }) => job === fall.job && disk === fall.disk));
  }
  console.log(
    falls.length === 0
      ? `no ratio is lower than with ${commit} by more than ${percentLost(tolerated)}`
      : describeFalls(falls, commit, tolerated),
  );
  return falls.length === 0 ? 0 : 1;
}

async function measureOnce(
  subject: Subject,
  of: readonly Job[],
  title: string,
  turn: number,
  { disks: ownDisks, runtimeMs, rampMs, counted, onLine }: QuickOptions,
): Promise<Line[]> {
  console.log(`turn ${turn}, ${title}`);
  const beside = disks.filter(({ name }) => name === reference);
  const series = { name: "quick", disks: [...beside, ...ownDisks], jobs: of, rounds: 1 };
  const plan: Plan = { series: [series], runtimeMs, rampMs, footprint: false, ledger: false };
  const { lines, problem } = await measure(subject, plan, { counted, onLine });
  // Half of a comparison says nothing.
  if (problem !== undefined) throw new UserError(problem);
  return lines;
}
