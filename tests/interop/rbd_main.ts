/** A server of an image in a process of its own, for rbd_test.ts to kill: writes a byte all over it, says so, and goes on. */
import { RbdBackend } from "../../src/backends/rbd.ts";

const [conf = "", image = "", byte = "1"] = Deno.args;
const backend = await RbdBackend.open({ pool: "rbd", image, conf });
const block = new Uint8Array(4096).fill(Number(byte));
const write = (at: number) => backend.write(block, at % backend.sizeBytes);
await write(0);
console.log("writing");
for (let at = 0;; at += block.length) {
  try {
    await write(at);
  } catch (error) {
    console.log(error instanceof Error ? error.message : String(error));
    Deno.exit(3);
  }
}
