// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";
import { untilEnded } from "../../../src/command/signals.ts";
import type { Device, Ending } from "../../../src/module/device.ts";
import { DblockError } from "../../../src/disk/errors.ts";

/** A device that nobody can close, and SIGTERM for it. */
function stubborn(error: unknown, onDeath = "remove") {
  const ended = Promise.withResolvers<Ending>();
  const forced: boolean[] = [];
  const close = (options: { force?: boolean } = {}) => {
    forced.push(options.force ?? false);
    return Promise.reject(error);
  };
  const leave = () => Promise.resolve(ended.resolve({ reason: "left" }));
  const info = () => Promise.resolve({ onDeath, openCount: 1 });
  const said: string[] = [];
  const real = console.error;
  const device = { path: "/dev/a", closed: ended.promise, close, leave, info } as unknown as Device;
  return {
    device,
    forced,
    said,
    /** Until the device ends; with `room` false, stderr takes nothing. */
    run: async (times: number, room = true): Promise<Ending> => {
      console.error = (message: string) => {
        if (!room) throw new Error("No space left on device");
        said.push(message);
      };
      try {
        const ending = untilEnded(device);
        for (let i = 1; i <= times; i++) {
          Deno.kill(Deno.pid, "SIGTERM"); // without a listener this would be the end
          while (forced.length < i) await new Promise((resolve) => setTimeout(resolve, 5));
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
        ended.resolve({ reason: "destroyed" });
        return await ending;
      } finally {
        console.error = real;
      }
    },
  };
}

Deno.test("untilEnded() hears signals from its call on, and says why neither the first nor a forced close() worked", async () => {
  const device = stubborn(new DblockError("EBUSY", "Cannot destroy /dev/a", "it is in use"));
  assertEquals(await device.run(2), { reason: "destroyed" });
  assertEquals(device.forced, [false, true]);
  assertEquals(device.said, [
    "Cannot destroy /dev/a: it is in use (SIGTERM once more forces it: what is not written is lost)",
    "Cannot destroy /dev/a: it is in use",
  ]);
});

Deno.test("untilEnded() goes on when there is no room for what it says, whatever was thrown", async () => {
  for (const error of [new Error("boom"), Object.create(null)]) {
    assertEquals(await stubborn(error).run(2, false), { reason: "destroyed" });
  }
});

/** A listener for a signal keeps no program running; a device does. */
function running(): Disposable {
  const timer = setInterval(() => {}, 1_000);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

for (const onDeath of ["hold", "fail"]) {
  Deno.test(`untilEnded() leaves a disk of policy "${onDeath}" at SIGTERM, in use or not`, async () => {
    using _device = running();
    const ending = untilEnded(
      stubborn(new DblockError("EBUSY", "Cannot destroy /dev/a", "it is in use"), onDeath).device,
    );
    Deno.kill(Deno.pid, "SIGTERM");
    assertEquals(await ending, { reason: "left" });
  });
}

/** Ctrl-Z for a disk that so many have open: whether the program stops, and what it says. */
async function suspend(openCount: number): Promise<{ stopped: number; said: string[] }> {
  using _device = running();
  const ended = Promise.withResolvers<Ending>();
  const asked = Promise.withResolvers<void>();
  const info = () => {
    setTimeout(asked.resolve, 20); // what follows from the answer is done by then
    return Promise.resolve({ onDeath: "remove", openCount });
  };
  const device = { path: "/dev/a", closed: ended.promise, info } as unknown as Device;
  const said: string[] = [];
  const real = console.error;
  console.error = (message: string) => said.push(message);
  let stopped = 0;
  try {
    const ending = untilEnded(device, { stop: () => void stopped++ });
    Deno.kill(Deno.pid, "SIGTSTP"); // without a listener this would stop the test
    await asked.promise;
    ended.resolve({ reason: "destroyed" });
    await ending;
  } finally {
    console.error = real;
  }
  return { stopped, said };
}

Deno.test("untilEnded() stops the program at Ctrl-Z only if nobody uses the disk", async () => {
  assertEquals(await suspend(0), { stopped: 1, said: [] });
  assertEquals(await suspend(1), {
    stopped: 0,
    said: [
      'Cannot stop serving /dev/a: it is in use, and its I/O would wait (to have the terminal back, start it with "&" or ' +
      "as a service)",
    ],
  });
});
