// SPDX-License-Identifier: MIT
/** Our server with a file, until it is killed: `nbd_main.ts SOCKET FILE`. */
import { RawBackend, serveNbd } from "../../src/mod.ts";

const [socket = "", file = ""] = Deno.args;
await using server = await serveNbd({ disk: await RawBackend.open({ path: file }) }, { address: `unix:${socket}` });
await server.closed;
