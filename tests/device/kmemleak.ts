/** Asks kmemleak for memory that nobody points to any more. Only the debug kernel has it. */
import { exists } from "./harness.ts";

const file = "/sys/kernel/debug/kmemleak";
/** kmemleak leaves younger objects alone. */
const minAgeMs = 5_500;

/** True if this kernel looks for leaks. */
export function hasKmemleak(): boolean {
  return exists(file);
}

/** What has leaked so far is not reported again. */
export async function forgetLeaks(): Promise<void> {
  await findLeaks();
  Deno.writeTextFileSync(file, "clear");
}

/** kmemleak's report of what has leaked since, empty if nothing has. Takes several seconds. */
export async function findLeaks(): Promise<string> {
  await new Promise((resolve) => setTimeout(resolve, minAgeMs));
  // An object is reported when a scan finds it unreferenced and unchanged since the scan before.
  for (let i = 0; i < 2; i++) Deno.writeTextFileSync(file, "scan");
  return Deno.readTextFileSync(file);
}
