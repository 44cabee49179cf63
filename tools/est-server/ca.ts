/**
 * A throw-away CA for development: a root and an issuing CA below it, which sign for the EST server and for the devices
 * that enrol, and a factory CA, which stands for the maker of the devices (IEEE 802.1AR). P-256 and SHA-256 throughout.
 *
 *     const ca = (await DevelopmentCA.load(dir)) ?? (await DevelopmentCA.create());
 *     const certificate = await ca.issueFromRequest(csr, { lifetime: 90 * 86400 });
 */

import "./reflect.js";
import { createPrivateKey, X509Certificate as NodeCertificate, randomBytes, webcrypto } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ChallengePasswordAttribute,
  cryptoProvider,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Name,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { children, EXPLICIT_0, element, SEQUENCE, SET } from "./der.js";

cryptoProvider.set(webcrypto as Parameters<typeof cryptoProvider.set>[1]);

const { subtle } = webcrypto;

/** A file of the CA that is missing or not what it should be. The message is all that its reader needs. */
export class CAError extends Error {}

/** A certificate request that is not granted: `malformed` is the client's mistake, `refused` is policy. */
export class RequestError extends Error {
  readonly reason: "malformed" | "refused";

  constructor(reason: "malformed" | "refused", message: string) {
    super(message);
    this.reason = reason;
  }
}

/** A certificate with those above it, in DER, and its private key. */
export interface Identity {
  readonly chain: readonly Uint8Array[];
  readonly keyPkcs8: Uint8Array;
}

/** What is asked for in a certificate request whose signature is good. */
export interface RequestContent {
  /** The Name, in DER. */
  readonly subject: Uint8Array;
  /** The value of the extension, in DER. */
  readonly subjectAltName: Uint8Array | undefined;
  readonly challengePassword: string | undefined;
}

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

const DAY = 86400;
const CA_LIFETIME = 3650 * DAY;
const SERVER_LIFETIME = 365 * DAY;
/** A device's clock may be a little behind this one. */
const BACKDATED = 60;

/** RFC 5280 section 4.2.1.12, RFC 6402 section 2.10 */
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const CMC_RA = "1.3.6.1.5.5.7.3.28";

/** id-at-serialNumber (RFC 5280 appendix A.1) */
const SERIAL_NUMBER = "2.5.4.5";
const SUBJECT_ALT_NAME = "2.5.29.17";
const CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7";

/** AlgorithmIdentifiers of the keys that are certified: id-ecPublicKey with secp256r1 or secp384r1, hexadecimal. */
const CERTIFIED_KEYS = ["301306072a8648ce3d020106082a8648ce3d030107", "301006072a8648ce3d020106052b81040022"];

/** OBJECT IDENTIFIER id-signedData and id-data (RFC 5652), version 1 as an INTEGER */
const ID_SIGNED_DATA = Buffer.from("06092a864886f70d010702", "hex");
const ID_DATA = Buffer.from("06092a864886f70d010701", "hex");
const VERSION_1 = Buffer.from("020101", "hex");

/** A CA's certificate and the key that it signs with. */
interface Authority {
  readonly certificate: X509Certificate;
  readonly key: webcrypto.CryptoKey;
}

const bytesOf = (buffer: ArrayBuffer): Uint8Array => new Uint8Array(buffer);
const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Eight octets, positive and never with a leading zero octet. */
function randomSerial(): string {
  const serial = randomBytes(8);
  serial[0] = (serial[0]! & 0x3f) | 0x40;
  return serial.toString("hex");
}

/** A certificate over `publicKey`; without an issuer, `signingKey` belongs to it: self-signed. */
async function certify(fields: {
  /** Seconds since 1970. */
  now: number;
  subject: Name | string;
  publicKey: Parameters<typeof SubjectKeyIdentifierExtension.create>[0];
  lifetime: number;
  extensions: Extension[];
  signingKey: webcrypto.CryptoKey;
  issuer?: X509Certificate;
}): Promise<X509Certificate> {
  const { now, subject, publicKey, lifetime, extensions, signingKey, issuer } = fields;
  const identifiers: Extension[] = [await SubjectKeyIdentifierExtension.create(publicKey)];
  if (issuer !== undefined) {
    identifiers.push(await AuthorityKeyIdentifierExtension.create(issuer.publicKey));
  }
  const last = issuer?.notAfter.getTime() ?? Number.POSITIVE_INFINITY;
  return await X509CertificateGenerator.create({
    serialNumber: randomSerial(),
    subject,
    issuer: issuer?.subjectName ?? subject,
    notBefore: new Date((now - BACKDATED) * 1000),
    notAfter: new Date(Math.min((now + lifetime) * 1000, last)),
    publicKey,
    signingKey,
    signingAlgorithm: ALGORITHM,
    extensions: [...extensions, ...identifiers],
  });
}

const generateKeys = () => subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
const pkcs8 = async (key: webcrypto.CryptoKey) => bytesOf(await subtle.exportKey("pkcs8", key));

const caExtensions = (pathLength?: number): Extension[] => [
  new BasicConstraintsExtension(true, pathLength, true),
  new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
];

const endEntityExtensions = (...usages: string[]): Extension[] => [
  new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
  new ExtendedKeyUsageExtension(usages),
];

/** A root, or a CA below `above`. */
async function createAuthority(now: number, subject: string, above?: Authority): Promise<Authority> {
  const keys = await generateKeys();
  const certificate = await certify({
    now,
    subject,
    publicKey: keys.publicKey,
    lifetime: CA_LIFETIME,
    extensions: caExtensions(above && 0),
    signingKey: above?.key ?? keys.privateKey,
    ...(above && { issuer: above.certificate }),
  });
  return { certificate, key: keys.privateKey };
}

/** A new key with a certificate of `authority`, which comes second in the chain. */
async function createIdentity(
  authority: Authority,
  fields: { now: number; subject: Name | string; lifetime: number; extensions: Extension[] },
): Promise<Identity> {
  const keys = await generateKeys();
  const certificate = await certify({
    ...fields,
    publicKey: keys.publicKey,
    signingKey: authority.key,
    issuer: authority.certificate,
  });
  return {
    chain: [bytesOf(certificate.rawData), bytesOf(authority.certificate.rawData)],
    keyPkcs8: await pkcs8(keys.privateKey),
  };
}

/**
 * Reads a PKCS #10 request (RFC 2986) and verifies its signature, which proves possession of the key. "unverified" does
 * not: of a request for a key of the server's, key and signature are ignored (RFC 9148 section 4.8).
 * @throws RequestError
 */
export async function readRequest(
  csr: Uint8Array,
  how: "verified" | "unverified" = "verified",
): Promise<RequestContent> {
  let request: Pkcs10CertificateRequest;
  let content: RequestContent;
  let algorithm: string;
  if (csr[0] === 0x2d || csr[0] === 0x4d) {
    // "-----BEGIN" or the "MI…" of Base64, which EST over HTTPS has
    throw new RequestError("malformed", "expected a PKCS #10 request in DER, not PEM or Base64 (RFC 9148 section 4.3)");
  }
  try {
    const info = children(children(csr)[0]!);
    request = new Pkcs10CertificateRequest(csr);
    const password = request.getAttribute(CHALLENGE_PASSWORD);
    const names = request.getExtension(SUBJECT_ALT_NAME);
    content = {
      subject: info[1]!,
      subjectAltName: names === null ? undefined : bytesOf(names.value),
      challengePassword: password instanceof ChallengePasswordAttribute ? password.password : undefined,
    };
    algorithm = Buffer.from(children(info[2]!)[0] ?? []).toString("hex");
  } catch (error) {
    throw new RequestError("malformed", `expected a PKCS #10 request in DER: ${messageOf(error)}`);
  }
  if (how === "unverified") {
    return content;
  }
  if (!CERTIFIED_KEYS.includes(algorithm)) {
    throw new RequestError("refused", "only EC keys on P-256 or P-384 are certified");
  }
  // A signature that does not fit its algorithm, or a point that is not on the curve, throws.
  if (!(await request.verify().catch(() => false))) {
    throw new RequestError("malformed", "the signature of the PKCS #10 request is wrong");
  }
  return content;
}

/** Subject (DER) and the value of subjectAltName (DER), where there is one, of a certificate. */
export function namesOf(certificate: Uint8Array): { subject: Uint8Array; subjectAltName: Uint8Array | undefined } {
  const names = new X509Certificate(certificate).getExtension(SUBJECT_ALT_NAME);
  return {
    subject: children(children(certificate)[0]!)[5]!,
    subjectAltName: names === null ? undefined : bytesOf(names.value),
  };
}

/**
 * PKCS #7 certs-only: the degenerate SignedData of RFC 5652 section 5.2, as RFC 5272 section 4.1 has it.
 *
 *     ContentInfo { id-signedData, [0] SignedData { 1, SET {}, { id-data }, [0] SET OF Certificate, SET {} } }
 */
export function certsOnly(certificates: readonly Uint8Array[]): Uint8Array {
  // The elements of a SET OF are in ascending order in DER.
  const sorted = [...certificates].sort(Buffer.compare);
  return element(
    SEQUENCE,
    ID_SIGNED_DATA,
    element(
      EXPLICIT_0,
      element(
        SEQUENCE,
        VERSION_1,
        element(SET),
        element(SEQUENCE, ID_DATA),
        element(EXPLICIT_0, ...sorted),
        element(SET),
      ),
    ),
  );
}

/** PEM (RFC 7468) of one or more certificates, or of a private key. */
function pem(label: "CERTIFICATE" | "PRIVATE KEY", ...ders: readonly Uint8Array[]): string {
  return ders
    .map((der) => {
      const lines =
        Buffer.from(der)
          .toString("base64")
          .match(/.{1,64}/g) ?? [];
      return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
    })
    .join("");
}

/** The certificates in a PEM file, in DER. */
function certificatesOf(text: string): Uint8Array[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => Uint8Array.from(new NodeCertificate(block).raw));
}

/** The files of `save`, those to be kept secret marked. */
const FILES = {
  "ca.pem": "public",
  "ca.der": "public",
  "ca.key": "secret",
  "issuing-ca.pem": "public",
  "issuing-ca.key": "secret",
  "factory-ca.pem": "public",
  "factory-ca.key": "secret",
  "factory.pem": "public",
  "factory.key": "secret",
} as const;

type FileName = keyof typeof FILES;
const FILE_NAMES = Object.keys(FILES) as FileName[];

export interface DevelopmentCAOptions {
  /** How the names of the CAs begin; default "Torpor development". */
  name?: string;
  /** Serial number of the factory device; default "0001". */
  serialNumber?: string;
  /** Milliseconds since 1970; default `Date.now`. */
  clock?: () => number;
}

/** What is left of the CA as it was before its root key changed (RFC 4210 section 4.4), DER. */
interface Before {
  readonly oldWithOld: Uint8Array;
  readonly oldWithNew: Uint8Array;
  readonly newWithOld: Uint8Array;
  /** The issuing CAs so far, whose certificates are accepted still. */
  readonly issuing: readonly Uint8Array[];
}

/** Where `Before` is kept, once there is one: the certificates in this order. */
const ROLLOVER_FILE = "rollover.pem";

export class DevelopmentCA {
  readonly #root: Authority;
  readonly #issuing: Authority;
  readonly #factoryCA: Authority;
  readonly #before: Before | undefined;
  readonly #clock: () => number;
  /** The identity that a device has from its maker: its leaf certificate, the factory CA and the key. */
  readonly factory: Identity;

  private constructor(
    root: Authority,
    issuing: Authority,
    factoryCA: Authority,
    factory: Identity,
    clock: () => number,
    before?: Before,
  ) {
    this.#root = root;
    this.#issuing = issuing;
    this.#factoryCA = factoryCA;
    this.#before = before;
    this.#clock = clock;
    this.factory = factory;
  }

  /** New keys and certificates throughout. */
  static async create(options: DevelopmentCAOptions = {}): Promise<DevelopmentCA> {
    const { name = "Torpor development", serialNumber = "0001", clock = Date.now } = options;
    const now = Math.floor(clock() / 1000);
    const root = await createAuthority(now, `CN=${name} root CA`);
    const issuing = await createAuthority(now, `CN=${name} issuing CA`, root);
    const factoryCA = await createAuthority(now, `CN=${name} factory CA`);
    const factory = await DevelopmentCA.#issueFactory(now, factoryCA, serialNumber);
    return new DevelopmentCA(root, issuing, factoryCA, factory, clock);
  }

  /**
   * The same CA with a new root key, and an issuing CA below it: as RFC 4210 section 4.4 has it, the old and the new root
   * sign each other's key, so that those who know one of them come to trust the other.
   */
  async rollOver(): Promise<DevelopmentCA> {
    const now = this.#now;
    const old = this.#root;
    const root = await createAuthority(now, old.certificate.subject);
    const issuing = await createAuthority(now, this.#issuing.certificate.subject, root);
    const cross = async (subject: Authority, signer: Authority) =>
      bytesOf(
        (
          await certify({
            now,
            subject: old.certificate.subjectName,
            publicKey: subject.certificate.publicKey,
            lifetime: CA_LIFETIME,
            extensions: caExtensions(),
            signingKey: signer.key,
            issuer: signer.certificate,
          })
        ).rawData,
      );
    return new DevelopmentCA(root, issuing, this.#factoryCA, this.factory, this.#clock, {
      oldWithOld: bytesOf(old.certificate.rawData),
      oldWithNew: await cross(old, root),
      newWithOld: await cross(root, old),
      issuing: [this.issuing, ...(this.#before?.issuing ?? [])],
    });
  }

  get #now(): number {
    return Math.floor(this.#clock() / 1000);
  }

  /**
   * Reads what `save` wrote; undefined where the directory holds none of its files.
   * @throws CAError where some are missing, or are not what they should be.
   */
  static async load(dir: string): Promise<DevelopmentCA | undefined> {
    const contents = new Map<FileName, Buffer>();
    for (const name of FILE_NAMES) {
      try {
        contents.set(name, await readFile(join(dir, name)));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
          throw new CAError(`${join(dir, name)} cannot be read: ${messageOf(error)}`);
        }
      }
    }
    if (contents.size === 0) {
      return undefined;
    }
    const missing = FILE_NAMES.find((name) => !contents.has(name));
    const advice = `restore it, or remove ${FILE_NAMES.join(", ")} from ${dir} to start with a new CA`;
    if (missing !== undefined) {
      throw new CAError(`${join(dir, missing)} is missing, while other files of the CA are there: ${advice}`);
    }
    let reading: FileName = "ca.pem";
    const text = (name: FileName) => {
      reading = name;
      return contents.get(name)!.toString("latin1");
    };
    const demand = (holds: boolean, what: string) => {
      if (!holds) {
        throw new Error(what);
      }
    };
    /** Certificates and the key of the first of them, checked to belong together and to be issued by `issuer`. */
    const readPair = (base: string, issuer?: Uint8Array) => {
      const chain = certificatesOf(text(`${base}.pem` as FileName));
      demand(chain.length > 0, "no certificate in it");
      const first = new NodeCertificate(chain[0]!);
      const signer = new NodeCertificate(issuer ?? chain[0]!);
      demand(first.verify(signer.publicKey), "its certificate is not issued by the CA above it");
      const key = createPrivateKey(text(`${base}.key` as FileName));
      demand(first.checkPrivateKey(key), "the key does not belong to its certificate");
      return { chain, key: Uint8Array.from(key.export({ format: "der", type: "pkcs8" })) };
    };
    const authority = async ({ chain, key }: { chain: Uint8Array[]; key: Uint8Array }): Promise<Authority> => ({
      certificate: new X509Certificate(chain[0]!),
      key: await subtle.importKey("pkcs8", key, ALGORITHM, true, ["sign"]),
    });
    try {
      const root = readPair("ca");
      reading = "ca.der";
      demand(contents.get("ca.der")!.equals(root.chain[0]!), "it is not the certificate of ca.pem");
      const issuing = readPair("issuing-ca", root.chain[0]!);
      const factoryCA = readPair("factory-ca");
      const factory = readPair("factory", factoryCA.chain[0]!);
      return new DevelopmentCA(
        await authority(root),
        await authority(issuing),
        await authority(factoryCA),
        { chain: factory.chain, keyPkcs8: factory.key },
        Date.now,
        await readBefore(dir),
      );
    } catch (error) {
      throw new CAError(`${join(dir, reading)} is not what was written there (${messageOf(error)}): ${advice}`);
    }
  }

  /**
   * Writes CAs, trust anchor and factory identity, keys readable by their owner alone. Nothing is overwritten unless
   * `how` is "replace", as after a rollover.
   * @throws CAError where that cannot be done.
   */
  async save(dir: string, how: "new" | "replace" = "new"): Promise<void> {
    const certificate = (authority: Authority) => pem("CERTIFICATE", bytesOf(authority.certificate.rawData));
    const contents: Record<FileName, string | Uint8Array> = {
      "ca.pem": certificate(this.#root),
      "ca.der": this.root,
      "ca.key": pem("PRIVATE KEY", await pkcs8(this.#root.key)),
      "issuing-ca.pem": certificate(this.#issuing),
      "issuing-ca.key": pem("PRIVATE KEY", await pkcs8(this.#issuing.key)),
      "factory-ca.pem": certificate(this.#factoryCA),
      "factory-ca.key": pem("PRIVATE KEY", await pkcs8(this.#factoryCA.key)),
      "factory.pem": pem("CERTIFICATE", ...this.factory.chain),
      "factory.key": pem("PRIVATE KEY", this.factory.keyPkcs8),
    };
    try {
      await mkdir(dir, { recursive: true });
      for (const name of FILE_NAMES) {
        const mode = FILES[name] === "secret" ? 0o600 : 0o644;
        await writeFile(join(dir, name), contents[name], { flag: how === "new" ? "wx" : "w", mode });
      }
      if (this.#before !== undefined) {
        const { oldWithOld, oldWithNew, newWithOld, issuing } = this.#before;
        await writeFile(join(dir, ROLLOVER_FILE), pem("CERTIFICATE", oldWithOld, oldWithNew, newWithOld, ...issuing));
      }
    } catch (error) {
      throw new CAError(`the CA cannot be written to ${dir}: ${messageOf(error)}`);
    }
  }

  /** The trust anchor of the EST server and of enrolled devices, DER. */
  get root(): Uint8Array {
    return bytesOf(this.#root.certificate.rawData);
  }

  /** What crts gives: the root, the issuing CA, and after a rollover the certificates between old and new, DER. */
  get certificates(): readonly Uint8Array[] {
    const before = this.#before;
    return [
      this.root,
      this.issuing,
      ...(before === undefined ? [] : [before.oldWithOld, before.oldWithNew, before.newWithOld]),
    ];
  }

  /** The CAs whose certificates are accepted from clients, DER. */
  get clientCAs(): readonly Uint8Array[] {
    return [this.factoryCA, this.issuing, ...(this.#before?.issuing ?? [])];
  }

  /** The CA below the root, which issues, DER. */
  get issuing(): Uint8Array {
    return bytesOf(this.#issuing.certificate.rawData);
  }

  /** The CA of the devices' maker, DER. */
  get factoryCA(): Uint8Array {
    return bytesOf(this.#factoryCA.certificate.rawData);
  }

  /**
   * An identity for an EST server that is reached by these names and IP addresses; a registration authority (RFC 9148
   * section 9.2) unless `role` is "server".
   */
  async issueServer(names: {
    dnsNames: readonly string[];
    addresses: readonly string[];
    role?: "server" | "registration authority";
  }): Promise<Identity> {
    const { chain, keyPkcs8 } = await createIdentity(this.#issuing, {
      now: this.#now,
      subject: "CN=Torpor development EST server",
      lifetime: SERVER_LIFETIME,
      extensions: [
        ...endEntityExtensions(SERVER_AUTH, ...(names.role === "server" ? [] : [CMC_RA])),
        new SubjectAlternativeNameExtension([
          ...names.dnsNames.map((value) => ({ type: "dns" as const, value })),
          ...names.addresses.map((value) => ({ type: "ip" as const, value })),
        ]),
      ],
    });
    // For those who know the old root only.
    return { chain: this.#before === undefined ? chain : [...chain, this.#before.newWithOld], keyPkcs8 };
  }

  /** Another device of the factory CA. */
  async issueFactory(device: { serialNumber: string }): Promise<Identity> {
    return await DevelopmentCA.#issueFactory(this.#now, this.#factoryCA, device.serialNumber);
  }

  static async #issueFactory(now: number, factoryCA: Authority, serialNumber: string): Promise<Identity> {
    return await createIdentity(factoryCA, {
      now,
      // The string types that openssl takes by default: EST wants the same bytes again in a renewal.
      subject: new Name([
        { CN: [{ utf8String: "torpor-dev" }] },
        { [SERIAL_NUMBER]: [{ printableString: serialNumber }] },
      ]),
      lifetime: CA_LIFETIME,
      extensions: endEntityExtensions(CLIENT_AUTH),
    });
  }

  /**
   * Grants a PKCS #10 request: the certificate, DER. It has the request's subject (or `subject`, a Name in DER), its
   * subjectAltName and its key (or `key`, for a server that does not keep to it), and lives for `lifetime` seconds.
   * @throws RequestError
   */
  async issueFromRequest(
    csr: Uint8Array,
    options: { lifetime: number; subject?: Uint8Array; key?: "of the request" | "another" },
  ): Promise<Uint8Array> {
    await readRequest(csr);
    const publicKey =
      options.key === "another" ? (await generateKeys()).publicKey : new Pkcs10CertificateRequest(csr).publicKey;
    return await this.#grant(csr, publicKey, options);
  }

  /** Grants a request for a key of the server's: the certificate and the new key, DER. @throws RequestError */
  async issueWithKey(
    csr: Uint8Array,
    options: { lifetime: number },
  ): Promise<{ certificate: Uint8Array; privateKey: Uint8Array }> {
    await readRequest(csr, "unverified");
    const keys = await generateKeys();
    const certificate = await this.#grant(csr, keys.publicKey, options);
    return { certificate, privateKey: await pkcs8(keys.privateKey) };
  }

  async #grant(
    csr: Uint8Array,
    publicKey: Parameters<typeof SubjectKeyIdentifierExtension.create>[0],
    options: { lifetime: number; subject?: Uint8Array },
  ): Promise<Uint8Array> {
    const subject = options.subject ?? children(children(csr)[0]!)[1]!;
    const extensions = endEntityExtensions(CLIENT_AUTH);
    const request = new Pkcs10CertificateRequest(csr);
    const names = request.getExtension(SUBJECT_ALT_NAME);
    if (names !== null) {
      extensions.push(names);
    } else if (children(subject).length === 0) {
      throw new RequestError("refused", "the request names nobody: neither a subject nor a subjectAltName");
    }
    const certificate = await certify({
      now: this.#now,
      subject: new Name(subject),
      publicKey,
      lifetime: options.lifetime,
      extensions,
      signingKey: this.#issuing.key,
      issuer: this.#issuing.certificate,
    });
    const der = bytesOf(certificate.rawData);
    // The library takes names apart and puts them together again.
    if (Buffer.compare(namesOf(der).subject, subject) !== 0) {
      throw new RequestError("malformed", "the subject of the request is not in DER");
    }
    return der;
  }
}

/** What `save` wrote of a rollover, if there was one. */
async function readBefore(dir: string): Promise<Before | undefined> {
  let text: string;
  try {
    text = await readFile(join(dir, ROLLOVER_FILE), "latin1");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      return undefined;
    }
    throw error;
  }
  const [oldWithOld, oldWithNew, newWithOld, ...issuing] = certificatesOf(text);
  if (oldWithOld === undefined || oldWithNew === undefined || newWithOld === undefined) {
    throw new Error(`${ROLLOVER_FILE} lacks certificates`);
  }
  return { oldWithOld, oldWithNew, newWithOld, issuing };
}
