// SPDX-License-Identifier: MIT
/** The module of a lane's Worker: serves the connection that it is given, and says what became of it. */
import { Lane, type LaneJob, type LaneOutcome } from "./lane.ts";

/** The part of a Worker's global scope that is used: the default types are those of a main program. */
interface WorkerScope {
  postMessage(message: LaneOutcome | "ready"): void;
  addEventListener(type: "message", listener: (event: { readonly data: LaneJob }) => void): void;
}

const scope = self as unknown as WorkerScope;
const lane = new Lane();
scope.addEventListener("message", ({ data }) => scope.postMessage(lane.serve(data)));
scope.postMessage("ready");
