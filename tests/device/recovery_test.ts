// time limit: 400 s
// dblock-ramdisk --store, killed and started again: under "hold" nobody notices, under "fail" there is EIO until then,
// under "remove" the name comes free at once. Hard cases A2, A3, A13.
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exists, scaled, sh, waitFor } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { Servers } from "./recovery.ts";
import { infoOf } from "./server.ts";

/** As many as show it; acknowledged_test.ts kills the executable more often. */
const kills = scaled(1);
const stateHeld = 3;
const stateFailed = 4;

Deno.test(`kill -9 under fio verify (${kills}) is no error to fio when the same command is given again`, async () => {
  await using servers = new Servers("recover0", ["--size", "64M", "--on-death", "hold"]);
  let server = await servers.start();
  const fio = servers.verifyWithFio();
  for (let round = 1; round <= kills; round++) {
    await servers.untilWritten(200);
    await servers.kill(server);
    const killedAt = performance.now();
    server = await servers.start();
    const backMs = Math.round(performance.now() - killedAt);
    assertMatch(
      server.stdout,
      /^\/dev\/recover0 is recovered: 64 MiB, \d queues?, on death hold, \d servers? died so far/,
    );
    assertEquals(servers.info().death_count, round);
    console.log(`kill ${round}: served again after ${backMs} ms, ${servers.info().replayed_count} replayed so far`);
  }
  await servers.untilWritten(200);
  await fio.stop();
  assertEquals([servers.info().error_count, servers.info().timeout_count], [0, 0]);
});

Deno.test("a mounted ext4 goes on after a kill, with all its files", async () => {
  await using servers = new Servers("recover1", ["--size", "256M", "--on-death", "hold"]);
  const first = await servers.start();
  await sh(`mkfs.ext4 -q ${servers.path} && mount ${servers.path} /mnt`);
  try {
    const copying = servers.keepRunning("rm -rf /mnt/src && cp -r src /mnt && sync /mnt/src && sync");
    await servers.untilWritten(20);
    await servers.kill(first);
    await waitFor("the disk is held", () => servers.info().state === stateHeld);
    await servers.start();
    await servers.untilWritten(20);
    await copying.stop();
    await sh("echo 3 >/proc/sys/vm/drop_caches; diff -r src /mnt/src");
  } finally {
    await sh("umount /mnt", { check: false });
  }
  await sh(`fsck.ext4 -fn ${servers.path}`);
});

Deno.test('under "fail" there is EIO until the next server, then the disk as it was', async () => {
  await using servers = new Servers("recover2", ["--size", "16M", "--on-death", "fail"]);
  const first = await servers.start();
  await sh(`head -c 1M /dev/urandom >/tmp/in; dd if=/tmp/in of=${servers.path} bs=64k oflag=direct status=none`);
  await servers.kill(first);
  await waitFor("the disk fails", () => servers.info().state === stateFailed);
  const read = () =>
    sh(`dd if=${servers.path} bs=64k count=16 iflag=direct status=none | cmp - /tmp/in`, { check: false });
  const failed = await read();
  assert(failed.status !== 0);
  assertMatch(failed.stderr, /Input\/output error/);
  assertMatch((await servers.start()).stdout, /is recovered: .* on death fail/);
  assertEquals((await read()).status, 0);
});

Deno.test("a disk whose server died is not recovered with anything but its store", async () => {
  await using servers = new Servers("recover3", ["--size", "16M", "--on-death", "hold"]);
  await servers.kill(await servers.start());
  const refused = async (args: string, says: RegExp) => {
    const { status, stdout, stderr } = await runRamdisk(`--name recover3 ${args}`);
    assertEquals({ args, status, stdout }, { args, status: 1, stdout: "" });
    assertMatch(stderr, says, args);
    assertEquals(stderr.trimEnd().split("\n").length, 1, stderr);
    assertEquals([servers.info().state, servers.info().attached_count], [stateHeld, 0]);
  };
  await refused("", /the name is in use \(its server died: go on with the --store PATH that it had, end that one with/);
  await refused("--store /dev/shm/absent", /there is nothing in \/dev\/shm\/absent/);
  assertEquals(exists("/dev/shm/absent"), false);
  await sh("truncate -s 8M /dev/shm/small");
  await refused("--store /dev/shm/small", /it has 8388608 bytes, not 16777216/);
  await refused("--store /dev/shm/small --size 8M", /it has 16777216 bytes, not 8388608/);
  await sh("rm /dev/shm/small");
  await servers.start(["--queues", "1", "--timeout", "7"]);
  assertEquals(servers.info().timeout_ms, 30_000); // as it was created
});

Deno.test("the name of a killed server is free for the same command at once", async () => {
  const start = () => Ramdisk.start({ name: "recover4", args: ["--size", "64M"] });
  const killed = await start();
  killed.child.kill("SIGKILL"); // its end is not waited for
  const next = await start();
  assertMatch(next.stdout, /^\/dev\/recover4 is ready/);
  await killed.end();
  await next[Symbol.asyncDispose]();
  assertEquals(infoOf("recover4"), undefined);
});
