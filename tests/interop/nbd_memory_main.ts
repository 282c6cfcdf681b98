// SPDX-License-Identifier: MIT
/** Our server with a disk in memory, until it is killed: `nbd_memory_main.ts SOCKET BYTES`. */
import { MemoryBackend, serveNbd } from "../../src/mod.ts";

const [socket = "", bytes = ""] = Deno.args;
const disk = new MemoryBackend({ sizeBytes: Number(bytes) });
await using server = await serveNbd({ disk }, { address: `unix:${socket}` });
await server.closed;
