/** A process of creator_test.ts that makes a device, closes the control node, and lives until its input ends. */
import { createDevice, params } from "./server.ts";

createDevice(params(Deno.args[0]!));
console.log("created");
await Deno.stdin.readable.pipeTo(new WritableStream());
