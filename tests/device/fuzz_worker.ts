/**
 * Fuzzes every ioctl: one thread of fuzz_test.ts. It shares a table of open files and a few names with the others, and
 * makes calls that are valid in most fields, with bad pointers, lengths and orders in between. What it chooses depends
 * on its seed alone; what the kernel answers depends on the others as well.
 */
import * as abi from "../../src/module/abi.ts";
import { decode, type Decoded, encode, type Struct } from "../../src/system/struct.ts";
import { libc } from "../../src/system/library.ts";
import { Random } from "../sim/random.ts";
import { KIB, MIB, params } from "./server.ts";
import {
  close,
  Memory,
  NR,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  open,
  PAGE_BYTES,
  pollNow,
  PROT_NONE,
  PROT_READ,
  syscall,
} from "./syscall.ts";

/** What a thread is to do. */
export interface FuzzTask {
  readonly seed: number;
  readonly calls: number;
  /** Descriptors that the threads share. Each is always open: on a node, or on /dev/null. */
  readonly fds: readonly number[];
  /** A store that a disk's content can be in. */
  readonly content: number;
}

/** Outcomes by "IOCTL errno". */
export type Tally = Record<string, number>;

const names = ["fuzz0", "fuzz1", "fuzz2", "fuzz-3.x"];
const depth = 8;
const completionsAt = abi.dblock_ring_header.size + depth * abi.dblock_request.size;
const [arenaBytes, slotBytes] = [4 * MIB, 64 * KIB];
const ioctls: readonly { name: string; request: number; layout: Struct; weight: number }[] = [
  { name: "VERSION", request: abi.DBLOCK_IOC_VERSION, layout: abi.dblock_version, weight: 2 },
  { name: "CREATE", request: abi.DBLOCK_IOC_CREATE, layout: abi.dblock_create, weight: 1 },
  { name: "DESTROY", request: abi.DBLOCK_IOC_DESTROY, layout: abi.dblock_destroy, weight: 1 },
  { name: "LIST", request: abi.DBLOCK_IOC_LIST, layout: abi.dblock_list, weight: 4 },
  { name: "INFO", request: abi.DBLOCK_IOC_INFO, layout: abi.dblock_info, weight: 6 },
  { name: "ATTACH", request: abi.DBLOCK_IOC_ATTACH, layout: abi.dblock_attach, weight: 12 },
  { name: "START", request: abi.DBLOCK_IOC_START, layout: abi.dblock_start, weight: 6 },
  { name: "COMMIT", request: abi.DBLOCK_IOC_COMMIT, layout: abi.dblock_commit, weight: 14 },
  { name: "RESIZE", request: abi.DBLOCK_IOC_RESIZE, layout: abi.dblock_resize, weight: 4 },
];
const totalWeight = ioctls.reduce((sum, { weight }) => sum + weight, 0);
const control = new Set(["VERSION", "CREATE", "DESTROY", "LIST"]);

class Fuzzer {
  readonly tally: Tally = {};
  calls = 0;
  readonly #fds: readonly number[];
  readonly #content: number;
  readonly #random: Random;
  /** Honest completions in the first two rings. */
  readonly #pending = [0, 0];
  /** What valid addresses point to: rings, buffers, lists. The kernel may scribble on it. */
  readonly #arena = new Memory(arenaBytes);
  readonly #argument = new Memory(4096);
  readonly #readOnly = new Memory(4096);
  readonly #hole = new Memory(2 * PAGE_BYTES);
  readonly #event = libc().eventfd(0, O_NONBLOCK);

  constructor({ seed, fds, content }: FuzzTask) {
    this.#random = new Random(seed);
    this.#fds = fds;
    this.#content = content;
    this.#readOnly.protect(PROT_READ);
    this.#hole.protect(PROT_NONE, PAGE_BYTES);
  }

  #below(limit: number): number {
    return this.#random.below(limit);
  }
  #pick<T>(choices: readonly T[]): T {
    return choices[this.#below(choices.length)]!;
  }
  #chance(percent: number): boolean {
    return this.#below(100) < percent;
  }

  /** One call. Addresses are never made up at random: the kernel would write over this very program. */
  step(): void {
    const kind = this.#below(1000);
    if (kind < 10) return this.#bringUp(this.#pick(names));
    if (kind < 60) return this.#reopen(`/dev/${this.#pick(names)}-ctl`);
    if (kind < 400) return this.#exchange();
    if (kind < 440) return this.#other();
    let at = this.#below(totalWeight);
    const chosen = ioctls.find(({ weight }) => (at -= weight) < 0)!;
    const fd = control.has(chosen.name) && !this.#chance(3) ? this.#fds[0]! : this.#pick(this.#fds);
    const bytes = this.#argument.bytes;
    const values = this.#valid(chosen.name) as Partial<Decoded<Struct>>;
    bytes.set(encode(chosen.layout, values));
    if (this.#chance(40)) this.#mutate(chosen.layout, new DataView(bytes.buffer));
    let request = chosen.request;
    if (this.#chance(2)) request = (request ^ 2 ** this.#below(31)) >>> 0;
    this.#call(chosen.name, fd, request, this.#chance(3) ? this.#badAddress() : this.#argument.address);
  }

  #call(name: string, fd: number, request: number, argument: number | bigint): number {
    const result = syscall(NR.ioctl, fd, request, argument);
    this.#count(`${name} ${Math.max(0, -result)}`);
    return result;
  }

  #count(outcome: string): void {
    this.calls++;
    this.tally[outcome] = (this.tally[outcome] ?? 0) + 1;
  }

  /** Plays an honest server until a disk is live, if nobody else interferes, and leaves it to the others. */
  #bringUp(name: string): void {
    const argument = this.#argument;
    argument.bytes.set(encode(abi.dblock_create, this.#valid("CREATE", name)));
    this.#call("CREATE", this.#fds[0]!, abi.DBLOCK_IOC_CREATE, argument.address);
    const { queue_count, flags, max_io_bytes } = decode(abi.dblock_create, argument.bytes);
    const direct = flags & abi.DBLOCK_DEVICE_DIRECT;
    const isFile = direct !== 0 && this.#chance(50);
    const first = 1 + this.#below(this.#fds.length - 2);
    for (let queue = 0; queue < queue_count; queue++) {
      this.#reopen(`/dev/${name}-ctl`, first + queue);
      argument.bytes.set(encode(abi.dblock_attach, {
        queue,
        ring_address: this.#arena.address + queue * slotBytes,
        ring_bytes: abi.DBLOCK_RING_BYTES(depth),
        buffer_address: direct ? 0 : this.#arena.address + 32 * slotBytes,
        buffer_bytes: direct ? 0 : depth * max_io_bytes,
        ...this.#further(this.#chance(50) ? this.#event : 0, isFile ? this.#content : 0),
      }));
      this.#call("ATTACH", this.#fds[first + queue]!, abi.DBLOCK_IOC_ATTACH, argument.address);
    }
    argument.bytes.set(encode(abi.dblock_start, { flags: abi.DBLOCK_START_NO_WAIT }));
    this.#call("START", this.#fds[first]!, abi.DBLOCK_IOC_START, argument.address);
    const address = isFile || direct === 0 ? 0 : this.#arena.address + 32 * slotBytes;
    for (let i = 0; i < 40; i++) this.#serve(first + i % queue_count, i % queue_count, address);
  }

  /** What an ATTACH is given besides memory. */
  #further(event: number, file: number): Partial<Decoded<typeof abi.dblock_attach>> {
    const flags = (event === 0 ? 0 : abi.DBLOCK_ATTACH_EVENTFD) | (file === 0 ? 0 : abi.DBLOCK_ATTACH_FILE);
    return { flags, event_fd: event, file_fd: file };
  }

  /** One honest EXCHANGE, and the completions for the next. */
  #serve(index: number, queue: number, address: number): void {
    const ring = this.#arena.bytes.subarray(queue * slotBytes, (queue + 1) * slotBytes);
    const pending = this.#pending[queue]!;
    this.#pending[queue] = 0;
    const count = this.#call("EXCHANGE", this.#fds[index]!, abi.DBLOCK_IOC_EXCHANGE, pending);
    for (let i = 0; i < count; i++) {
      const request = decode(
        abi.dblock_request,
        ring.subarray(abi.dblock_ring_header.size + i * abi.dblock_request.size),
      );
      ring.set(
        encode(abi.dblock_completion, {
          address,
          length_bytes: request.length_bytes,
          generation: request.generation,
          slot: request.slot,
        }),
        completionsAt + i * abi.dblock_completion.size,
      );
      this.#pending[queue]!++;
    }
  }

  /** Puts another file where one was. The number is never free in between, so that no thread closes another's file. */
  #reopen(path: string, index = 1 + this.#below(this.#fds.length - 1)): void {
    const fd = open(path, O_RDWR | O_NONBLOCK);
    this.#count(`open ${Math.max(0, -fd)}`);
    if (fd < 0) return;
    syscall(NR.dup3, fd, this.#fds[index]!, O_CLOEXEC);
    close(fd);
  }

  #exchange(): void {
    const count = this.#chance(80) ? this.#below(depth + 1) : this.#pick([depth, depth + 1, 2 ** 16, 2 ** 32, -1]);
    // Whichever ring it is, completions and the slots and generations of real requests are in this arena.
    if (this.#chance(50)) this.#scribble();
    const arm = count >= 0 && this.#chance(30) ? abi.DBLOCK_EXCHANGE_ARM : 0;
    const linger = count >= 0 && count < 2 ** 30 && this.#chance(30) ? abi.DBLOCK_EXCHANGE_LINGER : 0;
    this.#call("EXCHANGE", this.#pick(this.#fds), abi.DBLOCK_IOC_EXCHANGE, count + arm + linger);
  }

  /** Writes completions to a ring: most are likely, some are nonsense. */
  #scribble(): void {
    const ring = this.#below(4) * slotBytes;
    for (let i = 0; i < depth; i++) {
      const at = ring + completionsAt + i * abi.dblock_completion.size;
      this.#arena.bytes.set(encode(abi.dblock_completion, this.#completion()), at);
    }
  }

  #completion(): Record<string, number> {
    return {
      address: this.#chance(60) ? 0 : this.#address(),
      length_bytes: this.#pick([0, 512, 4096, 4096, 4096, 8192, 16384, 2 ** 32 - 1]),
      generation: this.#chance(90) ? 1 + this.#below(20) : this.#pick([0, 2 ** 32 - 1]),
      slot: this.#chance(90) ? this.#below(depth) : this.#pick([depth, 65535]),
      status: this.#below(7),
      error: this.#chance(80) ? 0 : this.#pick([5, 28, 4095, 4096, 2 ** 32 - 1]),
    };
  }

  /** Reads, writes, polls and maps nodes; and reads a disk, which waits until somebody answers or takes it away. */
  #other(): void {
    const fd = this.#pick(this.#fds);
    switch (this.#below(6)) {
      case 0:
        return this.#count(`read ${Math.max(0, -syscall(NR.read, fd, this.#arena.address, 4096))}`);
      case 1:
        return this.#count(`write ${Math.max(0, -syscall(NR.write, fd, this.#arena.address, 512))}`);
      case 2: {
        const mapped = syscall(NR.mmap, 0, PAGE_BYTES, 3, 1, fd, 0);
        if (mapped > 0) syscall(NR.munmap, mapped, PAGE_BYTES);
        return this.#count(`mmap ${Math.max(0, -mapped)}`);
      }
      case 3: {
        const view = new DataView(this.#argument.bytes.buffer);
        view.setInt32(0, fd, true);
        view.setInt16(4, 0x7fff, true);
        pollNow(this.#argument.address, 1);
        return this.#count("poll 0");
      }
      default: {
        if (!this.#chance(3)) return;
        const disk = open(`/dev/${this.#pick(names)}`, O_RDWR | O_NONBLOCK);
        this.#count(`open disk ${Math.max(0, -disk)}`);
        if (disk < 0) return;
        const result = syscall(NR.pread64, disk, this.#arena.address, 4096, this.#below(8) * 4096);
        this.#count(`read disk ${Math.max(0, -result)}`);
        close(disk);
      }
    }
  }

  #address(): number {
    if (this.#chance(95)) return this.#arena.address + this.#below(arenaBytes / slotBytes - 8) * slotBytes;
    return this.#pick([0, 8, this.#hole.address, this.#hole.address + PAGE_BYTES - 8, this.#readOnly.address]);
  }

  #badAddress(): bigint {
    const kernel = [0xffff888000000000n, 0xffffffff81000000n, 2n ** 63n, 2n ** 64n - 8n, 2n ** 47n - 4096n];
    const user = [0, 1, this.#hole.address + PAGE_BYTES, this.#hole.address + PAGE_BYTES - 16, this.#readOnly.address];
    return this.#chance(50) ? this.#pick(kernel) : BigInt(this.#pick(user));
  }

  /** A structure that the kernel may well accept. */
  #valid(ioctl: string, name = this.#pick(names)): object {
    const direct = this.#chance(50);
    const ring = this.#arena.address + this.#below(4) * slotBytes;
    switch (ioctl) {
      case "CREATE":
        return {
          ...params(name, { size_bytes: MIB, max_io_bytes: PAGE_BYTES * this.#pick([1, 4]), queue_depth: depth }),
          queue_count: 1 + this.#below(2),
          // A scan reads as many blocks as a kernel has parsers of tables: few disks would be live where there are many.
          flags: (direct ? abi.DBLOCK_DEVICE_DIRECT : 0) | (this.#chance(50) ? abi.DBLOCK_DEVICE_NO_PART_SCAN : 0),
          timeout_ms: this.#pick([0, 1000]),
          on_death: this.#below(3),
        };
      case "DESTROY":
        return { name, flags: this.#below(2) };
      case "INFO":
        return { name };
      case "LIST":
        return { capacity: this.#below(6), infos_address: this.#address() };
      case "ATTACH": {
        const buffer = this.#arena.address + 32 * slotBytes;
        const bytes = depth * PAGE_BYTES * this.#pick([1, 4]);
        const event = this.#chance(50) ? 0 : this.#chance(95) ? this.#event : this.#pick(this.#fds);
        const file = this.#chance(direct ? 50 : 95) ? 0 : this.#chance(95) ? this.#content : this.#pick(this.#fds);
        const further = this.#further(event, file);
        return {
          queue: this.#below(2),
          ...further,
          flags: (this.#chance(3) ? abi.DBLOCK_ATTACH_TAKE_OVER : 0) | (further.flags ?? 0),
          ring_address: ring,
          ring_bytes: abi.DBLOCK_RING_BYTES(depth),
          buffer_address: direct ? 0 : buffer,
          buffer_bytes: direct ? 0 : bytes,
        };
      }
      case "START":
        return { flags: this.#below(400) > 0 ? abi.DBLOCK_START_NO_WAIT : 0 };
      case "COMMIT": {
        this.#scribble();
        return { count: this.#below(depth + 1), completions_address: ring + completionsAt };
      }
      case "RESIZE":
        return { size_bytes: 4096 * (1 + this.#below(512)) };
      default:
        return {};
    }
  }

  /** Puts odd values into one to three fields. */
  #mutate(layout: Struct, view: DataView): void {
    const fields = Object.entries(layout.fields);
    for (let i = 0; i <= this.#below(3); i++) {
      const [name, { kind, offset, count }] = this.#pick(fields);
      const at = this.#below(count);
      if (name.endsWith("_address")) view.setBigUint64(offset, this.#badAddress(), true);
      else if (kind === "text") view.setUint8(offset + at, this.#pick([0, 47, 46, 37, 97, 255]));
      else if (kind === "u64") view.setBigUint64(offset + 8 * at, this.#oddWord(), true);
      else if (kind === "u32") view.setUint32(offset + 4 * at, Number(this.#oddWord() & 0xffffffffn), true);
    }
  }

  #oddWord(): bigint {
    if (this.#chance(40)) return BigInt(this.#pick([0, 1, 2, 511, 512, 4096, 65536, MIB]));
    if (this.#chance(50)) return (1n << BigInt(this.#below(64))) + BigInt(this.#below(3) - 1) & (2n ** 64n - 1n);
    return (BigInt(this.#below(2 ** 32)) << 32n) | BigInt(this.#below(2 ** 32));
  }
}

const scope = self as unknown as {
  onmessage: (event: MessageEvent<FuzzTask>) => void;
  postMessage(message: Tally): void;
};
scope.onmessage = ({ data }) => {
  const fuzzer = new Fuzzer(data);
  while (fuzzer.calls < data.calls) fuzzer.step();
  scope.postMessage(fuzzer.tally);
};
