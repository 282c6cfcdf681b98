/**
 * Secure Boot in a VM: firmware that has Debian's key for trials enrolled, whose secret half everybody has, and a kernel and
 * modules signed with that. Debian's kernel trusts the keys of the firmware for modules, too.
 */
import { join } from "node:path";
import { buildDir, makeDirOnce, run } from "./host.ts";
import type { Kernel } from "./kernels.ts";

const FIRMWARE = "/usr/share/OVMF";
const KEY = "/usr/share/ovmf/PkKek-1-snakeoil";
/** The key is in a file with this passphrase, as its README says. */
const PASSPHRASE = "snakeoil";

/** What QEMU boots with Secure Boot. */
export interface SecureBoot {
  /** The kernel, signed. */
  readonly imageFile: string;
  /** Words for QEMU; the firmware writes to `variablesFile`. */
  readonly qemu: readonly string[];
}

/** Signs a kernel, once, and makes a firmware that boots no other. */
export async function secureBoot(kernel: Kernel, runDir: string): Promise<SecureBoot> {
  const dir = join(buildDir, `secure-boot-${kernel.release}`);
  await makeDirOnce(dir, async (temporaryDir) => {
    const key = await secretKey(temporaryDir);
    await run([
      "sbsign",
      "--key",
      key,
      "--cert",
      `${KEY}.pem`,
      "--output",
      join(temporaryDir, "vmlinuz"),
      kernel.imageFile,
    ]);
  });
  const variables = join(runDir, "firmware-variables");
  await Deno.copyFile(`${FIRMWARE}/OVMF_VARS_4M.snakeoil.fd`, variables);
  const flash = (
    unit: number,
    file: string,
    more: string,
  ) => ["-drive", `if=pflash,unit=${unit},format=raw,file=${file}${more}`];
  return {
    imageFile: join(dir, "vmlinuz"),
    qemu: [
      ...["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"],
      ...flash(0, `${FIRMWARE}/OVMF_CODE_4M.snakeoil.fd`, ",readonly=on"),
      ...flash(1, variables, ""),
    ],
  };
}

/** A copy of a module, signed with the same key. */
export async function signedModule(kernel: Kernel, moduleFile: string): Promise<Uint8Array<ArrayBuffer>> {
  const dir = await Deno.makeTempDir();
  try {
    const signed = join(dir, "dblock.ko");
    const tools = [...Deno.readDirSync(join(kernel.rootDir, "usr/lib"))].find(({ name }) =>
      name.startsWith("linux-kbuild-")
    );
    const signFile = join(kernel.rootDir, "usr/lib", tools!.name, "scripts/sign-file");
    await run([signFile, "sha256", await secretKey(dir), `${KEY}.pem`, moduleFile, signed]);
    return await Deno.readFile(signed);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

async function secretKey(dir: string): Promise<string> {
  const file = join(dir, "key");
  await run(["openssl", "rsa", "-in", `${KEY}.key`, "-passin", `pass:${PASSPHRASE}`, "-out", file]);
  return file;
}
