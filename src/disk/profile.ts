// SPDX-License-Identifier: MIT
/** What a transport has to know of a backend before it asks anything, as data that can go to another thread. */
import type { Backend, Limits } from "./backend.ts";
import { contentFileOf } from "./content_file.ts";
import { isMapped } from "./servable.ts";

/** What a disk can do. */
export interface Profile {
  readonly sizeBytes: number;
  readonly limits: Limits;
  /** It is memory: dblock.ko copies by itself and delivers nothing. */
  readonly direct: boolean;
  /** It is a file that dblock.ko could read and write by itself. */
  readonly hasContentFile: boolean;
  readonly readOnly: boolean;
  /** It has something to flush. */
  readonly writeCache: boolean;
  /** What was answered and not flushed survives the process. */
  readonly cacheSurvives: boolean;
  /** FUA is sent as a flag; otherwise the transport flushes after such a write. */
  readonly fua: boolean;
  readonly discard: boolean;
  /** It zeroes by itself; otherwise dispatch writes zeroes. */
  readonly writeZeroes: boolean;
}

/** The same disk in direct mode, as dblock.ko reads and writes its file. */
export function directProfile(profile: Profile): Profile {
  return { ...profile, direct: true };
}

/** What a backend can do, seen from which callbacks it has. */
export function profileOf(backend: Backend): Profile {
  const direct = isMapped(backend);
  const writeCache = backend.flush !== undefined;
  return {
    sizeBytes: backend.sizeBytes,
    limits: backend.limits ?? {},
    direct,
    hasContentFile: contentFileOf(backend) !== undefined,
    readOnly: backend.readOnly ?? false,
    writeCache,
    cacheSurvives: backend.cacheSurvives ?? false,
    // Dispatch flushes after the write by itself: one round trip instead of two. Not in direct mode: the kernel copies a
    // write's data while it ends the request, so there is no moment to make the data durable before.
    fua: writeCache && !direct,
    discard: backend.discard !== undefined,
    writeZeroes: backend.writeZeroes !== undefined,
  };
}
