// dblock.ko is not loaded: `dblock serve --transport nbd` gives the disk to the kernel's NBD client. A file system on it keeps a
// tree; list, info and destroy know it; mistakes are one line. When its server is killed, what the server was handed fails after
// the disk's timeout, all else at once, and nothing hangs.
// time limit: 240 s
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { keepsTree } from "./filesystem.ts";
import { assertWithin, exists, hasModule, requires, sh, waitFor } from "./harness.ts";
import { dblock, Serving } from "./serving.ts";

const ignore = !requires("the nbd module", hasModule("nbd"));
const WORDS = ["serve", "memory:1GiB", "--name", "knbd", "--transport", "nbd"];

/** The path that a server has said. */
function pathOf({ stdout }: { readonly stdout: string }): string {
  return /(\/dev\/nbd\d+) \(\w+\) is ready/.exec(stdout)![1]!;
}

const withoutModule = async (test: () => Promise<void>) => {
  await sh("rmmod dblock");
  try {
    await test();
  } finally {
    await sh("rmmod nbd; insmod kmod/dblock.ko", { check: false });
  }
};

Deno.test({
  name: "without dblock.ko and without nbd, one line says what to type",
  ignore,
  fn: () =>
    withoutModule(async () => {
      // Else the kernel loads nbd by itself when it is called.
      const loader = (await sh("cat /proc/sys/kernel/modprobe")).stdout.trim();
      await sh("echo /bin/false >/proc/sys/kernel/modprobe");
      try {
        const { status, stderr } = await dblock(WORDS.join(" "));
        assertEquals(status, 1);
        assertMatch(
          stderr,
          /^dblock serve: Cannot make a disk .*: the kernel's module nbd is not loaded.*sudo modprobe nbd.*\n$/,
        );
        assertStringIncludes((await dblock("doctor")).stdout, "--transport nbd");
      } finally {
        await sh(`echo ${loader} >/proc/sys/kernel/modprobe`);
      }
    }),
});

Deno.test({
  name: "the kernel's NBD client has the disk: ext4 keeps a tree, list and info know it, destroy ends it",
  ignore,
  fn: () =>
    withoutModule(async () => {
      await sh("modprobe nbd max_part=0 nbds_max=1");
      await using serving = await Serving.start(WORDS);
      const path = pathOf(serving);
      assertEquals((await sh(`blockdev --getsize64 ${path}`)).stdout.trim(), `${2 ** 30}`);
      await keepsTree(path, "/project/src");
      assertMatch((await dblock("list")).stdout, new RegExp(`${path} \\(knbd\\) +1 GiB +live +${serving.child.pid}`));
      assertStringIncludes((await dblock("info knbd")).stdout, `process ${serving.child.pid} serves it`);
      for (const words of ["list --json", "info knbd --json"]) {
        const [disk] = JSON.parse((await dblock(words)).stdout);
        const { path: itsPath, transport, sizeBytes, server } = disk;
        assertEquals([itsPath, transport, sizeBytes, server], [path, "nbd", 2 ** 30, { pid: serving.child.pid }]);
      }

      await sh(`mount ${path} /mnt`);
      const busy = await dblock("destroy knbd");
      assertEquals(busy.status, 1);
      assertStringIncludes(busy.stderr, "mounted on /mnt");
      await sh("umount /mnt");

      // One device is all that there is room for without more being made; a second disk gets another one.
      await using other = await Serving.start(WORDS.map((word) => word === "knbd" ? "other" : word));
      assert(pathOf(other) !== path, `${path} twice`);
      assertEquals(await dblock("destroy knbd"), { status: 0, stdout: `${path} (knbd) is destroyed\n`, stderr: "" });
      assertEquals((await serving.end()).code, 0);
      assertEquals((await sh(`blockdev --getsize64 ${path}`)).stdout.trim(), "0");
      assert(!exists("/run/dblock/knbd.json"));
      await sh(`dd if=/dev/urandom of=${pathOf(other)} bs=1M count=8 oflag=direct status=none`);
      other.child.kill("SIGTERM");
      assertEquals((await other.end()).code, 0);
    }),
});

Deno.test({
  name:
    "a killed server: what it was handed fails after the timeout, later I/O at once, and its name can be taken again",
  ignore,
  fn: () =>
    withoutModule(async () => {
      await sh("modprobe nbd max_part=0 nbds_max=2");
      {
        await using serving = await Serving.start([...WORDS, "--timeout", "3"]);
        const path = pathOf(serving);
        const writer = sh(`while dd if=/dev/zero of=${path} bs=64k count=64 oflag=direct status=none; do :; done`);
        const written = () => Number(Deno.readTextFileSync(`/sys/block/${path.slice(5)}/stat`).trim().split(/\s+/)[4]);
        await waitFor("it writes", () => written() > 64);
        serving.child.kill("SIGKILL");
        const killedMs = performance.now();
        await writer;
        // The kernel's client looks for requests that have timed out every so often: up to twice the timeout.
        assertWithin(10_000, performance.now() - killedMs, "the writer's error came");
        const readMs = performance.now();
        const read = await sh(`dd if=${path} of=/dev/null bs=4k count=1 iflag=direct`, { check: false });
        assertStringIncludes(read.stderr, "Input/output error");
        assertWithin(2_000, performance.now() - readMs, "the reader's error came");
        assertMatch((await dblock("list")).stdout, new RegExp(`${path} \\(knbd\\) +1 GiB +failed +none`));
      }
      await using again = await Serving.start(WORDS);
      await sh(`dd if=/dev/zero of=${pathOf(again)} bs=64k count=64 oflag=direct status=none`);
      again.child.kill("SIGKILL");
      await waitFor("the server is gone", () => !exists(`/proc/${again.child.pid}`));
      assertEquals((await dblock("destroy knbd")).status, 0);
      assert(!exists("/run/dblock/knbd.json"));
      assertEquals((await sh("cat /sys/block/nbd*/pid", { check: false })).stdout, "");
    }),
});
