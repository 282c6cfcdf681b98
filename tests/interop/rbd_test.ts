// A disk in a real Ceph cluster: what Ceph's own client sees of it, who may write it, and what it does when the cluster has gone.
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { RbdBackend } from "../../src/backends/rbd.ts";
import type { RequestOptions } from "../../src/disk/backend.ts";
import { DblockError } from "../../src/disk/errors.ts";
import { requestOptions } from "../../src/disk/request.ts";
import { CountedWaits } from "../unit/system/counted_waits.ts";
import { Cluster, whyNoCeph } from "./ceph.ts";

const MIB = 2 ** 20;
const ignore = whyNoCeph() !== undefined;
if (ignore) console.log(`skipped: ${whyNoCeph()}`);
const root = new URL("../../", import.meta.url);

let seed = 1;
/** Bytes that compress to nothing less, the same in each run. */
function noise(bytes: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(bytes / 4);
  for (let i = 0; i < words.length; i++) words[i] = seed = Math.imul(seed, 1664525) + 1013904223 >>> 0;
  return new Uint8Array(words.buffer);
}

async function readAll(backend: RbdBackend): Promise<Uint8Array<ArrayBuffer>> {
  const all = new Uint8Array(backend.sizeBytes);
  for (let at = 0; at < all.length; at += MIB) await backend.read(all.subarray(at, at + MIB), at);
  return all;
}

async function waitFor(what: string, isThere: () => boolean | Promise<boolean>, timeoutMs = 120_000): Promise<void> {
  const until = performance.now() + timeoutMs;
  while (!await isThere()) {
    if (performance.now() > until) throw new Error(`${what}: not within ${timeoutMs / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** rbd_main.ts in a process of its own, once it writes. */
async function server(cluster: Cluster, image: string, byte: number): Promise<Deno.ChildProcess & { said: string[] }> {
  const args = ["run", "-A", "--quiet", "--no-check", new URL("tests/interop/rbd_main.ts", root).pathname];
  const command = new Deno.Command(new URL("src/build/deno.sh", root).pathname, {
    args: [...args, cluster.conf, image, String(byte)],
    stdout: "piped",
  });
  const said: string[] = [];
  const child = Object.assign(command.spawn(), { said });
  (async () => {
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) said.push(chunk);
  })();
  await waitFor("the server writes", () => said.join("").includes("writing"));
  return child;
}

const zeroOptions: RequestOptions = { ...requestOptions({}), keepAllocated: false };

Deno.test({
  name: "a disk in a Ceph cluster",
  ignore,
  async fn(t) {
    await using cluster = await Cluster.start({ osds: 2 });
    const { conf } = cluster;
    const create = async (name: string, mib: number) => {
      await cluster.rbd("create", name, "--size", `${mib}M`);
      return { pool: "rbd", image: name, conf };
    };

    await t.step("Ceph's own client reads what is written, and the other way round", async () => {
      const options = await create("same", 32);
      const data = noise(32 * MIB);
      {
        const backend = await RbdBackend.open(options);
        assertEquals(backend.sizeBytes, 32 * MIB);
        // Many at once, and some that no object's border respects.
        const sizes = [4096, 65536, MIB, 12288];
        const writes: Promise<unknown>[] = [];
        for (let at = 0, i = 0; at < data.length; i++) {
          const bytes = Math.min(sizes[i % sizes.length]!, data.length - at);
          writes.push(backend.write(data.subarray(at, at + bytes), at));
          at += bytes;
        }
        await Promise.all(writes);
        assertEquals(await readAll(backend), data);
        await backend.close();
      }
      const file = await Deno.makeTempFile();
      await Deno.remove(file); // rbd makes it, and refuses one that is there
      await cluster.rbd("export", "same", file, "--no-progress");
      assertEquals(await Deno.readFile(file), data);
      const other = noise(16 * MIB);
      await Deno.writeFile(file, other);
      await cluster.rbd("import", file, "other", "--no-progress");
      await Deno.remove(file);
      const backend = await RbdBackend.open({ pool: "rbd", image: "other", conf });
      assertEquals(await readAll(backend), other);
      await backend.close();
    });

    await t.step("discard and writeZeroes give zeroes, and extents() says what the cluster has", async () => {
      const backend = await RbdBackend.open(await create("holes", 32));
      await backend.write(noise(MIB), 0);
      await backend.write(noise(MIB), 12 * MIB);
      const data = (extents: readonly { kind: string; lengthBytes: number }[]) => {
        let at = 0;
        return extents.flatMap(({ kind, lengthBytes }) => [[kind, (at += lengthBytes) - lengthBytes, lengthBytes]])
          .filter(([kind]) => kind === "data").map(([, from, length]) => [from, length]);
      };
      const before = await backend.extents(0, 32 * MIB);
      assertEquals(before.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0), 32 * MIB);
      assertEquals(data(before), [[0, 4 * MIB], [12 * MIB, 4 * MIB]]); // whole objects
      await backend.discard(0, 4 * MIB);
      await backend.writeZeroes(12 * MIB, MIB, zeroOptions);
      assert((await readAll(backend)).every((byte) => byte === 0));
      assertEquals(data(await backend.extents(0, 8 * MIB)), []);
      await backend.close();
    });

    await t.step("a snapshot is a read-only disk of what was there", async () => {
      const options = await create("now", 8);
      const backend = await RbdBackend.open(options);
      const then = noise(MIB);
      await backend.write(then, 0);
      await cluster.rbd("snap", "create", "now@then");
      await backend.write(noise(MIB), 0);
      const snapshot = await RbdBackend.open({ ...options, snapshot: "then" });
      assertEquals(snapshot.readOnly, true);
      const found = new Uint8Array(MIB);
      await snapshot.read(found, 0);
      assertEquals(found, then);
      await snapshot.close();
      await backend.close();
    });

    await t.step("resize() changes the image", async () => {
      const backend = await RbdBackend.open(await create("sizes", 8));
      await backend.resize(16 * MIB);
      const block = noise(4096);
      await backend.write(block, 15 * MIB);
      const found = new Uint8Array(4096);
      await backend.read(found, 15 * MIB);
      assertEquals(found, block);
      await backend.close();
      assertEquals(JSON.parse(await cluster.rbd("info", "sizes", "--format", "json")).size, 16 * MIB);
    });

    await t.step("with a cache there is a flush, and without one an answered write is durable", async () => {
      const options = await create("cached", 8);
      const backend = await RbdBackend.open({ ...options, cache: true });
      const block = noise(4096);
      await backend.write(block, 0);
      await backend.flush!();
      await backend.close();
      const plain = await RbdBackend.open(options);
      assertEquals(plain.flush, undefined);
      const found = new Uint8Array(4096);
      await plain.read(found, 0);
      assertEquals(found, block);
      await plain.close();
    });

    await t.step("completions are waited for once at a time, whatever is asked for meanwhile", async () => {
      using waits = new CountedWaits();
      const backend = await RbdBackend.open(await create("waits", 8));
      let meanwhile = 0;
      await Promise.all(Array.from({ length: 8 }, async (_, lane) => {
        const block = new Uint8Array(4096);
        for (let i = 0; i < 50; i++) {
          if (waits.openCount > 0) meanwhile++;
          await backend.read(block, (8 * i + lane) * 4096);
        }
      }));
      assert(meanwhile > 0, "no read began while others were waited for");
      assertEquals(waits.most, 1);
      await backend.close();
    });

    await t.step("librbd has fewer threads and no scheduler, unless the configuration says otherwise", async () => {
      const threads = Math.max(1, Math.floor(navigator.hardwareConcurrency / 2));
      const options = await create("settings", 8);
      const clientConf = await Deno.makeTempFile();
      const socket = `${clientConf}.asok`;
      const settings = async (more: string) => {
        await Deno.writeTextFile(clientConf, `${cluster.clientConf}admin socket = ${socket}\n${more}`);
        const backend = await RbdBackend.open({ ...options, conf: clientConf });
        const names = ["ms_async_op_threads", "librados_thread_count", "rbd_io_scheduler"];
        const said = await Promise.all(
          names.map((name) => cluster.ceph("--admin-daemon", socket, "config", "get", name)),
        );
        await backend.close();
        return said.map((text, i) => JSON.parse(text)[names[i]!]);
      };
      assertEquals(await settings(""), [`${Math.min(3, threads)}`, `${Math.min(2, threads)}`, "none"]);
      assertEquals((await settings("ms async op threads = 5\nlibrados thread count = 4\n")).slice(0, 2), ["5", "4"]);
      await Deno.remove(clientConf);
    });

    await t.step("what cannot be opened is one line that says why", async () => {
      await create("plain", 8);
      await cluster.rbd("feature", "disable", "plain", "exclusive-lock,object-map,fast-diff,deep-flatten").catch(() =>
        cluster.rbd("feature", "disable", "plain", "fast-diff,object-map,exclusive-lock")
      );
      const cases: [Partial<Parameters<typeof RbdBackend.open>[0]>, string, RegExp][] = [
        [{ pool: "nopool" }, "ENOENT", /Cannot open rbd:nopool\/same: there is no pool "nopool"$/],
        [{ image: "noimage" }, "ENOENT", /there is no image "noimage" in the pool "rbd"$/],
        [{ snapshot: "nosnap" }, "ENOENT", /has no snapshot "nosnap"$/],
        [{ conf: "/nowhere.conf" }, "ENOENT", /there is no \/nowhere.conf/],
        [{ image: "plain" }, "EINVAL", /no exclusive lock.*rbd feature enable/],
      ];
      for (const [change, code, message] of cases) {
        const error = await assertRejects(
          () => RbdBackend.open({ pool: "rbd", image: "same", conf, ...change }),
          DblockError,
        );
        assertMatch(error.message, message);
        assertEquals([error.code, error.message.includes("\n")], [code, false]);
      }
    });

    await t.step("a second server is refused, and told who has the image", async () => {
      const options = await create("mine", 8);
      const backend = await RbdBackend.open(options);
      const error = await assertRejects(() => RbdBackend.open(options), DblockError);
      assertMatch(error.message, new RegExp(`process ${Deno.pid} on .* has the image \\(end that server`));
      assertEquals(error.code, "EBUSY");
      // A heir that waits for its first request gets the image when the server before has closed it.
      const heir = await RbdBackend.open({ ...options, lock: "first-request" });
      const found = heir.read(new Uint8Array(4096), 0);
      const state = await Promise.race([
        found.then(() => "read"),
        new Promise((resolve) => setTimeout(resolve, 500, "waits")),
      ]);
      assertEquals(state, "waits");
      await backend.write(noise(4096), 0); // the server before is not shut out
      await backend.close();
      await found;
      await heir.close();
    });

    await t.step(
      "a killed server is shut out at once; a stopped one that wakes up can write nothing more",
      async () => {
        const options = await create("killed", 8);
        for (const ending of ["SIGKILL", "SIGSTOP"] as const) {
          const child = await server(cluster, "killed", 7);
          child.kill(ending);
          if (ending === "SIGKILL") await child.status;
          const started = performance.now();
          const backend = await RbdBackend.open({ ...options, fence: ending === "SIGSTOP" });
          const seconds = (performance.now() - started) / 1000;
          assert(seconds < 15, `the next server waited ${seconds} s`); // the cluster would miss the dead one after 30 s
          const mine = new Uint8Array(MIB).fill(1);
          for (let at = 0; at < backend.sizeBytes; at += MIB) await backend.write(mine, at);
          if (ending === "SIGSTOP") {
            child.kill("SIGCONT");
            const giveUp = setTimeout(() => child.kill("SIGKILL"), 30_000);
            assertEquals((await child.status).code, 3, "the server that was shut out has not heard of it");
            clearTimeout(giveUp);
            assertMatch(child.said.join(""), /another server has taken the image/);
          }
          assert((await readAll(backend)).every((byte) => byte === 1), "a write of the server before arrived late");
          await backend.close();
        }
      },
    );

    await t.step("I/O waits while OSDs and the monitor are gone, and goes on: no error, nothing lost", async () => {
      const options = await create("outage", 16);
      const backend = await RbdBackend.open(options);
      const blocks = backend.sizeBytes / 4096;
      const written = new Uint32Array(blocks);
      let [isOver, round, errors] = [false, 0, 0];
      const writers = Array.from({ length: 8 }, async (_, lane) => {
        const block = new Uint32Array(1024);
        for (let i = lane; !isOver; i += 8 * 37) { // each lane has blocks of its own
          const index = i % blocks;
          await backend.write(new Uint8Array(block.fill(++round).buffer), index * 4096).then(
            () => written[index] = block[0]!,
            () => errors++,
          );
        }
      });
      const writesOn = async (what: string) => {
        const before = round;
        await waitFor(what, () => round > before + 100);
      };
      await writesOn("it writes");
      await cluster.stop("osd0");
      await cluster.stop("osd1");
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      const stalled = round;
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      assertEquals(round, stalled, "without an OSD nothing is answered");
      cluster.startOsd(0);
      cluster.startOsd(1);
      await writesOn("it writes after the OSDs have come back");
      await cluster.stop("mon");
      await writesOn("it writes without a monitor");
      await cluster.startMonitor();
      await writesOn("it writes with the monitor");
      isOver = true;
      await Promise.all(writers);
      assertEquals(errors, 0);
      const found = new Uint32Array((await readAll(backend)).buffer);
      let lost = 0;
      for (let i = 0; i < blocks; i++) if (written[i] !== 0 && found[i * 1024] !== written[i]) lost++;
      assertEquals(lost, 0);
      await backend.close();
    });

    await t.step("a cluster that does not answer is given up in the stated time", async () => {
      await cluster.stop("mon");
      const started = performance.now();
      const error = await assertRejects(
        () => RbdBackend.open({ pool: "rbd", image: "same", conf, connectTimeoutMs: 2_000 }),
        DblockError,
      );
      assertMatch(error.message, /Cannot open rbd:rbd\/same: no monitor of the cluster answers/);
      assertEquals(error.code, "ETIMEDOUT");
      const seconds = (performance.now() - started) / 1000;
      assert(seconds < 10, `${seconds} s`);
    });
  },
});
