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
    for (const [bound, count] of upTo) {
      this.#add(family, `${name}_bucket`, { ...labels, le: bound === Infinity ? "+Inf" : `${bound}` }, count);
    }
    this.#add(family, `${name}_sum`, labels, sum);
    this.#add(family, `${name}_count`, labels, upTo.at(-1)?.[1] ?? 0);
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

  /** The same sample twice would make all of the text unreadable: the first one stays. */
  #add({ lines, seen }: Family, name: string, labels: Labels, value: number): void {
    const said = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`).join(",");
    const sample = said === "" ? name : `${name}{${said}}`;
    if (seen.has(sample)) return;
    seen.add(sample);
    lines.push(`${sample} ${formatNumber(value)}\n`);
  }
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}

function formatNumber(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  return value === Infinity ? "+Inf" : value === -Infinity ? "-Inf" : `${value}`;
}
