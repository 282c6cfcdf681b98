// SPDX-License-Identifier: MIT
// Every client that Debian has, against our NBD server: client x option x size, each cell a test; the last one prints the matrix.
import { assertEquals } from "@std/assert";
import { MemoryBackend, type NbdServerOptions, serveNbd } from "../../src/mod.ts";
import { makeCertificates } from "../unit/nbd/certificates.ts";
import { CANNOT, CLIENTS } from "./clients.ts";
import { filledDisk, SparseDisk } from "./sparse.ts";
import { run } from "./tools.ts";

const MIB = 2 ** 20;
const SIZES: readonly [string, number][] = [["1M", MIB], ["64M+512", 64 * MIB + 512], ["5G", 5120 * MIB]];
const NAME = "disk0";

const dir = await Deno.makeTempDir();
const certificates = await makeCertificates(dir);
/** The same authority, for a client that has no certificate of its own. */
const anonymous = `${dir}/anonymous`;
await Deno.mkdir(anonymous);
await Deno.copyFile(`${dir}/ca-cert.pem`, `${anonymous}/ca-cert.pem`);

/** How the server is started, and what a client needs to know. */
interface Option {
  readonly server: NbdServerOptions;
  readonly certificates?: string;
}

const unix = { address: `unix:${dir}/nbd.sock` };
const { server: tls, authority } = certificates;
const OPTIONS: Readonly<Record<string, Option>> = {
  "unix": { server: unix },
  "tcp": { server: { address: "127.0.0.1:0" } },
  "read-only": { server: { ...unix, readOnly: true } },
  "tls": { server: { address: "127.0.0.1:0", tls }, certificates: anonymous },
  "tls+cert": { server: { ...unix, tls: { ...tls, clientAuthority: authority.certificate } }, certificates: dir },
};

Deno.test.afterAll(() => Deno.remove(dir, { recursive: true }));

const results = new Map<string, string>();

for (const [client, use] of Object.entries(CLIENTS)) {
  for (const [option, { server: options, certificates }] of Object.entries(OPTIONS)) {
    if (`${client} ${option}` in CANNOT) continue;
    for (const [size, sizeBytes] of SIZES) {
      Deno.test(`our server with ${client}, ${option}, ${size}`, async () => {
        results.set(`${client} ${option} ${size}`, "FAILED");
        const expected = filledDisk(sizeBytes);
        const readOnly = options.readOnly === true;
        // A client that writes finds an empty disk, one that only looks finds a full one.
        const writes = !readOnly && ["nbdcopy", "qemu-img", "qemu-storage-daemon"].includes(client);
        const disk = writes ? new SparseDisk(sizeBytes) : filledDisk(sizeBytes);
        const file = `${dir}/expected`;
        await expected.toFile(file);
        const said: string[] = [];
        await using server = await serveNbd({ [NAME]: disk }, { ...options, log: (line) => said.push(line) });
        const { address } = server;
        await use({ address, exportName: NAME, certificates, readOnly, disk, file, dir });
        assertEquals([disk.difference(expected), said], [undefined, []]);
        results.set(`${client} ${option} ${size}`, "ok");
      });
    }
  }
}

Deno.test("nbdcopy writes a disk in memory over several connections, again and again, while another one writes it too", async () => {
  const all = `${dir}/all`;
  const memory = new MemoryBackend({ sizeBytes: 64 * MIB });
  const address = `unix:${dir}/memory.sock`;
  const said: string[] = [];
  await using _server = await serveNbd({ memory }, { address, log: (line) => said.push(line) });
  for (let round = 0; round < 4; round++) {
    const content = new Uint8Array(memory.sizeBytes);
    for (let at = 0; at < content.length; at += 65_536) crypto.getRandomValues(content.subarray(at, at + 65_536));
    await Deno.writeFile(all, content);
    // The same content, from two programs: whoever is the last at a place, it is right.
    const copy = () => run("nbdcopy", ["--connections=4", all, `nbd+unix:///?socket=${dir}/memory.sock`]);
    await Promise.all([copy(), copy()]);
    const same = memory.bytes().every((byte, i) => byte === content[i]);
    assertEquals([same, said], [true, []], `round ${round}`);
  }
});

Deno.test("the matrix of clients of our server is green", () => {
  const options = Object.keys(OPTIONS);
  const sizes = SIZES.map(([size]) => size);
  // `make test` shows these lines.
  console.log(`| our server, ${sizes.join(" / ")} | ${options.join(" | ")} |`);
  console.log(`|${" --- |".repeat(options.length + 1)}`);
  for (const client of Object.keys(CLIENTS)) {
    const cells = options.map((option) =>
      sizes.map((size) => results.get(`${client} ${option} ${size}`) ?? "-").join(" ").padEnd(options.length + 3)
    );
    console.log(`| ${client.padEnd(20)} | ${cells.join(" | ")} |`);
  }
  for (const [what, why] of Object.entries(CANNOT)) console.log(`| - ${what}: ${why}`);
  assertEquals([...results].filter(([, result]) => result !== "ok"), []);
});
