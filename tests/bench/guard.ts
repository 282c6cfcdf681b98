/** The regression guard: which of our ratios have fallen, compared with the recorded ones. */
import type { Figures } from "./results.ts";

/** A ratio that fell. */
export interface Fall {
  readonly job: string;
  readonly disk: string;
  readonly recorded: number;
  readonly now: number;
}

/** What is left of a ratio must be more than this part of it. */
export const tolerated = 0.75;

/**
 * The ratios of these disks that fell by more than a quarter. What was not recorded, or not measured, cannot fall. Of the
 * rounds the best one counts: scheduling can make any of them half as fast, and only a regression all of them.
 */
export function findFalls(recorded: Figures, now: Figures, disks: readonly string[]): Fall[] {
  const falls: Fall[] = [];
  for (const [job, byDisk] of Object.entries(now)) {
    for (const disk of disks) {
      const before = recorded[job]?.[disk]?.ratio;
      const figure = byDisk[disk];
      if (before === undefined || figure?.ratio === undefined) continue;
      const after = figure.ratio * figure.iops.max / figure.iops.median;
      if (after < before * tolerated) falls.push({ job, disk, recorded: before, now: after });
    }
  }
  return falls;
}

/** The falls in one line. */
export function describeFalls(falls: readonly Fall[]): string {
  const each = falls.map(({ job, disk, recorded, now }) =>
    `${disk} ${job} ${recorded.toFixed(2)} -> ${now.toFixed(2)}`
  );
  return `slower than recorded by more than a quarter (ratio to brd): ${each.join(", ")}`;
}
