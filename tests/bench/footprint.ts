/** What a disk costs that nobody uses: memory, processor time while idle, the time to make and to end it. In the VM. */
import { Ramdisk, runRamdisk } from "../device/ramdisk.ts";
import type { Footprint } from "./plan.ts";
import { median } from "./statistics.ts";

const idleMs = 10_000;
const cycles = 5;
const tickMs = 10;

/** Measures a dblock-ramdisk that holds no data. */
export async function measureFootprint(): Promise<Footprint> {
  return { ...await measureIdle(), ...await measureCycles() };
}

async function measureIdle(): Promise<Pick<Footprint, "residentMiB" | "idleCpuMs">> {
  await using ramdisk = await Ramdisk.start({ name: "bench-idle", args: ["--size", "512M"] });
  await sleep(1000); // what the start left to do
  const before = processorMs(ramdisk.pid);
  await sleep(idleMs);
  const idleCpuMs = processorMs(ramdisk.pid) - before;
  const status = Deno.readTextFileSync(`/proc/${ramdisk.pid}/status`);
  const residentKiB = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
  return { residentMiB: residentKiB / 1024, idleCpuMs };
}

async function measureCycles(): Promise<Pick<Footprint, "createMs" | "destroyMs">> {
  const creations: number[] = [];
  const destructions: number[] = [];
  for (let i = 0; i < cycles; i++) {
    const started = performance.now();
    await using ramdisk = await Ramdisk.start({ name: "bench-cycle", args: ["--size", "512M"] });
    const ready = performance.now();
    await runRamdisk("-d --name bench-cycle");
    await ramdisk.end();
    creations.push(ready - started);
    destructions.push(performance.now() - ready);
  }
  return { createMs: median(creations), destroyMs: median(destructions) };
}

/** User and system time of a process and all its threads. */
function processorMs(pid: number): number {
  // The second field may have spaces in it; what follows its closing parenthesis does not.
  const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ").at(-1)!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) * tickMs;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
