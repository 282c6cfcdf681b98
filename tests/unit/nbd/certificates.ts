// SPDX-License-Identifier: MIT
/** Keys and certificates for tests, made by openssl: an authority, a server at localhost, a client, and a stranger. */

/** A certificate and its key, PEM. */
export interface Identity {
  readonly certificate: string;
  readonly key: string;
}

/** Who is who. */
export interface Certificates {
  readonly authority: Identity;
  readonly server: Identity;
  readonly client: Identity;
  /** Signed by nobody who is trusted. */
  readonly stranger: Identity;
  /** A folder as libnbd and qemu want it: ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem, client-key.pem. */
  readonly dir: string;
}

async function openssl(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("openssl", { args, stdout: "null", stderr: "piped" }).output();
  if (!success) throw new Error(`openssl ${args[0]}: ${new TextDecoder().decode(stderr)}`);
}

/** Makes them in a folder, which is there already. */
export async function makeCertificates(dir: string): Promise<Certificates> {
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const self = async (name: string) => {
    const files = ["-keyout", `${dir}/${name}-key.pem`, "-out", `${dir}/${name}-cert.pem`];
    await openssl("req", "-x509", ...key, ...files, "-subj", `/CN=${name}`, "-days", "2");
  };
  await self("ca");
  await self("stranger");
  for (const name of ["server", "client"]) {
    const request = `${dir}/${name}.csr`;
    await openssl("req", ...key, "-keyout", `${dir}/${name}-key.pem`, "-out", request, "-subj", `/CN=${name}`);
    await Deno.writeTextFile(`${dir}/names`, "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
    const signer = ["-CA", `${dir}/ca-cert.pem`, "-CAkey", `${dir}/ca-key.pem`, "-CAcreateserial"];
    const made = ["-out", `${dir}/${name}-cert.pem`, "-days", "2", "-extfile", `${dir}/names`];
    await openssl("x509", "-req", "-in", request, ...signer, ...made);
  }
  const read = async (name: string): Promise<Identity> => ({
    certificate: await Deno.readTextFile(`${dir}/${name}-cert.pem`),
    key: await Deno.readTextFile(`${dir}/${name}-key.pem`),
  });
  return {
    authority: await read("ca"),
    server: await read("server"),
    client: await read("client"),
    stranger: await read("stranger"),
    dir,
  };
}
