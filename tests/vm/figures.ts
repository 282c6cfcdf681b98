/**
 * Figures that device tests print, such as `figure: kills under load 20, acknowledged writes lost 0`: written in the VM,
 * read and added up on the host. Only what can be added is: see {@linkcode addFigures}.
 */

/** Names with units, and what was counted or measured, in the order in which they are to be read. */
export type Figure = ReadonlyMap<string, Amount>;

/** A number and what it is a number of: "" for plain counts, which are whole. */
export interface Amount {
  readonly value: number;
  readonly unit: string;
}

const prefix = "figure: ";
/** Units of what is more the more often it is done: amounts of data. */
const addedUnits: readonly string[] = ["", "MiB", "GiB"];
/** Counts that are the worst, or the best, of many. */
const extremes = /^(longest|largest|most) /;

/** One line for a report. */
export function formatFigure(figure: Figure): string {
  return [...figure].map(([name, { value, unit }]) => {
    const digits = unit === "" ? 0 : 2;
    return `${name} ${value.toFixed(digits)}${unit === "" ? "" : ` ${unit}`}`;
  }).join(", ");
}

/** The line that {@linkcode parseFigures} finds in a test's output. */
export function figureLine(figure: Figure): string {
  return `${prefix}${formatFigure(figure)}`;
}

/** Every figure in a test's output. */
export function parseFigures(output: string): Figure[] {
  const lines = output.split("\n").filter((line) => line.startsWith(prefix));
  return lines.map((line) =>
    new Map(
      line.slice(prefix.length).split(", ").map((item) => {
        const match = /^(.+?) (\d+(?:\.\d+)?)(?: (\S+))?$/.exec(item.trim());
        if (match === null) throw new Error(`no figure: "${item}" in "${line}"`);
        return [match[1]!, { value: Number(match[2]), unit: match[3] ?? "" }] as const;
      }),
    )
  );
}

/**
 * One figure for each kind. Counts and amounts of data are added. Of anything else that has a unit (a time, a ratio, a
 * size) a sum means nothing: the largest is kept, and so it is of counts whose name begins with "longest", "largest" or
 * "most".
 */
export function addFigures(figures: readonly Figure[]): Figure[] {
  const sums = new Map<string, Map<string, Amount>>();
  for (const figure of figures) {
    const key = [...figure].map(([name, { unit }]) => `${name} ${unit}`).join();
    const sum = sums.get(key) ?? new Map<string, Amount>();
    for (const [name, { value, unit }] of figure) {
      const before = sum.get(name)?.value ?? 0;
      const isAdded = addedUnits.includes(unit) && !extremes.test(name);
      sum.set(name, { value: isAdded ? before + value : Math.max(before, value), unit });
    }
    sums.set(key, sum);
  }
  return [...sums.values()];
}
