// SPDX-License-Identifier: MIT
/** Every filter keeps the contract of a backend and passes on what it has to: the kit's tests, on each. */
import type { Backend } from "../../../src/disk/backend.ts";
import { Cache } from "../../../src/filters/cache.ts";
import { Checksum } from "../../../src/filters/checksum.ts";
import { delay } from "../../../src/filters/delay.ts";
import { Fault } from "../../../src/filters/fault.ts";
import { Filter } from "../../../src/filters/filter.ts";
import { intercept } from "../../../src/filters/intercept.ts";
import { log } from "../../../src/filters/log.ts";
import { rate } from "../../../src/filters/rate.ts";
import { readOnly } from "../../../src/filters/read_only.ts";
import { readahead } from "../../../src/filters/readahead.ts";
import { retry } from "../../../src/filters/retry.ts";
import { Stats } from "../../../src/filters/stats.ts";
import { WriteCache } from "../../../src/filters/write_cache.ts";
import { checkFilter } from "../conformance.ts";

/** Chance is what most of it is about: a few requests of it on each of five disks are enough. */
const rounds = 60;
const silent = () => {};

checkFilter("Filter", (backend) => new Filter(backend), { rounds });
checkFilter("intercept()", (backend) => intercept(backend, async () => await Promise.resolve(), silent), { rounds });
checkFilter("log()", (backend) => log(backend, { sink: silent }), { rounds });
checkFilter("Stats", (backend) => new Stats(backend), { rounds });
checkFilter("delay()", (backend) => delay(backend, { operations: { flush: 0.01 } }), { rounds });
checkFilter("Fault, switched off", (backend) => new Fault(backend, { enabled: false }), { rounds });
checkFilter("rate()", (backend) => rate(backend, { bytesPerSecond: 1e12, operationsPerSecond: 1e9 }), { rounds });
checkFilter("retry()", (backend) => retry(backend, { times: 2, delayMs: 0 }), { rounds });
checkFilter("readahead()", (backend) => readahead(backend, { windowBytes: windowOf(backend, 32768) }), { rounds });
checkFilter("readOnly()", readOnly, { rounds, hides: ["flush", "discard", "writeZeroes", "resize"] });
checkFilter("Cache, write-through", (backend) => new Cache(backend, { maxBytes: 2 ** 18 }), { rounds });
checkFilter("Cache, write-back", (backend) => new Cache(backend, { maxBytes: 2 ** 18, mode: "write-back" }), {
  rounds,
  adds: ["flush"],
  writesLater: true,
});
checkFilter("WriteCache", (backend) => new WriteCache(backend, { maxDirtyBytes: 2 ** 16 }), {
  rounds,
  adds: ["flush"],
  hides: ["writeZeroes", "extents"],
  writesLater: true,
});

const folder = await Deno.makeTempDir({ prefix: "dblock-checksum-" });
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
checkFilter(
  "Checksum",
  (backend, content) => Checksum.open(backend, { path: `${folder}/sums-${content}` }),
  { rounds, adds: ["flush"], hides: ["resize"] },
);

function windowOf(backend: Backend, wantedBytes: number): number {
  return Math.min(wantedBytes, backend.limits?.maxIoBytes ?? Infinity);
}
