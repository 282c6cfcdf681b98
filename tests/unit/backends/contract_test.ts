// SPDX-License-Identifier: MIT
/** Every backend that comes with dblock keeps the contract: the kit's tests, on each. */
import { FileBackend } from "../../../src/backends/file.ts";
import { MemoryBackend } from "../../../src/backends/memory.ts";
import { checkBackend } from "../conformance.ts";

const sizeBytes = 2 ** 20;
const folder = await Deno.makeTempDir({ prefix: "dblock-contract-" });
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
let files = 0;

checkBackend("MemoryBackend", () => new MemoryBackend({ sizeBytes }));
checkBackend("FileBackend", () => FileBackend.open({ path: `${folder}/${files++}`, sizeBytes }), {
  reopen: (backend, how) => {
    const { path } = backend as FileBackend;
    if (how === "died") backend.close?.("left"); // the lock of a dead process goes with it
    return FileBackend.open({ path });
  },
});
