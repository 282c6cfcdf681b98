// SPDX-License-Identifier: MIT
import { assert, assertEquals, assertMatch } from "@std/assert";
import { ownLines } from "../../../src/command/info.ts";
import { RUN_FOLDER } from "../../../src/command/run_folder.ts";

Deno.test({
  name:
    "dblock info does not wait for a server that is stopped, and says so: the kernel takes the connection, and nobody answers",
  ignore: Deno.uid() !== 0, // the folder is root's
  async fn() {
    const name = `info-test-${Deno.pid}`;
    const path = `${RUN_FOLDER}/${name}.sock`;
    await Deno.mkdir(RUN_FOLDER, { recursive: true, mode: 0o700 });
    using _listener = Deno.listen({ transport: "unix", path });
    const startMs = performance.now();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<string[]>((resolve) => timer = setTimeout(() => resolve(["it still waits"]), 10_000));
    try {
      const lines = await Promise.race([ownLines({ name, server: { pid: 77 } }), late]);
      assertEquals(lines.length, 1);
      assertMatch(lines[0]!, /does not answer: it is stopped \(kill -CONT 77 wakes it\) or stuck/);
    } finally {
      clearTimeout(timer);
      await Deno.remove(path);
    }
    assert(performance.now() - startMs >= 1_000, "it was not asked at all");
  },
});
