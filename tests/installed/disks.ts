/**
 * The disks of the machine that gets dblock from its packages: two whose stores are files of the machine's disk, one of them
 * /home, and one whose store is a file on another one. All are in fstab, without "nofail".
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { figure, sh, waitFor } from "../device/harness.ts";
import { infoOf } from "../device/server.ts";
import { show } from "./transcript.ts";

/** A disk, its file system's place, and the line of fstab that mounts it. */
export interface MountedDisk {
  readonly name: string;
  readonly spec: string;
  readonly place: string;
  /** Of the file system. */
  readonly uuid: string;
  /** What names it in fstab. */
  readonly source: string;
}

const uuids = [
  "5d2f6a1e-3c8b-4b0e-9a67-0f1e2d3c4b5a",
  "0b9d4c7e-6f21-4a53-8d10-7c6b5a493827",
  "c1d8e7f0-2b3a-4c59-b6d7-1e2f3a4b5c6d",
] as const;

/** The one whose store is on the other comes last. */
export const disks: readonly MountedDisk[] = [
  {
    name: "data",
    spec: "/var/lib/disks/data.img?size=192MiB",
    place: "/srv/data",
    uuid: uuids[0],
    source: `UUID=${uuids[0]}`,
  },
  {
    name: "home",
    spec: "/var/lib/disks/home.img?size=64MiB",
    place: "/home",
    uuid: uuids[2],
    source: "LABEL=home",
  },
  {
    name: "nested",
    spec: "/srv/data/nested.img?size=48MiB",
    place: "/srv/nested",
    uuid: uuids[1],
    source: "/dev/nested",
  },
];

/** Where a file keeps the sums of what was written to a file system. */
const sums = "SHA256SUMS";

/** Writes files that the next boot will look for. What they are made of is there in each Debian. */
export async function fill({ place }: MountedDisk): Promise<void> {
  await sh(`cd ${place} && cp /usr/bin/perl /usr/bin/bash . && sha256sum perl bash >${sums}`);
}

/** The module of that kernel bears the signature of the key that DKMS has made for this machine. */
export async function isSigned(release: string): Promise<void> {
  const { stdout } = await show(`modinfo -k ${release} -F signer dblock`);
  assertMatch(stdout, /^DKMS module signing key$/m);
  // The signature is of the certificate that mokutil would enroll.
  const serial = (await sh("openssl x509 -inform der -in /var/lib/dkms/mok.pub -noout -serial")).stdout;
  const signed = (await sh(`modinfo -k ${release} -F sig_key dblock`)).stdout.trim().replaceAll(":", "").replace(
    /^00/,
    "",
  );
  assertStringIncludes(serial, `=${signed}`);
}

/** Everything is there, what was written before too, and nothing was left half-done when the machine ended. */
export async function checkBoot(): Promise<void> {
  await show(`uname -r && lsblk --output=NAME,SIZE,MOUNTPOINT ${disks.map(({ name }) => `/dev/${name}`).join(" ")}`);
  for (const { name, place } of disks) {
    assertEquals((await sh(`findmnt --noheadings --output=SOURCE ${place}`)).stdout.trim(), `/dev/${name}`);
    await sh(`cd ${place} && sha256sum --quiet --check ${sums}`);
  }
  assertEquals((await sh("systemctl list-units --failed --plain --no-legend")).stdout, "");
  await waitFor(
    "the boot has come to its end",
    async () => (await sh("systemctl list-jobs")).stdout.includes("No jobs"),
  );
  // ext4 says what it had to mend, and so does fsck, which came before it.
  const mended = "recovery complete|recovering journal|mounting unchecked|orphan|EXT4-fs error";
  assertEquals((await sh(`journalctl --boot --output=cat | grep --extended-regexp '${mended}' || true`)).stdout, "");
  // Nobody but a test has killed anything ("on client request").
  const late = "timed out|Failed unmounting|Failed to unmount|Killing|SIGKILL|Unmount .*failed";
  const search = `grep --ignore-case --extended-regexp '${late}' | grep --invert-match 'on client request' || true`;
  assertEquals((await sh(`journalctl --boot=-1 --output=cat | ${search}`)).stdout, "");
  const { stdout } = await sh("systemctl show --property=ActiveEnterTimestampMonotonic --value local-fs.target");
  figure({ "boots with all disks mounted and clean": 1, "longest until local-fs.target": [Number(stdout) / 1e6, "s"] });
}

/** Waits until somebody's writes come through again. */
export async function untilWritten(name: string): Promise<void> {
  const before = infoOf(name)!.requests[1]!;
  await waitFor("the writer writes", () => infoOf(name)!.requests[1]! > before + 50, 60_000);
}
