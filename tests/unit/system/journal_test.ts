// SPDX-License-Identifier: MIT
// What the journal gets of a line: one datagram of fields, if this process' errors go there.
import { assertEquals } from "@std/assert";
import { Journal } from "../../../src/system/journal.ts";
import { DatagramListener } from "./datagram_listener.ts";

const folder = await Deno.makeTempDir();
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
const socket = `${folder}/journal`;
const { dev, ino } = Deno.statSync("/proc/self/fd/2");
const here = { JOURNAL_STREAM: `${dev}:${ino}` };

Deno.test("a line goes to the journal with its fields; a line end in it does not begin another field", () => {
  using listener = new DatagramListener(socket);
  const journal = Journal.of(here, "dblock", socket)!;
  assertEquals(journal.send(3, "no\nPRIORITY=0\n", { DBLOCK_DISK: "a", ERRNO: 5 }), true);
  const fields = "MESSAGE=no | PRIORITY=0\nPRIORITY=3\nSYSLOG_IDENTIFIER=dblock\nDBLOCK_DISK=a\nERRNO=5\n";
  assertEquals([listener.heard(), listener.heard()], [fields, undefined]);
});

Deno.test("there is no journal where errors go elsewhere, and a line that nobody takes is said to be lost", () => {
  assertEquals(Journal.of({}, "dblock", socket), undefined);
  assertEquals(Journal.of({ JOURNAL_STREAM: `${dev}:${ino! + 1}` }, "dblock", socket), undefined);
  assertEquals(Journal.of(here, "dblock", `${folder}/nobody`)!.send(6, "a line"), false);
});
