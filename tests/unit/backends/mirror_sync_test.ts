// SPDX-License-Identifier: MIT
// What happens to a half of a mirror while it is copied to.
import { assertEquals, assertRejects } from "@std/assert";
import { DblockError } from "../../../src/disk/errors.ts";
import { heldSyncs } from "./held_syncs.ts";
import { BreakableDisk } from "./mirror_disk.ts";
import { filled, mirrored, MirrorUnderTest, plain, regionBytes, sizeBytes, states, untilInSync } from "./mirrored.ts";
import { until } from "../until.ts";

const last = sizeBytes - regionBytes;

/** A new mirror, not opened yet, whose disks are all different. */
function unequal(): MirrorUnderTest {
  const disks = ["a", "b"].map((name, i) => new BreakableDisk(name, sizeBytes, filled(i + 1, sizeBytes)));
  return new MirrorUnderTest({ assumeSame: false, disks });
}

Deno.test("a write that has failed where everything is, and not where it is copied to, is copied over", async () => {
  await using test = unequal();
  const { a, b } = test;
  const held = Promise.withResolvers<void>();
  b.delay = ({ operation, offsetBytes }) => operation === "write" && offsetBytes === last ? held.promise : undefined;
  await test.open();
  const { mirror } = test;
  await until(() => b.asked.some(({ offsetBytes }) => offsetBytes === last), "all but the last region is copied");
  a.failure = ({ operation }) => operation === "write" || operation === "writeZeroes" ? "ENOSPC" : undefined;
  await assertRejects(() => mirror.write(filled(9), 4096, plain), DblockError, "a is broken");
  await assertRejects(() => mirror.writeZeroes(regionBytes, 4096, plain), DblockError, "a is broken");
  const before = [states(mirror), b.content[4096], mirror.status.halves[1]?.syncLeftBytes];
  a.failure = () => undefined;
  held.resolve();
  await untilInSync(mirror);
  assertEquals([a.content, mirror.status.halves[1]?.syncLeftBytes], [b.content, 0]);
  assertEquals(before, [["working", "syncing"], 9, regionBytes + 2 * 4096]);
});

Deno.test("the same, while it is being recorded that everything is copied", async () => {
  await using test = unequal();
  const { a, b } = test;
  await test.open();
  const { mirror } = test;
  using syncs = heldSyncs();
  await until(() => b.asked.some(({ operation }) => operation === "flush"), "everything is copied");
  await new Promise((resolve) => setTimeout(resolve, 20));
  a.failure = ({ operation }) => operation === "write" ? "ENOSPC" : undefined;
  await assertRejects(() => mirror.write(filled(9), 4096, plain), DblockError, "a is broken");
  assertEquals([states(mirror), b.content[4096]], [["working", "syncing"], 9]);
  a.failure = () => undefined;
  syncs.release();
  await untilInSync(mirror);
  assertEquals(a.content, b.content);
});

Deno.test("a half that has left and come back while it was copied to is not whole when the first copying ends", async () => {
  await using test = unequal();
  const { a, b } = test;
  const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  a.delay = ({ operation, offsetBytes }) => operation === "read" && offsetBytes === last ? first.promise : undefined;
  await test.open();
  const { mirror } = test;
  await until(() => a.asked.some(({ offsetBytes }) => offsetBytes === last), "all but the last region is copied");
  b.failure = () => "EIO";
  await mirror.write(filled(9), 0, plain);
  await mirror.write(filled(9), regionBytes, plain);
  b.failure = () => undefined;
  b.delay = ({ operation, offsetBytes }) => operation === "write" && offsetBytes === 0 ? second.promise : undefined;
  b.asked = [];
  const rejoined = mirror.rejoin("b");
  await until(() => b.asked.length > 0, "b is copied to again");
  first.resolve();
  await new Promise((resolve) => setTimeout(resolve, 100));
  const before = states(mirror);
  second.resolve();
  await rejoined;
  assertEquals(before, ["working", "syncing"]);
  assertEquals([states(mirror), a.content], [["working", "working"], b.content]);
});

Deno.test("a half that leaves again while it is copied to is opened again, however long that copy hangs", async () => {
  const retryMs = 20;
  await using test = await mirrored({ retryMs });
  const { a, b, mirror } = test;
  const held = Promise.withResolvers<void>();
  b.failure = ({ operation }) => operation === "write" ? "EIO" : undefined;
  await mirror.write(filled(9), 0, plain);
  b.failure = ({ operation, offsetBytes }) => operation === "write" && offsetBytes === last ? "EIO" : undefined;
  b.delay = ({ operation, offsetBytes }) => operation === "write" && offsetBytes === 0 ? held.promise : undefined;
  b.asked = [];
  await until(() => b.asked.some(({ operation }) => operation === "write"), "b is copied to");
  await mirror.write(filled(8), last, plain);
  assertEquals(states(mirror), ["working", "left"]);
  b.failure = () => undefined;
  await new Promise((resolve) => setTimeout(resolve, 5 * retryMs));
  held.resolve();
  await untilInSync(mirror);
  assertEquals(a.content, b.content);
});
