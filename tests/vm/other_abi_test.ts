// A real module of another ABI than the program's: older and newer. Who serves, who lists and doctor say in a line each which side
// is older and what to type, and they change nothing. What the ABI is made of is tests/abi's business.
import { assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import { DBLOCK_ABI_VERSION } from "../../src/module/abi.ts";
import { buildProgram } from "./architecture.ts";
import { buildDir, projectDir, run, withLock } from "./host.ts";
import { defaultKernel, fetchKernel, type Kernel } from "./kernels.ts";
import { buildModule } from "./module.ts";
import { runVm } from "./vm.ts";

/** The module, with that number as its ABI. Its sources are always in the same place, so it is built again only if they change. */
async function moduleOf(kernel: Kernel, abi: number): Promise<Uint8Array> {
  const sourceDir = join(buildDir, `kmod-abi-${abi}-sources`);
  return await withLock(`${sourceDir}.lock`, async () => {
    await run(["rm", "-rf", sourceDir]);
    await run(["cp", "-r", join(projectDir, "kmod"), sourceDir]);
    const header = join(sourceDir, "uapi/dblock.h");
    const text = await Deno.readTextFile(header);
    await Deno.writeTextFile(header, text.replace(/(#define DBLOCK_ABI_VERSION\s+)\d+/, `$1${abi}`));
    return await Deno.readFile(await buildModule(kernel, { sourceDir, variant: `abi-${abi}` }));
  });
}

Deno.test("with a module of another ABI, serve and doctor say which side is older, and what to type", async () => {
  const kernel = await fetchKernel(defaultKernel);
  const [older, newer] = [DBLOCK_ABI_VERSION - 1, DBLOCK_ABI_VERSION + 1];
  const result = await runVm({
    kernel,
    programFile: await buildProgram(kernel.architecture),
    files: { "/abi/older.ko": await moduleOf(kernel, older), "/abi/newer.ko": await moduleOf(kernel, newer) },
    timeoutMs: 300_000,
    command: `
      try() { echo "== $1"; shift; "$@" 2>&1; echo "status $?"; }
      for side in older newer; do
        insmod /abi/$side.ko
        try $side-serve ./dblock serve memory:64MiB --name abi0
        try $side-list ./dblock list
        try $side-doctor ./dblock doctor
        try $side-left ls /dev/abi0
        rmmod dblock
      done`,
  });
  const all = `${result.reason}\n${result.output}`;
  assertEquals(result.verdict, "pass", all);
  const parts = Object.fromEntries(
    result.output.split(/^== /m).slice(1).map((part) => [part.split("\n")[0]!, part.split("\n").slice(1).join("\n")]),
  );
  const sides = {
    older: [older, "the loaded module is older than this program", /sudo make unload load/],
    newer: [newer, "this program is older than the loaded module", /make, in the sources of the module/],
  } as const;
  for (const [side, [abi, which, mend]] of Object.entries(sides)) {
    const wrong = `${which}: the module speaks ABI ${abi}, the program ${DBLOCK_ABI_VERSION}`;
    const refused = (attempted: string) =>
      new RegExp(`^.*${attempted}.*: ${wrong} \\(dblock doctor says what to type\\)\nstatus 1\n$`);
    assertMatch(parts[`${side}-serve`]!, refused("abi0"), all);
    assertMatch(parts[`${side}-list`]!, refused("Cannot"), all);
    const [, said] = new RegExp(`^WRONG  module: ${wrong}\n(.*)$`, "m").exec(parts[`${side}-doctor`]!) ?? [];
    assertMatch(said ?? all, mend);
    assertMatch(parts[`${side}-left`]!, /No such file/);
  }
});
