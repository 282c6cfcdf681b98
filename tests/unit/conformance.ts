// SPDX-License-Identifier: MIT
/** The contract's tests as this project runs them. */
import type { Backend } from "../../src/disk/backend.ts";
import {
  testBackend,
  type TestBackendOptions,
  testFilter,
  type TestFilterOptions,
  type WrapBackend,
} from "../../src/disk/testing.ts";

const command = "src/build/deno.sh test -A";

/** `testBackend()`, with this project's way to run tests. */
export function checkBackend(
  name: string,
  make: () => Backend | Promise<Backend>,
  options: TestBackendOptions = {},
): void {
  // Each call of libc is loaded once, at its first use, and stays.
  testBackend(name, make, { keepsOpen: true, ...options, command });
}

/** `testFilter()`, with this project's way to run tests. */
export function checkFilter(name: string, wrap: WrapBackend, options: TestFilterOptions = {}): void {
  testFilter(name, wrap, { ...options, command });
}
