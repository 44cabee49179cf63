/**
 * Certificates for tests, with any name, address and validity: a CA that issues whatever a test needs, wrong ones too.
 *
 *     const ca = await TestCA.create();
 *     const server = await ca.issue({ subject: "CN=localhost", dnsNames: ["localhost"] });
 */

import "../../tools/est-server/reflect.js";
import { createPrivateKey, webcrypto } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";

x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0]);

const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY = 86400_000;

export interface TestIdentity {
  /** The certificate, then those above it up to the root, which is left out; DER. */
  readonly chain: Uint8Array[];
  /** DER. */
  readonly pkcs8: Uint8Array;
  /** DER, RFC 5915. */
  readonly sec1: Uint8Array;
}

export interface Request {
  readonly subject: string;
  readonly dnsNames?: readonly string[];
  readonly addresses?: readonly string[];
  /** Unless told: from yesterday to in a year. */
  readonly notBefore?: Date;
  readonly notAfter?: Date;
  readonly usage?: "server" | "client";
}

interface Authority {
  readonly certificate: x509.X509Certificate;
  readonly key: webcrypto.CryptoKey;
}

let serial = 1;

async function authority(subject: string, above?: Authority): Promise<Authority> {
  const keys = await webcrypto.subtle.generateKey(P256, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: (serial++).toString(16).padStart(2, "0"),
    subject,
    issuer: above?.certificate.subject ?? subject,
    notBefore: new Date("2000-01-01"),
    notAfter: new Date("2099-12-31"),
    publicKey: keys.publicKey,
    signingKey: above?.key ?? keys.privateKey,
    signingAlgorithm: P256,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
  });
  return { certificate, key: keys.privateKey };
}

export class TestCA {
  readonly #authorities: readonly Authority[];

  private constructor(authorities: readonly Authority[]) {
    this.#authorities = authorities;
  }

  /** A root; with "below" an issuing CA below it, so that chains have two certificates. */
  static async create(subject = "CN=Test root", levels: "alone" | "below" = "alone"): Promise<TestCA> {
    const root = await authority(subject);
    return new TestCA(levels === "alone" ? [root] : [await authority("CN=Test issuing CA", root), root]);
  }

  get root(): Uint8Array {
    return new Uint8Array(this.#authorities.at(-1)!.certificate.rawData);
  }

  async issue(request: Request): Promise<TestIdentity> {
    const [issuer] = this.#authorities;
    const keys = await webcrypto.subtle.generateKey(P256, true, ["sign", "verify"]);
    const names: x509.JsonGeneralNames = [
      ...(request.dnsNames ?? []).map((value) => ({ type: "dns" as const, value })),
      ...(request.addresses ?? []).map((value) => ({ type: "ip" as const, value })),
    ];
    const usage = request.usage === "client" ? x509.ExtendedKeyUsage.clientAuth : x509.ExtendedKeyUsage.serverAuth;
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: (serial++).toString(16).padStart(2, "0"),
      subject: request.subject,
      issuer: issuer!.certificate.subject,
      notBefore: request.notBefore ?? new Date(Date.now() - DAY),
      notAfter: request.notAfter ?? new Date(Date.now() + 365 * DAY),
      publicKey: keys.publicKey,
      signingKey: issuer!.key,
      signingAlgorithm: P256,
      extensions: [
        new x509.ExtendedKeyUsageExtension([usage]),
        ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
      ],
    });
    const pkcs8 = new Uint8Array(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey));
    const above = this.#authorities.slice(0, -1).map((one) => new Uint8Array(one.certificate.rawData));
    return { chain: [new Uint8Array(certificate.rawData), ...above], pkcs8, sec1: sec1Of(pkcs8) };
  }
}

function sec1Of(pkcs8: Uint8Array): Uint8Array {
  const key = createPrivateKey({ key: Buffer.from(pkcs8), format: "der", type: "pkcs8" });
  return new Uint8Array(key.export({ format: "der", type: "sec1" }));
}

function pem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

/** Writes `name.pem` (the chain) and `name.key`; the paths. */
export function writeIdentity(
  folder: string,
  name: string,
  identity: TestIdentity,
): { certificate: string; key: string } {
  const files = { certificate: join(folder, `${name}.pem`), key: join(folder, `${name}.key`) };
  writeFileSync(files.certificate, identity.chain.map((der) => pem("CERTIFICATE", der)).join(""));
  writeFileSync(files.key, pem("PRIVATE KEY", identity.pkcs8));
  return files;
}

/** Writes certificates as PEM; the path. */
export function writeCertificates(folder: string, name: string, certificates: readonly Uint8Array[]): string {
  const file = join(folder, `${name}.pem`);
  writeFileSync(file, certificates.map((der) => pem("CERTIFICATE", der)).join(""));
  return file;
}
