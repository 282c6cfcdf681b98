// The second boot: all disks are mounted, with what was written. Their service is restarted, reloaded, upgraded by a package of a
// higher version, and killed, under a writer that verifies; a stop leaves a mounted disk; a mistake fails with the command's line.
// time limit: 600 s
import { assert, assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { DBLOCK_STATE_HELD, DBLOCK_STATE_LIVE } from "../../src/module/abi.ts";
import { journalOf, stateOf } from "../device/debian.ts";
import { assertWithin, figure, sh, waitFor } from "../device/harness.ts";
import { infoOf } from "../device/server.ts";
import { Writer } from "../device/writer.ts";
import { checkBoot, disks, fill, untilWritten } from "./disks.ts";
import { note, show } from "./transcript.ts";

const [data] = disks;
const unit = "dblock@data";
/** As debian_unit_test.ts has them, which says where the time goes. */
const stopMs = 1_000;
/** A second, and what the sandbox and the command take by themselves in an emulated machine. */
const failMs = 2_500;
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
  note(`fio writes to ${data!.place}, reads it back and verifies, meanwhile`);
  await untilWritten(data!.name);
  const started = performance.now();
  await act();
  const tookMs = performance.now() - started;
  await waitFor("another process serves", async () => {
    return infoOf(data!.name)?.state === DBLOCK_STATE_LIVE && await shown("MainPID") !== before;
  }, 60_000);
  await untilWritten(data!.name);
  const { error, slowestMs, said } = await writer.stop();
  note(`fio: ${error === 0 ? "0 errors" : `errno ${error}`}, longest stall ${(slowestMs / 1000).toFixed(2)} s`);
  assertEquals(error, 0, said);
  assertEquals([await stateOf(unit), infoOf(data!.name)!.error_count], ["active", 0]);
  figure({ [`longest stall of a writer over ${what}`]: [slowestMs / 1000, "s"] });
  figure({ [`longest ${what}`]: [tookMs / 1000, "s"] });
}

Deno.test("a writer does not notice a restart", () =>
  underWriter("systemctl restart", () => show(`systemctl restart ${unit}`)));
Deno.test("nor a reload", () => underWriter("systemctl reload", () => show(`systemctl reload ${unit}`)));
Deno.test("nor the package's upgrade, which reloads all disks", async () => {
  const other = await shown("MainPID", "dblock@nested");
  await underWriter("package upgrade", async () => {
    const { stdout } = await show("apt-get install --yes ./*.deb", {
      timeoutMs: upgradeMs,
      folder: "/srv/packages/new",
    });
    const isRefused = stdout.includes("goes on with the version before");
    assert(!isRefused, isRefused ? await journalOf(unit) : "");
  });
  assertNotEquals(await shown("MainPID", "dblock@nested"), other);
  const { stdout } = await sh("dpkg-query --show dblock && ls /srv/packages/new");
  assertMatch(stdout, /^dblock\t([\d.]+)\n(.*\n)*dblock_\1_amd64\.deb\n/);
});
Deno.test("a killed server is back by itself", () =>
  underWriter("systemctl kill", () => show(`systemctl kill -s KILL ${unit}`)));

Deno.test("a stop of a mounted disk is over at once, and says that the disk is held", async () => {
  const started = performance.now();
  await show(`systemctl stop ${unit}`);
  const tookMs = performance.now() - started;
  figure({ "longest systemctl stop of a mounted disk": [tookMs / 1000, "s"] });
  assertWithin(stopMs, tookMs, "stopped");
  assertEquals([await stateOf(unit), infoOf("data")!.state], ["inactive", DBLOCK_STATE_HELD]);
  await show("dblock list");
  assertMatch(
    (await show(`journalctl --boot --unit=${unit} --output=cat --lines=4`)).stdout,
    /\/dev\/data is left to its next server/,
  );
  await show(`systemctl start ${unit}`);
  await show(`systemctl status --no-pager --lines=3 ${unit}`);
  for (const disk of disks) await fill(disk);
});

Deno.test("a mistake in a disk's file fails at once, with the command's own line", async () => {
  await show("echo 'memroy:1GiB' >/etc/dblock/wrong");
  const started = performance.now();
  assertNotEquals((await show("systemctl start dblock@wrong", { check: false })).status, 0);
  const tookMs = performance.now() - started;
  figure({ "longest until a wrong dblock@NAME has failed": [tookMs / 1000, "s"] });
  assertWithin(failMs, tookMs, "failed");
  const { stderr } = await sh("dblock serve --config /etc/dblock/wrong", { check: false });
  assertMatch(stderr, /did you mean memory\?/);
  assertStringIncludes((await show("systemctl status dblock@wrong", { check: false })).stdout, stderr.trim());
  await sh("rm /etc/dblock/wrong && systemctl reset-failed");
});
