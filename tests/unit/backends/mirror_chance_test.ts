// SPDX-License-Identifier: MIT
import { assertEquals, assertThrows } from "@std/assert";
import type { ErrnoName } from "../../../src/disk/errors.ts";
import type { Asked } from "./mirror_disk.ts";
import { filled, KIB, mirrored, plain, read, sizeBytes, turns, untilInSync } from "./mirrored.ts";

// Halves fail and come back by chance, and the program dies in between; the naive disk beside it knows what must be read.
for (const seed of [1, 2, 3, Number(Deno.env.get("DBLOCK_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0])]) {
  Deno.test(`a mirror whose halves fail by chance reads what was written (seed ${seed}: DBLOCK_SEED)`, async () => {
    let state = seed >>> 0;
    const below = (end: number) => {
      state = Math.imul(state, 1664525) + 1013904223 >>> 0;
      return Math.floor(state / 2 ** 32 * end);
    };
    await using test = await mirrored();
    const model = new Uint8Array(sizeBytes);
    const errnos: readonly ErrnoName[] = ["EIO", "ENOSPC", "EREMOTEIO"];
    for (const disk of test.disks) disk.delay = () => turns(below(20));
    for (let step = 0; step < 300; step++) {
      const broken = test.disks[below(2)]!;
      const errno = errnos[below(3)]!;
      const isBreaking = below(8) === 0 && test.mirror.status.state === "in sync";
      const operation = ["read", "write", "flush"][below(3)];
      if (isBreaking) broken.failure = (asked: Asked) => asked.operation === operation ? errno : undefined;
      await Promise.all(Array.from({ length: 4 }, async (_, lane) => {
        const at = lane * 256 * KIB + below(60) * 4096;
        const data = filled(below(256), 4096 * (1 + below(4)));
        switch (below(4)) {
          case 0: {
            const found = await read(test.mirror, at, data.length);
            return assertEquals(found, model.slice(at, at + data.length), `step ${step}: ${at}`);
          }
          case 1:
            await test.mirror.writeZeroes(at, data.length, plain);
            return model.fill(0, at, at + data.length);
          case 2:
            return await test.mirror.flush(plain);
          default:
            model.set(data, at);
            return await test.mirror.write(data, at, plain);
        }
      }));
      broken.failure = () => undefined;
      // Repairs come first: a half that is left by one must not be the one that is whole when the other breaks.
      await read(test.mirror, 0, sizeBytes);
      const left = test.mirror.status.halves.find((half) => half.state === "left");
      if (left !== undefined && below(3) === 0) await test.mirror.rejoin(left.name);
      if (below(30) === 0) {
        await test.afterDeath();
        if (below(2) === 0) await untilInSync(test.mirror);
      }
    }
    for (const { name, state } of test.mirror.status.halves) if (state === "left") await test.mirror.rejoin(name);
    await untilInSync(test.mirror);
    assertEquals([test.a.content, test.b.content], [model, model]);
    assertThrows(
      () => assertEquals(test.a.content, new Uint8Array(sizeBytes)),
      Error,
      undefined,
      "nothing was written",
    );
  });
}
