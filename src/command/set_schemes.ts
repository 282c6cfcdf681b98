// SPDX-License-Identifier: MIT
/** The schemes of disks that are made of others: rows of the table, with what opens them. */
import { concat } from "../backends/concat.ts";
import { unusedOf } from "../backends/member.ts";
import { MirrorBackend } from "../backends/mirror.ts";
import type { MirrorStatus } from "../backends/mirror_status.ts";
import { slice } from "../backends/slice.ts";
import { stripe } from "../backends/stripe.ts";
import type { Backend } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { formatSize, UsageError } from "./cli.ts";
import { type DiskSource, type OpenOptions, type Scheme, SIZE, type Source } from "./disk_source.ts";
import { complain } from "./log.ts";
import type { Parameters } from "./parameters.ts";
import { membersOf, parseSpec, type Spec } from "./spec.ts";

type ReadMember = (spec: Spec) => DiskSource;

/**
 * A half of a mirror that is so much later has failed: long before the disk's own timeout of 30 s, at which those who use the
 * mirror would see an error although the other half has their data. A guess.
 */
const LATE_MS = 10_000;

/** Every scheme of a disk that is made of others. */
export const SET_SCHEMES: readonly Scheme[] = [
  {
    names: ["concat"],
    form: "concat:SPEC,SPEC…",
    text: "disks one behind the other",
    parameters: [],
    read: (spec, _parameters, readMember) => readSet(spec, readMember, (disks) => concat(disks)),
  },
  {
    names: ["stripe"],
    form: "stripe:SPEC,SPEC…",
    text: "disks side by side",
    parameters: [{ name: "chunk", value: "SIZE", text: "so much on one before the next one [64KiB]" }],
    read: (spec, parameters, readMember) => {
      const chunkBytes = parameters.size("chunk");
      return readSet(spec, readMember, (disks, names, log) => {
        const whole = stripe(disks, chunkBytes === undefined ? {} : { chunkBytes });
        const named = disks.map(({ sizeBytes }, i) => ({ name: names[i]!, sizeBytes }));
        const unused = unusedOf("The stripe", named, whole.sizeBytes / disks.length);
        if (unused !== undefined) log(unused);
        return whole;
      });
    },
  },
  {
    names: ["mirror"],
    form: "mirror:SPEC,SPEC…",
    text: "the same content on each; one that fails is left, and copied to when it is back",
    parameters: [
      { name: "bitmap", value: "PATH", text: "a file of marks, so that only what differs is copied" },
      {
        name: "late",
        value: "MS",
        text: `a disk that is so much later than another one has failed; 0: never [${LATE_MS}]`,
      },
    ],
    read: readMirror,
  },
  {
    names: ["slice"],
    form: "slice:SPEC",
    text: "a part of a disk",
    parameters: [
      { name: "offset", value: "SIZE", text: "where it begins [0]" },
      SIZE,
      { name: "partition", value: "N", text: "a partition instead, by its number" },
    ],
    read: readSlice,
  },
];

function readSlice(spec: Spec, parameters: Parameters, readMember: ReadMember): Source {
  // One SPEC, with all commas that are in it.
  const source = readMember(parseSpec(/^\[.*\]$/s.test(spec.place) ? spec.place.slice(1, -1) : spec.place));
  const partition = parameters.count("partition", 1, 128);
  const offsetBytes = parameters.text("offset") === "0" ? 0 : parameters.size("offset");
  const sizeBytes = parameters.size("size");
  if (partition !== undefined && (offsetBytes ?? sizeBytes) !== undefined) {
    throw new UsageError(`${spec.text}: a slice is a partition, or an offset and a size, not both`);
  }
  return {
    ...together([source]),
    open: (options) =>
      joined([source], options, ([disk]) =>
        asTyped(
          spec,
          slice(disk!, {
            ...(partition === undefined ? {} : { partition }),
            ...(offsetBytes === undefined ? {} : { offsetBytes }),
            ...(sizeBytes === undefined ? {} : { sizeBytes }),
          }),
        )),
  };
}

/** A range or a partition that the disk does not have was typed; whether it has one is known only when it is open. */
async function asTyped<T>({ text }: Spec, made: Promise<T>): Promise<T> {
  try {
    return await made;
  } catch (error) {
    const isTyped = error instanceof DblockError && error.code === "EINVAL";
    throw isTyped ? new UsageError(`${text}: ${error.message}`) : error;
  }
}

function readMirror(spec: Spec, parameters: Parameters, readMember: ReadMember): Source {
  const sources = membersOf(spec).map(readMember);
  const bitmapPath = parameters.text("bitmap");
  const lateMs = parameters.count("late", 0, 1_200_000) ?? LATE_MS;
  let mirror: MirrorBackend | undefined;
  const of = together(sources);
  return {
    ...of,
    files: [...of.files, ...(bitmapPath === undefined ? [] : [bitmapPath])],
    describe: () => mirror === undefined ? [] : describeMirror(mirror.status),
    mirror: () => mirror?.status,
    open: async (options) => {
      requireNoGrowth(options);
      requireNoOther(spec, options);
      const halves = sources.map((source) => ({ name: source.text, open: () => source.open(options) }));
      return mirror = await MirrorBackend.open(halves, {
        ...(bitmapPath === undefined ? {} : { bitmapPath }),
        lateMs,
        log: options.log ?? complain,
      });
    },
  };
}

function describeMirror({ state, halves, writtenBytes, resyncedBytes, repairedBytes }: MirrorStatus): string[] {
  return [
    `mirror: ${state}; ${formatSize(writtenBytes)} written, ${formatSize(resyncedBytes)} copied again, ` +
    `${formatSize(repairedBytes)} repaired`,
    ...halves.map(({ name, state, error, syncLeftBytes }) =>
      `  ${name}: ${state}${syncLeftBytes === 0 ? "" : `, ${formatSize(syncLeftBytes)} to copy`}` +
      `${error === undefined ? "" : `, because: ${error}`}`
    ),
  ];
}

function readSet(
  spec: Spec,
  readMember: ReadMember,
  join: (disks: readonly Backend[], names: readonly string[], log: (line: string) => void) => Backend,
): Source {
  const sources = membersOf(spec).map(readMember);
  const names = sources.map(({ text }) => text);
  return {
    ...together(sources),
    open: (options) => joined(sources, options, (disks) => join(disks, names, options.log ?? complain)),
  };
}

/** What holds of a disk that is made of others. */
function together(
  sources: readonly DiskSource[],
): Required<Pick<DiskSource, "survives" | "hasModule" | "isEmpty" | "files">> {
  return {
    survives: sources.every(({ survives }) => survives),
    hasModule: sources.some(({ hasModule }) => hasModule === true),
    isEmpty: sources.every(({ isEmpty }) => isEmpty === true),
    files: sources.flatMap(({ files = [] }) => files),
  };
}

function requireNoGrowth({ growToBytes }: OpenOptions): void {
  if (growToBytes === undefined) return;
  throw new DblockError("EOPNOTSUPP", "Cannot grow the disk", "it is made of others, whose sizes stay");
}

/**
 * A mirror copies from one half to the others, and only its server knows which halves have everything. A second one beside it
 * would copy what is old by then.
 */
function requireNoOther({ text }: Spec, { shared }: OpenOptions): void {
  if (!shared) return;
  throw new DblockError("EOPNOTSUPP", `Cannot take over ${text}`, "only its server knows what has to be copied", {
    hint: "end that server first (a service: systemctl restart dblock@NAME), then serve it without --take-over",
  });
}

/** Opens all, or none. */
async function joined(
  sources: readonly DiskSource[],
  options: OpenOptions,
  join: (disks: readonly Backend[]) => Backend | Promise<Backend>,
): Promise<Backend> {
  requireNoGrowth(options);
  await using undo = new AsyncDisposableStack();
  const disks: Backend[] = [];
  for (const source of sources) {
    const disk = await source.open(options);
    undo.defer(() => disk.close?.("unused"));
    disks.push(disk);
  }
  const whole = await join(disks);
  undo.move();
  return whole;
}
