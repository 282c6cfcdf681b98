/** The server of raw_test.ts that is killed: serves a file as /dev/raw1 until its input ends. Says "serves" when it does. */
import { RawBackend, serve } from "../../src/mod.ts";

const [path = "", size = ""] = Deno.args;
await using disk = await RawBackend.open({ path, sizeBytes: Number(size) });
const device = await serve(disk.workers(), { name: "raw1", queues: 2, onDeath: "hold", existing: "recover" });
console.log("serves");
await new Response(Deno.stdin.readable).bytes();
await device.close();
