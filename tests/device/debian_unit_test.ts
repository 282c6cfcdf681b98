// dblock@NAME.service on a whole Debian, as it is packaged: ready when the disk is there; restarted, reloaded with new code and
// killed under a writer that verifies, by hand and by the watchdog; stopped while mounted; a mistake fails at once, with the
// command's own line.
// machine: debian
// time limit: 400 s
import { assert, assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { DBLOCK_STATE_HELD, DBLOCK_STATE_LIVE } from "../../src/module/abi.ts";
import { configure, installUnit, isDebian, journalOf, override, shown, stateOf, Units, write } from "./debian.ts";
import { fio } from "./fio.ts";
import { assertWithin, exists, figure, scaled, sh, slowed, waitFor } from "./harness.ts";
import { Running } from "./running.ts";
import { infoOf } from "./server.ts";
import { dblock } from "./serving.ts";
import { Writer } from "./writer.ts";

const ignore = !isDebian();
const place = "/srv/unit0";
/** What a person should not wait longer for: a stop, a mistake, a restart. Half a second was measured of a stop. */
const stopMs = 1_000;
/** Beside what the sandbox and the command take by themselves, which is 1.5 s in an emulated machine: on others the command takes 0.05 s. */
const startMs = 1_000;
/** A stop and a start: 1 s is what it should be on a machine that is not emulated. */
const restartMs = 3_000;

/** What systemd is told of units of this one; where that fails, their journal says why. */
async function systemctl(verb: string, ...names: string[]): Promise<void> {
  const units = names.map((name) => `dblock@${name}`);
  const { status, stderr } = await sh(`systemctl ${verb} ${units.join(" ")}`, { check: false });
  if (status === 0) return;
  const journals = await Promise.all(units.map(journalOf));
  throw new Error(`systemctl ${verb} ${names}: ${stderr}${journals.join("\n")}`);
}

async function untilWritten(name: string): Promise<void> {
  await waitFor("the disk is served", () => infoOf(name)?.state === DBLOCK_STATE_LIVE, 60_000);
  const before = infoOf(name)!.requests[1]!;
  await waitFor("the writer writes", () => infoOf(name)!.requests[1]! > before + 100, 60_000);
}

async function serves(): Promise<void> {
  await configure("unit0", "/srv/unit0.img?size=64MiB");
  await systemctl("start", "unit0");
  // It was ready when the command returned, and says what is there; the file's disk is kept by default.
  assertEquals([infoOf("unit0")!.state, await stateOf("dblock@unit0")], [DBLOCK_STATE_LIVE, "active"]);
  assertMatch(await shown("unit0", "StatusText"), /^\/dev\/unit0 is ready: 64 MiB/);
  assertMatch(Deno.readTextFileSync(`/proc/${await shown("unit0", "MainPID")}/cmdline`), /^@dblock\0serve\0/);
  await sh(`mkfs.ext4 -q /dev/unit0 && mkdir ${place} && mount /dev/unit0 ${place}`);
  let writer = new Writer(`${place}/file`);
  await untilWritten("unit0");
  for (let round = 0; round < scaled(1); round++) {
    await systemctl("restart", "unit0");
    await untilWritten("unit0");
  }
  const restarted = await writer.stop();
  assertEquals(restarted.error, 0, restarted.said);
  figure({ "longest stall of a writer over restarts of dblock@NAME": [restarted.slowestMs / 1000, "s"] });
  assertWithin(restartMs, restarted.slowestMs, "written again after a restart");
  writer = new Writer(`${place}/file`);
  await untilWritten("unit0");
  for (let round = 0; round < scaled(1); round++) {
    const before = await shown("unit0", "MainPID");
    await systemctl("reload", "unit0");
    const after = await shown("unit0", "MainPID");
    assertNotEquals(after, before);
    assertEquals([await stateOf("dblock@unit0"), `${infoOf("unit0")!.server_pid}`], ["active", after]);
    await waitFor("the server before has ended", () => !exists(`/proc/${before}`), 10_000);
    await untilWritten("unit0");
    assertMatch(Deno.readTextFileSync(`/proc/${after}/cmdline`), /^@dblock\0serve\0/);

    await sh("systemctl kill --signal=KILL dblock@unit0");
    await waitFor("it is back", () => {
      const { state, server_pid } = infoOf("unit0")!;
      return state === DBLOCK_STATE_LIVE && `${server_pid}` !== after;
    }, 30_000);
    await untilWritten("unit0");
  }
  let longestStopMs = 0;
  for (let round = 0; round < scaled(1); round++) {
    // What was reloaded stops in order, too.
    await systemctl("reload", "unit0");
    const started = performance.now();
    await systemctl("stop", "unit0");
    const tookMs = performance.now() - started;
    longestStopMs = Math.max(longestStopMs, tookMs);
    assertWithin(stopMs, tookMs, "stopped");
    assertEquals([await stateOf("dblock@unit0"), infoOf("unit0")!.state], ["inactive", DBLOCK_STATE_HELD]);
    await systemctl("start", "unit0");
    await untilWritten("unit0");
  }
  const { error, slowestMs, said } = await writer.stop();
  assertEquals(error, 0, said);
  assertEquals(infoOf("unit0")!.error_count, 0);
  figure({
    "longest stall of a writer over reloads and kills of dblock@NAME": [slowestMs / 1000, "s"],
    "longest stop of dblock@NAME with the disk mounted": [longestStopMs / 1000, "s"],
  });
  assertMatch(await journalOf("dblock@unit0"), /\/dev\/unit0 is left to its next server/);
  await sh(`umount ${place} && e2fsck -fn /dev/unit0 && rmdir ${place}`);
  assertEquals((await dblock("destroy unit0")).status, 0);
  await waitFor("the service ends with its disk", async () => await stateOf("dblock@unit0") === "inactive");
}

/**
 * Where the time of a start goes: units that do nothing, without and with the sandbox of dblock@NAME, and the command alone.
 *
 * @returns what the sandbox and the command take, in ms
 */
async function partsOfAStart(): Promise<number> {
  const unit = Deno.readTextFileSync("/etc/systemd/system/dblock@.service");
  const sandbox = unit.replace(/^Type=.*/m, "Type=oneshot").replace(/^ExecStart=.*/m, "ExecStart=/bin/true")
    .replaceAll(/^(ExecReload|Restart|WatchdogSec)=.*\n/gm, "");
  await using units = new Units();
  await units.write("sandbox@.service", sandbox);
  await units.write("empty@.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n");
  await write("wrong0", "memroy:1GiB");
  const emptyMs = await shortestMs("systemctl start empty@wrong0");
  const sandboxMs = await shortestMs("systemctl start sandbox@wrong0");
  const bareMs = await shortestMs("dblock serve --config /etc/dblock/wrong0");
  figure({
    "start of a unit that does nothing": [emptyMs / 1000, "s"],
    "of one in the sandbox of dblock@NAME": [sandboxMs / 1000, "s"],
    "of dblock serve with a wrong SPEC": [bareMs / 1000, "s"],
  });
  return sandboxMs + bareMs;
}

/** Of three rounds, as the first has to bring things into memory. */
async function shortestMs(command: string): Promise<number> {
  let shortest = Infinity;
  for (let round = 0; round < 3; round++) {
    const started = performance.now();
    await sh(command, { check: false });
    shortest = Math.min(shortest, performance.now() - started);
  }
  return shortest;
}

async function failsAtOnce(): Promise<void> {
  const partsMs = await partsOfAStart();
  for (
    const [words, status, line] of [
      ["memroy:1GiB", 2, "did you mean memory?"],
      ["/srv/none.img", 1, "there is no such file"],
    ] as const
  ) {
    await write("wrong0", words);
    const started = performance.now();
    assertNotEquals((await sh("systemctl start dblock@wrong0", { check: false })).status, 0);
    const tookMs = performance.now() - started;
    figure({ "longest until a wrong dblock@NAME has failed": [tookMs / 1000, "s"] });
    assertWithin(startMs + partsMs, tookMs, "failed");
    assertEquals(await stateOf("dblock@wrong0"), "failed");
    assertEquals([await shown("wrong0", "NRestarts"), await shown("wrong0", "ExecMainStatus")], ["0", `${status}`]);
    const said = (await journalOf("dblock@wrong0")).split("\n");
    assert(said.some((one) => one.startsWith("dblock serve: ") && one.includes(line)), said.join("\n"));
  }
}

async function tellsTheJournal(): Promise<void> {
  await configure("failing0", "memory:16MiB --with fault=operations=write,errno=ENOSPC,after=8");
  await systemctl("start", "failing0");
  await fio(
    "--name=failing --filename=/dev/failing0 --rw=write --bs=4k --size=400k --direct=1 --ioengine=psync " +
      "--continue_on_error=all --ignore_error=,ENOSPC",
  );
  assert(infoOf("failing0")!.error_count >= 90);
  const { stdout } = await sh("journalctl --output=json --no-pager DBLOCK_DISK=failing0");
  const lines = stdout.trimEnd().split("\n").map((line) => JSON.parse(line) as Record<string, string>);
  assert(lines.length <= 30, `${lines.length} lines`); // one in ten seconds
  const [ready, { MESSAGE, PRIORITY, DBLOCK_OPERATION, ERRNO, _SYSTEMD_UNIT } = {}] = lines;
  assertMatch(ready!.MESSAGE!, /^\/dev\/failing0 is ready: 16 MiB/);
  assertEquals([ready!.PRIORITY, ready!._SYSTEMD_UNIT], ["6", "dblock@failing0.service"]);
  assertMatch(MESSAGE!, /^\/dev\/failing0: write\(\) of the backend threw .*: answered ENOSPC$/);
  assertEquals([PRIORITY, DBLOCK_OPERATION, ERRNO, _SYSTEMD_UNIT], ["3", "write", "28", "dblock@failing0.service"]);
  await systemctl("stop", "failing0");
  const last = await sh("journalctl --output=cat --no-pager --lines=1 DBLOCK_DISK=failing0");
  assertMatch(last.stdout, /^\/dev\/failing0 (has ended|is left)/);
}

async function keepsItsServer(): Promise<void> {
  await configure("reload0", "/srv/reload0.img?size=16MiB&raw");
  await configure("memory0", "memory:16MiB");
  await systemctl("start", "reload0", "memory0");
  const before = await shown("reload0", "MainPID");
  await write("reload0", "/srv/reload0.img?raw --with nonsense");
  for (const name of ["reload0", "memory0"]) {
    const result = await sh(`systemctl reload dblock@${name}`, { check: false });
    assertNotEquals(result.status, 0);
    assertMatch(await journalOf(`dblock@${name}`), /Cannot reload: the new server has ended/);
    assertEquals(await stateOf(`dblock@${name}`), "active");
  }
  assertEquals([await shown("reload0", "MainPID"), infoOf("reload0")!.state], [before, DBLOCK_STATE_LIVE]);
  // One that does not get on is given up as soon as nobody waits for it: its disk is at a server that says nothing.
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await write("reload0", `nbd://127.0.0.1:${silent.addr.port}/none`);
  const asker = new Running("dblock reload", ["/usr/bin/dblock", "reload", "reload0"]);
  using _accepted = await silent.accept();
  assertMatch((await dblock("reload reload0")).stderr, /another reload is going on/);
  asker.child.kill("SIGKILL");
  await asker.end();
  await waitFor("the new server is given up", async () => {
    return /the new server had not taken over when nobody waited/.test(await shown("reload0", "StatusText"));
  }, 20_000);
  const serving = async () => (await sh("pgrep -cf 'serve --config /etc/dblock/reload0'", { check: false })).stdout;
  await waitFor("it ends", async () => await serving() === "1\n", 20_000);
  assertEquals([await shown("reload0", "MainPID"), infoOf("reload0")!.state], [before, DBLOCK_STATE_LIVE]);
  await sh("dd if=/dev/zero of=/dev/reload0 bs=64k count=1 oflag=direct status=none");
  await write("reload0", "/srv/reload0.img?raw --with stats=file=/srv/stats");
  await systemctl("reload", "reload0");
  assertStringIncludes((await dblock("info reload0")).stdout, "in front of it: stats");
  await systemctl("stop", "reload0", "memory0");
  assertEquals((await dblock("destroy reload0")).status, 0);
  assert(!exists("/dev/memory0"));
}

/** A stop before the disk is there is no failure: its content is at a server that says nothing. */
async function isStoppedBeforeItIsThere(): Promise<void> {
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await write("early0", `nbd://127.0.0.1:${silent.addr.port}/none`);
  await systemctl("start --no-block", "early0");
  using _accepted = await silent.accept();
  await systemctl("stop", "early0");
  assertEquals([await stateOf("dblock@early0"), await shown("early0", "Result")], ["inactive", "success"]);
  assertMatch(await journalOf("dblock@early0"), /Interrupted: nothing is left behind/);
  assertEquals(infoOf("early0"), undefined);
}

/** A server that does nothing any more is found by its watchdog, and the next one goes on. The unit gives it 20 s. */
async function isWatched(): Promise<void> {
  await override("watched0", `WatchdogSec=${slowed(10_000) / 1000}`);
  // Beside other work the watchdog comes later than a request's timeout.
  await configure("watched0", "/srv/watched0.img?size=16MiB --timeout 600");
  await systemctl("start", "watched0");
  const writer = new Writer("/dev/watched0");
  await untilWritten("watched0");
  const before = await shown("watched0", "MainPID");
  const started = performance.now();
  Deno.kill(Number(before), "SIGSTOP");
  await waitFor("another server has the disk", () => {
    const { state, server_pid } = infoOf("watched0")!;
    return state === DBLOCK_STATE_LIVE && `${server_pid}` !== before;
  }, 40_000);
  const tookMs = performance.now() - started;
  await untilWritten("watched0");
  const { error, slowestMs, said } = await writer.stop();
  assertEquals(error, 0, said);
  await waitFor("systemd has heard of it", async () => await stateOf("dblock@watched0") === "active");
  assertEquals(`${infoOf("watched0")!.server_pid}`, await shown("watched0", "MainPID"));
  assertEquals([infoOf("watched0")!.error_count, await shown("watched0", "NRestarts")], [0, "1"]);
  assertMatch(await journalOf("dblock@watched0"), /Watchdog timeout \(limit \d+s\)!/);
  figure({
    "longest from SIGSTOP of a server with WatchdogSec=10 to the next server": [tookMs / 1000, "s"],
    "longest stall of a writer meanwhile": [slowestMs / 1000, "s"],
  });
  await systemctl("stop", "watched0");
  assertEquals((await dblock("destroy watched0")).status, 0);
}

/** Of two disks of one server the new one gets the first, and waits for the second, whose server has a write to answer. */
async function takesBack(): Promise<void> {
  await configure(
    "pair0",
    "/srv/pair0.img?size=16MiB&raw --name pair0 /srv/pair1.img?size=16MiB&raw --name pair1 --timeout 0 --with delay=write=600s",
  );
  await systemctl("start", "pair0");
  const before = infoOf("pair0")!.server_pid;
  await using _writer = new Running("dd", ["dd", "if=/dev/zero", "of=/dev/pair1", "bs=4k", "count=1", "oflag=direct"]);
  await waitFor("the write is at the server", () => infoOf("pair1")!.handed_count > 0);
  const asker = new Running("dblock reload", ["/usr/bin/dblock", "reload", "pair0"]);
  await waitFor("the new server has the first disk", () => ![0, before].includes(infoOf("pair0")!.server_pid), 60_000);
  const written = sh("dd if=/dev/urandom of=/dev/pair0 bs=64k count=16 oflag=direct status=none", {
    timeoutMs: 60_000,
  });
  asker.child.kill("SIGKILL");
  await asker.end();
  await waitFor("the one before has it again", () => infoOf("pair0")!.server_pid === before, 30_000);
  await written;
  assertEquals([infoOf("pair0")!.state, infoOf("pair1")!.state], [DBLOCK_STATE_LIVE, DBLOCK_STATE_LIVE]);
  assertEquals(infoOf("pair1")!.server_pid, before);
  assertStringIncludes((await dblock("info pair0")).stdout, "content: /srv/pair0.img");
  await systemctl("stop", "pair0");
  for (const name of ["pair0", "pair1"]) assertEquals((await dblock(`destroy ${name} --force`)).status, 0);
}

Deno.test({
  name: "dblock@NAME as it is packaged",
  ignore,
  async fn(t) {
    await using _installed = await installUnit();
    await t.step(
      "a writer notices neither restart nor reload nor SIGKILL; a stop leaves the mounted disk at once",
      serves,
    );
    await t.step("a server that is stuck is killed by its watchdog, and comes back; a writer sees no error", isWatched);
    await t.step(
      "a unit that cannot work fails at once with the command's line, and is not started again",
      failsAtOnce,
    );
    await t.step(
      "failed requests are in the journal with their disk, operation and errno: few lines for many failures",
      tellsTheJournal,
    );
    await t.step("a unit that is stopped before its disk is there has not failed", isStoppedBeforeItIsThere);
    await t.step("a reload that cannot be leaves the disk to the server that has it", keepsItsServer);
    await t.step("a reload that is given up amid two disks gives the first one back", takesBack);
  },
});
