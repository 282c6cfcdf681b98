// SPDX-License-Identifier: MIT
/** How a mirror is, as data: for a program that shows it, and for one that waits for something. */
import type { Figure } from "../disk/backend.ts";
import type { Half, HalfState } from "./mirror_half.ts";

/** One disk of a mirror, as it is now. */
export interface MirrorHalfStatus {
  /** Its name. */
  readonly name: string;
  /** Whether it is used. */
  readonly state: HalfState;
  /** Why it has left. */
  readonly error?: string;
  /** What is still to be copied to it. */
  readonly syncLeftBytes: number;
  /** How many reads of it have failed. */
  readonly readErrorCount: number;
}

/** A mirror as it is now, in plain data. */
export interface MirrorStatus {
  /** `degraded`: a disk is missing. `syncing`: all are there, and one is not up to date yet. */
  readonly state: "in sync" | "syncing" | "degraded";
  /** Its disks, in their order. */
  readonly halves: readonly MirrorHalfStatus[];
  /** What is marked: it may differ, and would be copied after a crash. */
  readonly markedBytes: number;
  /** What was written to the mirror. */
  readonly writtenBytes: number;
  /** What was copied to disks that had missed it. */
  readonly resyncedBytes: number;
  /** What could not be read from one disk and was written to it again. */
  readonly repairedBytes: number;
}

/** What a mirror counts. */
export type MirrorCounts = Pick<MirrorStatus, "markedBytes" | "writtenBytes" | "resyncedBytes" | "repairedBytes">;

/** The status of a mirror of these halves. */
export function statusOf(halves: readonly Half[], counts: MirrorCounts): MirrorStatus {
  const states = halves.map(({ state }) => state);
  return {
    state: states.includes("left") ? "degraded" : states.includes("syncing") ? "syncing" : "in sync",
    halves: halves.map(({ name, state, error, syncLeftBytes, readErrorCount }) => ({
      name,
      state,
      ...(error === undefined ? {} : { error }),
      syncLeftBytes,
      readErrorCount,
    })),
    ...counts,
  };
}

/** The status in figures. */
export function figuresOf({ halves, markedBytes, writtenBytes, resyncedBytes, repairedBytes }: MirrorStatus): Figure[] {
  return [
    { name: "mirror_marked_bytes", help: "What may differ between the halves.", value: markedBytes },
    { name: "mirror_written_bytes_total", help: "What was written to the mirror.", value: writtenBytes },
    {
      name: "mirror_resynced_bytes_total",
      help: "What was copied to halves that had missed it.",
      value: resyncedBytes,
    },
    { name: "mirror_repaired_bytes_total", help: "What one half could not read and got again.", value: repairedBytes },
    ...halves.flatMap(({ name, state, syncLeftBytes, readErrorCount }, i): Figure[] => {
      const labels = { half: `${i}`, of: name };
      return [
        { name: "mirror_half_in_use", help: "1 while the half is used.", value: state === "left" ? 0 : 1, labels },
        { name: "mirror_half_sync_left_bytes", help: "What is still to be copied.", value: syncLeftBytes, labels },
        { name: "mirror_half_read_errors_total", help: "Reads of it that failed.", value: readErrorCount, labels },
      ];
    }),
  ];
}
