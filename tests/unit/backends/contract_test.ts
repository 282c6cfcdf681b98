// SPDX-License-Identifier: MIT
/** Every backend that comes with dblock keeps the contract: the kit's tests, on each. Sets: sets_contract_test.ts. */
import { FileBackend } from "../../../src/backends/file.ts";
import { MemoryBackend } from "../../../src/backends/memory.ts";
import { NullBackend } from "../../../src/backends/null.ts";
import { PatternBackend } from "../../../src/backends/pattern.ts";
import { RawBackend } from "../../../src/backends/raw.ts";
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

for (const direct of [false, true]) {
  const name = `RawBackend${direct ? " with O_DIRECT" : ""}`;
  checkBackend(name, () => RawBackend.open({ path: `${folder}/${files++}`, sizeBytes, direct }), {
    reopen: async (backend, how) => {
      const { path } = backend as RawBackend;
      if (how === "died") await backend.close?.("left");
      return await RawBackend.open({ path, direct });
    },
  });
  // As a Worker serves it. The main program closes the file.
  const mains = new Map<RawBackend, RawBackend>();
  const inWorker = (main: RawBackend) => {
    const { data } = main.workers();
    if (data === undefined) throw new TypeError("workers() tells its module nothing");
    const backend = RawBackend.inWorker(data);
    mains.set(backend, main);
    return backend;
  };
  const open = (path: string) => RawBackend.open({ path, sizeBytes, direct });
  checkBackend(`${name} in a Worker`, async () => inWorker(await open(`${folder}/${files++}`)), {
    reopen: async (backend) => {
      const main = mains.get(backend as RawBackend);
      await main?.close();
      return inWorker(await open((backend as RawBackend).path));
    },
  });
}

checkBackend("NullBackend", () => new NullBackend({ sizeBytes: 2 ** 50 }), {
  content: (buffer) => void buffer.fill(0),
});

for (const [sizeBytes, seed] of [[2 ** 20, 7], [2 ** 53 - 512, 2 ** 31]] as const) {
  const same = new PatternBackend({ sizeBytes, seed });
  checkBackend(`PatternBackend of ${sizeBytes} bytes`, () => new PatternBackend({ sizeBytes, seed }), {
    content: (buffer, offsetBytes) => same.read(buffer, offsetBytes),
    errors: [{ operation: "writeZeroes", errno: "EILSEQ" }],
  });
}
