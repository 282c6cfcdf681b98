// Disks that one `dblock serve` starts together, which had another server before: all go to the new one, or none does.
import { assertEquals, assertStringIncludes } from "@std/assert";
import { info, list } from "../../src/mod.ts";
import { sh, waitFor } from "./harness.ts";
import { Running } from "./running.ts";
import { Serving } from "./serving.ts";

Deno.test("no disk is taken over by a start that waits for the store of another one, and is ended there", async () => {
  const words = (
    b: string,
    ...more: string[]
  ) => ["serve", "/tmp/ta.img?size=16MiB&raw", "--name", "ta", ...more, b, "--name", "tb", ...more];
  await using before = await Serving.start(words("/tmp/tb.img?size=16MiB&raw"));
  const { pid } = before.child;
  using silent = Deno.listen({ transport: "unix", path: "/tmp/silent.sock" });
  await using next = new Running("the next server", [
    "./dblock",
    ...words("nbd+unix:///tb?socket=/tmp/silent.sock", "--take-over"),
  ]);
  using _accepted = await silent.accept();
  await new Promise((resolve) => setTimeout(resolve, 1_000)); // as long as the first one would take
  next.child.kill("SIGTERM");
  assertEquals((await next.end()).code, 143);
  assertStringIncludes(next.stderr, "Interrupted: nothing is left behind");
  assertEquals((await Promise.all(["ta", "tb"].map((name) => info(name)))).map(({ server }) => server?.pid), [
    pid,
    pid,
  ]);
  await sh("dd if=/dev/zero of=/dev/ta bs=64k count=1 oflag=direct status=none");
  before.child.kill("SIGTERM");
  assertEquals((await before.end()).code, 0);
});

Deno.test("a disk with two names is recovered whole, whichever of its names is typed, and its mount goes on", async () => {
  await using before = await Serving.start(
    "serve /tmp/twice.img?size=64MiB&raw --name tc --name td --on-death hold".split(" "),
  );
  await sh("mkfs.ext4 -q /dev/tc && mount /dev/tc /mnt && cp -r src /mnt && sync -f /mnt");
  before.child.kill("SIGKILL");
  await before.end();
  await waitFor("both are held", async () => (await list()).every(({ state }) => state === "held"));
  for (const names of [[], ["tc", "td"], ["td"]]) {
    await using server = await Serving.start(["recover", ...names]);
    const served = await Promise.all(["tc", "td"].map((name) => info(name)));
    assertEquals(served.map(({ server }) => server?.pid), [server.child.pid, server.child.pid]);
    server.child.kill("SIGKILL");
    await server.end();
    await waitFor("both are held", async () => (await list()).every(({ state }) => state === "held"));
  }
  await using last = await Serving.start(["recover"]);
  await sh("echo 3 >/proc/sys/vm/drop_caches; diff -r src /mnt/src && umount /mnt && fsck.ext4 -fn /dev/tc");
  last.child.kill("SIGINT");
  assertEquals((await last.end()).code, 0);
});
