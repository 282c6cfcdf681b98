// SPDX-License-Identifier: MIT
/** The module of a Worker that serves a `RawBackend`: see its `workers()`. */
import type { Backend } from "../disk/backend.ts";
import { RawBackend, type RawData } from "./raw.ts";

/** Makes the disk in a Worker. */
export default function open(data: RawData): Backend {
  return RawBackend.inWorker(data);
}
