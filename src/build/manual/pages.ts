// SPDX-License-Identifier: MIT
/** The manual's pages, from the tables of `--help` and from the module's sources. */
import { COMMANDS } from "../../command/commands.ts";
import { CONFIG_FOLDER } from "../../command/config.ts";
import { DISK_OPTIONS } from "../../command/disk_plan.ts";
import { DKMS_KEY } from "../../command/doctor.ts";
import { HELP } from "../../command/ramdisk.ts";
import { RUN_FOLDER } from "../../command/run_folder.ts";
import { SIGNALS_HELP } from "../../command/signals.ts";
import { DBLOCK_ABI_VERSION } from "../../module/abi.ts";
import { argument, escaped, list, literal, page, prose, section, subsection } from "./mdoc.ts";
import { commandSection, filterList, optionHead, optionList, schemeList, sentence } from "./options.ts";
import { ramdiskOptions } from "./ramdisk_options.ts";
import type { ModuleSources } from "./module_sources.ts";

/** A page and the file that it is. */
export interface Page {
  /** "dblock.1". */
  readonly file: string;
  readonly text: string;
}

const SIGNALS = literal(SIGNALS_HELP.replace(/^Signals:\n/, "").replaceAll(/^ {2}/gm, ""));
const EXIT_STATUS = section(
  "EXIT STATUS",
  list([
    { head: "0", text: prose("All is done.") },
    {
      head: "1",
      text: prose("It failed; one line on standard error says what was tried, what is wrong and what to type."),
    },
    { head: "2", text: prose("The command line cannot be meant so.") },
    {
      head: "75",
      text: prose("A service of systemd has served its disks and cannot any more: it is to be started again."),
    },
    {
      head: "130, 143",
      text: prose("Ctrl-C or SIGTERM has ended what it had begun, before a disk was there; nothing is left of that."),
    },
  ]),
);

/** Every page. */
export function pages(date: Date, sources: ModuleSources): Page[] {
  return [dblockPage(date), ramdiskPage(date), confPage(date), modulePage(date, sources)];
}

function dblockPage(date: Date): Page {
  const head = { name: "dblock", section: 1, summary: "disks that programs serve", date };
  const sections = [
    section(
      "SYNOPSIS",
      ...COMMANDS.map(({ name, usage }) => `.Nm Cm ${argument(name)}${usage === "" ? "" : ` Li "${escaped(usage)}"`}`),
    )
      .replaceAll(".Pp\n", ""),
    section(
      "DESCRIPTION",
      `.Nm\n${
        prose(
          "makes a process of a disk: the process answers the disk's requests, and everybody else uses the " +
            "disk as any other. The kernel module dblock makes /dev/NAME; where it cannot be loaded, the same disks are served " +
            "over NBD.",
        )
      }`,
      prose(
        "A disk is served in the foreground until somebody destroys it. As a service it is the unit dblock@NAME of " +
          "systemd: see SERVICES below.",
      ),
    ),
    section("COMMANDS", ...COMMANDS.map((command) => commandSection(command, { withNotes: command.name !== "serve" }))),
    section(
      "DISKS",
      prose(
        'A SPEC says where the content of a disk is. Parameters follow a "?" and are divided by "&"; they are quoted ' +
          'for the shell. A SPEC inside another one stands in brackets if it has a comma or a "?".',
      ),
      schemeList(),
    ),
    section(
      "WHAT STANDS IN FRONT OF A DISK",
      prose(
        "A filter stands in front of a disk: --with NAME=OPTION=VALUE,OPTION=VALUE. The first one is next to the " +
          "content.",
      ),
      filterList(),
    ),
    section("SIGNALS", SIGNALS),
    servicesSection(),
    rootSection(),
    filesSection(),
    EXIT_STATUS,
    section("SEE ALSO", ".Xr dblock\\-ramdisk 1 ,\n.Xr dblock 4 ,\n.Xr dblock.conf 5 ,\n.Xr systemd.unit 5"),
  ];
  return { file: "dblock.1", text: page(head, sections) };
}

function servicesSection(): string {
  return section(
    "SERVICES",
    prose(`The disks of the file ${CONFIG_FOLDER}/NAME are the service dblock@NAME:`),
    literal(`echo "/var/lib/disk.img?size=10GiB" >${CONFIG_FOLDER}/disk\nsystemctl enable --now dblock@disk`),
    list([
      {
        head: "Li systemctl start",
        text: prose(
          "Returns when the disk is there. A mistake in the file fails at once, with the line that the command says.",
        ),
      },
      {
        head: "Li systemctl restart",
        text: prose("Those who use the disk wait, and see no error, if its content outlives the program."),
      },
      {
        head: "Li systemctl reload",
        text: prose(
          "The program as it is installed now takes the disk over, with the file's words as they are now: the " +
            "same as dblock reload. I/O waits for some milliseconds.",
        ),
      },
      {
        head: "Li systemctl stop",
        text: prose(
          "A disk in use is held: its I/O waits for the next start. Destroy it first to end it for good. A disk in " +
            "memory, whose content would be lost, stays until nobody uses it, and is destroyed at the end of the stop's time.",
        ),
      },
    ]),
    prose(
      "A server that is killed, or that its watchdog finds stuck, is back at once. The disks are there before " +
        "local-fs.target: a line of fstab by UUID, by LABEL or by /dev/NAME needs neither nofail nor x-systemd.requires. A disk " +
        "whose store is on another file system waits for that one. When the machine stops, a server stays until nobody uses its " +
        "disks.",
    ),
    prose(
      "Requests that fail are in the journal with fields: DBLOCK_DISK, DBLOCK_OPERATION, ERRNO. The first failure of a kind " +
        "is a line, and then one in ten seconds, which counts the others:",
    ),
    literal("journalctl DBLOCK_DISK=disk\njournalctl DBLOCK_OPERATION=write ERRNO=28"),
    prose("A disk that needs the network wants a unit that waits for it, and _netdev in its line of fstab:"),
    literal(
      "systemctl edit dblock@NAME\n[Unit]\nWants=network-online.target\nAfter=network-online.target\n" +
        "Before=remote-fs.target",
    ),
    prose(
      "Such a disk cannot be enabled for local-fs.target, for which the network waits: make it wanted by " +
        "remote-fs.target with systemctl add-wants.",
    ),
    prose(
      "A file system that nobody unmounts before the machine's last step, in which all processes are killed, keeps its server for " +
        "two minutes without a request, and then systemd kills the server: what was acknowledged stays. A server that systemd does " +
        "not stop is spared in that step, as its first word begins with @, and serves until systemd has unmounted everything. Its " +
        "store is a block device: a file would keep its own file system busy. For such a disk:",
    ),
    literal(
      "sed -e '/^Conflicts=shutdown.target/d' -e 's/^\\[Service\\]$/&\\nSlice=system.slice/' \\\n" +
        "    /lib/systemd/system/dblock@.service >/etc/systemd/system/dblock@NAME.service\nsystemctl daemon-reload",
    ),
    prose(
      "Swap can be on a disk in memory. Its server is then never killed for memory, its threads are real-time ones, and every " +
        "block is written once before it is needed, by dd to the end of the disk, before mkswap. Otherwise the server can wait " +
        "for memory that waits for the server:",
    ),
    literal("systemctl edit dblock@NAME\n[Service]\nCPUSchedulingPolicy=rr\nOOMScoreAdjust=-1000"),
  );
}

function rootSection(): string {
  return section(
    "THE ROOT FILE SYSTEM",
    prose(
      "/ and /usr can be on a disk of dblock: the initial ramdisk serves it before it mounts them, and that server stays until the " +
        "machine ends. With initramfs-tools, Debian's default, the package does what is needed; for dracut and others there is " +
        "nothing ready (see below), and dblock doctor says so. The content of such a disk is on " +
        "block devices (a partition, a volume, a mirror of two), as no file system is mounted so early. To move /usr:",
    ),
    literal(
      `echo /dev/disk/by-id/ID >${CONFIG_FOLDER}/usr\nsystemctl start dblock@usr\nmkfs.ext4 /dev/usr && mount /dev/usr /mnt\n` +
        'cp -a /usr/. /mnt/ && umount /mnt\necho "UUID=$(blkid -o value -s UUID /dev/usr) /usr ext4 defaults 0 2" >>/etc/fstab\n' +
        "update-initramfs -u",
    ),
    prose(
      "update-initramfs finds the disks by fstab and by what is mounted, also behind LVM, dm-crypt and partitions. It says in a line what " +
        "cannot be served so early, and why. A change of the disk's file in /etc/dblock wants update-initramfs -u, too.",
    ),
    prose(
      "Where LVM or dm-crypt lies between, the store has the same content as the disk, and whoever looks for his own finds both. " +
        "LVM has to be told to leave the store alone, in /etc/lvm/lvm.conf, and /etc/crypttab has to name the disk:",
    ),
    literal('devices { global_filter = [ "r|^/dev/vdb$|" ] }\n\nusr_crypt /dev/disk/by-id/dblock-usr none luks'),
    list([
      {
        head: "Li systemctl",
        text: prose(
          "The service of such a disk is not to be enabled. While the initial ramdisk's server is there, the service " +
            `starts no other: its condition is that ${RUN_FOLDER}/initrd/NAME, a link to that process, leads nowhere.`,
        ),
      },
      {
        head: "Li dblock list, info, metrics, top, resize",
        text: prose(
          "Work as with any other disk. The server is marked with (initrd). What it says is in the journal: " +
            "journalctl -t dblock.",
        ),
      },
      {
        head: "Li dblock reload",
        text: prose(
          "Is refused, as new code would be read from the disk that it is to serve. An upgrade of the package leaves the " +
            "server alone, and makes the initial ramdisk anew; the next boot has the new program.",
        ),
      },
    ]),
    prose(
      "The server's program stays in memory, about 90 MB, and it is not killed for memory. It can be swapped out: swap must not be on " +
        "that disk, nor in a file on it. When the machine ends, systemd spares the server, and makes / and /usr read-only with it. If " +
        "the disk is not there 30 s after the server has started, or the server ends, a line on the console says so.",
    ),
    prose(
      "For another kind of initial ramdisk: load the module and start the following there, as root, with /dev, /proc, /run and /sys " +
        "mounted; these have to be moved to the machine's root later.",
    ),
    literal(`dblock serve --config ${CONFIG_FOLDER}/NAME --initrd </dev/null >/dev/kmsg 2>&1 &`),
  );
}

function filesSection(): string {
  return section(
    "FILES",
    list([
      { head: `Pa ${CONFIG_FOLDER}/NAME`, text: `Disks for services:\n.Xr dblock.conf 5 .` },
      {
        head: `Pa ${RUN_FOLDER}/NAME.json`,
        text: prose("The words that a disk was started with, for dblock recover."),
      },
      { head: `Pa ${RUN_FOLDER}/NAME.sock`, text: prose("Where a server can be asked: by info, resize and reload.") },
      {
        head: `Pa ${RUN_FOLDER}/servers/PID.sock`,
        text: prose("Where a server can be asked about all of its disks: by metrics and top."),
      },
      {
        head: `Pa ${RUN_FOLDER}/initrd/NAME`,
        text: prose(`A link to the process that the initial ramdisk has started for ${CONFIG_FOLDER}/NAME.`),
      },
      { head: "Pa /sys/block/NAME/dblock/", text: `What the module tells:\n.Xr dblock 4 .` },
    ]),
  );
}

function ramdiskPage(date: Date): Page {
  const head = { name: "dblock-ramdisk", section: 1, summary: "a disk in memory that a program serves", date };
  const options = ramdiskOptions();
  const sections = [
    section("SYNOPSIS", [".Nm", ...options.map((option) => `.Op ${optionHead(option)}`)].join("\n")),
    section(
      "DESCRIPTION",
      `.Nm\n${
        prose(
          "makes /dev/dblockramdisk, 4 GiB large and sparse, and serves it in the foreground until somebody " +
            "destroys it. Memory is only taken for what is written.",
        )
      }`,
      optionList(options),
      prose(HELP.slice(HELP.indexOf("A disk that is recovered"), HELP.indexOf("Signals:"))),
    ),
    section("SIGNALS", SIGNALS),
    EXIT_STATUS,
    section(
      "EXAMPLES",
      literal(HELP.slice(HELP.indexOf("\n\n") + 2, HELP.indexOf("\n\nOptions:")).replaceAll(/^ {2}/gm, "")),
    ),
    section("SEE ALSO", ".Xr dblock 1 ,\n.Xr dblock 4"),
  ];
  return { file: "dblock-ramdisk.1", text: page(head, sections) };
}

function confPage(date: Date): Page {
  const head = { name: "dblock.conf", section: 5, summary: "disks that are there after each boot", date };
  const sections = [
    section("SYNOPSIS", `.Pa ${CONFIG_FOLDER}/NAME`),
    section(
      "DESCRIPTION",
      prose(
        `Each file in ${CONFIG_FOLDER} has a disk, or several, for dblock serve --config and for the service ` +
          "dblock@NAME: the words that would follow dblock serve, in as many lines as wanted. Words are divided by blanks and " +
          'line ends, kept together by quotes, and "#" at the beginning of a word begins a comment, as in a shell; nothing is ' +
          "expanded. The first word is the SPEC of the disk.",
      ),
      prose(
        "A disk without --name has the name of its file, without .disk at its end. Files whose names begin with a dot or " +
          "end with a tilde are left out, and so are the copies that packages leave. Paths are whole ones.",
      ),
      prose(
        "A disk whose content outlives the program is kept when the program dies, or is stopped while the disk is in " +
          "use: --on-death hold is the default in a file, where it is remove on a command line.",
      ),
    ),
    section("OPTIONS", optionList(DISK_OPTIONS)),
    section("DISKS", prose("What a SPEC can be:"), schemeList()),
    section(
      "EXAMPLES",
      prose("A disk in a file, with a file system that is mounted at boot:"),
      literal(`# ${CONFIG_FOLDER}/data\n/var/lib/dblock/data.img?size=100GiB`),
      literal("# /etc/fstab\n/dev/data /srv/data ext4 defaults 0 2"),
      prose("Two halves on two real disks, checked, at most 200 MiB a second:"),
      literal(
        `# ${CONFIG_FOLDER}/safe\nmirror:/dev/disk/by-id/a,/dev/disk/by-id/b?bitmap=/var/lib/dblock/safe.bitmap\n    --with checksum=file=/var/lib/dblock/safe.sums\n` +
          "    --with rate=bytes=200MiB",
      ),
      prose("/usr, which the initial ramdisk mounts (THE ROOT FILE SYSTEM in dblock(1)); not a service:"),
      literal(`# ${CONFIG_FOLDER}/usr\n/dev/disk/by-partuuid/PARTUUID`),
      prose("Scratch space that is empty after each boot:"),
      literal(`# ${CONFIG_FOLDER}/scratch\nmemory:4GiB`),
    ),
    section("SEE ALSO", ".Xr dblock 1 ,\n.Xr fstab 5 ,\n.Xr systemd.unit 5"),
  ];
  return { file: "dblock.conf.5", text: page(head, sections) };
}

function modulePage(date: Date, { parameters, attributes, calls, states }: ModuleSources): Page {
  const head = { name: "dblock", section: 4, summary: "block devices that a process answers for", date };
  const sections = [
    section("SYNOPSIS", ".Nm modprobe\n.Cm dblock\n.Op Ar parameter Ns = Ns Ar value"),
    section(
      "DESCRIPTION",
      prose(
        "The module makes block devices whose requests a process answers: /dev/NAME is the disk, /dev/NAME-ctl is " +
          "for its server, /dev/dblockctl makes and removes them. All of them belong to root, and each call that makes or " +
          "serves a disk asks for CAP_SYS_ADMIN.",
      ),
      prose(
        `A server speaks version ${DBLOCK_ABI_VERSION} of the ABI: kmod/uapi/dblock.h is the whole contract. The kernel ` +
          "shares no memory with a server.",
      ),
      subsection(
        "Parameters",
        list(parameters.map(({ name, text }) => ({ head: `Va ${argument(name)}`, text: prose(sentence(text)) }))),
      ),
      subsection(
        "States",
        prose(
          `A device is ${
            states.join(", ")
          }. When its server dies, it is removed, it fails its I/O, or it holds it until ` +
            "the next server comes, as the device was created.",
        ),
      ),
      subsection(
        "sysfs",
        prose("/sys/block/NAME/dblock/ has what the module tells of a disk, a value a file:"),
        list(attributes.map(({ name, text }) => ({ head: `Va ${argument(name)}`, text: prose(sentence(text)) }))),
      ),
      subsection(
        "Calls",
        list(calls.map(({ name, text }) => ({ head: `Dv ${argument(name)}`, text: prose(sentence(text)) }))),
      ),
    ),
    secureBootSection(),
    section(
      "FILES",
      list([
        { head: "Pa /dev/dblockctl", text: prose("Makes, removes and lists disks.") },
        { head: "Pa /dev/NAME", text: prose("A disk.") },
        { head: "Pa /dev/NAME-ctl", text: prose("What its server has open.") },
        { head: "Pa /sys/module/dblock/parameters/", text: prose("The parameters, which can be changed there.") },
      ]),
    ),
    section("SEE ALSO", ".Xr dblock 1 ,\n.Xr dblock.conf 5 ,\n.Xr modprobe 8"),
  ];
  return { file: "dblock.4", text: page(head, sections) };
}

function secureBootSection(): string {
  return section(
    "SECURE BOOT",
    prose(
      "Under Secure Boot the kernel loads only modules that are signed with a key that the machine trusts. DKMS signs the module " +
        "with a key of this machine, which is enrolled once:",
    ),
    literal(`sudo mokutil --import ${DKMS_KEY}\nsudo reboot`),
    prose(
      "The first command asks for a password. When the machine starts, the firmware asks whether to enroll the key, and for the " +
        "same password. The key of akmods is /etc/pki/akmods/certs/public_key.der. dblock doctor says whether Secure Boot is what " +
        "keeps the module away. Disks of --transport nbd need no module but the kernel's own, which is signed.",
    ),
  );
}
