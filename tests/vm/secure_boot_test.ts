// Under Secure Boot: the module loads if it is signed with a key that the machine trusts; if not, the load fails, and `dblock
// doctor` says that it is Secure Boot, and what to type. The same for lockdown without Secure Boot, which a boot can ask for.
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { buildProgram } from "./architecture.ts";
import { defaultKernel, fetchKernel } from "./kernels.ts";
import { buildModule } from "./module.ts";
import { signedModule } from "./secure_boot.ts";
import { runVm } from "./vm.ts";

Deno.test("under Secure Boot a signed module serves disks; of one that is not, doctor says why", async () => {
  const kernel = await fetchKernel(defaultKernel);
  const moduleFile = await buildModule(kernel);
  const result = await runVm({
    kernel,
    secureBoot: true,
    moduleFile,
    programFile: await buildProgram(kernel.architecture),
    files: { "/signed/dblock.ko": await signedModule(kernel, moduleFile) },
    timeoutMs: 300_000,
    command: `
      mount -t efivarfs efivarfs /sys/firmware/efi/efivars; mount -t securityfs securityfs /sys/kernel/security
      echo "== lockdown"; cat /sys/kernel/security/lockdown
      echo "== unsigned"; insmod kmod/dblock.ko 2>&1
      echo "== load"; src/build/module.sh load 2>&1
      echo "== doctor"; ./dblock doctor; echo "status $?"
      mkdir -p /var/lib/dkms && touch /var/lib/dkms/mok.pub
      echo "== dkms"; ./dblock doctor
      echo "== signed"; insmod /signed/dblock.ko && ./dblock doctor | grep module
      ./dblock serve memory:64MiB --name secure0 & until [ -b /dev/secure0 ]; do sleep 0.1; done
      mkfs.ext4 -q /dev/secure0 && mount /dev/secure0 /mnt && echo kept >/mnt/file && umount /mnt && fsck.ext4 -fn /dev/secure0
      ./dblock destroy secure0; wait; echo "== end $?"`,
  });
  const parts = Object.fromEntries(
    result.output.split(/^== /m).slice(1).map((part) => [part.split("\n")[0]!.split(" ")[0]!, part]),
  );
  const all = `${result.reason}\n${result.output}`;
  assertEquals(result.verdict, "pass", all);
  assertMatch(parts["lockdown"]!, /\[integrity\]/);
  assertMatch(parts["unsigned"]!, /Key was rejected by service/);
  assertMatch(
    parts["load"]!,
    /^load\nCannot load dblock\.ko: Secure Boot wants signed modules; .*mokutil --import.*\n$/,
    all,
  );
  assertStringIncludes(parts["doctor"]!, "Secure Boot is on: the kernel loads only modules that are signed", all);
  assertStringIncludes(parts["doctor"]!, "mokutil --import");
  // The cause comes first: before it is mended nothing that loads the module can do anything.
  assertMatch(parts["doctor"]!, /WRONG {2}Secure Boot[^]*WRONG {2}module: not loaded[^\n]*\n +if it is signed: /);
  assertStringIncludes(parts["dkms"]!, "sudo mokutil --import /var/lib/dkms/mok.pub, then reboot");
  assertMatch(parts["signed"]!, /module: loaded, ABI/);
  assert("end" in parts, all);
  assertMatch(parts["end"]!, /^end 0/);
});

Deno.test("under lockdown without Secure Boot, the load and doctor name the parameter of the boot", async () => {
  const kernel = await fetchKernel(defaultKernel);
  const result = await runVm({
    kernel,
    extraCmdline: "lockdown=integrity",
    moduleFile: await buildModule(kernel),
    programFile: await buildProgram(kernel.architecture),
    timeoutMs: 300_000,
    command: `
      mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
      echo "== load"; src/build/module.sh load 2>&1
      echo "== doctor"; ./dblock doctor; echo "== end"`,
  });
  const all = `${result.reason}\n${result.output}`;
  assertEquals(result.verdict, "pass", all);
  assertStringIncludes(
    result.output,
    "== load\nCannot load dblock.ko: lockdown (integrity) wants signed modules; boot without lockdown=integrity, or sign kmod/dblock.ko\n== ",
    all,
  );
  assertStringIncludes(
    result.output,
    "WRONG  lockdown: integrity: the kernel loads only modules that are signed\n" +
      "       boot without the kernel's parameter lockdown=integrity, or sign dblock.ko\n",
    all,
  );
});
