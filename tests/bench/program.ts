/** What the executable costs outside any VM: its size, and the time of a process that does nothing. */
import { median } from "./statistics.ts";

const starts = 10;

/** Measures on this machine. */
export async function measureProgram(programFile: string): Promise<{ executableMiB: number; versionMs: number }> {
  const times: number[] = [];
  // One more: the first one reads the file from the disk.
  for (let i = 0; i <= starts; i++) {
    const started = performance.now();
    const { success } = await new Deno.Command(programFile, { args: ["--version"], stdout: "null" }).output();
    if (!success) throw new Error(`${programFile} --version fails`);
    if (i > 0) times.push(performance.now() - started);
  }
  return { executableMiB: (await Deno.stat(programFile)).size / 2 ** 20, versionMs: median(times) };
}
