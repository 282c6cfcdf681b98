/** What is said of device tests at the end of a run: who did how where, per kernel, and the figures. Only text. */
import type { FileResult } from "./device.ts";
import { addFigures, formatFigure, parseFigures } from "./figures.ts";
import { addCounts } from "./report.ts";

/** A kernel that files ran on, and what `uname -r` says in it. */
export interface TestedKernel {
  readonly version: string;
  readonly release: string;
}

/** Which file did how on which kernel. */
export function fileTable(
  files: readonly string[],
  kernels: readonly TestedKernel[],
  results: readonly FileResult[],
): string {
  const nameWidth = Math.max(...files.map((file) => file.length));
  const header = `${"".padEnd(nameWidth)}  ${kernels.map(({ version }) => version.padEnd(6)).join("")}`;
  const rows = files.map((file) => {
    const verdicts = kernels.map(({ version }) =>
      results.find((result) => result.path === file && result.kernel === version)?.verdict ?? "-"
    );
    return `${file.padEnd(nameWidth)}  ${verdicts.map((verdict) => verdict.padEnd(6)).join("")}`;
  });
  return [header, ...rows].map((line) => line.trimEnd()).join("\n");
}

/**
 * A table of kernels as Markdown, printed by every run: to be pasted wherever it is to be said which kernels passed how
 * many tests.
 */
export function kernelTable(kernels: readonly TestedKernel[], results: readonly FileResult[]): string {
  const rows = kernels.map(({ version, release }) => {
    const ran = results.filter((result) => result.kernel === version);
    const { passed, failed, skipped } = addCounts(ran.map(({ counts }) => counts));
    return `| ${release} | ${ran.length} | ${passed} | ${failed} | ${skipped} |`;
  });
  return ["| kernel | files | passed | failed | skipped |", "|---|---|---|---|---|", ...rows].join("\n");
}

/** What the tests counted and measured, a line each, kernel by kernel; "" if they did not. */
export function figureTable(kernels: readonly TestedKernel[], results: readonly FileResult[]): string {
  return kernels.flatMap(({ version, release }) => {
    const ran = results.filter((result) => result.kernel === version);
    const figures = addFigures(ran.flatMap(({ output }) => parseFigures(output)));
    return figures.length === 0
      ? []
      : [`figures on ${release}`, ...figures.map((figure) => `  ${formatFigure(figure)}`)];
  }).join("\n");
}
