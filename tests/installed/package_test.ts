// The packages on a whole Debian in a VM, boot after boot on one disk: installed with DKMS, used, upgraded, rebooted, removed. By
// default with two reboots on one kernel, and a module that the host has compiled; DBLOCK_INSTALLED=long leaves all of it to DKMS,
// upgrades to another kernel by apt, and has 20 reboots. A copy of the machine has its /usr on a disk of dblock.
import { listFiles } from "../vm/host.ts";
import { downloadKernel, fetchKernel, type Kernel } from "../vm/kernels.ts";
import { buildModule } from "../vm/module.ts";
import { EARLY_MAY_BE_SAID, EARLY_SAID, earlyStore, LATE_SAID, lateStore } from "./late.ts";
import { Machine, packagesOf } from "./machine.ts";

const isLong = Deno.env.get("DBLOCK_INSTALLED") === "long";
const reboots = isLong ? 20 : 2;
/** Room for the machine's /usr. */
const earlyStoreBytes = 4 * 2 ** 30;
/** Debian 12's own, and the one that the machine is upgraded to. */
const [firstKernel, nextKernel] = ["6.1", "6.12"] as const;
/** The version before that of this checkout, and the one that it is upgraded to. */
const versions = ["0.0.1", "0.0.2"] as const;

Deno.test("dblock's packages: installed, used, upgraded, rebooted and removed on a whole Debian", async () => {
  // A suite that says nothing for five minutes is taken for one that hangs. Debian's installation says nothing, nor does a compiler
  // in an emulated machine, whose tests have limits of their own.
  const started = performance.now();
  const alive = setInterval(() => {
    console.log(`at it for ${Math.round((performance.now() - started) / 60_000)} minutes`);
  }, 60_000);
  using _alive = { [Symbol.dispose]: () => clearInterval(alive) };
  let kernel = await fetchKernel(firstKernel);
  const [old, next] = [await packagesOf(versions[0]), await packagesOf(versions[1])];
  await using machine = await Machine.make(kernel);
  await machine.put("old", [old.dblock, old.dkms]);
  await machine.put("new", isLong ? [next.dblock, next.dkms] : [next.dblock]);
  // A compiler on an emulated processor takes minutes.
  if (!isLong) await machine.put("module", [await buildModule(kernel)]);
  await machine.boot(kernel, "install");
  await machine.boot(kernel, "use");
  if (isLong) {
    const upgraded = await fetchKernel(nextKernel);
    const dir = await Deno.makeTempDir({ prefix: "dblock-kernel-" });
    await downloadKernel(upgraded, dir);
    await machine.put("kernel", listFiles(dir).map((file) => `${dir}/${file}`));
    await Deno.remove(dir, { recursive: true });
    await machine.boot(kernel, "kernel");
    kernel = upgraded;
  }
  await machine.boot(kernel, "late");
  await machine.checkLate(lateStore, LATE_SAID);
  for (let round = 0; round < reboots; round++) await machine.boot(kernel, "reboot");
  await bootEarly(machine, kernel);
  await machine.boot(kernel, "remove");
  machine.printFigures();
});

/** A machine that is as this one is, until its /usr is on a disk of dblock: boots by an initial ramdisk of its own. */
async function bootEarly(machine: Machine, kernel: Kernel): Promise<void> {
  await using early = await machine.copy();
  await early.addDisk(earlyStore, earlyStoreBytes);
  await early.boot(kernel, "early_move");
  for (const name of ["early", "early_again"]) {
    await early.boot(kernel, name, { byOwnInitrd: true });
    await early.checkLate(earlyStore, EARLY_SAID, EARLY_MAY_BE_SAID);
  }
}
