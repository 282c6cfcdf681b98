// SPDX-License-Identifier: MIT
/** Numbers as the page shows them, and where an axis has its ticks. Pure; runs in a browser. */

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] as const;

/** "1.5 MiB": three digits, or all of those in front of the point. */
export function formatBytes(bytes: number): string {
  const power = powerOf(bytes, 1024, BYTE_UNITS.length);
  return `${digits(bytes / 1024 ** power)} ${BYTE_UNITS[power]}`;
}

/** "64MiB", "1537KiB": as it is typed for a command, and to the byte. */
export function exactBytes(bytes: number): string {
  let power = 0;
  while (power < BYTE_UNITS.length - 1 && bytes > 0 && bytes % 1024 ** (power + 1) === 0) power++;
  return `${bytes / 1024 ** power}${power === 0 ? "" : BYTE_UNITS[power]}`;
}

/** "1,204", "12.4 k", "1.31 M": requests. */
export function formatCount(count: number): string {
  if (count < 10) return digits(count);
  if (count < 10_000) return Math.round(count).toLocaleString("en-US");
  const power = powerOf(count, 1000, 4);
  return `${digits(count / 1000 ** power)} ${["", "k", "M", "G"][power]}`;
}

/** "850 µs", "1.2 ms", "3.4 s", from milliseconds. */
export function formatMs(ms: number): string {
  if (ms < 1e-3) return `${digits(ms * 1e6)} ns`;
  if (ms < 1) return `${digits(ms * 1e3)} µs`;
  return ms < 1e3 ? `${digits(ms)} ms` : `${digits(ms / 1e3)} s`;
}

/** "1 request", "2 requests". */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** "09:05:07" of this browser's day. */
export function formatTime(timeMs: number): string {
  return new Date(timeMs).toTimeString().slice(0, 8);
}

function digits(value: number): string {
  if (value === 0 || value >= 99.95) return value.toFixed(0);
  const text = value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  return text.replace(/\.?0+$/, "");
}

function powerOf(value: number, base: number, count: number): number {
  let power = 0;
  // What would be written as 1024 of a unit is 1 of the next.
  while (power < count - 1 && value >= base - 0.5) {
    value /= base;
    power++;
  }
  return power;
}

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500];

/** Distances between ticks of bytes: 1, 2, 5, 10, ... 500 of each unit. */
export const BYTE_STEPS: readonly number[] = BYTE_UNITS.flatMap((_, power) =>
  STEPS.map((step) => step * 1024 ** power)
);
/** Distances between ticks of counts. */
export const COUNT_STEPS: readonly number[] = [0, 1, 2, 3].flatMap((power) =>
  STEPS.map((step) => step * 1000 ** power)
);

/** Ticks of bytes in one unit, which is that of their distance: 0, 500 KiB, 1000 KiB, 1500 KiB. */
export function byteTicks(values: readonly number[], distance: number): string[] {
  const power = powerOf(distance, 1024, BYTE_UNITS.length);
  return values.map((value) => value === 0 ? "0" : `${number(value / 1024 ** power)} ${BYTE_UNITS[power]}`);
}

/** Ticks of counts in one unit: 0, 500, 1000; or 0, 5 k, 10 k. */
export function countTicks(values: readonly number[], distance: number): string[] {
  const power = distance >= 1000 ? powerOf(distance, 1000, 4) : 0;
  return values.map((value) =>
    value === 0 || power === 0 ? number(value) : `${number(value / 1000 ** power)} ${["", "k", "M", "G"][power]}`
  );
}

function number(value: number): string {
  return `${Number(value.toPrecision(6))}`;
}
