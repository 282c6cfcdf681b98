// SPDX-License-Identifier: MIT
// Halves of a mirror that answer too late: what they do then must not undo what was written after it.
import { assertEquals } from "@std/assert";
import { filled, KIB, mirrored, plain, read, states, turns } from "./mirrored.ts";
import { until } from "../until.ts";

Deno.test("a half that does not answer is left after its time, and what it does too late does no harm", async () => {
  for (const operation of ["write", "read", "flush"] as const) {
    await using test = await mirrored({ lateMs: 50 });
    const { mirror, a, b } = test;
    await mirror.write(filled(1), 0, plain);
    const awake = Promise.withResolvers<void>();
    a.delay = (asked) => asked.operation === operation || asked.operation === "write" ? awake.promise : undefined;
    if (operation === "read") assertEquals(await read(mirror, 0), filled(1));
    if (operation === "flush") await mirror.flush(plain);
    await mirror.write(filled(2), 0, plain); // a write of before, which reaches the disk after this one
    for (let waitedMs = 0; states(mirror)[0] !== "left" && waitedMs < 20_000; waitedMs += 5) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await mirror.write(filled(3), 0, plain);
    assertEquals([states(mirror), mirror.status.halves[0]?.error], [
      ["left", "working"],
      "Cannot use a: it has not answered for 0.05 s",
    ]);
    const returned = mirror.rejoin("a"); // once it has answered: not before
    await turns(100);
    assertEquals([states(mirror)[0], a.openCount], ["left", 1]);
    a.delay = () => undefined;
    awake.resolve();
    await returned;
    assertEquals([mirror.status.state, a.content, b.content[0]], ["in sync", b.content, 3]);
    // Nobody else has what the last one has: it is waited for.
    b.failure = () => "EIO";
    await mirror.write(filled(4), 0, plain);
    a.delay = () => new Promise((resolve) => setTimeout(resolve, 300));
    await mirror.write(filled(5), 0, plain);
    assertEquals(await read(mirror, 0), filled(5));
    a.delay = () => undefined;
  }
});

Deno.test("a half whose discard is late is left, so that it does not discard what is written next", async () => {
  await using test = await mirrored({ lateMs: 20 });
  const { mirror, a, b } = test;
  await mirror.write(filled(1, 8192), 0, plain);
  const awake = Promise.withResolvers<void>();
  b.delay = ({ operation }) => operation === "discard" ? awake.promise : undefined;
  await mirror.discard?.(0, 8192, plain);
  await mirror.write(filled(2), 0, plain);
  assertEquals(states(mirror), ["working", "left"]);
  awake.resolve();
  await mirror.rejoin("b"); // once it has discarded
  assertEquals([states(mirror), a.content, b.content[0]], [["working", "working"], b.content, 2]);
});

Deno.test("a half whose discard fails stays: it has lost nothing", async () => {
  await using test = await mirrored({ lateMs: 20 });
  test.b.failure = ({ operation }) => operation === "discard" ? "EOPNOTSUPP" : undefined;
  await test.mirror.discard?.(0, 4096, plain);
  assertEquals(states(test.mirror), ["working", "working"]);
});

// Long enough for a busy machine to do in it what has to come before.
const lateMs = 1000;
const afterLate = () => new Promise((resolve) => setTimeout(resolve, lateMs + 200));

Deno.test("a half that is late is waited for if the others have left meanwhile: it is the last", async () => {
  await Promise.all((["write", "writeZeroes", "discard"] as const).map(async (operation) => {
    await using test = await mirrored({ lateMs });
    const { mirror, a, b } = test;
    await mirror.write(filled(1), 0, plain);
    const awake = Promise.withResolvers<void>();
    a.delay = (asked) => asked.operation === operation && asked.offsetBytes === 0 ? awake.promise : undefined;
    b.asked = [];
    const late = {
      write: () => mirror.write(filled(2), 0, plain),
      writeZeroes: () => mirror.writeZeroes(0, 4096, plain),
      discard: async () => await mirror.discard?.(0, 4096, plain),
    }[operation]();
    await until(() => b.asked.length > 0, "b has been asked");
    await turns(10);
    b.failure = () => "EIO"; // from its next request on
    await mirror.write(filled(9), 512 * KIB, plain);
    assertEquals(states(mirror), ["working", "left"]);
    const next = mirror.write(filled(3), 0, plain);
    await afterLate();
    awake.resolve();
    await Promise.all([late, next]);
    await turns(10);
    assertEquals([await read(mirror, 0), states(mirror)], [filled(3), ["working", "left"]]);
  }));
});

Deno.test("a repair that is late is waited for if the other half has left meanwhile", async () => {
  await using test = await mirrored({ lateMs });
  const { mirror, a, b } = test;
  await mirror.write(filled(1), 0, plain);
  const awake = Promise.withResolvers<void>();
  a.asked = [];
  a.failure = ({ operation }) => operation === "read" && a.asked.length === 1 ? "EIO" : undefined;
  a.delay = ({ operation }) => operation === "write" && a.asked.length === 2 ? awake.promise : undefined;
  assertEquals(await read(mirror, 0), filled(1));
  await until(() => a.asked.length === 2, "a is being repaired");
  b.failure = () => "EIO";
  await mirror.write(filled(9), 512 * KIB, plain);
  assertEquals(states(mirror), ["working", "left"]);
  const next = mirror.write(filled(3), 0, plain);
  await afterLate();
  awake.resolve();
  await next;
  await turns(10);
  assertEquals([await read(mirror, 0), states(mirror)], [filled(3), ["working", "left"]]);
});
