// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";
import { isMapped, isModule, type Servable } from "../../../src/disk/servable.ts";

const disk = { sizeBytes: 4096, read: () => {}, write: () => {} };
const mapping = { address: 4096, sizeBytes: 4096, kind: "anonymous" } as const;
const module = "data:text/javascript,";

const cases: [what: string, backend: object, kind: "mapped" | "module" | "plain"][] = [
  ["a disk that answers", disk, "plain"],
  ["a disk that is memory", { ...disk, mapping }, "mapped"],
  ["a module by its URL", { module: new URL(module) }, "module"],
  ["a module by its name", { module, data: 1 }, "module"],
  ["a disk with another thing called mapping", { ...disk, mapping: new Map([[0, 1]]) }, "plain"],
  ["a disk without the thing called mapping", { ...disk, mapping: null }, "plain"],
  ["a disk with a field called module", { ...disk, module }, "plain"],
  ["something else with a field called module", { module: 5 }, "plain"],
];
for (const [what, backend, kind] of cases) {
  Deno.test(`${what} is ${kind === "plain" ? "neither memory nor a module" : kind}`, () => {
    const servable = backend as Servable;
    assertEquals([isMapped(servable), isModule(servable)], [kind === "mapped", kind === "module"]);
  });
}
