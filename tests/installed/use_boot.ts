// The second boot: all disks are mounted, with what was written. Their service is restarted, reloaded, upgraded by a package of a
// higher version, and killed, under a writer that verifies; a stop leaves a mounted disk; a mistake fails with the command's line.
// time limit: 600 s
import { assert, assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { DBLOCK_STATE_HELD, DBLOCK_STATE_LIVE } from "../../src/module/abi.ts";
import { stateOf } from "../device/debian.ts";
import { assertWithin, figure, sh, waitFor } from "../device/harness.ts";
import { infoOf } from "../device/server.ts";
import { Writer } from "../device/writer.ts";
import { checkBoot, disks, fill, untilWritten } from "./disks.ts";

const [data] = disks;
const unit = "dblock@data";
/** A second is what it should be, on a machine that is not emulated. */
const stopMs = 3_000;
const failMs = 10_000;
/** Unpacking the program's 90 MB on an emulated machine is most of it. */
const upgradeMs = 300_000;

async function shown(property: string, of = unit): Promise<string> {
  return (await sh(`systemctl show --property=${property} --value ${of}`)).stdout.trim();
}

Deno.test("after a boot all disks are mounted, and have what was written before", checkBoot);

/** Does something to the service under a writer. Another process serves afterwards, and no write was lost or late. */
async function underWriter(what: string, act: () => Promise<unknown>): Promise<void> {
  const before = await shown("MainPID");
  const writer = new Writer(`${data!.place}/written`);
  await untilWritten(data!.name);
  const started = performance.now();
  await act();
  const tookMs = performance.now() - started;
  await waitFor("another process serves", async () => {
    return infoOf(data!.name)?.state === DBLOCK_STATE_LIVE && await shown("MainPID") !== before;
  }, 60_000);
  await untilWritten(data!.name);
  const { error, slowestMs, said } = await writer.stop();
  assertEquals(error, 0, said);
  assertEquals([await stateOf(unit), infoOf(data!.name)!.error_count], ["active", 0]);
  figure({ [`longest stall of a writer over ${what}`]: [slowestMs / 1000, "s"] });
  figure({ [`longest ${what}`]: [tookMs / 1000, "s"] });
}

Deno.test("a writer does not notice a restart", () =>
  underWriter("systemctl restart", () => sh(`systemctl restart ${unit}`)));
Deno.test("nor a reload", () => underWriter("systemctl reload", () => sh(`systemctl reload ${unit}`)));
Deno.test("nor the package's upgrade, which reloads all disks", async () => {
  const other = await shown("MainPID", "dblock@nested");
  await underWriter("package upgrade", async () => {
    const { stdout } = await sh("apt-get install --yes /srv/packages/new/*.deb 2>&1", { timeoutMs: upgradeMs });
    assert(!stdout.includes("goes on with the version before"), stdout);
  });
  assertNotEquals(await shown("MainPID", "dblock@nested"), other);
  const { stdout } = await sh("dpkg-query --show dblock && ls /srv/packages/new");
  assertMatch(stdout, /^dblock\t([\d.]+)\n(.*\n)*dblock_\1_amd64\.deb\n/);
});
Deno.test("a killed server is back by itself", () =>
  underWriter("systemctl kill", () => sh(`systemctl kill -s KILL ${unit}`)));

Deno.test("a stop of a mounted disk is over at once, and says that the disk is held", async () => {
  const started = performance.now();
  await sh(`systemctl stop ${unit}`);
  const tookMs = performance.now() - started;
  figure({ "longest systemctl stop of a mounted disk": [tookMs / 1000, "s"] });
  assertWithin(stopMs, tookMs, "stopped");
  assertEquals([await stateOf(unit), infoOf("data")!.state], ["inactive", DBLOCK_STATE_HELD]);
  assertMatch(
    (await sh(`journalctl --boot --unit=${unit} --output=cat`)).stdout,
    /\/dev\/data is left to its next server/,
  );
  await sh(`systemctl start ${unit}`);
  for (const disk of disks) await fill(disk);
});

Deno.test("a mistake in a disk's file fails at once, with the command's own line", async () => {
  await sh("echo 'memroy:1GiB' >/etc/dblock/wrong");
  const started = performance.now();
  assertNotEquals((await sh("systemctl start dblock@wrong", { check: false })).status, 0);
  const tookMs = performance.now() - started;
  figure({ "longest until a wrong dblock@NAME has failed": [tookMs / 1000, "s"] });
  assertWithin(failMs, tookMs, "failed");
  const { stderr } = await sh("dblock serve --config /etc/dblock/wrong", { check: false });
  assertMatch(stderr, /did you mean memory\?/);
  assertStringIncludes((await sh("systemctl status dblock@wrong", { check: false })).stdout, stderr.trim());
  await sh("rm /etc/dblock/wrong && systemctl reset-failed");
});
