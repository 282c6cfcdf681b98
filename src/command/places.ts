// SPDX-License-Identifier: MIT
/**
 * Where on disks reads and writes land, counted by the kernel while somebody looks, as latency.ts measures how long they
 * take: a small program at a tracepoint of the block layer, which knows no server. So there is a map of memory that the kernel copies
 * from, too.
 */
import { MAP_CELLS } from "../disk/meter.ts";
import { Assembler, attachProgram, BpfMap, type Tracepoint } from "../system/bpf.ts";
import { pauseIoFlusher } from "../system/libc.ts";
import { diskKey, findTracepoint, refused } from "./latency.ts";

const COMPLETED = "block_rq_complete";
/** More disks have no map. */
const DISKS_MAX = 512;
const SECTOR_BITS = 9;
/** What the kernel keeps of a disk: how many sectors a piece has, then bytes read of each piece, then bytes written. */
const READS = 8;
const WRITES = READS + MAP_CELLS * 8;
const VALUE_BYTES = WRITES + MAP_CELLS * 8;
const KEY = -8;
const READ = "R".charCodeAt(0);

/** Bytes of each piece of a disk since it was first asked for: read; and written, zeroed or discarded. */
export interface Places {
  readonly reads: readonly number[];
  readonly writes: readonly number[];
}

/** Counts until it is disposed. */
export class PlaceWatch implements Disposable {
  readonly #places: BpfMap;
  readonly #stack: DisposableStack;
  readonly #sizes = new Map<string, number>();

  private constructor(places: BpfMap, stack: DisposableStack) {
    this.#places = places;
    this.#stack = stack;
  }

  /**
   * Begins to count.
   *
   * @throws {DblockError} this kernel cannot, or must not; with what to type.
   */
  static open(): PlaceWatch {
    using _pause = pauseIoFlusher();
    using stack = new DisposableStack();
    const completed = findTracepoint(COMPLETED);
    const places = stack.use(BpfMap.open(4, VALUE_BYTES, DISKS_MAX));
    if (places === undefined) throw refused();
    const attached = stack.use(attachProgram("dblock_place", placeProgram(completed, places), completed));
    if (attached === undefined) throw refused();
    return new PlaceWatch(places, stack.move());
  }

  /** What was counted of a disk of this size since it was first asked for; undefined if there are too many disks. */
  places(number: { readonly major: number; readonly minor: number }, sizeBytes: number): Places | undefined {
    const key = diskKey(number.major, number.minor);
    const name = `${number.major}:${number.minor}`;
    const value = this.#sizes.get(name) === sizeBytes ? this.#places.get(key) : undefined;
    if (value !== undefined) return { reads: numbersAt(value, READS), writes: numbersAt(value, WRITES) };
    // It is new, or has another size: its pieces are others.
    const fresh = new Uint8Array(new ArrayBuffer(VALUE_BYTES));
    new DataView(fresh.buffer).setBigUint64(0, BigInt(Math.ceil(sizeBytes / MAP_CELLS / 2 ** SECTOR_BITS)), true);
    if (!this.#places.set(key, fresh)) return undefined;
    this.#sizes.set(name, sizeBytes);
    return { reads: new Array(MAP_CELLS).fill(0), writes: new Array(MAP_CELLS).fill(0) };
  }

  /** The disk is gone: another one may have its number, and begins at nothing. */
  forget({ major, minor }: { readonly major: number; readonly minor: number }): void {
    this.#sizes.delete(`${major}:${minor}`);
    this.#places.delete(diskKey(major, minor));
  }

  /** Ends it. */
  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

function numbersAt(value: Uint8Array<ArrayBuffer>, at: number): number[] {
  const halves = new Uint32Array(value.buffer, at, MAP_CELLS * 2);
  return Array.from({ length: MAP_CELLS }, (_, i) => halves[2 * i]! + halves[2 * i + 1]! * 2 ** 32);
}

/** A request is answered: its bytes are counted where it began. A flush has no place. */
function placeProgram({ offsets }: Tracepoint, places: BpfMap): Uint8Array<ArrayBuffer> {
  return new Assembler()
    .do("move", 6, 1)
    .load(9, 6, offsets.nr_sector!, 4)
    .jump("equal", 9, 0, "out")
    .load(7, 6, offsets.dev!, 4)
    .store(10, KEY, 7, 8)
    .map(1, places).do("move", 2, 10).doNumber("add", 2, KEY).call("mapLookup")
    .jump("equal", 0, 0, "out") // no disk that is looked at
    .do("move", 8, 0)
    .load(1, 8, 0, 8)
    .load(7, 6, offsets.sector!, 8)
    .do("divide", 7, 1)
    .jump("greater", 7, MAP_CELLS - 1, "out")
    .doNumber("left", 7, 3).do("add", 8, 7)
    .doNumber("left", 9, SECTOR_BITS)
    .load(2, 6, offsets.rwbs!, 1)
    .jump("equal", 2, READ, "read")
    .doNumber("add", 8, WRITES - READS)
    .label("read").addTo(8, READS, 9)
    .label("out").end()
    .bytes();
}
