// SPDX-License-Identifier: MIT
let collator: Intl.Collator | undefined;

/** For `sort()`: the order in which people count names, disk2 before disk10. */
export function byName(a: string, b: string): number {
  collator ??= new Intl.Collator("en", { numeric: true });
  return collator.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0);
}
