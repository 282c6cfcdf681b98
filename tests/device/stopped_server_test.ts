// A server stopped by SIGSTOP, or one that just does not look at its queue: I/O waits, and a force destroy frees within 5 s
// whoever is stuck behind it: readers, a mounted file system, changes of the queue's settings. With a timeout I/O gets EIO.
// Hard cases A10, C2, C3.
import { assert, assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { destroyDevice, infoOf } from "./server.ts";
import { ServerProcess } from "./server_process.ts";
import { NR } from "./syscall.ts";

async function timedMs(what: Promise<unknown>): Promise<number> {
  const started = performance.now();
  await what;
  return performance.now() - started;
}

/** Starts a command whose last process is to be the shell itself (exec), and waits until that is stuck where no signal helps. */
async function stuck(command: string, call?: number): Promise<Deno.ChildProcess> {
  const child = new Deno.Command("bash", { args: ["-c", command], stdin: "null", stdout: "null", stderr: "null" })
    .spawn();
  let place = "";
  const where = (file: string) => Deno.readTextFileSync(`/proc/${child.pid}/${file}`);
  await waitFor(`"${command}" is stuck`, () => {
    place = `${where("stat").replace(/.*\) /s, "").charAt(0)} ${where("syscall").split(" ")[0]}`;
    return call === undefined ? place.startsWith("D") : place === `D ${call}`;
  }).catch((error) => {
    throw new Error(`${error.message}; state and system call are "${place}"`);
  });
  return child;
}

Deno.test("force destroy with a stopped server, a mounted file system and a reader behind it takes at most 5 s", async () => {
  await using server = await ServerProcess.start({ name: "stopped0", size_bytes: 64 * 2 ** 20 });
  await sh(`mkfs.ext4 -q ${server.path} && mount ${server.path} /mnt && cp src/*.ts /mnt && sync -f /mnt`);
  await server.kill("SIGSTOP");
  const children = [
    await stuck(`exec dd if=${server.path} of=/dev/null bs=4k count=1 skip=999 iflag=direct`, NR.read),
    await stuck("exec dd if=/dev/zero of=/mnt/zeroes bs=64k count=8 conv=fsync"),
  ];
  assert(infoOf("stopped0")!.waiting_count > 0);
  assertEquals(await destroyDevice("stopped0", { force: false }), 16);
  const tookMs = await timedMs(destroyDevice("stopped0", { force: true }));
  assertWithin(5_000, tookMs, "destroyed");
  assertEquals(infoOf("stopped0"), undefined);
  assertEquals((await Promise.all(children.map((child) => child.status))).map(({ code }) => code), [1, 1]);
  assertWithin(5_000, await timedMs(sh("umount /mnt")), "unmounted");
  await server.kill("SIGCONT");
});

const queue = "/sys/block/stopped2/queue";
const disk = "/dev/stopped2";
const settings = {
  "a change of the scheduler": [`echo mq-deadline >${queue}/scheduler`, NR.write],
  "a change of nr_requests": [`echo 8 >${queue}/nr_requests`, NR.write],
  // What is written stays in memory for as long as somebody has the disk open.
  "blockdev --flushbufs": [
    `exec 3<>${disk}; dd if=/dev/zero of=${disk} bs=64k count=1 conv=notrunc; exec blockdev --flushbufs ${disk}`,
    NR.ioctl,
  ],
} as const;

for (const [what, [command, call]] of Object.entries(settings)) {
  Deno.test(`${what} that is stuck behind a server is freed by a force destroy within 5 s`, async () => {
    await sh("modprobe mq-deadline", { check: false }); // a module on some kernels, part of others
    await using served = await TestDisk.start({ name: "stopped2" });
    await served.pause();
    const reader = await stuck(`exec dd if=${disk} of=/dev/null bs=4k count=1 skip=99 iflag=direct`, NR.read);
    const child = await stuck(command, call);
    const ended = Promise.all([child.status, reader.status]);
    const tookMs = await timedMs(Promise.all([destroyDevice("stopped2"), ended]));
    assertWithin(5_000, tookMs, "destroyed, and everybody gone");
    assertEquals((await reader.status).code, 1);
    assertEquals(infoOf("stopped2"), undefined);
  });
}

Deno.test("requests that wait for a stopped server, which never saw them, end in EIO after the timeout", async () => {
  await using server = await ServerProcess.start({ name: "stopped1", timeout_ms: 1_000 });
  await server.kill("SIGSTOP");
  const read = sh(`dd if=${server.path} of=/dev/null bs=4k count=1 iflag=direct`, { check: false });
  const tookMs = await timedMs(read);
  assertEquals((await read).status, 1);
  assert(tookMs >= 1_000, `EIO came after ${tookMs} ms`);
  assertWithin(4_000, tookMs, "EIO");
  const info = infoOf("stopped1")!;
  // No server has seen it, so no answer is due.
  assertEquals([info.timeout_count, info.quarantined_count, info.waiting_count], [1, 0, 0]);
  await server.kill("SIGCONT");
  await sh(`dd if=${server.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
});
