/**
 * `make demo`: boots a VM and shows the whole life of a disk in it. What is done there is in demo.sh; the kernel of this
 * machine is not touched.
 */
import { parseArgs } from "node:util";
import { buildProgram } from "./architecture.ts";
import { runMain } from "./host.ts";
import { userlandImage } from "./image.ts";
import { defaultKernel, fetchKernel } from "./kernels.ts";
import { buildModule } from "./module.ts";
import { runVm } from "./vm.ts";

const limitMs = 300_000;

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { kernel: { type: "string", default: defaultKernel } } });
  const kernel = await fetchKernel(values.kernel);
  const moduleFile = await buildModule(kernel);
  const programFile = await buildProgram(kernel.architecture);
  await userlandImage(kernel.architecture);
  console.log(`Linux ${kernel.release} starts in a virtual machine; what follows happens there.`);
  const result = await runVm({
    kernel,
    command: "exec bash tests/vm/demo.sh",
    timeoutMs: limitMs,
    moduleFile,
    programFile,
    onOutput: (text) => Deno.stdout.writeSync(new TextEncoder().encode(text)),
  });
  if (result.verdict === "pass") return 0;
  console.error(`The demonstration did not come to its end: ${result.reason} (logs: ${result.runDir})`);
  return 1;
}

if (import.meta.main) await runMain(main);
