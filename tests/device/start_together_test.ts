// Disks that one `dblock serve` starts together, which had another server before: all go to the new one, or none does.
import { assertEquals, assertStringIncludes } from "@std/assert";
import { info } from "../../src/mod.ts";
import { sh } from "./harness.ts";
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
  assertEquals((await next.end()).code, 1);
  assertStringIncludes(next.stderr, "Interrupted: nothing is left behind");
  assertEquals((await Promise.all(["ta", "tb"].map((name) => info(name)))).map(({ server }) => server?.pid), [
    pid,
    pid,
  ]);
  await sh("dd if=/dev/zero of=/dev/ta bs=64k count=1 oflag=direct status=none");
  before.child.kill("SIGTERM");
  assertEquals((await before.end()).code, 0);
});
