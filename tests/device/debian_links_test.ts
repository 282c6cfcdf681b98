// On a whole Debian udev, with the rules of the distribution and of this project, knows what is on a disk: links by UUID,
// label, serial number and partition, which follow mkfs and sfdisk on a disk that is there, and systemd's units for them.
// machine: debian
// time limit: 240 s
import { assertEquals } from "@std/assert";
import { isDebian, stateOf, uuid } from "./debian.ts";
import { exists, sh, waitFor, waitForLink } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";

const ignore = !isDebian();

async function property(path: string, name: string): Promise<string> {
  return (await sh(`udevadm info --query=property --value --property=${name} ${path}`)).stdout.trim();
}

/**
 * Runs what changes a disk. udev does not watch a disk while it handles an event of it, such as that of the first of several
 * times that mkfs closes it, and would miss the last one: who has to be sure locks the disk.
 */
async function locked(path: string, command: string): Promise<void> {
  await sh(`udevadm settle --timeout=60; udevadm lock --device=${path} bash -c "${command}"`);
}

Deno.test({
  name: "mkfs and sfdisk on a disk that is there bring its links and its units, which go with it",
  ignore,
  async fn() {
    await using disk = await Ramdisk.start({ name: "links0", args: ["--size", "64M"] });
    const { path } = disk;
    await waitForLink("/dev/disk/by-id/dblock-links0", path);
    assertEquals(await property(path, "ID_SERIAL_SHORT"), "links0");

    await locked(path, `mkfs.ext4 -q -U ${uuid} -L first ${path}`);
    await waitForLink(`/dev/disk/by-uuid/${uuid}`, path);
    await waitForLink("/dev/disk/by-label/first", path);
    assertEquals(await property(path, "ID_FS_TYPE"), "ext4");
    assertEquals(await property(path, "ID_FS_USAGE"), "filesystem");
    assertEquals(await property(path, "ID_FS_UUID"), uuid);
    await waitFor("the unit by label", async () => await stateOf("dev-disk-by\\x2dlabel-first.device") === "active");

    const table = "size=16M, name=one\\nsize=40M, name=two\\n";
    await locked(path, `wipefs -q -a ${path} && printf '${table}' | sfdisk -q --label gpt ${path}`);
    await waitForLink("/dev/disk/by-partlabel/one", `${path}p1`);
    await waitForLink("/dev/disk/by-partlabel/two", `${path}p2`);
    await waitForLink("/dev/disk/by-id/dblock-links0-part2", `${path}p2`);
    await locked(`${path}p2`, `mkfs.btrfs -q -m single -d single -U ${uuid} -L second --mixed ${path}p2`);
    await waitForLink(`/dev/disk/by-uuid/${uuid}`, `${path}p2`);
    await waitForLink("/dev/disk/by-label/second", `${path}p2`);
    assertEquals(await property(`${path}p2`, "ID_FS_TYPE"), "btrfs");
    assertEquals(await property(`${path}p2`, "ID_PART_ENTRY_NAME"), "two");
    await waitFor("the links of before are gone", () => !exists("/dev/disk/by-label/first"));

    const { status, stderr } = await runRamdisk("-d --name links0");
    assertEquals([status, stderr], [0, ""]);
    await waitFor("all links are gone", async () => {
      const links = (await sh("find /dev/disk -type l -printf '%l\\n'")).stdout;
      return !links.split("\n").some((target) => target.startsWith("../../links0"));
    });
    await waitFor("its units are gone", async () => {
      return (await sh("systemctl list-units --type=device --plain --no-legend --full '*links0*' '*second*'"))
        .stdout === "";
    });
  },
});
