// time limit: 400 s
// dblock-ramdisk --take-over: one process after another serves a busy disk, and those who use it notice nothing.
import { assertEquals, assertMatch } from "@std/assert";
import { exists, scaled, sh } from "./harness.ts";
import { runRamdisk } from "./ramdisk.ts";
import { Servers } from "./recovery.ts";

const handOvers = scaled(1);

Deno.test(`hand-overs (${handOvers}) under fio verify lose and fail nothing; each old process ends with 0`, async () => {
  await using servers = new Servers("over1", ["--size", "64M"]);
  let server = await servers.start();
  const fio = servers.verifyWithFio({ breathes: true });
  for (let round = 1; round <= handOvers; round++) {
    await servers.untilWritten(200);
    const before = performance.now();
    const next = await servers.start(["--take-over"]);
    console.log(
      `hand-over ${round}: ${Math.round(performance.now() - before)} ms from exec to the new server's first line`,
    );
    assertMatch(next.stdout, /^\/dev\/over1 is taken over: 64 MiB, .*on death remove, 0 servers died so far/);
    assertEquals((await server.end()).code, 0);
    assertMatch(server.stdout, /\n\/dev\/over1 goes on: another process has taken it over\n$/);
    assertEquals(server.stderr, "");
    assertEquals(servers.info().server_pid, next.pid);
    server = next;
  }
  await servers.untilWritten(200);
  await fio.stop();
  const { error_count, timeout_count, replayed_count, death_count } = servers.info();
  assertEquals({ error_count, timeout_count, replayed_count, death_count }, {
    error_count: 0,
    timeout_count: 0,
    replayed_count: 0,
    death_count: 0,
  });
  assertEquals((await runRamdisk("-d --name over1")).status, 0);
  assertEquals((await server.end()).code, 0);
});

Deno.test("a server that serves something else keeps its disk", async () => {
  await using servers = new Servers("over2", ["--size", "16M"]);
  const server = await servers.start();
  await sh("truncate -s 16M /dev/shm/other");
  const other = await runRamdisk("--name over2 --store /dev/shm/other --take-over");
  assertEquals([other.status, other.stdout], [1, ""]);
  assertMatch(other.stderr, /process \d+ serves it from something else than \/dev\/shm\/other/);
  const absent = await runRamdisk("--name over2 --store /dev/shm/absent --take-over");
  assertMatch(absent.stderr, /there is nothing in \/dev\/shm\/absent/);
  assertEquals([exists("/dev/shm/absent"), server.ended], [false, undefined]);
  const without = await runRamdisk(`--name over2 --store ${servers.store}`);
  assertMatch(
    without.stderr,
    /the name is in use \(take it over with --take-over, end that one with .*-d --name over2/,
  );
  await sh(`rm /dev/shm/other; dd if=${servers.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  assertEquals(servers.info().server_pid, server.pid);
});

Deno.test("--take-over serves where nobody does: a new disk, and one whose server died", async () => {
  await using servers = new Servers("over3", ["--size", "16M", "--on-death", "hold", "--take-over"]);
  const first = await servers.start();
  assertMatch(first.stdout, /^\/dev\/over3 is ready/);
  await servers.kill(first);
  assertMatch((await servers.start()).stdout, /^\/dev\/over3 is recovered/);
});

Deno.test("a stopped server without a request is taken over, and ends when it goes on", async () => {
  await using servers = new Servers("over4", ["--size", "16M"]);
  const first = await servers.start();
  first.child.kill("SIGSTOP");
  await servers.start(["--take-over"]);
  await sh(`dd if=${servers.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  first.child.kill("SIGCONT");
  assertEquals((await first.end()).code, 0);
});

Deno.test("a mounted disk grows when it changes hands, and one whose server died when it is recovered", async () => {
  await using servers = new Servers("over5", ["--on-death", "hold"]);
  const first = await servers.start(["--size", "16M"]);
  await sh(`mkfs.ext4 -q ${servers.path} && mount ${servers.path} /mnt && cp -r src /mnt`);
  const sizeOf = async () => Number((await sh(`blockdev --getsize64 ${servers.path}`)).stdout);
  try {
    const refused = await runRamdisk(`--name over5 --store ${servers.store} --take-over --size 32M`);
    assertEquals([refused.status, await sizeOf()], [1, 16 * 2 ** 20]);
    const second = await servers.start(["--take-over", "--grow", "--size", "32M"]);
    assertMatch(second.stdout, /^\/dev\/over5 is taken over: 32 MiB/);
    assertEquals([(await first.end()).code, await sizeOf()], [0, 32 * 2 ** 20]);
    await sh(`resize2fs ${servers.path} && head -c 20M /dev/urandom >/tmp/grown && cp /tmp/grown /mnt && sync -f /mnt`);
    await servers.kill(second);
    const third = await servers.start(["--grow", "--size", "48M"]);
    assertMatch(third.stdout, /^\/dev\/over5 is recovered: 48 MiB/);
    await sh(`resize2fs ${servers.path} && umount /mnt && fsck.ext4 -fn ${servers.path}`);
    await sh(`mount ${servers.path} /mnt && cmp /tmp/grown /mnt/grown && diff -r src /mnt/src && umount /mnt`);
    await sh(`head -c 512 /dev/urandom >/tmp/end; dd if=/tmp/end of=${servers.path} bs=512 seek=98303 conv=notrunc`);
    await sh(`sync ${servers.path}; tail -c 512 ${servers.store} | cmp - /tmp/end`);
  } finally {
    await sh("umount /mnt; rm -f /tmp/grown /tmp/end", { check: false });
  }
  assertEquals([servers.info().error_count, await sizeOf()], [0, 48 * 2 ** 20]);
});
