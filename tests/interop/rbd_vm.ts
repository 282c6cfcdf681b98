// SPDX-License-Identifier: MIT
/**
 * Runs a program in a VM that has a Ceph cluster of this machine beside it: `rbd_vm.ts PROGRAM WORDS…`, in a network of its own
 * (`unshare --net`), so that nobody else reaches the cluster. The program gets a URL as its first word; there it asks for
 * what the cluster is to do: POST /stop/NAME, /start-osd/ID, /start-mon, /digest/IMAGE (the SHA-256 of what `rbd export` reads).
 */
import { join } from "node:path";
import { buildProgram } from "../vm/architecture.ts";
import { projectDir, run, runMain } from "../vm/host.ts";
import { userlandImage } from "../vm/image.ts";
import { defaultKernel, fetchKernel } from "../vm/kernels.ts";
import { buildModule } from "../vm/module.ts";
import { runVm } from "../vm/vm.ts";
import { Cluster, whyNoCeph } from "./ceph.ts";

const ADDRESS = "10.99.0.1";
const LIMIT_MS = 1_500_000;
const OSDS = 2;
/** Nothing is fetched in the VM. */
const IMPORT_MAP = "src/build/standins/import_map.json";

/** What is not there for this, or undefined. */
export function whyNoRbdVm(): string | undefined {
  return Deno.uid() === 0 ? whyNoCeph() : "needs root, for a network of its own";
}

/** What the VM needs, made while there is a network. */
async function prepare() {
  const kernel = await fetchKernel(defaultKernel);
  const moduleFile = await buildModule(kernel);
  const programFile = await buildProgram(kernel.architecture);
  await userlandImage(kernel.architecture);
  return { kernel, moduleFile, programFile };
}

/** Runs a program in the VM, and gives what it printed. */
export async function runBesideCluster(program: string, words: readonly string[] = []): Promise<string> {
  await prepare();
  const deno = join(projectDir, "src/build/deno.sh");
  const script = join(projectDir, "tests/interop/rbd_vm.ts");
  const child = new Deno.Command("unshare", {
    args: ["--net", "setpriv", "--pdeathsig", "TERM", deno, "run", "-A", "--no-check", script, program, ...words],
    stdout: "piped",
  }).spawn();
  let said = "";
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    said += text;
    Deno.stdout.writeSync(new TextEncoder().encode(text)); // a test that says nothing is taken for one that hangs
  }
  const { code } = await child.status;
  if (code !== 0) throw new Error(`${program} in the VM ended with ${code}`);
  return said;
}

/** What is asked of the cluster. */
async function act(cluster: Cluster, words: readonly string[]): Promise<string> {
  const [verb, name = ""] = words;
  if (verb === "stop") await cluster.stop(name);
  else if (verb === "start-osd") cluster.startOsd(Number(name));
  else if (verb === "start-mon") await cluster.startMonitor();
  else if (verb === "create") await cluster.rbd("create", name, "--size", "128M");
  else if (verb === "digest") {
    const command = `set -o pipefail; rbd -c ${cluster.conf} export ${name} - --no-progress | sha256sum`;
    return (await run(["bash", "-c", command])).split(" ")[0]!;
  } else throw new Error(`nobody knows how to ${verb}`);
  return "";
}

async function main(): Promise<number> {
  const [program = "", ...words] = Deno.args;
  await run(["bash", "-c", `ip link set lo up && ip addr add ${ADDRESS}/32 dev lo`]);
  const { kernel, moduleFile, programFile } = await prepare();
  await using cluster = await Cluster.start({ osds: OSDS, address: ADDRESS });
  await using server = Deno.serve({ hostname: ADDRESS, port: 0, onListen() {} }, async (request) => {
    try {
      return new Response(await act(cluster, new URL(request.url).pathname.split("/").slice(1)));
    } catch (error) {
      return new Response(String(error), { status: 500 });
    }
  });
  const result = await runVm({
    kernel,
    // The limits of the tests' helpers are those of an idle machine, which this is not, with the cluster beside it.
    command:
      `DBLOCK_TEST_SLOWNESS=4 exec deno run -A --no-check --import-map=${IMPORT_MAP} ${program} http://${ADDRESS}:${server.addr.port} ${
        words.join(" ")
      }`,
    timeoutMs: LIMIT_MS,
    moduleFile,
    programFile,
    network: true,
    files: { "/ceph.conf": cluster.clientConf },
    onOutput: (text) => Deno.stdout.writeSync(new TextEncoder().encode(text)),
  });
  if (result.verdict === "pass") return 0;
  console.error(`${program}: ${result.reason} (logs: ${result.runDir})\n${result.consoleLog.slice(-2_000)}`);
  return 1;
}

if (import.meta.main) await runMain(main);
