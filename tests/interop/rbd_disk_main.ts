// SPDX-License-Identifier: MIT
/**
 * In the VM of rbd_vm.ts: a disk under /dev whose content is an image of the cluster, with fio verify and the oracle of the
 * acknowledged writes on it, while its server is killed and the cluster loses OSDs and its monitor. Prints a `RbdReport`.
 */
import { fioLoop } from "../device/fio.ts";
import { sh, waitFor } from "../device/harness.ts";
import type { OracleReport } from "../device/oracle_main.ts";
import { destroyDevice, infoOf } from "../device/server.ts";
import { dblock, Serving } from "../device/serving.ts";

const [control = "", killsWord = ""] = Deno.args;
const kills = Number(killsWord);
const name = "rbd0";
const path = `/dev/${name}`;
const words = ["serve", "rbd:rbd/disk?conf=/ceph.conf", "--name", name, "--on-death", "hold", "--timeout", "0"];
const oracleBlocks = 4096;
/** A cluster that misses an OSD asks the others for a while first. */
const goesOnMs = 240_000;

/** What rbd_disk_test.ts looks at. */
export interface RbdReport extends OracleReport {
  readonly deaths: number;
  readonly replayed: number;
  readonly deviceErrors: number;
  /** What fio said, "" without an error. */
  readonly fio: string;
  /** What a server said that was started while there was no monitor, and how it ended. */
  readonly withoutMonitor: { readonly status: number; readonly stderr: string; readonly seconds: number };
  /** SHA-256 of the disk as read under /dev, and as Ceph's own client exports it. */
  readonly digests: readonly [string, string];
}

async function ask(what: string): Promise<string> {
  const response = await fetch(`${control}/${what}`, { method: "POST" });
  const text = await response.text();
  if (!response.ok) throw new Error(`${what}: ${text}`);
  console.log(`${what}${text === "" ? "" : `: ${text}`}`);
  return text;
}

function info() {
  const found = infoOf(name);
  if (found === undefined) throw new Error(`${path} is gone`);
  return found;
}

async function writesOn(count = 50): Promise<void> {
  const before = info().requests[1]!;
  await waitFor(`${count} writes to ${path}`, () => info().requests[1]! >= before + count, goesOnMs);
}

await sh("insmod kmod/dblock.ko");
await ask("create/disk");
let server = await Serving.start(words);
console.log(server.stdout.trim());
const oracle = new Deno.Command("deno", {
  args: [
    "run",
    "-A",
    "--no-check",
    "--import-map=src/build/standins/import_map.json",
    "tests/device/oracle_main.ts",
    path,
    "/tmp/oracle.log",
    `${oracleBlocks}`,
    "7",
  ],
  stdin: "piped",
  stdout: "piped",
}).spawn();
const fio = fioLoop("rbd", `--filename=${path} --rw=randwrite --bs=16k --iodepth=8 --offset=64M --size=16M`, {
  timeoutMs: 1_200_000,
});
await writesOn();

for (let kill = 1; kill <= kills; kill++) {
  server.child.kill("SIGKILL");
  await server.child.status;
  // Half of them in the two ways that there are to go on with a disk.
  server = await Serving.start(kill % 2 === 0 ? words : ["recover", name]);
  await writesOn();
  console.log(`kill ${kill}: it writes`);
}

await ask("stop/osd0");
await writesOn();
await ask("start-osd/0");
await writesOn();
await ask("stop/osd1");
await ask("stop/osd0");
await ask("start-osd/0");
await ask("start-osd/1");
await writesOn();
await ask("stop/mon");
await writesOn();
server.child.kill("SIGKILL");
await server.child.status;
const triedAt = performance.now();
const { status, stderr } = await dblock(words.join(" "));
const withoutMonitor = { status, stderr, seconds: (performance.now() - triedAt) / 1000 };
await ask("start-mon");
server = await Serving.start(words);
await writesOn();

const said = await fio.stop();
await oracle.stdin.close();
const report = JSON.parse(new TextDecoder().decode((await oracle.output()).stdout)) as OracleReport;
const { death_count, replayed_count, error_count } = info();
const local = (await sh(`dd if=${path} bs=1M iflag=direct status=none | sha256sum`, { timeoutMs: goesOnMs })).stdout
  .split(" ")[0]!;
await destroyDevice(name);
await server.child.status;
const all: RbdReport = {
  ...report,
  deaths: death_count,
  replayed: replayed_count,
  deviceErrors: error_count,
  fio: said,
  withoutMonitor,
  digests: [local, await ask("digest/disk")],
};
console.log(JSON.stringify(all));
Deno.exit(0);
