// SPDX-License-Identifier: MIT
/** Where the partitions of a disk are: GPT, and MBR with its logical ones. Only reads, and never mends a table. */
import { DblockError } from "../disk/errors.ts";
import { BLOCK_BYTES_MAX, BLOCK_BYTES_MIN } from "../disk/limits.ts";

const GPT_MAGIC = "EFI PART";
const GPT_HEADER_BYTES_MIN = 92;
const GPT_ENTRY_BYTES_MIN = 128;
/** As Linux bounds it: far more than the usual 128 entries of 128 bytes. */
const GPT_TABLE_BYTES_MAX = 2 ** 20;
const MBR_ENTRIES_AT = 446;
const MBR_ENTRY_BYTES = 16;
/** "There is a GPT": this one entry only protects it. */
const MBR_TYPE_GPT = 0xee;
const MBR_TYPES_EXTENDED: readonly number[] = [0x05, 0x0f, 0x85];
const FIRST_LOGICAL = 5;
const LOGICAL_MAX = 256;

/** One partition. */
export interface Partition {
  /** As in /dev/sda2: 1 on; logical partitions of an MBR begin at 5. */
  readonly number: number;
  readonly offsetBytes: number;
  readonly sizeBytes: number;
}

/** A disk to read from. */
export interface ReadableDisk {
  readonly sizeBytes: number;
  /** Its logical blocks: what an MBR counts in, and a GPT usually. */
  readonly blockBytes: number;
  /** The bytes of a range that is inside the disk, and whole blocks. */
  read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>>;
}

/**
 * The partitions of a disk, by their numbers. A GPT whose first header is damaged is read from its copy at the end of the
 * disk.
 *
 * @throws {DblockError} EINVAL: there is no table; it is damaged, or says what cannot be.
 * @throws what reading throws.
 */
export async function readPartitions(disk: ReadableDisk, attempted: string): Promise<readonly Partition[]> {
  // An image that was made on a disk with other blocks: the table is where those would be.
  const sizes = [...new Set([disk.blockBytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX])];
  for (const sectorBytes of sizes) {
    const last = Math.floor(disk.sizeBytes / sectorBytes) - 1;
    for (const sector of [1, last]) {
      const found = await readGpt(disk, sectorBytes, sector);
      if (found !== undefined) return checked(found, disk, attempted);
    }
  }
  const first = await readSome(disk, 0, BLOCK_BYTES_MIN);
  const entries = mbrEntries(first);
  if (entries === undefined) throw new DblockError("EINVAL", attempted, "there is neither a GPT nor an MBR");
  if (entries.some(({ type }) => type === MBR_TYPE_GPT)) {
    throw new DblockError("EINVAL", attempted, "both copies of its GPT are damaged", { hint: "see sgdisk --verify" });
  }
  return checked(await readMbr(disk, entries), disk, attempted);
}

function checked(partitions: readonly Partition[], disk: ReadableDisk, attempted: string): readonly Partition[] {
  for (const { number, offsetBytes, sizeBytes } of partitions) {
    if (sizeBytes > 0 && offsetBytes > 0 && offsetBytes + sizeBytes <= disk.sizeBytes) continue;
    const wrong = `partition ${number} has ${sizeBytes} bytes at ${offsetBytes}: not inside ${disk.sizeBytes} bytes`;
    throw new DblockError("EINVAL", attempted, wrong);
  }
  return partitions;
}

/** Bytes of anywhere; undefined where the disk ends before. */
async function readSome(
  disk: ReadableDisk,
  offsetBytes: number,
  lengthBytes: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const { blockBytes, sizeBytes } = disk;
  const start = Math.floor(offsetBytes / blockBytes) * blockBytes;
  const end = Math.ceil((offsetBytes + lengthBytes) / blockBytes) * blockBytes;
  if (start < 0 || end > sizeBytes) return undefined;
  const bytes = await disk.read(start, end - start);
  return bytes.subarray(offsetBytes - start, offsetBytes - start + lengthBytes);
}

/** The partitions of a GPT whose header is in this sector; undefined if there is none, or one that its checksums deny. */
async function readGpt(disk: ReadableDisk, sectorBytes: number, sector: number): Promise<Partition[] | undefined> {
  const header = await readSome(disk, sector * sectorBytes, BLOCK_BYTES_MIN);
  if (header === undefined || new TextDecoder("latin1").decode(header.subarray(0, 8)) !== GPT_MAGIC) return undefined;
  const view = viewOf(header);
  const headerBytes = view.getUint32(12, true);
  if (headerBytes < GPT_HEADER_BYTES_MIN || headerBytes > header.length) return undefined;
  const sum = view.getUint32(16, true);
  view.setUint32(16, 0, true);
  if (crc32(header.subarray(0, headerBytes)) !== sum || Number(view.getBigUint64(24, true)) !== sector) {
    return undefined;
  }
  const tableSector = Number(view.getBigUint64(72, true));
  const [count, entryBytes] = [view.getUint32(80, true), view.getUint32(84, true)];
  const tableBytes = count * entryBytes;
  if (entryBytes < GPT_ENTRY_BYTES_MIN || tableBytes > GPT_TABLE_BYTES_MAX || tableBytes === 0) return undefined;
  const table = await readSome(disk, tableSector * sectorBytes, tableBytes);
  if (table === undefined || crc32(table) !== view.getUint32(88, true)) return undefined;
  const partitions: Partition[] = [];
  for (let index = 0; index < count; index++) {
    const entry = table.subarray(index * entryBytes, (index + 1) * entryBytes);
    if (entry.subarray(0, 16).every((byte) => byte === 0)) continue; // no type: not in use
    const [first, last] = [viewOf(entry).getBigUint64(32, true), viewOf(entry).getBigUint64(40, true)].map(Number);
    const sectors = last! - first! + 1;
    partitions.push({ number: index + 1, offsetBytes: first! * sectorBytes, sizeBytes: sectors * sectorBytes });
  }
  return partitions;
}

interface MbrEntry {
  readonly type: number;
  readonly startSector: number;
  readonly sectorCount: number;
}

/** The four entries of a boot sector; undefined if it has no table (a file system's boot sector has the same last bytes). */
function mbrEntries(sector: Uint8Array<ArrayBuffer> | undefined): MbrEntry[] | undefined {
  if (sector === undefined || sector[510] !== 0x55 || sector[511] !== 0xaa) return undefined;
  const entries: MbrEntry[] = [];
  for (let index = 0; index < 4; index++) {
    const at = MBR_ENTRIES_AT + index * MBR_ENTRY_BYTES;
    const bootable = sector[at]!;
    if (bootable !== 0 && bootable !== 0x80) return undefined;
    const view = viewOf(sector);
    entries.push({
      type: sector[at + 4]!,
      startSector: view.getUint32(at + 8, true),
      sectorCount: view.getUint32(at + 12, true),
    });
  }
  return entries;
}

async function readMbr(disk: ReadableDisk, entries: readonly MbrEntry[]): Promise<Partition[]> {
  const { blockBytes } = disk;
  const partitions: Partition[] = [];
  const add = (number: number, startSector: number, sectorCount: number) => {
    partitions.push({ number, offsetBytes: startSector * blockBytes, sizeBytes: sectorCount * blockBytes });
  };
  for (const [index, { type, startSector, sectorCount }] of entries.entries()) {
    if (type !== 0 && sectorCount > 0 && !MBR_TYPES_EXTENDED.includes(type)) add(index + 1, startSector, sectorCount);
  }
  const extended = entries.find(({ type }) => MBR_TYPES_EXTENDED.includes(type));
  if (extended === undefined) return partitions;
  // A chain: each sector has one logical partition, and where the next sector is.
  let at = extended.startSector;
  for (let number = FIRST_LOGICAL; number < FIRST_LOGICAL + LOGICAL_MAX;) {
    const chained = mbrEntries(await readSome(disk, at * blockBytes, BLOCK_BYTES_MIN));
    if (chained === undefined) break;
    const isNext = ({ type }: MbrEntry) => MBR_TYPES_EXTENDED.includes(type);
    const own = chained.find((entry) => entry.type !== 0 && entry.sectorCount > 0 && !isNext(entry));
    if (own !== undefined) add(number++, at + own.startSector, own.sectorCount);
    const next = chained.find(isNext);
    // Forward only: a chain that leads back has no end.
    if (next === undefined || extended.startSector + next.startSector <= at) break;
    at = extended.startSector + next.startSector;
  }
  return partitions;
}

function viewOf(bytes: Uint8Array<ArrayBuffer>): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** The CRC of GPT, zip and Ethernet. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
