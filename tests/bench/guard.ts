/** The regression guard: which of our ratios are lower than those of another commit. */
import type { Figure, Figures } from "./results.ts";

/** A ratio that fell. */
export interface Fall {
  readonly job: string;
  readonly disk: string;
  readonly before: number;
  readonly now: number;
}

/** What is left of a ratio must be more than this part of it: a machine that is used is no exact clock. */
export const toleratedTimed = 0.75;
/** The same where instructions are counted: two boots of one commit differ by up to 3%. */
export const toleratedCounted = 0.95;

/**
 * The ratios of these disks of which less than the tolerated part is left. What was not measured before, or is not now,
 * cannot fall. Of the rounds the best one counts: scheduling can make any of them half as fast, and only a regression all
 * of them.
 */
export function findFalls(before: Figures, now: Figures, disks: readonly string[], tolerated: number): Fall[] {
  const falls: Fall[] = [];
  for (const [job, byDisk] of Object.entries(now)) {
    for (const disk of disks) {
      const [earlier, later] = [bestRatio(before[job]?.[disk]), bestRatio(byDisk[disk])];
      if (earlier === undefined || later === undefined) continue;
      if (later < earlier * tolerated) falls.push({ job, disk, before: earlier, now: later });
    }
  }
  return falls;
}

function bestRatio(figure: Figure | undefined): number | undefined {
  return figure?.ratio === undefined ? undefined : figure.ratio * figure.iops.max / figure.iops.median;
}

/** The falls in one line. */
export function describeFalls(falls: readonly Fall[], commit: string, tolerated: number): string {
  const each = falls.map(({ job, disk, before, now }) => `${disk} ${job} ${before.toFixed(2)} -> ${now.toFixed(2)}`);
  return `slower than ${commit} by more than ${percentLost(tolerated)} (ratio to brd, best of the turns): ${
    each.join(", ")
  }`;
}

/** What may be lost where a part of a ratio must be left: "5%". */
export function percentLost(tolerated: number): string {
  return `${Math.round((1 - tolerated) * 100)}%`;
}
