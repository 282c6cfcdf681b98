/** Asks kmemleak for memory that nobody points to any more. Runs in the VM; only the debug kernel has it. */

const file = "/sys/kernel/debug/kmemleak";
/** kmemleak leaves younger objects alone. */
const minAgeMs = 5_500;

/** True if this kernel looks for leaks. */
export function hasKmemleak(): boolean {
  try {
    return Deno.statSync(file).isFile;
  } catch {
    return false;
  }
}

/**
 * Scans the kernel's memory and returns what leaked, empty if nothing is known to have. What is reported once is not
 * reported again. An object must be found unreferenced and unchanged by two scans.
 */
export function scanForLeaks(): string {
  Deno.writeTextFileSync(file, "scan");
  const report = Deno.readTextFileSync(file);
  if (report !== "") Deno.writeTextFileSync(file, "clear");
  return report;
}

/** The same for all that has leaked by now. Takes several seconds more. */
export async function findLeaks(): Promise<string> {
  await new Promise((resolve) => setTimeout(resolve, minAgeMs));
  return scanForLeaks() + scanForLeaks();
}
