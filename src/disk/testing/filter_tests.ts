// SPDX-License-Identifier: MIT
/** Tests of a filter: what it has to pass on from the backend behind it, and to it. */
import type { Backend, Figure } from "../backend.ts";
import { ERRNO, type ErrnoName, errnoName } from "../errors.ts";
import { OPERATIONS } from "../operation.ts";
import { Host } from "./host.ts";
import type { BackendTest, TestBackendOptions } from "./options.ts";
import { PlayedDisk, type PlayedDiskOptions } from "./played_disk.ts";
import { require } from "./shape_tests.ts";

/** Puts a filter in front of a backend. `content` is the same number for the same disk, opened again. */
export type WrapBackend = (backend: Backend, content: number) => Backend | Promise<Backend>;

/** Options of `testFilter()`, besides those of `testBackend()`. */
export interface TestFilterOptions extends Omit<TestBackendOptions, "reopen" | "errors"> {
  /** Callbacks of a backend that the filter takes away. @default none */
  readonly hides?: readonly ("flush" | "discard" | "writeZeroes" | "resize" | "extents")[];
  /** Callbacks that the filter has although its backend has not. @default none */
  readonly adds?: readonly "flush"[];
  /** It answers writes before the backend has them: their errors come with the next flush. @default false */
  readonly writesLater?: boolean;
  /** How many bytes a request can become, beside what it is, because the filter works in larger blocks. @default 0 */
  readonly blockBytes?: number;
}

const AWKWARD: readonly PlayedDiskOptions[] = [
  { limits: { blockBytes: 4096, maxIoBytes: 65536, maxDiscardBytes: 131072, maxWriteZeroesBytes: 262144 } },
  { without: ["flush", "discard", "writeZeroes", "resize", "extents"] },
  { fua: true, limits: { physicalBlockBytes: 512, maxIoBytes: 4096 } },
];

/** A disk for one test, with nothing on it, and a filter in front. */
async function open(
  wrap: WrapBackend,
  options: PlayedDiskOptions,
): Promise<{ disk: PlayedDisk; filter: Backend; host: Host }> {
  const disk = new PlayedDisk(options);
  const filter = await wrap(disk, nextContent++);
  return { disk, filter, host: new Host(filter, { answerWithinMs: 60_000 }) };
}

let nextContent = 1;

/** A number that no disk had. */
export function newContent(): number {
  return nextContent++;
}

async function passesOnWhatItIs(wrap: WrapBackend): Promise<void> {
  for (const options of [...AWKWARD, { readOnly: true }, {}]) {
    const { disk, filter } = await open(wrap, options);
    const said = filter.limits ?? {};
    require(
      filter.sizeBytes === disk.sizeBytes,
      `its size is ${filter.sizeBytes}, that of its backend ${disk.sizeBytes}`,
    );
    const block = said.blockBytes ?? 512;
    const least = disk.limits.blockBytes ?? 512;
    require(block >= least, `its blockBytes is ${block}, but its backend takes no less than ${least}`);
    for (const name of ["maxIoBytes", "maxDiscardBytes", "maxWriteZeroesBytes"] as const) {
      const most = disk.limits[name];
      if (most === undefined) continue;
      require(
        (said[name] ?? Infinity) <= most,
        `its ${name} is ${said[name]}, but its backend takes no more than ${most}`,
      );
    }
    require(!disk.readOnly || filter.readOnly === true, "its backend is read only, and it is not");
    await filter.close?.("unused");
  }
}

async function offersWhatIsThere(wrap: WrapBackend, { hides = [], adds = [] }: TestFilterOptions): Promise<void> {
  const names = ["flush", "discard", "writeZeroes", "resize", "extents"] as const;
  for (const without of [[], names, ["flush"], ["discard", "extents"]] as const) {
    const { disk, filter } = await open(wrap, { without });
    for (const name of names) {
      const has = filter[name] !== undefined;
      const isAdded = name === "flush" && adds.includes(name);
      const should = isAdded || disk[name] !== undefined && !hides.includes(name);
      require(
        has === should,
        `its backend has ${disk[name] ? "a" : "no"} ${name}(), and it has ${has ? "one" : "none"}`,
      );
    }
    await filter.close?.("unused");
  }
}

async function passesOnErrors(
  wrap: WrapBackend,
  { writesLater = false, hides = [] }: TestFilterOptions,
): Promise<void> {
  for (const laterSeed of [undefined, 5]) {
    const played = laterSeed === undefined ? {} : { laterSeed };
    for (const operation of OPERATIONS) {
      if (hides.some((name) => name === operation)) continue; // the backend is not asked for it
      for (const [failure, expected] of FAILURES) {
        if (operation === "flush" && failure === "short") continue;
        const { disk, filter, host } = await open(wrap, played);
        if (operation !== "read" && filter.readOnly || operation === "discard" && filter.discard === undefined) {
          await filter.close?.("unused");
          continue;
        }
        disk.failure = { operation, errno: failure };
        const length = operation === "flush" ? 0 : 4096;
        const data = operation === "write" ? new Uint8Array(length).fill(1) : length;
        if (operation === "flush") await host.do("write", 0, new Uint8Array(4096).fill(1));
        let { errno } = await host.ask(operation, 0, data);
        if (operation === "write" && writesLater && errno === 0) ({ errno } = await host.ask("flush", 0, 0));
        const found = errno === 0 ? "success" : errnoName(errno);
        require(
          errno === ERRNO[expected],
          `its backend failed a ${operation} with ${failure === "nameless" ? "an error without a code" : failure}, ` +
            `and it ended with ${found} instead of ${expected}`,
        );
        disk.failure = undefined;
        await host.do("read", 8192, 4096);
        await filter.close?.("destroyed");
      }
    }
  }
}

const FAILURES: readonly (readonly [ErrnoName | "short" | "nameless", ErrnoName])[] = [
  ["ENOSPC", "ENOSPC"],
  ["nameless", "EIO"],
  ["short", "EIO"],
];

async function closesOnce(wrap: WrapBackend): Promise<void> {
  for (const reason of ["unused", "left", "replaced", "destroyed"] as const) {
    for (const failing of [undefined, "flush", "write", "close"] as const) {
      const { disk, filter, host } = await open(wrap, {});
      if (reason !== "unused" && !filter.readOnly) await host.do("write", 0, new Uint8Array(8192).fill(3));
      if (failing !== undefined) disk.failure = { operation: failing, errno: "ENOSPC" };
      let error: unknown;
      try {
        await filter.close?.(reason);
      } catch (caught) {
        error = caught;
      }
      const when = `close("${reason}")${failing === undefined ? "" : ` while ${failing} fails`}`;
      require(disk.closings.join() === reason, `after ${when} its backend was closed: [${disk.closings}]`);
      require(failing !== undefined || error === undefined, `${when} failed: ${error}`);
      require(failing !== "close" || error !== undefined, `${when} hid the error of its backend`);
      require(disk.violations.length === 0, `at ${when}: ${disk.violations}`);
    }
  }
}

const FIGURE: Figure = { name: "played_total", help: "A figure of the disk behind the filter.", value: 7 };

async function passesOnWhatItIsAsked(wrap: WrapBackend): Promise<void> {
  const content = { of: "the next version" };
  for (const extra of [{}, { figures: () => [FIGURE] }, { handOver: () => content }]) {
    const disk: Backend = Object.assign(new PlayedDisk(), extra);
    const filter = await wrap(disk, nextContent++);
    const isTold = filter.figures?.().some(({ name, value }) => name === FIGURE.name && value === FIGURE.value) ??
      false;
    require(isTold || disk.figures === undefined, "its backend has figures(), and they are not among its own");
    const [has, should] = [filter.handOver !== undefined, disk.handOver !== undefined];
    require(
      has === should,
      `its backend has ${should ? "a" : "no"} handOver(), and it has ${has ? "one" : "none"}`,
    );
    require(!should || await filter.handOver?.() === content, "its handOver() does not give what its backend's gives");
    await filter.close?.("unused");
  }
}

/** Tests of a filter that those of a backend do not cover. */
export function tests(wrap: WrapBackend, options: TestFilterOptions): BackendTest[] {
  return [
    { name: "passes on what its backend is: size, limits, read only", run: () => passesOnWhatItIs(wrap) },
    { name: "has the callbacks that its backend has", run: () => offersWhatIsThere(wrap, options) },
    { name: "passes on its backend's figures() and handOver()", run: () => passesOnWhatItIsAsked(wrap) },
    { name: "passes on how its backend fails", run: () => passesOnErrors(wrap, options) },
    { name: "closes its backend once, with the reason, whatever fails", run: () => closesOnce(wrap) },
  ];
}

/** Disks to put a filter in front of: the usual ones, and those with limits that are easily forgotten. */
export const PLAYED: readonly { readonly what: string; readonly options: PlayedDiskOptions }[] = [
  { what: "", options: { laterSeed: 11 } },
  { what: "at once: ", options: {} },
  { what: "4096-byte blocks, small requests: ", options: { ...AWKWARD[0], laterSeed: 12 } },
  { what: "nothing optional: ", options: { ...AWKWARD[1], laterSeed: 13 } },
  { what: "FUA, 4096 bytes at most: ", options: { ...AWKWARD[2], laterSeed: 14 } },
];
