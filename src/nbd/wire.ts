// SPDX-License-Identifier: MIT
/** A connection as NBD uses it: bytes in, bytes out. A socket of Deno, or the same with TLS around it. */
import type { Duplex } from "node:stream";
import type { ConnectionOptions, TlsOptions, TLSSocket } from "node:tls";
import { fileOf, releaseFile } from "../system/socket.ts";
import { silentMs } from "./silence.ts";

const ENDED = "the connection ended during the TLS handshake";

/** Both ends of a connection's bytes. One read and one write may be open at a time. */
export interface Wire {
  /** The socket itself, where its bytes are those of the connection and the system's own calls can be used on it. */
  readonly fd: number | undefined;
  /** Fills a part of `into`. @returns how many bytes came, 0 at the end */
  read(into: Uint8Array): Promise<number>;
  /** Sends all of it. */
  write(bytes: Uint8Array): Promise<void>;
  /** For how long the other machine has not acknowledged what is under way to it, in ms; 0: nothing is, or it cannot be told. */
  silentMs(): number;
  /** Ends reads and writes that are open, with an error or as if the other side had gone. */
  close(): void;
}

/** A socket of Deno. */
export class ConnWire implements Wire {
  readonly #conn: Deno.Conn;
  readonly #fd: number | undefined;
  readonly #watchedFd: number | undefined;
  #isClosed = false;

  /**
   * @param options.isAccepted the connection was accepted just now, and no other one since: its file can be found
   * @param options.watchedFd the file of a connection for which `noticeSilence()` was called
   */
  constructor(
    conn: Deno.Conn,
    options: { readonly isAccepted?: boolean; readonly watchedFd?: number | undefined } = {},
  ) {
    this.#conn = conn;
    this.#watchedFd = options.watchedFd;
    this.#fd = options.isAccepted ? fileOf(conn) : undefined;
  }

  /** Undefined after `close()`: the number may be another file's then. */
  get fd(): number | undefined {
    return this.#isClosed ? undefined : this.#fd;
  }

  async read(into: Uint8Array): Promise<number> {
    return await this.#conn.read(into) ?? 0;
  }

  async write(bytes: Uint8Array): Promise<void> {
    let done = await this.#conn.write(bytes);
    while (done < bytes.length) done += await this.#conn.write(bytes.subarray(done));
  }

  silentMs(): number {
    return this.#isClosed || this.#watchedFd === undefined ? 0 : silentMs(this.#watchedFd);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#fd !== undefined) releaseFile(this.#fd);
    this.#conn.close();
  }
}

/**
 * Bytes of the other side's handshake and of its data go through a stream: node:tls takes any. Both modules are loaded when
 * TLS is wanted, as they take longer than a program without it takes to start.
 */
async function streamOf(wire: Wire): Promise<Duplex> {
  const { Duplex } = await import("node:stream");
  const stream: Duplex = new Duplex({
    read(size) {
      const into = new Uint8Array(size);
      wire.read(into).then(
        (count) => stream.push(count === 0 ? null : into.subarray(0, count)),
        (error) => stream.destroy(error),
      );
    },
    write(chunk: Uint8Array, _encoding, done) {
      wire.write(chunk).then(() => done(), done);
    },
    destroy(error, done) {
      wire.close();
      done(error);
    },
  });
  return stream;
}

/** A connection with TLS. */
export class TlsWire implements Wire {
  readonly fd = undefined;
  readonly #socket: TLSSocket;
  readonly #wire: Wire;
  #error: unknown;
  #ended = false;
  #wake: () => void = () => {};

  private constructor(socket: TLSSocket, wire: Wire) {
    this.#socket = socket;
    this.#wire = wire;
    socket.on("readable", () => this.#wake());
    socket.on("end", () => this.#end(undefined));
    socket.on("close", () => this.#end(undefined));
    socket.on("error", (error) => this.#end(error));
  }

  /** The server's half of a handshake. Rejects if it fails, for instance for want of a certificate. */
  static async accept(wire: Wire, options: TlsOptions): Promise<TlsWire> {
    const { createServer } = await import("node:tls");
    const stream = await streamOf(wire);
    // A server, because a socket alone does not look at the client's certificate. It never listens.
    const server = createServer(options);
    const secured = Promise.withResolvers<TLSSocket>();
    server.once("secureConnection", secured.resolve);
    server.on("tlsClientError", secured.reject);
    stream.once("close", () => secured.reject(new Error(ENDED)));
    server.emit("connection", stream);
    return await TlsWire.#shakeHands(wire, secured.promise);
  }

  /** The client's half. */
  static async connect(wire: Wire, options: ConnectionOptions): Promise<TlsWire> {
    const { connect } = await import("node:tls");
    const socket = connect({ ...options, socket: await streamOf(wire) });
    const secured = Promise.withResolvers<TLSSocket>();
    socket.once("secureConnect", () => secured.resolve(socket));
    socket.on("error", secured.reject);
    socket.once("close", () => secured.reject(new Error(ENDED)));
    return await TlsWire.#shakeHands(wire, secured.promise);
  }

  static async #shakeHands(wire: Wire, secured: Promise<TLSSocket>): Promise<TlsWire> {
    try {
      return new TlsWire(await secured, wire);
    } catch (error) {
      wire.close();
      throw error;
    }
  }

  async read(into: Uint8Array): Promise<number> {
    for (;;) {
      const wanted = Math.min(into.length, this.#socket.readableLength);
      const bytes: Uint8Array | null = wanted > 0 ? this.#socket.read(wanted) : this.#socket.read(0);
      if (bytes !== null && bytes.length > 0) {
        into.set(bytes);
        return bytes.length;
      }
      if (this.#error !== undefined) throw this.#error;
      if (this.#ended) return 0;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  write(bytes: Uint8Array): Promise<void> {
    // A copy: node:tls keeps the piece for longer than until it says that it is written.
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#error ?? new Error("the connection is closed"));
      this.#socket.write(bytes.slice(), (error) => error ? reject(error) : resolve());
    });
  }

  silentMs(): number {
    return this.#wire.silentMs();
  }

  close(): void {
    this.#end(undefined);
    this.#socket.destroy();
    this.#wire.close();
  }

  #end(error: unknown): void {
    this.#error ??= error;
    this.#ended = true;
    this.#wake();
  }
}
