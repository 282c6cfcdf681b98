// SPDX-License-Identifier: MIT
/** `serveNbd()`: from backends to exports of an NBD server. Listens, shakes hands, and ends in good order. */
import type { Backend } from "../disk/backend.ts";
import { DblockError, describe } from "../disk/errors.ts";
import { FewLines } from "../disk/limiter.ts";
import { type Log, logFrom, type LoggingOptions, logOf } from "../disk/log.ts";
import { type BackendFactory, isModule, type Servable } from "../disk/servable.ts";
import { formatNbdAddress, type NbdAddress, parseNbdAddress } from "./address.ts";
import { closeBackend, endSessions } from "./ending.ts";
import { describeExport, type Export, exportOf, geometryOf } from "./export.ts";
import { greet, type Greeted, type GreetingTls } from "./greeting.ts";
import type { ExportDescription, ExportDirectory } from "./handshake.ts";
import { Lanes } from "./lanes.ts";
import { closeListener, listen } from "./listener.ts";
import { BufferPool } from "./pool.ts";
import { servers } from "../system/servers.ts";
import { Session } from "./session.ts";
import { ConnWire, type Wire } from "./wire.ts";

const DEFAULT_ADDRESS = "127.0.0.1";
const HANDSHAKE_MS = 30_000;
/** When no file is left, a client has only this long. */
const HANDSHAKE_QUICK_MS = 1_000;
/** A client that lets the rest of a message wait for so long holds memory that others want. */
const STALLED_MS = 60_000;
const CHECK_MS = 5_000;
const DEFAULT_MEMORY_BYTES = 256 * 2 ** 20;
const DEFAULT_CONNECTIONS_MAX = 256;
/** Beyond this, the one that has been shaking hands for longest is cut off: nobody can keep the others out. */
const HANDSHAKES_MAX = 1_024;
const ACCEPT_AGAIN_MS = 100;

/** TLS of a server. */
export interface NbdTls {
  /** `allowed`: clients may encrypt. `required`: nothing is told to a client that does not. @default "required" */
  readonly mode?: "allowed" | "required";
  /** The server's certificate, and those that lead to it: PEM. */
  readonly certificate: string;
  /** Its private key: PEM. */
  readonly key: string;
  /** Clients have to show a certificate that one of these has signed: PEM. @default clients need none */
  readonly clientAuthority?: string;
}

/** How to serve over NBD. */
export interface NbdServerOptions extends LoggingOptions {
  /**
   * Where to listen: an address, or words such as `unix:/run/x.sock` (mode 0600) and `127.0.0.1:10809`; port 0 is one that
   * is free. Who is not on this machine can connect only if the address says so (`0.0.0.0:10809`).
   * @default loopback, port 10809
   */
  readonly address?: NbdAddress | string;
  /** How connections are encrypted. @default none: connections are plain */
  readonly tls?: NbdTls;
  /** Refuse everything that would change a disk. @default false */
  readonly readOnly?: boolean;
  /** Bound on the payloads of all connections, in bytes. @default 256 MiB */
  readonly memoryBytes?: number;
  /** Clients at once; one more is cut off after its handshake. @default 256 */
  readonly connectionsMax?: number;
  /** Ends the server when aborted, as `close()` does. */
  readonly signal?: AbortSignal | undefined;
}

/** An NBD server that is there. */
export interface NbdServer extends AsyncDisposable {
  /** Where it listens; a port that was 0 is the one that was found. */
  readonly address: NbdAddress;
  /** The names of its exports. */
  readonly exportNames: readonly string[];
  /** Clients that are served now. */
  readonly connectionCount: number;
  /** Resolves, and never rejects, when the server has ended and the backends are closed. */
  readonly closed: Promise<void>;
  /**
   * Gives an export another size. New connections see it; those that are open keep the size they were told.
   *
   * @throws {DblockError} EOPNOTSUPP (the backend has no `resize`), ENOENT (no such export), EINVAL, or what it throws.
   */
  resize(exportName: string, sizeBytes: number): Promise<void>;
  /**
   * Takes no more requests, answers what is open, closes the connections and the backends. After 10 s the clients are cut
   * off, and a backend that has still not answered is closed without; `close()` of a backend is waited for 60 s, or 10 s if
   * it has left requests open.
   */
  close(): Promise<void>;
}

/**
 * Serves disks over NBD until `close()` or the signal. Needs neither root nor a module.
 *
 * The backends are owned from here on: `close()` of each is called when the server has ended, also when it never began.
 *
 * ```ts no-run
 * import { serveNbd } from "./server.ts";
 *
 * const store = new Uint8Array(64 * 2 ** 20);
 * await using server = await serveNbd({
 *   scratch: {
 *     sizeBytes: store.length,
 *     read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
 *     write: (buffer, offset) => store.set(buffer, offset),
 *   },
 * }, { address: "unix:/tmp/scratch.sock" });
 * await server.closed; // meanwhile: nbdinfo 'nbd+unix:///scratch?socket=/tmp/scratch.sock'
 * ```
 *
 * @param exports disks by their names. With only one, a client that asks for no name gets that one.
 * @throws {DblockError} EINVAL (an option, a limit of a backend), EADDRINUSE, EACCES, ENOENT (the address).
 */
export async function serveNbd(
  exports: Readonly<Record<string, Servable>>,
  options: NbdServerOptions = {},
): Promise<NbdServer> {
  const address = typeof options.address === "object"
    ? options.address
    : parseNbdAddress(options.address ?? DEFAULT_ADDRESS);
  return await serveNbdOn(() => listen(address), exports, { ...options, address });
}

/** {@linkcode serveNbd} on a socket that is owned from here on, too; it is asked for when all else is well. */
export async function serveNbdOn(
  listening: () => Deno.Listener | Promise<Deno.Listener>,
  exports: Readonly<Record<string, Servable>>,
  options: NbdServerOptions & { readonly address: NbdAddress },
): Promise<NbdServer> {
  const log = logFrom(options);
  const { address } = options;
  await using undo = new AsyncDisposableStack();
  const table = new Map<string, Export>();
  const backends: Backend[] = [];
  const deaf = new Set<Backend>();
  undo.defer(async () => {
    await Promise.all(backends.map((backend) => closeBackend(backend, log, { isDeaf: deaf.has(backend) })));
  });
  for (const [name, servable] of Object.entries(exports)) {
    const backend = isModule(servable) ? await load(servable.module, servable.data) : servable;
    backends.push(backend);
    table.set(name, exportOf(name, backend, options.readOnly ?? false));
  }
  if (table.size === 0) {
    throw new DblockError("EINVAL", `Cannot serve ${formatNbdAddress(address)}`, "there is no disk");
  }
  options.signal?.throwIfAborted();
  const listener = await listening();
  undo.defer(() => closeListener(listener));
  return new Server(table, listener, undo.move(), deaf, options, log);
}

async function load(module: URL | string, data: unknown): Promise<Backend> {
  const href = String(module);
  const loaded: { readonly default?: unknown } = await import(href);
  if (typeof loaded.default === "function") return await (loaded.default as BackendFactory)(data);
  throw new DblockError("EINVAL", `Cannot serve ${href}`, "its default export is not a function that makes a backend");
}

class Server implements NbdServer, ExportDirectory {
  readonly address: NbdAddress;
  readonly closed: Promise<void>;
  readonly #exports: ReadonlyMap<string, Export>;
  readonly #listener: Deno.Listener;
  readonly #undo: AsyncDisposableStack;
  /** Backends that have left requests without an answer. */
  readonly #deaf: Set<Backend>;
  readonly #tls: GreetingTls;
  readonly #log: Log;
  /** What strangers can cause as often as they like. */
  readonly #refusals: FewLines;
  readonly #pool: BufferPool;
  readonly #lanes: Lanes;
  readonly #connectionsMax: number;
  readonly #sessions = new Map<Session, Promise<void>>();
  /** Those that are shaking hands, the oldest first, and since when. */
  readonly #greeting = new Map<Wire, number>();
  readonly #timer: ReturnType<typeof setInterval>;
  #isClosing = false;

  constructor(
    exports: ReadonlyMap<string, Export>,
    listener: Deno.Listener,
    undo: AsyncDisposableStack,
    deaf: Set<Backend>,
    options: NbdServerOptions,
    log: Log,
  ) {
    const { tls, signal } = options;
    this.#exports = exports;
    this.#listener = listener;
    this.#undo = undo;
    this.#deaf = deaf;
    this.#tls = tls === undefined ? { mode: "off", options: {} } : greetingTls(tls);
    this.#log = log;
    this.#refusals = new FewLines(log);
    this.#pool = new BufferPool(options.memoryBytes ?? DEFAULT_MEMORY_BYTES);
    this.#lanes = new Lanes(log);
    this.#connectionsMax = options.connectionsMax ?? DEFAULT_CONNECTIONS_MAX;
    const { addr } = listener;
    this.address = addr.transport === "unix"
      ? { transport: "unix", path: (addr as Deno.UnixAddr).path }
      : { transport: "tcp", hostname: (addr as Deno.NetAddr).hostname, port: (addr as Deno.NetAddr).port };
    this.#timer = setInterval(() => this.#check(), CHECK_MS);
    Deno.unrefTimer(Number(this.#timer));
    const abort = () => void this.close();
    signal?.addEventListener("abort", abort, { once: true });
    this.closed = this.#accept().then(() => this.#end()).finally(() => signal?.removeEventListener("abort", abort));
    if (signal?.aborted) abort();
  }

  get exportNames(): readonly string[] {
    return [...this.#exports.keys()];
  }

  get connectionCount(): number {
    return this.#sessions.size;
  }

  get isClosing(): boolean {
    return this.#isClosing;
  }

  list(): readonly ExportDescription[] {
    return [...this.#exports.values()].map((one) => describeExport(one));
  }

  find(name: string): ExportDescription | undefined {
    const found = this.#exports.get(name) ??
      (name === "" && this.#exports.size === 1 ? this.#exports.values().next().value : undefined);
    return found === undefined ? undefined : describeExport(found);
  }

  async resize(exportName: string, sizeBytes: number): Promise<void> {
    const attempted = `Cannot resize the export "${exportName}" to ${sizeBytes} bytes`;
    const found = this.#exports.get(exportName);
    if (found === undefined) throw new DblockError("ENOENT", attempted, "there is no such export");
    if (found.backend.resize === undefined) throw new DblockError("EOPNOTSUPP", attempted, "its disk has a fixed size");
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % found.limits.blockBytes !== 0) {
      throw new DblockError("EINVAL", attempted, `that is not a positive multiple of ${found.limits.blockBytes}`);
    }
    if (sizeBytes < found.sizeBytes && found.connections > 0) {
      // NBD cannot tell them, and they would read past the end.
      throw new DblockError("EBUSY", attempted, `${found.connections} clients have the larger disk open`);
    }
    if (sizeBytes < found.sizeBytes) found.sizeBytes = sizeBytes;
    await found.backend.resize(sizeBytes);
    found.sizeBytes = sizeBytes;
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    closeListener(this.#listener);
    await this.closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #accept(): Promise<void> {
    while (!this.#isClosing) {
      try {
        const conn = await this.#listener.accept();
        if ("setNoDelay" in conn && conn.remoteAddr.transport === "tcp") (conn as unknown as Deno.TcpConn).setNoDelay();
        void this.#greet(new ConnWire(conn, { isAccepted: true }));
      } catch (error) {
        if (this.#isClosing) return;
        this.#refusals.add(`Cannot accept connections on ${formatNbdAddress(this.address)}: ${describe(error)}`);
        // Too many open files, perhaps. Clients that only shake hands have some.
        this.#forgetThoseSince(performance.now() - HANDSHAKE_QUICK_MS);
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_AGAIN_MS));
      }
    }
  }

  /** From the first byte of a connection to its last. Never rejects. */
  async #greet(plain: Wire): Promise<void> {
    const oldest = this.#greeting.size < HANDSHAKES_MAX ? undefined : this.#greeting.keys().next().value;
    if (oldest !== undefined) this.#forget(oldest);
    this.#greeting.set(plain, performance.now());
    let wire = plain;
    try {
      const greeted = await greet(plain, this, this.#tls);
      if (greeted === undefined) return;
      wire = greeted.wire;
      await this.#serve(greeted, plain);
    } catch (error) {
      if (wire === plain && this.#tls.mode !== "off" && this.#greeting.has(plain) && !isGone(error)) {
        this.#refusals.add(`A client was turned away: ${describe(error)}`);
      }
    } finally {
      this.#greeting.delete(plain);
      wire.close();
      plain.close();
    }
  }

  async #serve({ wire, negotiated, rest }: Greeted, plain: Wire): Promise<void> {
    this.#greeting.delete(plain);
    const found = this.#exports.get(negotiated.export.name)!;
    if (this.#isClosing || this.#sessions.size >= this.#connectionsMax) {
      if (!this.#isClosing) this.#refusals.add(`A client was turned away: there are ${this.#connectionsMax} already`);
      return;
    }
    const session = new Session({
      wire,
      negotiated,
      backend: found.backend,
      geometry: geometryOf(found, negotiated.export.sizeBytes),
      pool: this.#pool,
      lanes: this.#lanes,
      log: logOf(this.#log, `export "${negotiated.export.name}"`, negotiated.export.name),
    });
    found.connections++;
    servers.count++;
    const served = session.run(rest);
    this.#sessions.set(session, served);
    await served;
    this.#sessions.delete(session);
    servers.count--;
    found.connections--;
  }

  /** Cuts off those that began to shake hands before that time. */
  #forgetThoseSince(beganMs: number): void {
    for (const [wire, since] of this.#greeting) if (since < beganMs) this.#forget(wire);
  }

  #forget(wire: Wire): void {
    this.#greeting.delete(wire);
    wire.close();
  }

  #check(): void {
    const nowMs = performance.now();
    this.#forgetThoseSince(nowMs - HANDSHAKE_MS);
    for (const session of this.#sessions.keys()) if (session.stalledMs(nowMs) > STALLED_MS) session.cut();
  }

  async #end(): Promise<void> {
    for (const wire of [...this.#greeting.keys()]) this.#forget(wire);
    clearInterval(this.#timer);
    this.#refusals.end();
    const say = (line: string) => this.#log(`${formatNbdAddress(this.address)}: ${line}`);
    for (const backend of await endSessions(this.#sessions, say)) this.#deaf.add(backend);
    this.#lanes[Symbol.dispose]();
    await this.#undo.disposeAsync();
  }
}

function greetingTls({ mode = "required", certificate, key, clientAuthority }: NbdTls): GreetingTls {
  const clients = clientAuthority === undefined
    ? {}
    : { ca: clientAuthority, requestCert: true, rejectUnauthorized: true };
  return { mode, options: { cert: certificate, key, minVersion: "TLSv1.2", ...clients } };
}

function isGone(error: unknown): boolean {
  return error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe ||
    error instanceof Deno.errors.Interrupted || error instanceof Deno.errors.BadResource;
}
