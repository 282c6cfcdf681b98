// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";
import { type ExportDescription, Handshake, type Outcome, type TlsMode } from "../../../src/nbd/handshake.ts";
import * as p from "../../../src/nbd/protocol.ts";

const DISK: ExportDescription = {
  name: "disk",
  description: "a disk",
  sizeBytes: 2 ** 40,
  flags: p.NBD_FLAG_HAS_FLAGS | p.NBD_FLAG_SEND_FLUSH,
  minBlockBytes: 512,
  preferredBlockBytes: 4096,
  maxPayloadBytes: 2 ** 25,
};

/** A client that says `options` and reads the replies. */
function talk(options: Uint8Array[], { tls = "off" as TlsMode, isClosing = false, flags = 3, atOnce = true } = {}) {
  const handshake = new Handshake({
    list: () => [DISK],
    find: (name) => name === "disk" || name === "" ? DISK : undefined,
    isClosing,
  }, tls);
  const greeting = handshake.output();
  const bytes = Uint8Array.from([0, 0, 0, flags, ...options.flatMap((option) => [...option])]);
  let taken = 0;
  if (atOnce) taken = handshake.take(bytes);
  else {
    for (let end = 1; end <= bytes.length; end++) taken += handshake.take(bytes.subarray(taken, end));
  }
  return { handshake, greeting, taken, sent: bytes.length, replies: replies(handshake.output()) };
}

function replies(pieces: Uint8Array[]): string[] {
  return pieces.map((piece) => {
    const view = new DataView(piece.buffer, piece.byteOffset, piece.byteLength);
    if (piece.length < 20 || view.getBigUint64(0) !== p.NBD_REP_MAGIC) return `raw ${piece.length}`;
    assertEquals(view.getUint32(16), piece.length - 20);
    return `${view.getUint32(8)} ${(view.getUint32(12) >>> 0).toString(16)} ${piece.length - 20}`;
  });
}

function option(number: number, data: Uint8Array | number[] = []): Uint8Array {
  const bytes = new Uint8Array(16 + data.length);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, p.IHAVEOPT);
  view.setUint32(8, number);
  view.setUint32(12, data.length);
  bytes.set(data, 16);
  return bytes;
}

const u32 = (n: number) => [n >>> 24, n >>> 16 & 255, n >>> 8 & 255, n & 255];
const text = (s: string) => [...u32(new TextEncoder().encode(s).length), ...new TextEncoder().encode(s)];
const info = (name: string, ...asked: number[]) => [...text(name), 0, asked.length, ...asked.flatMap((n) => [0, n])];
const context = (
  name: string,
  ...queries: string[]
) => [...text(name), ...u32(queries.length), ...queries.flatMap(text)];
const kindOf = (outcome: Outcome | undefined) => outcome?.kind;

Deno.test("Handshake greets with fixed newstyle, and GO tells size, flags and block sizes", () => {
  for (const atOnce of [true, false]) {
    const { handshake, greeting, replies } = talk([
      option(p.NBD_OPT_STRUCTURED_REPLY),
      option(p.NBD_OPT_SET_META_CONTEXT, context("disk", "base:allocation")),
      option(p.NBD_OPT_GO, info("disk", p.NBD_INFO_NAME, p.NBD_INFO_DESCRIPTION, p.NBD_INFO_BLOCK_SIZE)),
    ], { atOnce });
    assertEquals(greeting[0]!.length, 18);
    assertEquals(replies, ["8 1 0", "10 4 19", "10 1 0", "7 3 12", "7 3 6", "7 3 8", "7 3 14", "7 1 0"]);
    const { outcome } = handshake;
    assertEquals(outcome, {
      kind: "transmission",
      export: DISK,
      structured: true,
      extended: false,
      hasAllocation: true,
    });
  }
});

Deno.test("Handshake answers an unknown option with ERR_UNSUP and goes on", () => {
  const { handshake, replies } = talk([option(99, [1, 2, 3]), option(p.NBD_OPT_LIST)]);
  assertEquals(replies, ["99 80000001 3".replace(" 3", " 0"), "3 2 14", "3 1 0"]);
  assertEquals(handshake.outcome, undefined);
});

Deno.test("Handshake refuses what is malformed with ERR_INVALID, and an unknown export with ERR_UNKNOWN", () => {
  const cases: [Uint8Array, string][] = [
    [option(p.NBD_OPT_LIST, [0]), "3 80000003 0"],
    [option(p.NBD_OPT_STRUCTURED_REPLY, [0]), "8 80000003 0"],
    [option(p.NBD_OPT_INFO, [0, 0, 0, 9, 0, 0]), "6 80000003 0"],
    [option(p.NBD_OPT_INFO, [...info("disk"), 0]), "6 80000003 0"],
    [option(p.NBD_OPT_INFO, info("a\0")), "6 80000003 0"],
    [option(p.NBD_OPT_INFO, info("other")), "6 80000006 0"],
    [option(p.NBD_OPT_SET_META_CONTEXT, context("disk", "base:allocation")), "10 80000003 0"],
    [option(p.NBD_OPT_LIST_META_CONTEXT, context("disk", "nocolon")), "9 80000003 0"],
    [option(p.NBD_OPT_STARTTLS), "5 80000002 0"],
    [option(p.NBD_OPT_LIST, new Uint8Array(20_000)), "3 80000009 0"],
  ];
  for (const [sent, reply] of cases) {
    const { handshake, replies } = talk([sent]);
    assertEquals([replies, handshake.outcome], [[reply], undefined]);
  }
});

Deno.test("Handshake hangs up where the protocol has no answer", () => {
  const wrongMagic = option(p.NBD_OPT_LIST);
  wrongMagic[0] = 0;
  for (const sent of [wrongMagic, option(p.NBD_OPT_EXPORT_NAME, [120]), option(1, new Uint8Array(20_000))]) {
    assertEquals(kindOf(talk([sent]).handshake.outcome), "close");
  }
  assertEquals(kindOf(talk([], { flags: 4 }).handshake.outcome), "close");
  assertEquals(kindOf(talk(Array.from({ length: 257 }, () => option(99))).handshake.outcome), "close");
  assertEquals(kindOf(talk(Array.from({ length: 256 }, () => option(99))).handshake.outcome), undefined);
});

Deno.test("Handshake: EXPORT_NAME is answered with zeroes unless the client wants none", () => {
  const name = [...new TextEncoder().encode("disk")];
  assertEquals(talk([option(p.NBD_OPT_EXPORT_NAME, name)], { flags: 1 }).replies, ["raw 134"]);
  assertEquals(talk([option(p.NBD_OPT_EXPORT_NAME, name)], { flags: 3 }).replies, ["raw 10"]);
});

Deno.test("Handshake: nothing is told before TLS where TLS is required, and nothing said before it counts", () => {
  const { handshake, replies: first } = talk(
    [option(p.NBD_OPT_LIST), option(p.NBD_OPT_GO, info("disk")), option(p.NBD_OPT_STARTTLS), option(p.NBD_OPT_LIST)],
    { tls: "required" },
  );
  assertEquals(first, ["3 80000005 0", "7 80000005 0", "5 1 0"]);
  assertEquals(kindOf(handshake.outcome), "starttls");
  handshake.encrypted();
  handshake.take(option(p.NBD_OPT_STARTTLS));
  handshake.take(option(p.NBD_OPT_GO, info("disk")));
  assertEquals(replies(handshake.output()), ["5 80000003 0", "7 3 12", "7 1 0"]);
  const allowed = talk([option(p.NBD_OPT_STRUCTURED_REPLY), option(p.NBD_OPT_STARTTLS)], { tls: "allowed" }).handshake;
  allowed.encrypted();
  allowed.take(option(p.NBD_OPT_GO, info("")));
  assertEquals(allowed.outcome?.kind === "transmission" && allowed.outcome.structured, false);
});

Deno.test("Handshake: extended headers come before structured replies, and a closing server takes nobody", () => {
  const { replies } = talk([option(p.NBD_OPT_EXTENDED_HEADERS), option(p.NBD_OPT_STRUCTURED_REPLY)]);
  assertEquals(replies, ["11 1 0", "8 8000000a 0"]);
  assertEquals(talk([option(p.NBD_OPT_GO, info("disk"))], { isClosing: true }).replies, ["7 80000007 0"]);
  assertEquals(talk([option(p.NBD_OPT_ABORT)], { isClosing: true }).replies, ["2 1 0"]);
});
