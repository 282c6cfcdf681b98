/**
 * Partition tables of every format that Linux has a parser for and a hostile disk may show: each with the magic numbers and
 * checksums that lead the parser past its first checks, made by hand after block/partitions/ of Linux 6.12. What the numbers
 * do not fix is left as it is, for the caller to fill with noise.
 */

/** A format. */
export interface TableFormat {
  readonly name: string;
  /** The kernel's function for it, in /proc/kallsyms where the kernel has it. */
  readonly parser: string;
  /** Partitions that are there for any kernel: those of a DOS table around it. @default 0 */
  readonly dosPartitions?: number;
  /**
   * Writes the table over whatever is there. The disk is 4 MiB. `random` gives numbers from 0 to 1; where it always gives
   * 0.5, the table is as good as any.
   */
  readonly write: (disk: DataView, random: () => number) => void;
}

const sectorBytes = 512;

function putText(disk: DataView, at: number, text: string): void {
  for (let i = 0; i < text.length; i++) disk.setUint8(at + i, text.charCodeAt(i));
}

/** A number that is small more often than not: what a parser believes before it notices. */
function likely(random: () => number, max = 8192): number {
  return random() < 0.8 ? Math.floor(random() * max) : Math.floor(random() * 2 ** 32);
}

/** An entry of a DOS table, with the signature that makes it one. */
function putDosEntry(disk: DataView, index: number, type: number, start: number, sectors: number): void {
  const at = 446 + index * 16;
  disk.setUint8(at, 0);
  disk.setUint8(at + 4, type);
  disk.setUint32(at + 8, start, true);
  disk.setUint32(at + 12, sectors, true);
  disk.setUint16(510, 0xaa55, true);
}

/** Apple's: "ER" at the beginning, "PM" at each entry; blocks are of the size that the beginning says. */
function writeMac(disk: DataView, random: () => number): void {
  const blockBytes = random() < 0.7 ? sectorBytes : 2 ** Math.floor(random() * 16);
  putText(disk, 0, "ER");
  disk.setUint16(2, blockBytes);
  const count = 1 + Math.floor(random() * 20);
  for (let slot = 1; slot <= count && (slot + 1) * blockBytes < disk.byteLength; slot++) {
    const at = slot * blockBytes;
    putText(disk, at, "PM");
    disk.setUint32(at + 4, random() < 0.8 ? count : likely(random, 300));
    disk.setUint32(at + 8, likely(random));
    disk.setUint32(at + 12, likely(random));
  }
}

/** IBM's AIX: EBCDIC "IBMA" first, an LVM record in sector 7, the volume group's description where that says. */
function writeAix(disk: DataView, random: () => number): void {
  disk.setUint32(0, 0xc9c2d4c1);
  // Linux's own partitions beside it would make it a DOS table.
  for (let i = 0; i < 4; i++) putDosEntry(disk, i, 0, 0, 0);
  const record = 7 * sectorBytes;
  // Fixed, as is how many volumes there are: Linux 6.12 looks for the volumes that it misses past the end of their page.
  const [groupSector, groupSectors, volumes] = [64, 100, 16];
  putText(disk, record, "_LVM");
  disk.setUint32(record + 24, random() < 0.8 ? groupSectors : likely(random));
  disk.setUint32(record + 28, groupSector);
  disk.setUint16(record + 46, random() < 0.8 ? Math.floor(random() * 32) : Math.floor(random() * 65536));
  disk.setUint16(record + 60, 1);
  const group = groupSector * sectorBytes;
  disk.setUint16(group + 24, volumes);
  for (let i = 0; i < volumes; i++) disk.setUint16(group + sectorBytes + i * 32 + 14, 1 + Math.floor(random() * 4));
  const physical = (groupSector + 17) * sectorBytes;
  disk.setUint16(physical + 16, random() < 0.7 ? Math.floor(random() * 1016) : 65535);
  for (let i = 0; i < 1016; i++) {
    disk.setUint16(physical + 32 + i * 32, Math.floor(random() * (random() < 0.9 ? 16 : 65536)));
    disk.setUint16(physical + 32 + i * 32 + 6, Math.floor(random() * 4));
  }
}

/** Sun's: a magic number and a checksum that makes the words' exclusive or 0. */
function writeSun(disk: DataView, random: () => number): void {
  disk.setUint16(508, 0xdabe);
  if (random() < 0.5) {
    disk.setUint32(128, 1);
    disk.setUint16(140, Math.floor(random() * 10));
    disk.setUint32(188, 0x600ddeee);
  }
  // Tracks and sectors: what a cylinder has.
  disk.setUint16(436, likely(random, 8));
  disk.setUint16(438, likely(random, 64));
  for (let i = 0; i < 8; i++) {
    disk.setUint32(444 + i * 8, likely(random, 16));
    disk.setUint32(448 + i * 8, likely(random));
  }
  let sum = 0;
  for (let at = 0; at < 510; at += 2) sum ^= disk.getUint16(at);
  disk.setUint16(510, sum);
}

/** Silicon Graphics': a magic number and words whose sum is 0. */
function writeSgi(disk: DataView, random: () => number): void {
  disk.setUint32(0, 0x0be5a941);
  for (let i = 0; i < 16; i++) {
    disk.setUint32(312 + i * 12, likely(random));
    disk.setUint32(316 + i * 12, likely(random));
  }
  fixSum(disk, 0, 128, 504);
}

/** Makes the sum of 32-bit words 0 by way of one of them. */
function fixSum(disk: DataView, at: number, words: number, fixAt: number): void {
  disk.setUint32(fixAt, 0);
  let sum = 0;
  for (let i = 0; i < words; i++) sum = (sum + disk.getUint32(at + i * 4)) >>> 0;
  disk.setUint32(fixAt, (0 - sum) >>> 0);
}

/** BSD's label in the second sector of a FreeBSD, NetBSD or OpenBSD partition of a DOS table. */
function writeBsd(disk: DataView, random: () => number): void {
  const start = 16;
  putDosEntry(disk, 0, [0xa5, 0xa6, 0xa9][Math.floor(random() * 3)]!, start, 8000);
  for (let i = 1; i < 4; i++) putDosEntry(disk, i, 0, 0, 0);
  const at = (start + 1) * sectorBytes;
  disk.setUint32(at, 0x82564557, true);
  disk.setUint16(at + 138, random() < 0.7 ? Math.floor(random() * 20) : 65535, true);
  for (let i = 0; i < 16; i++) {
    disk.setUint32(at + 148 + i * 16, likely(random, 4000), true);
    disk.setUint32(at + 152 + i * 16, likely(random, 4000), true);
    disk.setUint8(at + 160 + i * 16, random() * 16);
  }
}

/** Commodore's: "RDSK" in one of the first 16 sectors, then a list of "PART". */
function writeAmiga(disk: DataView, random: () => number): void {
  const rigid = Math.floor(random() * 16) * sectorBytes;
  const count = 1 + Math.floor(random() * 18);
  putText(disk, rigid, "RDSK");
  disk.setUint32(rigid + 4, 64);
  disk.setUint32(rigid + 16, random() < 0.8 ? sectorBytes : likely(random));
  disk.setUint32(rigid + 28, 32);
  fixSum(disk, rigid, 64, rigid + 8);
  for (let i = 0; i < count; i++) {
    const at = (32 + i) * sectorBytes;
    putText(disk, at, "PART");
    disk.setUint32(at + 4, 64);
    disk.setUint32(at + 16, random() < 0.9 ? 33 + i : likely(random));
    const environment = at + 128;
    disk.setUint32(environment + 3 * 4, likely(random, 8));
    disk.setUint32(environment + 5 * 4, likely(random, 64));
    disk.setUint32(environment + 9 * 4, likely(random, 16));
    disk.setUint32(environment + 10 * 4, likely(random, 16));
    fixSum(disk, at, 64, at + 8);
  }
}

/** DEC's OSF/1: a BSD label in the first sector. */
function writeOsf(disk: DataView, random: () => number): void {
  const at = 64;
  disk.setUint32(at, 0x82564557, true);
  disk.setUint32(at + 132, 0x82564557, true);
  disk.setUint16(at + 138, Math.floor(random() * 20), true);
  for (let i = 0; i < 18; i++) {
    disk.setUint32(at + 148 + i * 16, likely(random), true);
    disk.setUint32(at + 152 + i * 16, likely(random), true);
  }
}

/** The Rio Karma's: two entries. */
function writeKarma(disk: DataView, random: () => number): void {
  for (let i = 0; i < 2; i++) {
    disk.setUint8(270 + i * 16 + 4, random() < 0.8 ? 0x4d : random() * 256);
    disk.setUint32(270 + i * 16 + 8, likely(random), true);
    disk.setUint32(270 + i * 16 + 12, likely(random), true);
  }
  disk.setUint16(510, 0xab56, true);
}

/** DEC's Ultrix: at the end of the first 16 KiB. */
function writeUltrix(disk: DataView, random: () => number): void {
  const at = 16384 - 72;
  disk.setUint32(at, 0x032957, true);
  disk.setUint32(at + 4, 1, true);
  for (let i = 0; i < 8; i++) {
    disk.setUint32(at + 8 + i * 8, likely(random), true);
    disk.setUint32(at + 12 + i * 8, likely(random), true);
  }
}

const ldmDatabaseSectors = 2048;

/** Windows' dynamic disks: type 0x42 in a DOS table, PRIVHEAD, and in the last MiB TOCBLOCK, VMDB and records. */
function writeLdm(disk: DataView, random: () => number): void {
  putDosEntry(disk, 0, 0x42, 63, 2000);
  for (let i = 1; i < 4; i++) putDosEntry(disk, i, 0, 0, 0);
  const base = disk.byteLength / sectorBytes - ldmDatabaseSectors;
  const diskId = "01234567-89ab-cdef-0123-456789abcdef";
  for (const sector of [6, base + 1856, base + 2047]) {
    const at = sector * sectorBytes;
    putText(disk, at, "PRIVHEAD");
    disk.setUint16(at + 0x0c, 2);
    disk.setUint16(at + 0x0e, 11);
    putText(disk, at + 0x30, `${diskId}\0`);
    for (const [field, value] of [[0x11b, 63], [0x123, 2000], [0x12b, base], [0x133, ldmDatabaseSectors]] as const) {
      disk.setBigUint64(at + field, BigInt(value));
    }
  }
  for (const sector of [1, 2, 2045, 2046]) {
    const at = (base + sector) * sectorBytes;
    putText(disk, at, "TOCBLOCK");
    putText(disk, at + 0x24, "config\0\0\0\0");
    putText(disk, at + 0x46, "log\0\0\0\0\0\0\0");
    for (const [field, value] of [[0x2e, 17], [0x36, 1500], [0x50, 1600], [0x58, 200]] as const) {
      disk.setBigUint64(at + field, BigInt(value));
    }
  }
  writeLdmRecords(disk, random, (base + 17) * sectorBytes, diskId);
}

function writeLdmRecords(disk: DataView, random: () => number, vmdb: number, diskId: string): void {
  const recordBytes = 128;
  const count = 4 + Math.floor(random() * 60);
  putText(disk, vmdb, "VMDB");
  disk.setUint32(vmdb + 4, random() < 0.9 ? count : likely(random, 2000));
  disk.setUint32(vmdb + 8, random() < 0.9 ? recordBytes : likely(random, 1024));
  disk.setUint32(vmdb + 12, random() < 0.9 ? sectorBytes : likely(random, 4096));
  disk.setUint16(vmdb + 16, 1);
  disk.setUint16(vmdb + 18, 4);
  disk.setUint16(vmdb + 20, 10);
  for (let i = 0; i < count; i++) {
    const at = vmdb + sectorBytes + i * recordBytes;
    // As most are in parts of one: sequence, group, number, how many.
    putText(disk, at, "VBLK");
    disk.setUint32(at + 4, i);
    disk.setUint32(at + 8, random() < 0.8 ? i + 1 : Math.floor(random() * 4));
    disk.setUint16(at + 12, random() < 0.9 ? 0 : Math.floor(random() * 5));
    disk.setUint16(at + 14, random() < 0.9 ? 1 : Math.floor(random() * 6));
    const type = i === 0 ? 0x34 : [0x51, 0x32, 0x33, 0x34, 0x44, 0x35, 0x45][Math.floor(random() * 7)]!;
    disk.setUint8(at + 0x12, i === 0 ? 0 : random() * 256);
    disk.setUint8(at + 0x13, type);
    // Fields of a length each; one that is too long, now and then.
    for (let field = at + 0x18; field < at + recordBytes;) {
      const length = random() < 0.95 ? Math.floor(random() * 9) : Math.floor(random() * 256);
      disk.setUint8(field, length);
      field += length + 1;
    }
    if (i === 0) {
      for (const [j, text] of ["\x01\x01", "\x01d", `${String.fromCharCode(36)}${diskId}`, "\0"].entries()) {
        putText(disk, at + 0x18 + [0, 2, 4, 41][j]!, text);
      }
      disk.setUint32(at + 0x14, 42 + 12);
    } else disk.setUint32(at + 0x14, likely(random, recordBytes));
  }
}

/** All of them. */
export const tableFormats: readonly TableFormat[] = [
  { name: "mac", parser: "mac_partition", write: writeMac },
  { name: "aix", parser: "aix_partition", write: writeAix },
  { name: "ldm", parser: "ldm_partition", dosPartitions: 1, write: writeLdm },
  { name: "sun", parser: "sun_partition", write: writeSun },
  { name: "sgi", parser: "sgi_partition", write: writeSgi },
  { name: "bsd", parser: "parse_bsd", dosPartitions: 1, write: writeBsd },
  { name: "amiga", parser: "amiga_partition", write: writeAmiga },
  { name: "osf", parser: "osf_partition", write: writeOsf },
  { name: "karma", parser: "karma_partition", write: writeKarma },
  { name: "ultrix", parser: "ultrix_partition", write: writeUltrix },
];
