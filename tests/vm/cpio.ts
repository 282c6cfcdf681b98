/**
 * Writes a cpio archive in the one form the kernel unpacks as its first root ("newc", uncompressed).
 * Entries are owned by root and carry no times, so equal content gives equal bytes.
 */
import { dirname } from "node:path/posix";

const blockBytes = 4;
const modeFile = 0o100000;
const modeDirectory = 0o040000;
const modeLink = 0o120000;

/** Collects entries; folders above an entry come into being by themselves. */
export class Cpio {
  readonly #chunks: Uint8Array[] = [];
  readonly #directories = new Set<string>(["."]);
  #inode = 1;

  /** Adds a file. Paths are relative to the root, without a leading slash. */
  file(path: string, content: Uint8Array | string, permissions = 0o644): void {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    this.directory(dirname(path));
    this.#entry(path, modeFile | permissions, bytes);
  }

  link(path: string, target: string): void {
    this.directory(dirname(path));
    this.#entry(path, modeLink | 0o777, new TextEncoder().encode(target));
  }

  directory(path: string): void {
    if (this.#directories.has(path)) return;
    this.directory(dirname(path));
    this.#directories.add(path);
    this.#entry(path, modeDirectory | 0o755, new Uint8Array());
  }

  /** Ends the archive and writes it. */
  async write(file: string): Promise<void> {
    this.#entry("TRAILER!!!", 0, new Uint8Array());
    using output = await Deno.open(file, { write: true, create: true, truncate: true });
    const writer = output.writable.getWriter();
    for (const chunk of this.#chunks) await writer.write(chunk);
    await writer.close();
  }

  #entry(name: string, mode: number, content: Uint8Array): void {
    const encodedName = new TextEncoder().encode(`${name}\0`);
    const linkCount = (mode & modeDirectory) !== 0 ? 2 : 1;
    const fields = [this.#inode++, mode, 0, 0, linkCount, 0, content.length, 0, 0, 0, 0, encodedName.length, 0];
    const header = "070701" + fields.map((field) => field.toString(16).padStart(8, "0")).join("");
    this.#push(new TextEncoder().encode(header), encodedName);
    this.#push(content);
  }

  /** Appends bytes and pads them to the archive's block. */
  #push(...parts: Uint8Array[]): void {
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    this.#chunks.push(...parts, new Uint8Array((blockBytes - length % blockBytes) % blockBytes));
  }
}
