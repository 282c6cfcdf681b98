// SPDX-License-Identifier: MIT
/** A server in a process of its own, whose memory half_open_test.ts looks at: `half_open_main.ts SOCKET`. Ends with its input. */
import { serveNbd } from "../../../src/nbd/server.ts";

const store = new Uint8Array(2 ** 20);
await using _server = await serveNbd({
  disk: {
    sizeBytes: store.length,
    read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
    write: (buffer, offset) => store.set(buffer, offset),
  },
}, { address: `unix:${Deno.args[0]}` });
// As every server does; Deno panics if no file is left when it listens for a signal for the first time.
Deno.addSignalListener("SIGTERM", () => {});
console.log("ready");
for await (const _ of Deno.stdin.readable);
