// SPDX-License-Identifier: MIT
/** The text that Prometheus reads (version 0.0.4): families of samples, each family in one piece. */

/** What `GET /metrics` says it is. */
export const EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Names and values of labels. */
export type Labels = Readonly<Record<string, string>>;

interface Family {
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  readonly lines: string[];
  /** The labels of its samples. */
  readonly seen: Set<string>;
}

/** How many of a histogram are not larger than a bound; the last bound is Infinity. */
export interface Buckets {
  /** From the smallest bound on, each with all that are below it. */
  readonly upTo: readonly (readonly [bound: number, count: number])[];
  readonly sum: number;
}

/** Collects samples and prints them by family. */
export class Exposition {
  readonly #families = new Map<string, Family>();

  /** A number that only grows. Its name ends in `_total`. */
  counter(name: string, help: string, labels: Labels, value: number): void {
    this.#add(this.#family(name, "counter", help), name, labels, value);
  }

  /** A number as it is now. */
  gauge(name: string, help: string, labels: Labels, value: number): void {
    this.#add(this.#family(name, "gauge", help), name, labels, value);
  }

  /** How many had which size. */
  histogram(name: string, help: string, labels: Labels, { upTo, sum }: Buckets): void {
    const family = this.#family(name, "histogram", help);
    const said = say(labels);
    if (!isNew(family, said)) return;
    const before = said === "" ? "" : `${said},`;
    let lines = "";
    for (const [bound, count] of upTo) {
      lines += `${name}_bucket{${before}le="${formatNumber(bound)}"} ${formatNumber(count)}\n`;
    }
    const both = said === "" ? "" : `{${said}}`;
    lines += `${name}_sum${both} ${formatNumber(sum)}\n${name}_count${both} ${formatNumber(upTo.at(-1)?.[1] ?? 0)}\n`;
    family.lines.push(lines);
  }

  /** All of it. */
  text(): string {
    return [...this.#families].map(([name, { type, help, lines }]) =>
      `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n${lines.join("")}`
    ).join("");
  }

  #family(name: string, type: Family["type"], help: string): Family {
    const found = this.#families.get(name);
    if (found !== undefined) return found;
    const made: Family = { type, help, lines: [], seen: new Set() };
    this.#families.set(name, made);
    return made;
  }

  #add(family: Family, name: string, labels: Labels, value: number): void {
    const said = say(labels);
    if (isNew(family, said)) family.lines.push(`${name}${said === "" ? "" : `{${said}}`} ${formatNumber(value)}\n`);
  }
}

/** The same sample twice would make all of the text unreadable: the first one stays. */
function isNew({ seen }: Family, said: string): boolean {
  if (seen.has(said)) return false;
  seen.add(said);
  return true;
}

/** Labels as they stand between the brackets. */
function say(labels: Labels): string {
  let said = "";
  for (const key in labels) said += `${said === "" ? "" : ","}${key}="${escapeLabel(labels[key]!)}"`;
  return said;
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  // Most have nothing to escape, and there are many.
  return /["\\\n]/.test(text) ? escapeHelp(text).replaceAll('"', '\\"') : text;
}

function formatNumber(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  return value === Infinity ? "+Inf" : value === -Infinity ? "-Inf" : `${value}`;
}
