// SPDX-License-Identifier: MIT
// What is said of an address that cannot be had, by real sockets where this user can make them fail.
import { assertEquals, assertRejects } from "@std/assert";
import { serveHttp } from "../../../src/command/http.ts";
import { DblockError, MemoryBackend, NbdBackend } from "../../../src/mod.ts";
import { type NbdAddress, parseNbdAddress } from "../../../src/nbd/address.ts";
import { connectError, listenError } from "../../../src/nbd/address_words.ts";
import { listen } from "../../../src/nbd/listener.ts";
import { serveNbd } from "../../../src/nbd/server.ts";
import { folder } from "../backends/stores.ts";

const said = async (work: () => Promise<unknown>): Promise<string[]> => {
  const { code, message } = await assertRejects(work, DblockError);
  return [code, message];
};

/** Where nobody can listen, the errno, and what is said. `DIR` is a folder, in which `file` is none. */
const UNHAD: readonly [address: string, code: string, wrong: string][] = [
  ["unix:DIR/no/x.sock", "ENOENT", "there is no folder DIR/no (mkdir -p DIR/no)"],
  ["unix:DIR/file/x.sock", "ENOTDIR", "DIR/file is no folder (take another path)"],
  ["unix:DIR/taken.sock", "EADDRINUSE", "another server has it (take another address)"],
  ["127.0.0.1:PORT", "EADDRINUSE", "another server has it (take another address)"],
  [
    "192.0.2.7:10809",
    "EADDRNOTAVAIL",
    "192.0.2.7 is no address of this machine (ip address lists them; 127.0.0.1 is for this machine alone)",
  ],
  [
    "no-such-machine.invalid:10809",
    "ENOENT",
    "no machine called no-such-machine.invalid is known (give its address in numbers)",
  ],
];

Deno.test("an address where nobody can listen is refused in plain words, for NBD and for HTTP", async () => {
  using dir = folder();
  await Deno.writeTextFile(`${dir.path}/file`, "");
  using _socket = Deno.listen({ transport: "unix", path: `${dir.path}/taken.sock` });
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const fill = (text: string) =>
    text.replaceAll("DIR", dir.path).replace("PORT", `${(taken.addr as Deno.NetAddr).port}`);
  for (const [words, code, wrong] of UNHAD) {
    const [text, address] = [fill(words), parseNbdAddress(fill(words))];
    const expected = [code, `Cannot listen on ${text}: ${fill(wrong)}`];
    assertEquals(await said(() => listen(address)), expected);
    assertEquals(await said(() => serveHttp({ address }, () => new Response())), expected);
  }
});

Deno.test("an NBD server that cannot be reached is named in plain words", async () => {
  using dir = folder();
  const path = `${dir.path}/left.sock`;
  Deno.listen({ transport: "unix", path }).close();
  const script = `Deno.listen({ transport: "unix", path: "${path}" }); Deno.kill(Deno.pid, "SIGKILL")`;
  await new Deno.Command(Deno.execPath(), { args: ["eval", script] }).output();
  const port = (() => {
    using free = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    return (free.addr as Deno.NetAddr).port;
  })();
  for (
    const [uri, code, wrong] of [
      [`nbd+unix:///?socket=${dir.path}/no.sock`, "ENOENT", "there is no such socket (start its server first)"],
      [`nbd+unix:///?socket=${path}`, "ECONNREFUSED", "no server listens there (start it first)"],
      [`nbd://127.0.0.1:${port}`, "ECONNREFUSED", "no server listens there (start it first)"],
      [
        "nbd://no-such-machine.invalid",
        "ENOENT",
        "no machine called no-such-machine.invalid is known (give its address in numbers)",
      ],
    ] as const
  ) {
    const [itsCode, message] = await said(() => NbdBackend.open(uri));
    assertEquals([itsCode, message!.replace(/^Cannot open [^,]*, export "": /, "")], [code, wrong], uri);
  }
});

Deno.test("what the system refuses to a user has words too, and anything else keeps the system's", () => {
  const words = (make: typeof listenError, address: string, error: Error) =>
    make("Cannot", parseNbdAddress(address) as NbdAddress, error).message;
  const denied = new Deno.errors.PermissionDenied("Permission denied (os error 13)");
  assertEquals(
    words(listenError, "127.0.0.1:809", denied),
    "Cannot: this user may not have a port below 1024 (take one from 1024 on)",
  );
  assertEquals(
    words(listenError, "unix:/run/x.sock", denied),
    "Cannot: this user may not make a socket in /run (take another path)",
  );
  assertEquals(
    words(connectError, "unix:/run/x.sock", denied),
    "Cannot: this user may not use the socket (take the user of its server, or root)",
  );
  const late = new Deno.errors.TimedOut("Connection timed out (os error 110)");
  assertEquals(words(connectError, "h", late), "Cannot: that machine does not answer");
  const noWay = Object.assign(new Error("No route to host (os error 113)"), { code: "EHOSTUNREACH" });
  assertEquals(words(connectError, "h", noWay), "Cannot: there is no way to that machine (ip route shows the ways)");
  const odd = Object.assign(new Error("Too many open files (os error 24)"), { code: "EMFILE" });
  const error = listenError("Cannot", parseNbdAddress("h"), odd);
  assertEquals([error.message, error.code], ["Cannot: Too many open files", "EMFILE"]);
});

Deno.test("serveNbd() throws the errno that it promises for an address in use", async () => {
  using dir = folder();
  const address = `unix:${dir.path}/x.sock`;
  await using _first = await serveNbd({ disk: new MemoryBackend({ sizeBytes: 4096 }) }, { address });
  const second = () => serveNbd({ disk: new MemoryBackend({ sizeBytes: 4096 }) }, { address });
  assertEquals((await said(second))[0], "EADDRINUSE");
});
