/**
 * `make vm-shell`: a root shell in a test VM with the module loaded and dblock-ramdisk in PATH. Leaving the shell, or
 * Ctrl-A X, ends the VM.
 */
import { parseArgs } from "node:util";
import { buildProgram } from "./architecture.ts";
import { runMain } from "./host.ts";
import { defaultKernel, fetchKernel } from "./kernels.ts";
import { buildModule } from "./module.ts";
import { runVm } from "./vm.ts";

const limitMs = 24 * 3_600_000;

function shellScript(): string {
  let size = "";
  if (Deno.stdin.isTerminal()) {
    const { columns, rows } = Deno.consoleSize();
    size = `stty columns ${columns} rows ${rows}`;
  }
  return `
${size}
export PATH="/project:$PATH" PS1='vm:\\w# '
[ -e kmod/dblock.ko ] && insmod kmod/dblock.ko
cat <<EOF

Linux $(uname -r) in a VM: root, no network. The module is loaded; the project is in
/project, files to copy are in /data, and there is room for new ones in /tmp.

    dblock-ramdisk &            a disk: /dev/dblockramdisk
    dblock-ramdisk -d           ends it
    deno test -A --no-check --import-map=src/build/standins/import_map.json tests/device/...

exit, or Ctrl-A X, ends the VM.

EOF
bash --norc -i
`;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      kernel: { type: "string", default: defaultKernel },
      memory: { type: "string" },
      smp: { type: "string" },
    },
  });
  const kernel = await fetchKernel(values.kernel);
  await runVm({
    kernel,
    command: shellScript(),
    interactive: true,
    timeoutMs: limitMs,
    moduleFile: await buildModule(kernel),
    programFile: await buildProgram(kernel.architecture),
    memoryMiB: values.memory === undefined ? undefined : Number(values.memory),
    smp: values.smp === undefined ? undefined : Number(values.smp),
  });
  return 0;
}

if (import.meta.main) await runMain(main);
