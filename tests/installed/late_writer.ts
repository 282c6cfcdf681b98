/** Somebody who writes to a file system until all processes are killed, at the last step of a shutdown; a service on the machine. */
import { sh, waitFor } from "../device/harness.ts";
import { LATE_MARK } from "./late.ts";

/** A unit that nothing stops as the machine ends. */
export async function writeLateUnit(name: string, text: string, relations = ""): Promise<void> {
  await Deno.writeTextFile(`/run/systemd/system/${name}`, `[Unit]\nDefaultDependencies=no\n${relations}${text}`);
  await sh("systemctl daemon-reload");
}

/**
 * Starts it. It overwrites a number in place, again and again, and tells the console each that is on the disk.
 *
 * @param file where the number is
 * @param relations to other units
 */
export async function startLateWriter(file: string, relations = ""): Promise<void> {
  const writer = `n=0
while :; do
  n=$((n + 1))
  printf %08d "$n" | dd of=${file} conv=fsync,notrunc status=none || exit
  echo "${LATE_MARK} $n" >/dev/kmsg
done
`;
  await Deno.writeTextFile("/run/late-writer", writer);
  await writeLateUnit("late-writer.service", "[Service]\nExecStart=/bin/bash /run/late-writer\n", relations);
  await sh("systemctl start late-writer");
  await waitFor(
    "numbers are there",
    async () => Number((await sh(`cat ${file}`, { check: false })).stdout) > 5,
    30_000,
  );
}
