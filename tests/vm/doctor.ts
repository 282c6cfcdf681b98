/**
 * `make doctor`: what this machine lacks for building and testing, and what to type. It changes nothing.
 * `make` installs the packages named here by itself, so this is for the cases where that did not work.
 */
import { statfsSync } from "node:fs";
import { join } from "node:path";
import { buildDir, exists, projectDir, runMain } from "./host.ts";
import { defaultKernel, kernelVersions } from "./kernels.ts";

const neededMemoryMiB = 6_000;
const neededDiskMiB = 4_000;

let isComplete = true;

function tell(isGood: boolean, what: string, remedy: string): void {
  console.log(`${isGood ? "ok     " : "MISSING"}  ${what}`);
  if (isGood) return;
  isComplete = false;
  console.log(`         ${remedy}`);
}

/** True if a command is in the path, or in the folders that a plain user's path leaves out. */
function isCommand(name: string): boolean {
  const folders = `${Deno.env.get("PATH") ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`.split(":");
  return folders.some((folder) => folder !== "" && exists(join(folder, name)));
}

/** The table that toolchain.sh installs from: a command or absolute path, and the package that has it. */
function checkHostTools(): void {
  const table = Deno.readTextFileSync(join(projectDir, "src/build/host-tools.txt"));
  const missing = new Set<string>();
  for (const line of table.split("\n")) {
    const [probe, packageName] = line.replace(/#.*/, "").trim().split(/\s+/);
    if (!probe || !packageName) continue;
    if (probe.startsWith("/") ? exists(probe) : isCommand(probe)) continue;
    missing.add(packageName);
  }
  const packages = [...missing].sort().join(" ");
  tell(missing.size === 0, `Debian packages${packages && `: ${packages}`}`, `sudo apt-get install ${packages}`);
}

function checkResources(): void {
  const availableMiB = Math.floor(Deno.systemMemoryInfo().available / 2 ** 20);
  tell(
    availableMiB >= neededMemoryMiB,
    `memory: ${availableMiB} MiB available, ${neededMemoryMiB} for the VM and the build`,
    'make test ARGS="--memory 2048" gets along with less, for most tests',
  );
  const { bavail, bsize } = statfsSync(projectDir);
  const diskMiB = Math.floor(bavail * bsize / 2 ** 20);
  tell(
    diskMiB >= neededDiskMiB,
    `disk: ${diskMiB} MiB free, ${neededDiskMiB} for .build/`,
    "make room where the checkout is",
  );
}

function checkKernels(): void {
  for (const version of kernelVersions) {
    const isThere = exists(join(buildDir, "kernels", version, "release"));
    console.log(
      `info     kernel ${version}: ${isThere ? "unpacked" : "is fetched from Debian when it is first asked for"}`,
    );
  }
  const headers = `/lib/modules/${Deno.osRelease()}/build`;
  const headersNote = exists(headers)
    ? `"make load" can build for it`
    : `no headers, so "make load" cannot build for it (apt-get install linux-headers-amd64, if it is Debian's); tests do not need it`;
  console.log(
    `info     this machine's kernel ${Deno.osRelease()}: ${headersNote}; "make module" then builds for ${defaultKernel}`,
  );
}

await runMain(() => {
  tell(exists(join(buildDir, "bin/deno")), "Deno (from npm, under .build/)", "make toolchain");
  checkHostTools();
  checkResources();
  checkKernels();
  console.log(isComplete ? 'Nothing is missing: "make demo" and "make test" should work.' : 'After that: "make demo"');
  return Promise.resolve(isComplete ? 0 : 1);
});
