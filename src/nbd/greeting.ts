// SPDX-License-Identifier: MIT
/** From a connection's first byte to its last option: the handshake on a wire, with TLS where both sides want it. */
import type { TlsOptions } from "node:tls";
import {
  type ExportDirectory,
  Handshake,
  type Negotiated,
  OPTION_BYTES_MAX,
  type Outcome,
  type TlsMode,
} from "./handshake.ts";
import { OPTION_HEADER_BYTES } from "./protocol.ts";
import { TlsWire, type Wire } from "./wire.ts";

/** Read at once during a handshake; more is kept only while a message is not complete. */
const GREETING_BYTES = 512;

/** How a server encrypts. */
export interface GreetingTls {
  readonly mode: TlsMode;
  /** Certificates, for `TlsWire.accept()`. */
  readonly options: TlsOptions;
}

/** A client that is ready for its requests. */
export interface Greeted {
  /** The connection, encrypted or not. */
  readonly wire: Wire;
  readonly negotiated: Negotiated;
  /** What the client has sent after its last option. */
  readonly rest: Uint8Array;
}

/**
 * Shakes hands with a client.
 *
 * @returns undefined if the client wants nothing, or wants what is not to be had: the connection has to be closed
 * @throws what the wire throws, and what a TLS handshake fails with.
 */
export async function greet(
  plain: Wire,
  directory: ExportDirectory,
  tls: GreetingTls,
): Promise<Greeted | undefined> {
  const handshake = new Handshake(directory, tls.mode);
  let wire = plain;
  for (;;) {
    const { outcome, rest } = await shakeHands(wire, handshake);
    if (outcome.kind === "close") return undefined;
    if (outcome.kind === "transmission") return { wire, negotiated: outcome, rest };
    // What came in the clear cannot have been meant to come encrypted.
    if (rest.length > 0) return undefined;
    wire = await TlsWire.accept(wire, tls.options);
    handshake.encrypted();
  }
}

/** Until the handshake has an outcome: with what came after it. */
async function shakeHands(
  wire: Wire,
  handshake: Handshake,
): Promise<{ readonly outcome: Outcome; readonly rest: Uint8Array<ArrayBuffer> }> {
  let kept = new Uint8Array(0);
  const chunk = new Uint8Array(GREETING_BYTES);
  for (;;) {
    for (const piece of handshake.output()) await wire.write(piece);
    const { outcome } = handshake;
    if (outcome !== undefined) return { outcome, rest: kept };
    const count = await wire.read(chunk);
    if (count === 0) return { outcome: { kind: "close", why: "the client has gone" }, rest: kept };
    const joined = new Uint8Array(kept.length + count);
    joined.set(kept);
    joined.set(chunk.subarray(0, count), kept.length);
    const taken = handshake.take(joined);
    kept = joined.slice(taken);
    console.assert(kept.length <= OPTION_HEADER_BYTES + OPTION_BYTES_MAX);
  }
}
