/** A server of big_batch_test.ts that says "loaded", answers everything in one call, and says "answered". */
import { commitAll, loadedQueue } from "./big_batch.ts";

const [name] = Deno.args as [string];
const load = await loadedQueue(name, 1);
console.log("loaded");
commitAll(load, 1);
console.log("answered");
