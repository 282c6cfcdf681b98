// SPDX-License-Identifier: MIT
// The contract of a backend, kept by our client in front of servers of others and of our own one.
import { NbdBackend } from "../../src/mod.ts";
import { checkBackend } from "../unit/conformance.ts";
import { makeCertificates } from "../unit/nbd/certificates.ts";
import { prepare, serverKinds, start } from "./servers.ts";

const SIZE_BYTES = 4 * 2 ** 20;
const dir = await Deno.makeTempDir();
await makeCertificates(dir);
const names = [
  "nbdkit memory",
  "nbdkit file",
  "nbdkit TLS",
  "nbdkit without structured replies",
  "qemu-nbd",
  "our server",
];
const servers: AsyncDisposable[] = [];

for (const kind of serverKinds(dir).filter(({ name }) => names.includes(name))) {
  const folder = `${dir}/${servers.length}`;
  await prepare(folder, SIZE_BYTES);
  // One server for all tests of its kind: a disk outlives its clients.
  servers.push(await start(kind, folder, SIZE_BYTES));
  const open = () => NbdBackend.open(kind.uri(folder));
  checkBackend(`our client with ${kind.name}`, open, {
    reopen: async (disk, how) => {
      if (how === "died") await disk.close?.("left");
      return await open();
    },
  });
}

Deno.test.afterAll(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]();
  await Deno.remove(dir, { recursive: true });
});
