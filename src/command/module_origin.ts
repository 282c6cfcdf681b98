// SPDX-License-Identifier: MIT
/**
 * Where the kernel module of this machine comes from (a package for DKMS or akmods, install.sh, a checkout), and so what to type to
 * have it loaded, replaced or signed. For `dblock doctor`; nothing here changes anything.
 */
import { dirname, exists } from "../system/path.ts";

/** What to type. */
export interface ModuleOrigin {
  /** Loads the module; builds it first where it is not built for this kernel. */
  readonly load: string;
  /** Replaces the loaded module by the one of this program's version, while there is no disk. */
  readonly replace: string;
  /** Brings a program as new as the loaded module. */
  readonly updateProgram: string;
  /** Brings udev's rules. */
  readonly rules: string;
}

/**
 * Looks for where the module comes from.
 *
 * @param root where the files are, for tests
 * @param release the kernel's
 * @param program the path of the program that runs
 */
export function moduleOrigin(root: string, release: string, program: string): ModuleOrigin {
  const has = (path: string) => exists(root + path);
  const isBuilt = ["updates/dkms", "updates", "extra", "extra/dblock"]
    .flatMap((folder) => ["", ".xz", ".zst", ".gz"].map((end) => `/lib/modules/${release}/${folder}/dblock.ko${end}`))
    .some(has);
  const again = "sudo modprobe -r dblock && sudo modprobe dblock";
  const [folder, prefix] = [dirname(program), dirname(dirname(program))];
  if (has("/var/lib/dkms/dblock")) {
    const hasHeaders = has(`/lib/modules/${release}/build`);
    const build = `${hasHeaders ? "" : `sudo apt-get install linux-headers-${release} && `}sudo dkms autoinstall`;
    return {
      load: isBuilt ? "sudo modprobe dblock" : `${build} && sudo modprobe dblock`,
      replace: `${isBuilt ? "" : `${build} && `}${again}`,
      updateProgram: "sudo apt-get install ./dblock_VERSION_*.deb, of the version of dblock-dkms",
      rules: "sudo apt-get install --reinstall ./dblock_*.deb",
    };
  }
  if (has("/usr/src/akmods/dblock-kmod.latest")) {
    const hasHeaders = has(`/usr/src/kernels/${release}`);
    const build = `${hasHeaders ? "" : `sudo dnf install kernel-devel-${release} && `}sudo akmods --akmod dblock`;
    return {
      load: isBuilt ? "sudo modprobe dblock" : `${build} && sudo modprobe dblock`,
      replace: `${isBuilt ? "" : `${build} && `}${again}`,
      updateProgram: "sudo dnf install ./dblock-VERSION*.rpm, of the version of akmod-dblock",
      rules: "sudo dnf reinstall ./dblock-*.rpm",
    };
  }
  const install = `sudo ./install.sh${prefix === "/usr/local" ? "" : ` --prefix ${prefix}`}`;
  if (has(`${prefix}/share/dblock/installed-files`)) {
    const archive = `${install}, in the unpacked archive`;
    return {
      load: isBuilt ? "sudo modprobe dblock" : `${install} && sudo modprobe dblock, in the unpacked archive`,
      replace: isBuilt ? again : `${install} && ${again}, in the unpacked archive`,
      updateProgram: `${archive} of the module's version`,
      rules: archive,
    };
  }
  if (program === "/usr/bin/dblock" || program === "/usr/bin/dblock-ramdisk") {
    const [isDebian, manager] = has("/etc/debian_version") ? [true, "apt-get"] : [false, "dnf"];
    const load = isDebian ? "sudo apt-get install ./dblock-dkms_*.deb" : "sudo dnf install ./akmod-dblock-*.rpm";
    return {
      load: isBuilt ? "sudo modprobe dblock" : load,
      replace: isBuilt ? again : `${load} && ${again}`,
      updateProgram: `sudo ${manager} install the dblock of the module's version`,
      rules: isDebian ? "sudo apt-get install --reinstall ./dblock_*.deb" : "sudo dnf reinstall ./dblock-*.rpm",
    };
  }
  if (has(`${folder}/install.sh`)) {
    const insmod = `sudo insmod ${folder}/dblock-${release}.ko`;
    const isHere = has(`${folder}/dblock-${release}.ko`);
    return {
      load: isHere ? insmod : `cd ${folder} && sudo ./install.sh && sudo modprobe dblock`,
      replace: isHere ? `sudo rmmod dblock && ${insmod}` : `cd ${folder} && sudo ./install.sh && ${again}`,
      updateProgram: "take the archive of the module's version",
      rules: `sudo cp ${folder}/60-dblock.rules /etc/udev/rules.d/ && sudo udevadm control --reload`,
    };
  }
  return {
    load: isBuilt ? "sudo modprobe dblock" : "sudo make load, in the sources of this program",
    replace: "sudo make unload load, in the sources of this program",
    updateProgram: "make, in the sources of the module",
    rules: "sudo cp kmod/60-dblock.rules /etc/udev/rules.d/ && sudo udevadm control --reload, in the sources",
  };
}
