// SPDX-License-Identifier: MIT
// What has to be in the file of a mirror before a request is answered.
import { assertEquals, assertRejects } from "@std/assert";
import { failingSyncs, heldSyncs } from "./held_syncs.ts";
import { filled, mirrored, plain, states, turns } from "./mirrored.ts";
import { until } from "../until.ts";

Deno.test("a mark that cannot be recorded fails the write, before any half has it", async () => {
  await using test = await mirrored();
  const { mirror, a } = test;
  a.asked = [];
  using _ = failingSyncs();
  await assertRejects(() => mirror.write(filled(1), 0, plain), Error, "no room for the mark");
  assertEquals(a.asked, []);
});

Deno.test("nothing that only one half has is answered before it is on record that the other one has left", async () => {
  await using test = await mirrored();
  const { mirror, a, b } = test;
  await mirror.write(filled(1), 0, plain); // its mark is durable from now on
  using syncs = heldSyncs();
  const answered: string[] = [];
  const ask = async (what: string, request: Promise<void>) => {
    await request;
    answered.push(what);
  };
  a.failure = () => "EIO";
  const requests = [
    ask("the first that failed", mirror.write(filled(2), 0, plain)),
    ask("the second that failed", mirror.write(filled(3), 4096, plain)),
  ];
  await until(() => states(mirror)[0] === "left", "a has left");
  b.asked = [];
  requests.push(
    ask("a write to the other", mirror.write(filled(4), 8192, plain)),
    ask("zeroes", mirror.writeZeroes(12288, 4096, plain)),
    ask("a flush", mirror.flush(plain)),
  );
  await until(() => b.asked.length === 3, "the other half has been asked");
  await turns(100);
  assertEquals(answered, []);
  syncs.release();
  await Promise.all(requests);
  assertEquals([answered.length, states(mirror)], [5, ["left", "working"]]);
});

Deno.test("while it cannot be recorded that a half has left, nothing is answered well", async () => {
  await using test = await mirrored();
  const { mirror, a } = test;
  await mirror.write(filled(1), 0, plain);
  a.failure = () => "EIO";
  {
    using _ = failingSyncs();
    for (let turn = 0; turn < 2; turn++) {
      await assertRejects(() => mirror.write(filled(2), 0, plain), Error, "no room for the mark");
      await assertRejects(() => mirror.flush(plain), Error, "no room for the mark");
    }
  }
  await mirror.write(filled(3), 0, plain);
  assertEquals(states(mirror), ["left", "working"]);
});
