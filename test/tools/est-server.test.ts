// The development EST server (tools/est-server), driven by the client role of the DTLS engine and by messages that this
// test writes itself; what it hands out is judged by the openssl command.
import { strict as assert } from "node:assert";
import { execFileSync, spawn } from "node:child_process";
import { createHash, X509Certificate } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { generate, type ParsedPacket, parse } from "coap-packet";
import "../../hosts/node/native.js";
import { Engine, EngineState } from "../../src/dtls/engine.js";
import { TorporError } from "../../src/errors.js";
import { certificateRequest, destroyKey, generateKey, type KeyId, publicKey } from "../../src/pki/key.js";
import { CAError, DevelopmentCA, type Identity, namesOf, RequestError } from "../../tools/est-server/ca.js";
import { type CoAPRequest, type CoAPResponse, CoAPServer } from "../../tools/est-server/coap-server.js";
import { children, element, SEQUENCE, SET } from "../../tools/est-server/der.js";
import { DTLSServer } from "../../tools/est-server/dtls-server.js";
import { type EstServer, type EstServerOptions, startEstServer } from "../../tools/est-server/server.js";
import { block, blockOf, Client, type ConnectOptions, encode, option, PlainClient, uint } from "./est-client.js";

const CERTS_ONLY = 281;
const CSR_ATTRIBUTES = 285;
const PKCS10 = 286;
const CERTIFICATE = 287;

const CRTS = ".well-known/est/crts";
const ATT = ".well-known/est/att";
const SEN = ".well-known/est/sen";
const SREN = ".well-known/est/sren";

const none = new Uint8Array();
const utf8 = (tag: number, text: string) => element(tag, Buffer.from(text));
const oid = (hex: string) => element(0x06, Buffer.from(hex, "hex"));

/** A Name with one commonName. */
const named = (name: string) => element(SEQUENCE, element(SET, element(SEQUENCE, oid("550403"), utf8(0x0c, name))));

/** The attributes of a request: challengePassword; extensionRequest with a dNSName. */
const challengePassword = (text: string) =>
  element(SEQUENCE, oid("2a864886f70d010907"), element(SET, utf8(0x0c, text)));
const dnsName = (name: string) => {
  const names = element(SEQUENCE, utf8(0x82, name));
  const extension = element(SEQUENCE, oid("551d11"), element(0x04, names));
  return element(SEQUENCE, oid("2a864886f70d01090e"), element(SET, element(SEQUENCE, extension)));
};

const text = (packet: ParsedPacket) => packet.payload.toString();

describe("the development EST server", function () {
  this.timeout(20_000);

  let dir: string;
  let ca: DevelopmentCA;
  let server: EstServer;
  let key: KeyId;
  const open: { close(): unknown }[] = [];

  /** A file with these bytes, for openssl. */
  const file = (name: string, bytes: Uint8Array | string) => {
    writeFileSync(join(dir, name), bytes);
    return join(dir, name);
  };
  const openssl = (...args: string[]) => execFileSync("openssl", args, { encoding: "utf8", stdio: "pipe" });
  const pem = (der: Uint8Array) => new X509Certificate(der).toString();

  const start = async (options: EstServerOptions = {}) => {
    const started = await startEstServer({ ca, ...options });
    open.push(started);
    return started;
  };
  const connect = async (options: Partial<ConnectOptions> = {}) => {
    const client = await Client.connect({ port: server.port, anchor: ca.root, identity: ca.factory, ...options });
    open.push(client);
    return client;
  };
  const plainClient = (port: number) => {
    const client = new PlainClient(port);
    open.push(client);
    return client;
  };
  const request = (subject: Uint8Array, attributes: Uint8Array = none) => certificateRequest(key, subject, attributes);
  const factorySubject = () => namesOf(ca.factory.chain[0]!).subject;
  /** The first ClientHello of somebody who wants to connect. */
  const clientHello = () => {
    const engine = new Engine();
    engine.trust(ca.root);
    engine.serverName("localhost");
    engine.start(0, 0);
    const datagram = new Uint8Array(1500);
    const hello = datagram.slice(0, engine.take(datagram));
    engine.free();
    return hello;
  };
  /** The certificates in a certs-only response, as openssl reads them. */
  const certificatesOf = (der: Uint8Array): X509Certificate[] => {
    const printed = openssl("pkcs7", "-inform", "DER", "-in", file("certs.p7", der), "-print_certs");
    const blocks = printed.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
    return blocks.map((one) => new X509Certificate(one));
  };
  const enroll = (payload: Uint8Array) => ({ code: "POST", path: SEN, contentFormat: PKCS10, payload });
  /** An identity of the issuing CA: enrolled, with the key of this test's requests as PKCS #8. */
  const enrolled = async (name: string): Promise<Identity> => {
    const csr = join(dir, "device.csr");
    const keyFile = join(dir, "device.key");
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", keyFile);
    openssl("req", "-new", "-key", keyFile, "-subj", `/CN=${name}`, "-outform", "DER", "-out", csr);
    const certificate = await ca.issueFromRequest(readFileSync(csr), { lifetime: 3600 });
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", keyFile, "-outform", "DER", "-out", `${keyFile}.p8`);
    return { chain: [certificate, ca.issuing], keyPkcs8: Uint8Array.from(readFileSync(`${keyFile}.p8`)) };
  };

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "torpor-est-"));
    ca = await DevelopmentCA.create();
    key = generateKey(0);
  });

  beforeEach(async () => {
    server = await start();
  });

  afterEach(async () => {
    for (const one of open.splice(0).reverse()) await one.close();
  });

  after(() => {
    destroyKey(key);
    rmSync(dir, { recursive: true });
  });

  describe("as an EST server", () => {
    it("answers crts with certs-only that openssl reads: the root and the issuing CA", async () => {
      const client = await connect();
      for (const accept of [undefined, CERTS_ONLY]) {
        const response = await client.request({ code: "GET", path: CRTS, ...(accept && { accept }) });
        assert.equal(response.code, "2.05");
        assert.equal(option(response, "Content-Format"), CERTS_ONLY);
        const certificates = certificatesOf(response.payload);
        assert.deepEqual(
          new Set(certificates.map(({ raw }) => raw.toString("hex"))),
          new Set([ca.root, ca.issuing].map((der) => Buffer.from(der).toString("hex"))),
        );
      }
      assert.match(
        openssl("verify", "-CAfile", file("root.pem", pem(ca.root)), file("issuing.pem", pem(ca.issuing))),
        /OK/,
      );
    });

    it("answers crts with the root alone where a single certificate is accepted", async () => {
      const client = await connect();
      const response = await client.request({ code: "GET", path: CRTS, accept: CERTIFICATE });
      assert.equal(option(response, "Content-Format"), CERTIFICATE);
      assert.deepEqual(Uint8Array.from(response.payload), ca.root);
    });

    it("answers below an arbitrary label too", async () => {
      const client = await connect();
      const response = await client.request({ code: "GET", path: ".well-known/est/factory-1/crts" });
      assert.equal(response.code, "2.05");
    });

    it("answers att with key type and signature, with challengePassword where that is demanded, or not at all", async () => {
      const wanted = { "key-type": /prime256v1[\s\S]*ecdsa-with-SHA256/, "proof-of-possession": /challengePassword/ };
      for (const [attributes, pattern] of Object.entries(wanted)) {
        const { port } = await start({ attributes: attributes as keyof typeof wanted });
        const response = await (await connect({ port })).request({ code: "GET", path: ATT });
        assert.equal(response.code, "2.05");
        assert.equal(option(response, "Content-Format"), CSR_ATTRIBUTES);
        const printed = openssl("asn1parse", "-inform", "DER", "-in", file("att.der", response.payload));
        assert.match(printed, pattern);
        assert.equal(/challengePassword/.test(printed), attributes === "proof-of-possession");
      }
      const { port } = await start({ attributes: "none" });
      const response = await (await connect({ port })).request({ code: "GET", path: ATT });
      assert.equal(response.code, "4.04");
    });

    it("issues by sen a certificate with the key and the subject of the request, which openssl verifies", async () => {
      const client = await connect();
      const subject = named("a device");
      const response = await client.request(enroll(request(subject)));
      assert.equal(response.code, "2.04");
      assert.equal(option(response, "Content-Format"), CERTS_ONLY);
      const [certificate, ...others] = certificatesOf(response.payload);
      assert.equal(others.length, 0);
      assert.deepEqual(namesOf(certificate!.raw).subject, subject);
      const point = certificate!.publicKey.export({ format: "der", type: "spki" }).subarray(-65);
      assert.deepEqual(Uint8Array.from(point), publicKey(key));
      assert.deepEqual(certificate!.keyUsage, ["1.3.6.1.5.5.7.3.2"]);
      assert.ok(!certificate!.ca);
      assert.match(certificate!.serialNumber, /^[4-7][0-9A-F]{15}$/);
      const now = Date.now() / 1000;
      assert.ok(Math.abs(Date.parse(certificate!.validFrom) / 1000 - (now - 60)) < 10);
      assert.ok(Math.abs(Date.parse(certificate!.validTo) / 1000 - (now + 90 * 86400)) < 10);
      assert.ok(certificate!.raw.length < 500, `${certificate!.raw.length} bytes`);
      const leaf = file("leaf.pem", certificate!.toString());
      const printed = openssl("x509", "-in", leaf, "-noout", "-text");
      assert.match(printed, /Subject Key Identifier/);
      assert.match(printed, /Authority Key Identifier/);
      const anchors = ["-CAfile", file("root.pem", pem(ca.root)), "-untrusted", file("issuing.pem", pem(ca.issuing))];
      assert.match(openssl("verify", "-x509_strict", "-purpose", "sslclient", ...anchors, leaf), /OK/);
      assert.equal(server.stats.issued, 1);
    });

    it("issues by sen and sren a single certificate where that is accepted", async () => {
      const client = await connect();
      for (const path of [SEN, SREN]) {
        const response = await client.request({
          ...enroll(request(factorySubject())),
          path,
          accept: CERTIFICATE,
        });
        assert.equal(response.code, "2.04");
        assert.equal(option(response, "Content-Format"), CERTIFICATE);
        assert.deepEqual(namesOf(response.payload).subject, factorySubject());
      }
    });

    it("gives the certificate the lifetime that it was told", async () => {
      const { port } = await start({ lifetime: 60 });
      const client = await connect({ port });
      const { payload } = await client.request({ ...enroll(request(named("short"))), accept: CERTIFICATE });
      const seconds = (Date.parse(new X509Certificate(payload).validTo) - Date.now()) / 1000;
      assert.ok(seconds > 50 && seconds <= 61, `${seconds}`);
    });

    it("renews a certificate that it issued, with a new key", async () => {
      const client = await connect({ identity: await enrolled("device-7") });
      const response = await client.request({ ...enroll(request(named("device-7"))), path: SREN });
      assert.equal(response.code, "2.04");
      assert.equal(certificatesOf(response.payload)[0]!.subject, "CN=device-7");
    });

    it("keeps the subjectAltName of the request, and wants it again for renewal", async () => {
      const factory = await connect();
      const subject = named("device-8");
      const csr = request(subject, dnsName("device-8.example.net"));
      const { payload } = await factory.request({ ...enroll(csr), accept: CERTIFICATE });
      assert.equal(new X509Certificate(payload).subjectAltName, "DNS:device-8.example.net");

      const identity = await enrolled("device-8"); // the same subject, and no subjectAltName
      const client = await connect({ identity });
      const response = await client.request({ ...enroll(csr), path: SREN });
      assert.equal(response.code, "4.03");
      assert.match(text(response), /subjectAltName/);
    });

    it("refuses to renew for another subject than that of the client certificate, and says why", async () => {
      const client = await connect();
      const response = await client.request({ ...enroll(request(named("somebody else"))), path: SREN });
      assert.equal(response.code, "4.03");
      assert.match(text(response), /subject .* client certificate/);
      assert.equal(option(response, "Content-Format"), undefined);
      assert.equal(server.stats.issued, 0);
    });

    it("refuses every request with the text that it was told", async () => {
      const { port } = await start({ refuse: "not on Sundays" });
      const client = await connect({ port });
      for (const path of [SEN, SREN]) {
        const response = await client.request({ ...enroll(request(factorySubject())), path });
        assert.equal(response.code, "4.03");
        assert.equal(text(response), "not on Sundays");
      }
    });

    it("checks the tls-unique of the session where the request carries it, and demands it where told", async () => {
      const { port } = await start({ attributes: "proof-of-possession" });
      const client = await connect({ port });
      const unique = Buffer.from(client.engine.unique).toString("base64");
      const subject = named("linked");
      assert.equal((await client.request(enroll(request(subject, challengePassword(unique))))).code, "2.04");
      const other = await client.request(enroll(request(subject, challengePassword("AAAAAAAAAAAAAAAA"))));
      assert.equal(other.code, "4.03");
      assert.match(text(other), /tls-unique/);
      const missing = await client.request(enroll(request(subject)));
      assert.equal(missing.code, "4.03");
      assert.match(text(missing), /must carry/);
      // Not demanded, but checked all the same
      const lenient = await connect();
      assert.equal((await lenient.request(enroll(request(subject, challengePassword("x"))))).code, "4.03");
    });

    it("answers a malformed request, or one with a wrong signature, with 4.00 and a text", async () => {
      const client = await connect();
      const good = request(named("a device"));
      const wrongSignature = Uint8Array.from(good);
      wrongSignature[good.indexOf(0x61)]! ^= 2; // the first letter of the subject
      const cases: [Uint8Array, RegExp][] = [
        [none, /DER/],
        [Buffer.from("hello"), /DER/],
        [good.subarray(0, -1), /DER/],
        [Uint8Array.from([...good, 0]), /DER/],
        [Buffer.from(Buffer.from(good).toString("base64")), /not PEM or Base64/],
        [ca.root, /DER/],
        [wrongSignature, /signature/],
      ];
      for (const [payload, expected] of cases) {
        const response = await client.request(enroll(payload));
        assert.equal(response.code, "4.00", text(response));
        assert.match(text(response), expected);
      }
    });

    it("refuses keys that are not on P-256 or P-384, and requests that name nobody", async () => {
      const client = await connect();
      const asked = (curve: string, subject: string) => {
        const made = [
          "-newkey",
          ...(curve === "rsa" ? ["rsa:2048"] : ["ec", "-pkeyopt", `ec_paramgen_curve:${curve}`]),
        ];
        const out = join(dir, "other.csr");
        openssl(
          "req",
          "-new",
          ...made,
          "-nodes",
          "-keyout",
          join(dir, "x.key"),
          "-subj",
          subject,
          "-outform",
          "DER",
          "-out",
          out,
        );
        return readFileSync(out);
      };
      for (const curve of ["rsa", "P-521", "secp256k1"]) {
        const response = await client.request(enroll(asked(curve, "/CN=x")));
        assert.equal(response.code, "4.03", curve);
        assert.match(text(response), /P-256/);
      }
      assert.equal((await client.request(enroll(asked("P-384", "/CN=x")))).code, "2.04");
      assert.equal((await client.request(enroll(asked("P-256", "/")))).code, "4.03");
    });

    it("answers wrong paths, methods, formats and options with the code that says so", async () => {
      const client = await connect();
      const csr = request(named("x"));
      const cases: [string, Parameters<typeof client.request>[0]][] = [
        ["4.04", { code: "GET", path: "est" }],
        ["4.04", { code: "GET", path: ".well-known/est/cacerts" }],
        ["4.04", { code: "POST", path: ".well-known/est/fullcmc", contentFormat: PKCS10, payload: csr }],
        ["4.05", { code: "POST", path: CRTS }],
        ["4.05", { code: "GET", path: SEN }],
        ["4.05", { code: "DELETE", path: ATT }],
        ["4.05", { code: "0.31", path: ATT }],
        ["4.06", { code: "GET", path: CRTS, accept: 50 }],
        ["4.06", { ...enroll(csr), accept: 0 }],
        ["4.15", { ...enroll(csr), contentFormat: CSR_ATTRIBUTES }],
        ["4.15", { code: "POST", path: SEN, payload: csr }],
        ["4.02", { code: "GET", path: CRTS, options: [{ name: "2049", value: none as Buffer }] }],
        ["4.02", { code: "GET", path: CRTS, options: [{ name: "If-None-Match", value: none as Buffer }] }],
        ["4.02", { code: "GET", path: CRTS, accept: 281, options: [{ name: "Accept", value: uint(281) }] }],
        ["5.05", { code: "GET", options: [{ name: "Proxy-Uri", value: Buffer.from("coap://x/") }] }],
        ["2.05", { code: "GET", path: CRTS, options: [{ name: "2050", value: Buffer.from("elective") }] }],
      ];
      for (const [expected, message] of cases) {
        const response = await client.request({
          ...message,
          ...(message.options && {
            options: message.options.map(({ name, value }) => ({ name, value: Buffer.from(value) })),
          }),
        });
        assert.equal(response.code, expected, JSON.stringify(message));
      }
      assert.equal(server.stats.issued, 0);
    });

    it("tells what it has by discovery, filtered as the client asks", async () => {
      const client = await connect();
      const links = async (...query: string[]) => {
        const response = await client.request({ code: "GET", path: ".well-known/core", query });
        assert.equal(response.code, "2.05");
        assert.equal(option(response, "Content-Format"), 40);
        return text(response);
      };
      const crts = '</.well-known/est/crts>;rt="ace.est.crts";ct="281 287"';
      const all =
        `${crts},</.well-known/est/sen>;rt="ace.est.sen";ct="281 287",` +
        '</.well-known/est/sren>;rt="ace.est.sren";ct="281 287",</.well-known/est/att>;rt="ace.est.att";ct=285,' +
        '</.well-known/est/skg>;rt="ace.est.skg";ct=62,</.well-known/est/skc>;rt="ace.est.skc";ct=62';
      assert.equal(await links(), all);
      assert.equal(await links("rt=ace.est*"), all);
      assert.equal(await links("rt=ace.est.crts"), crts);
      assert.equal(await links("rt=core.*"), "");
    });
  });

  describe("as a DTLS server", () => {
    it("refuses a client without a certificate, or with one of a CA that it does not know", async () => {
      const lines: string[] = [];
      server = await start({ log: (line) => lines.push(line) });
      // mbedTLS as a server sends no alert here: the client has to run out of patience.
      const nobody = { chain: [], keyPkcs8: ca.factory.keyPkcs8 };
      await assert.rejects(connect({ identity: nobody, patience: 500 }), TorporError);
      const other = await DevelopmentCA.create();
      await assert.rejects(connect({ identity: other.factory }), /unknown_ca/);
      assert.match(lines[0]!, /the client has no certificate$/);
      assert.match(lines[1]!, /the client's certificate is refused: no trust anchor/);
      assert.equal(server.stats.failed, 2);
      assert.equal(server.stats.associations, 0);
    });

    it("is refused by a client that trusts another CA", async () => {
      const other = await DevelopmentCA.create();
      await assert.rejects(connect({ anchor: other.root }), /no trust anchor/);
    });

    for (const kind of ["session", "ticket"] as const) {
      it(`knows the client again after a resumption by ${kind}`, async () => {
        const tickets = kind === "ticket" ? ({ tickets: true } as const) : {};
        const first = await connect(tickets);
        const session = first.engine.session!;
        assert.equal(session.kind, kind);
        first.close();
        const second = await connect({ ...tickets, session: session.data });
        assert.ok(second.engine.resumed);
        const subject = factorySubject();
        const unique = Buffer.from(second.engine.unique).toString("base64");
        const csr = request(subject, challengePassword(unique));
        assert.equal((await second.request({ ...enroll(csr), path: SREN })).code, "2.04");
        const other = await second.request({ ...enroll(request(named("other"))), path: SREN });
        assert.equal(other.code, "4.03");
        const { full, resumed } = server.stats;
        assert.deepEqual({ full, resumed }, { full: 1, resumed: 1 });
      });
    }

    it("issues no tickets, or assigns no session ids, where it is told so", async () => {
      const withoutTickets = await start({ tickets: false });
      const asked = await connect({ port: withoutTickets.port, tickets: true });
      assert.equal(asked.engine.session?.kind, "session");

      const withoutIds = await start({ sessionIds: false });
      const client = await connect({ port: withoutIds.port });
      const { session } = client.engine;
      const again = await connect({ port: withoutIds.port, session: session?.data });
      assert.equal(again.engine.resumed, false);
      const ticketed = await connect({ port: withoutIds.port, tickets: true });
      assert.equal(ticketed.engine.session?.kind, "ticket");
      const resumed = await connect({ port: withoutIds.port, tickets: true, session: ticketed.engine.session?.data });
      assert.equal(resumed.engine.resumed, true);

      const neither = await start({ sessionIds: false, tickets: false });
      const last = await connect({ port: neither.port, tickets: true });
      const lastAgain = await connect({ port: neither.port, tickets: true, session: last.engine.session?.data });
      assert.equal(lastAgain.engine.resumed, false);
    });

    it("takes a client back that lost its state, from the same port", async () => {
      const first = await connect();
      const from = first.port;
      assert.equal((await first.request({ code: "GET", path: CRTS, messageId: 1, token: "00" })).code, "2.05");
      first.vanish();
      const second = await connect({ from });
      // The same message ID and token mean another request in another session (RFC 7252 section 9.1).
      const response = await second.request({ code: "GET", path: ATT, messageId: 1, token: "00" });
      assert.equal(option(response, "Content-Format"), CSR_ATTRIBUTES);
      const { full, associations } = server.stats;
      assert.deepEqual({ full, associations }, { full: 2, associations: 1 });
    });

    it("lets nobody end an association by a ClientHello without a cookie", async () => {
      const client = await connect();
      const hello = clientHello();
      client.sendRaw(hello);
      await delay(100);
      assert.equal((await client.request({ code: "GET", path: CRTS })).code, "2.05");
      assert.equal(server.stats.full, 1);
    });

    it("keeps nothing for clients that do not answer its cookie", async () => {
      const stranger = plainClient(server.port);
      const hello = clientHello();
      stranger.send(hello);
      const answer = await stranger.inbox.next(2000);
      assert.deepEqual([answer?.[0], answer?.[13]], [22, 3], "a HelloVerifyRequest");
      assert.ok(answer!.length <= hello.length, "no more than was asked");
      assert.equal(server.stats.associations, 0);
    });

    describe("with a hand on its associations", () => {
      let dtls: DTLSServer;
      let closed: string[];

      beforeEach(async () => {
        closed = [];
        dtls = await DTLSServer.listen({
          host: "127.0.0.1",
          port: 0,
          trust: [ca.factoryCA],
          identity: await ca.issueServer({ dnsNames: ["localhost"], addresses: [] }),
          associations: 2,
          onMessage: (peer, message) => peer.send(message),
          onClose: ({ name }) => closed.push(name),
        });
        open.push(dtls);
      });

      it("makes room for a new association by ending the one that was silent longest", async () => {
        const { port } = dtls;
        const [a, b] = [await connect({ port }), await connect({ port })];
        a.send(Buffer.from("a speaks"));
        assert.equal((await a.inbox.next(2000))?.toString(), "a speaks");
        await connect({ port });
        await delay(100);
        assert.equal(b.engine.state, EngineState.CLOSED);
        assert.equal(a.engine.state, EngineState.OPEN);
        assert.equal(dtls.stats.associations, 2);
        assert.deepEqual(closed, [`127.0.0.1:${b.port}`]);
      });

      it("ends the association of a client that made a new one from the same port, and only then", async () => {
        const { port } = dtls;
        const first = await connect({ port });
        first.sendRaw(clientHello());
        await delay(100);
        assert.deepEqual(closed, []);
        const from = first.port;
        first.vanish();
        await connect({ port, from });
        assert.deepEqual(closed, [`127.0.0.1:${from}`]);
        assert.equal(dtls.stats.associations, 1);
      });
    });

    it("ends its associations with a close_notify when it stops", async () => {
      const other = await start();
      const client = await connect({ port: other.port });
      await other.close();
      open.splice(open.indexOf(other), 1);
      await delay(100);
      assert.equal(client.engine.state, EngineState.CLOSED);
    });

    it("forgets an association that the client ended", async () => {
      const client = await connect();
      assert.equal(server.stats.associations, 1);
      client.close();
      await delay(100);
      assert.equal(server.stats.associations, 0);
    });

    it("is reached by IPv6, beside other servers in one process", async () => {
      const six = await start({ host: "::1" });
      const client = await connect({ host: "::1", port: six.port });
      assert.equal((await client.request({ code: "GET", path: CRTS })).code, "2.05");
      assert.equal((await (await connect()).request({ code: "GET", path: CRTS })).code, "2.05");
    });

    it("carries names and addresses for which clients look, and the purposes of an EST server", async () => {
      const { chain } = await ca.issueServer({
        dnsNames: ["localhost", "est.example.net"],
        addresses: ["127.0.0.1", "::1"],
      });
      const certificate = new X509Certificate(chain[0]!);
      assert.equal(certificate.checkHost("est.example.net"), "est.example.net");
      assert.equal(certificate.checkIP("127.0.0.1"), "127.0.0.1");
      assert.equal(certificate.checkIP("::1"), "::1");
      assert.deepEqual(certificate.keyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.28"]);
      assert.ok(chain[0]!.length < 550, `${chain[0]!.length} bytes`);
    });

    it("sends its flight again where the client repeats its ClientHello", async () => {
      const stranger = plainClient(server.port);
      const engine = new Engine();
      engine.trust(ca.root);
      engine.serverName("localhost");
      engine.start(0, 0);
      const buffer = new Uint8Array(1500);
      const take = () => buffer.slice(0, engine.take(buffer));
      stranger.send(take());
      engine.receive(1, (await stranger.inbox.next(2000))!);
      const hello = take();
      engine.free();
      /** The handshake messages of the server's flight. */
      const flight = async () => {
        const messages: string[] = [];
        // Sooner than the server's own timer of a second
        for (let next = await stranger.inbox.next(400); next; next = await stranger.inbox.next(200)) {
          messages.push(next.subarray(13).toString("hex"));
        }
        return messages;
      };
      stranger.send(hello);
      const first = await flight();
      assert.ok(first.length >= 3);
      hello[10]! += 1; // another record, the same message
      stranger.send(hello);
      assert.deepEqual(await flight(), first);
      assert.equal(server.stats.associations, 1);
    });

    it("ends a handshake with one alert where it cannot decode a message of the client", async () => {
      // Found by mutating ClientHellos: the engine made the same alert for ever.
      const stranger = plainClient(server.port);
      const hello = clientHello();
      stranger.send(hello);
      const verify = (await stranger.inbox.next(2000))!;
      const cookie = verify.subarray(28);
      assert.equal(cookie.length, verify[27]);
      for (const withCookie of [false, true]) {
        const lengthAt = 13 + 12 + 34 + 1; // after version, random and an empty session id
        const message = Buffer.concat([
          hello.subarray(0, lengthAt),
          withCookie ? Buffer.concat([Buffer.of(cookie.length), cookie]) : Buffer.of(0),
          hello.subarray(lengthAt + 1),
        ]);
        const signatures = message.indexOf(Buffer.from("000d0006000404030503", "hex"));
        assert.ok(signatures > 0, "signature_algorithms");
        message[signatures + 5] = 0x40; // its list is longer than it
        message[11 + 1] = message.length - 13;
        message.writeUIntBE(message.length - 25, 14, 3);
        message.writeUIntBE(message.length - 25, 22, 3);
        message[10] = withCookie ? 2 : 1; // record sequence number
        message[18] = withCookie ? 1 : 0; // message_seq
        stranger.send(message);
        const alert = await stranger.inbox.next(2000);
        assert.deepEqual([alert?.[0], alert?.[13]], [21, 2], "a fatal alert");
        assert.equal(await stranger.inbox.next(100), undefined);
      }
      assert.equal(server.stats.associations, 0);
      assert.equal((await (await connect()).request({ code: "GET", path: CRTS })).code, "2.05");
    });

    it("goes on after datagrams of every kind of nonsense", async () => {
      const { port, plainPort, stats } = await start({ plain: 0 });
      const [dtls, plain] = [plainClient(port), plainClient(plainPort!)];
      const inside = await connect({ port });
      const good = encode(enroll(request(named("x"))));
      let seed = 1;
      const random = (below: number) => {
        seed = (seed * 48271) % 0x7fffffff;
        return seed % below;
      };
      for (let round = 0; round < 300; round++) {
        const noise = Uint8Array.from({ length: random(80) }, () => random(256));
        const mutated = Uint8Array.from(good.subarray(0, random(good.length + 1)));
        for (let changes = random(4); changes > 0 && mutated.length > 0; changes--) {
          mutated[random(mutated.length)] = random(256);
        }
        for (const bytes of [noise, mutated]) {
          dtls.send(bytes);
          dtls.send(Uint8Array.from([22, 254, 253, 0, 0, ...bytes]));
          plain.send(bytes);
          inside.sendRaw(bytes);
          if (bytes.length > 0) inside.send(bytes);
        }
        if (round % 20 === 0) await delay(1);
      }
      await delay(200);
      const last = await connect({ port });
      assert.equal((await last.request({ code: "GET", path: CRTS })).code, "2.05");
      assert.equal((await plainClient(plainPort!).request({ code: "GET", path: CRTS })).code, "2.05");
      assert.equal(inside.engine.state, EngineState.OPEN);
      assert.ok(stats.associations <= 2);
    });
  });

  describe("as a CoAP server", () => {
    let client: PlainClient;
    let plain: EstServer;

    beforeEach(async () => {
      plain = await start({ plain: 0 });
      client = plainClient(plain.plainPort!);
    });

    it("has a plain listener that takes the subject of the request as it is, for sren too", async () => {
      for (const path of [SEN, SREN]) {
        const response = await client.request({ ...enroll(request(named("behind a terminator"))), path });
        assert.equal(response.code, "2.04");
      }
      assert.equal((await client.request({ code: "GET", path: CRTS })).code, "2.05");
    });

    it("processes a message ID once, and answers its repetition with the same bytes", async () => {
      const datagram = encode(enroll(request(named("once"))));
      client.send(datagram);
      const first = await client.inbox.next(5000);
      client.send(datagram);
      const second = await client.inbox.next(5000);
      assert.deepEqual(second, first);
      assert.equal(plain.stats.issued, 1);
    });

    it("processes a repetition that comes before the answer once, and answers it once", async () => {
      const datagram = encode(enroll(request(named("once"))));
      client.send(datagram);
      client.send(datagram);
      assert.equal(parse((await client.inbox.next(5000))!).code, "2.04");
      await client.inbox.next(300);
      assert.equal(plain.stats.issued, 1);
    });

    it("assembles a request from blocks and serves the response in blocks", async () => {
      for (const size of [16, 64, 256, 1024]) {
        const response = await client.transfer(
          { ...enroll(request(named(`size ${size}`))), accept: CERTIFICATE },
          size,
        );
        assert.equal(response.code, "2.04");
        assert.deepEqual(namesOf(response.payload).subject, named(`size ${size}`));
      }
      assert.equal(plain.stats.issued, 4);
      const crts = await client.transfer({ code: "GET", path: CRTS }, 32);
      assert.equal(certificatesOf(crts.payload).length, 2);
    });

    it("says with the first block how many bytes there are, and with each of a GET which version", async () => {
      const whole = (await client.request({ code: "GET", path: CRTS })).payload;
      const first = await client.request({ code: "GET", path: CRTS, block2: [0, false, 64] });
      assert.deepEqual(blockOf(first, "Block2"), [0, true, 64]);
      assert.equal(option(first, "Size2"), whole.length);
      const second = await client.request({ code: "GET", path: CRTS, block2: [1, false, 64] });
      assert.equal(option(second, "Size2"), undefined);
      assert.equal(option(second, "ETag"), option(first, "ETag"));
      assert.deepEqual(second.payload, whole.subarray(64, 128));
    });

    it("lets the client make blocks smaller on the way", async () => {
      const whole = (await client.request({ code: "GET", path: CRTS })).payload;
      await client.request({ code: "GET", path: CRTS, block2: [0, false, 256] });
      const smaller = await client.request({ code: "GET", path: CRTS, block2: [8, false, 32] });
      assert.deepEqual(blockOf(smaller, "Block2"), [8, true, 32]);
      assert.deepEqual(smaller.payload, whole.subarray(256, 288));
    });

    it("keeps the blocks of two responses of one resource apart by their tokens", async () => {
      const ask = async (name: string, token: string) =>
        await client.request({ ...enroll(request(named(name))), token, accept: CERTIFICATE, block2: [0, false, 128] });
      const parts = new Map<string, Buffer[]>();
      for (const [name, token] of [
        ["first", "aa"],
        ["second", "bb"],
      ] as const) {
        parts.set(token, [(await ask(name, token)).payload]);
      }
      for (const [name, token] of [
        ["first", "aa"],
        ["second", "bb"],
      ] as const) {
        let more = true;
        for (let number = 1; more; number++) {
          const message = { code: "POST", path: SEN, contentFormat: PKCS10, accept: CERTIFICATE, token };
          const response = await client.request({ ...message, block2: [number, false, 128] });
          parts.get(token)!.push(response.payload);
          more = blockOf(response, "Block2")![1];
        }
        assert.deepEqual(namesOf(Buffer.concat(parts.get(token)!)).subject, named(name));
      }
    });

    it("asks for its own block size where it is the smaller one, both ways", async () => {
      const { plainPort } = await start({ plain: 0, blockSize: 64 });
      const small = plainClient(plainPort!);
      const csr = request(named("small blocks"));
      const post = { ...enroll(csr), token: "77" };
      const unblocked = await small.request(post);
      assert.equal(unblocked.code, "4.13");
      assert.deepEqual(blockOf(unblocked, "Block1"), [0, false, 64]);
      const first = await small.request({ ...post, payload: csr.subarray(0, 128), block1: [0, true, 128] });
      assert.equal(first.code, "2.31");
      assert.deepEqual(blockOf(first, "Block1"), [0, true, 64]);
      const next = await small.request({ ...post, payload: csr.subarray(128, 192), block1: [2, true, 64] });
      assert.equal(next.code, "2.31");
      const last = await small.request({ ...post, payload: csr.subarray(192), block1: [3, false, 64] });
      assert.equal(last.code, "2.04");
      assert.deepEqual(blockOf(last, "Block2"), [0, true, 64]);
      const larger = await small.request({ code: "GET", path: CRTS, block2: [0, false, 1024] });
      assert.deepEqual(blockOf(larger, "Block2"), [0, true, 64]);
    });

    it("refuses blocks out of order, of another token, resource or format", async () => {
      const csr = request(named("x"));
      const post = { ...enroll(csr), token: "11" };
      const first = { ...post, payload: csr.subarray(0, 64), block1: [0, true, 64] as const };
      const second = { ...post, payload: csr.subarray(64, 128), block1: [1, true, 64] as const };
      const cases = [
        { ...second, block1: [2, true, 64] as const },
        { ...second, token: "12" },
        { ...second, path: SREN },
        { ...second, contentFormat: 42 },
      ];
      for (const wrong of cases) {
        assert.equal((await client.request(first)).code, "2.31");
        assert.equal((await client.request(wrong)).code, "4.08", JSON.stringify(wrong.block1));
      }
      assert.equal((await client.request({ ...second, token: "99" })).code, "4.08");
      assert.equal(plain.stats.issued, 0);
    });

    it("answers blocks that cannot be with 4.00", async () => {
      const path = { code: "GET", path: CRTS };
      const reserved = { name: "Block2", value: Buffer.from([7]) };
      assert.equal((await client.request({ ...path, options: [reserved] })).code, "4.00");
      assert.equal((await client.request({ ...path, block2: [100, false, 1024] })).code, "4.00");
      const short = { ...enroll(new Uint8Array(63)), block1: [0, true, 64] as const };
      assert.equal((await client.request(short)).code, "4.00");
      const both = { ...enroll(new Uint8Array(64)), block1: [0, true, 64] as const, block2: [1, false, 64] as const };
      assert.equal((await client.request(both)).code, "4.00");
      const unknown = { code: "POST", path: SEN, block2: [1, false, 64] as const };
      assert.equal((await client.request(unknown)).code, "4.08");
    });

    it("refuses a request that is too large, as soon as it says so, and says how large it may be", async () => {
      const post = { ...enroll(new Uint8Array(1024)), token: "22" };
      const told = await client.request({
        ...post,
        block1: [0, true, 1024],
        options: [{ name: "Size1", value: uint(9000) }],
      });
      assert.equal(told.code, "4.13");
      assert.equal(option(told, "Size1"), 8192);
      for (let number = 0; number < 8; number++) {
        assert.equal((await client.request({ ...post, block1: [number, true, 1024] })).code, "2.31");
      }
      const ninth = await client.request({ ...post, block1: [8, true, 1024] });
      assert.equal(ninth.code, "4.13");
      assert.equal(option(ninth, "Size1"), 8192);
    });

    it("answers a ping, a response and a malformed message with a reset, where they are confirmable", async () => {
      const resets = [
        Buffer.from("40001234", "hex"), // ping
        Buffer.from("404512341111", "hex"), // 2.05 that nobody asked for
        Buffer.from("40e01234", "hex"), // reserved class 7
        Buffer.from("49011234000000000000000000", "hex"), // token of 9 bytes
        Buffer.from("40011234ff", "hex"), // payload marker without payload
        Buffer.from("40011234b5aa", "hex"), // option longer than the message
        Buffer.from("40011234f0", "hex"), // option delta 15
        Buffer.from("4000123400", "hex"), // empty message that is not
      ];
      for (const datagram of resets) {
        const answer = await client.exchange(datagram);
        assert.deepEqual(
          [answer.reset, answer.code, answer.messageId],
          [true, "0.00", 0x1234],
          datagram.toString("hex"),
        );
        client.send(Buffer.from([datagram[0]! | 0x10, ...datagram.subarray(1)])); // non-confirmable
      }
      for (const ignored of ["", "40", "80011234", "60001234", "70001234"]) client.send(Buffer.from(ignored, "hex"));
      assert.equal(await client.inbox.next(200), undefined);
    });

    it("answers a non-confirmable request with a non-confirmable response, and ignores one with an unknown option", async () => {
      const response = await client.request({ code: "GET", path: CRTS, confirmable: false, messageId: 77 });
      assert.equal(response.code, "2.05");
      assert.deepEqual([response.confirmable, response.ack, response.reset], [false, false, false]);
      client.send(encode({ code: "GET", path: CRTS, confirmable: false, messageId: 77 }));
      const critical = [{ name: "2049", value: Buffer.alloc(0) }];
      client.send(encode({ code: "GET", path: CRTS, confirmable: false, options: critical }));
      assert.equal(await client.inbox.next(200), undefined);
    });
  });

  describe("when a response takes long", () => {
    interface Peer {
      sent: ParsedPacket[];
      send(datagram: Uint8Array): void;
    }
    let answer: (response: CoAPResponse) => void;
    let calls: CoAPRequest<Peer>[];
    let slow: CoAPServer<Peer>;
    let peer: Peer;

    beforeEach(() => {
      calls = [];
      const sent: ParsedPacket[] = [];
      peer = { sent, send: (datagram) => sent.push(parse(Buffer.from(datagram))) };
      slow = new CoAPServer<Peer>({
        patience: 20,
        ackTimeout: 40,
        handler: (request) => {
          calls.push(request);
          return new Promise((resolve) => {
            answer = resolve;
          });
        },
      });
    });
    afterEach(() => slow.close());

    const get = encode({ code: "GET", path: "slow", messageId: 5, token: "abcd" });

    it("acknowledges the request, and sends the response apart until that is acknowledged", async () => {
      slow.receive(peer, get);
      await delay(40);
      assert.deepEqual(
        peer.sent.map(({ ack, code, messageId, token }) => [ack, code, messageId, token.length]),
        [[true, "0.00", 5, 0]],
      );
      slow.receive(peer, get);
      assert.deepEqual([peer.sent[1]!.ack, peer.sent[1]!.code], [true, "0.00"]);
      answer({ code: "2.05", payload: new Uint8Array(2000), contentFormat: 42 });
      await delay(10);
      const response = peer.sent[2]!;
      assert.deepEqual([response.confirmable, response.code, response.token.toString("hex")], [true, "2.05", "abcd"]);
      assert.deepEqual(blockOf(response, "Block2"), [0, true, 1024]);
      await delay(80);
      assert.equal(peer.sent[3]?.messageId, response.messageId, "sent again");
      slow.receive(peer, generate({ code: "0.00", ack: true, messageId: response.messageId }));
      const before = peer.sent.length;
      await delay(300);
      assert.equal(peer.sent.length, before);
      assert.equal(calls.length, 1);
    });

    it("gives up after four retransmissions", async function () {
      this.timeout(5000);
      slow.receive(peer, get);
      await delay(40);
      answer({ code: "2.05" });
      await delay(2200);
      assert.equal(peer.sent.length, 1 + 1 + 4);
    });

    it("says nothing to a peer that went away meanwhile", async () => {
      slow.receive(peer, get);
      slow.forget(peer);
      answer({ code: "2.05" });
      await delay(50);
      assert.equal(peer.sent.filter(({ code }) => code === "2.05").length, 0);
    });

    it("answers 5.00 where the handler fails, and goes on", async () => {
      const failing = new CoAPServer<Peer>({
        handler: () => {
          throw new Error("out of ink");
        },
      });
      failing.receive(peer, get);
      await delay(10);
      assert.equal(peer.sent[0]!.code, "5.00");
      assert.match(text(peer.sent[0]!), /out of ink/);
    });
  });

  describe("as a CA kept in a directory", () => {
    const hashes = (folder: string) =>
      readdirSync(folder).map((name) => [
        name,
        createHash("sha256")
          .update(readFileSync(join(folder, name)))
          .digest("hex"),
      ]);

    it("is the same at the next start, and knows the devices of the first", async () => {
      const folder = join(dir, "kept");
      const first = await startEstServer({ dir: folder });
      await first.close();
      const before = hashes(folder);
      const second = await startEstServer({ dir: folder });
      open.push(second);
      assert.deepEqual(hashes(folder), before);
      assert.deepEqual(second.ca.root, first.ca.root);
      assert.deepEqual(second.ca.factory, first.ca.factory);
      const options = { port: second.port, anchor: first.ca.root };
      const factory = await connect({ ...options, identity: first.ca.factory });
      const response = await factory.request({ ...enroll(request(named("again"))), accept: CERTIFICATE });
      assert.equal(response.code, "2.04");
      assert.ok(new X509Certificate(response.payload).verify(new X509Certificate(first.ca.issuing).publicKey));
    });

    it("is written so that openssl reads it, and keys are their owner's alone", async () => {
      const folder = join(dir, "written");
      await ca.save(folder);
      const path = (name: string) => join(folder, name);
      for (const name of readdirSync(folder)) {
        const secret = name.endsWith(".key");
        assert.equal(statSync(path(name)).mode & 0o777, secret ? 0o600 : 0o644, name);
      }
      assert.match(openssl("verify", "-CAfile", path("factory-ca.pem"), path("factory.pem")), /OK/);
      assert.match(
        openssl("x509", "-in", path("factory.pem"), "-noout", "-subject"),
        /CN = torpor-dev, serialNumber = 0001/,
      );
      assert.deepEqual(Uint8Array.from(readFileSync(path("ca.der"))), ca.root);
      assert.equal(readFileSync(path("factory.pem"), "latin1").match(/BEGIN CERTIFICATE/g)?.length, 2);
      const inKey = openssl("pkey", "-in", path("factory.key"), "-pubout");
      assert.equal(inKey, openssl("x509", "-in", path("factory.pem"), "-noout", "-pubkey"));
      for (const der of [ca.root, ca.issuing, ca.factoryCA, ca.factory.chain[0]!]) {
        assert.ok(der.length < 500, `${der.length} bytes`);
      }
    });

    it("is not opened where a file is corrupt, missing or another's, and nothing is overwritten", async () => {
      const other = join(dir, "other");
      await (await DevelopmentCA.create()).save(other);
      const names = readdirSync(other);
      assert.equal(names.length, 9);
      for (const name of names) {
        for (const damage of ["cut", "removed", "another's"]) {
          const folder = mkdtempSync(join(dir, "damaged-"));
          await ca.save(folder);
          const path = join(folder, name);
          if (damage === "cut") writeFileSync(path, readFileSync(path).subarray(0, 100));
          if (damage === "removed") unlinkSync(path);
          if (damage === "another's") writeFileSync(path, readFileSync(join(other, name)));
          const before = hashes(folder);
          await assert.rejects(DevelopmentCA.load(folder), (error: Error) => {
            assert.ok(error instanceof CAError, `${name} ${damage}: ${error.stack}`);
            assert.doesNotMatch(error.message, /\n/);
            return true;
          });
          assert.deepEqual(hashes(folder), before);
        }
      }
      for (const pair of ["issuing-ca", "factory"]) {
        const folder = mkdtempSync(join(dir, "damaged-"));
        await ca.save(folder);
        for (const name of [`${pair}.pem`, `${pair}.key`]) {
          writeFileSync(join(folder, name), readFileSync(join(other, name)));
        }
        await assert.rejects(DevelopmentCA.load(folder), /not issued by the CA above it/);
      }
      await assert.rejects(ca.save(other), CAError);
    });

    it("changes its root key when it is told to, and knows that at the next start", async () => {
      const folder = join(dir, "rolled");
      await (await DevelopmentCA.create()).save(folder);
      const before = await DevelopmentCA.load(folder);
      const { certificate, privateKey } = await before!.issueWithKey(request(named("before")), { lifetime: 600 });
      const enrolled = { chain: [certificate, before!.issuing], keyPkcs8: privateKey };
      for (const rollover of ["now", undefined] as const) {
        const rolled = await startEstServer({ dir: folder, ...(rollover && { rollover }) });
        open.push(rolled);
        assert.notDeepEqual(rolled.ca.root, before!.root);
        const [root, issuing, oldWithOld, oldWithNew, newWithOld] = rolled.ca.certificates.map(
          (der) => new X509Certificate(der),
        );
        assert.equal(rolled.ca.certificates.length, 5);
        assert.deepEqual(Uint8Array.from(oldWithOld!.raw), before!.root);
        assert.ok(issuing!.verify(root!.publicKey) && oldWithNew!.verify(root!.publicKey));
        assert.ok(newWithOld!.verify(oldWithOld!.publicKey));
        assert.deepEqual(newWithOld!.publicKey.export({ format: "jwk" }), root!.publicKey.export({ format: "jwk" }));
        // Devices that were enrolled before are known still; the server is verified by either root.
        for (const anchor of [before!.root, rolled.ca.root]) {
          const client = await connect({ port: rolled.port, anchor, identity: enrolled });
          assert.equal((await client.request({ code: "GET", path: CRTS })).code, "2.05");
        }
      }
    });

    it("issues identities to more devices of the factory", async () => {
      const client = await connect({ identity: await ca.issueFactory({ serialNumber: "4711" }) });
      assert.equal((await client.request(enroll(request(named("device 4711"))))).code, "2.04");
    });

    it("refuses by itself a request that is none", async () => {
      await assert.rejects(ca.issueFromRequest(none, { lifetime: 60 }), RequestError);
      assert.throws(() => children(Uint8Array.of(0x30, 0x80, 0, 0)), /indefinite/);
    });
  });

  describe("as a command", () => {
    const command = ["--import", "./test/register.mjs", "tools/est-server/main.ts"];
    const run = async (args: string[]) => {
      const child = spawn(process.execPath, [...command, ...args]);
      const printed = { stdout: "", stderr: "" };
      child.stdout.on("data", (chunk) => {
        printed.stdout += chunk;
      });
      child.stderr.on("data", (chunk) => {
        printed.stderr += chunk;
      });
      const [status] = await once(child, "close");
      return { status, ...printed };
    };

    it("says what it wrote and how to go on, logs each request, and ends with status 0 when it is told to", async () => {
      const folder = join(dir, "command line");
      const child = spawn(process.execPath, [
        ...command,
        "--port",
        "0",
        "--plain",
        "0",
        "--out",
        folder,
        "--lifetime",
        "60s",
      ]);
      let printed = "";
      child.stdout.on("data", (chunk) => {
        printed += chunk;
      });
      while (!/--state/.test(printed)) await once(child.stdout, "data");
      assert.match(printed, /for development/);
      const [, port] = /npx torpor crts --server coaps:\/\/127\.0\.0\.1:(\d+) --trust '.*ca\.pem'/.exec(printed)!;
      const kept = (await DevelopmentCA.load(folder))!;
      const client = await connect({ port: Number(port), anchor: kept.root, identity: kept.factory });
      const response = await client.request({ ...enroll(request(named("x"))), accept: CERTIFICATE });
      const lines = printed.split("\n");
      assert.match(
        lines.at(-2)!,
        new RegExp(
          `^\\d\\d:\\d\\d:\\d\\d\\.\\d{3} 127\\.0\\.0\\.1:${client.port} POST /${SEN} 2\\.04 ${response.payload.length} B full$`,
        ),
      );
      child.kill("SIGTERM");
      assert.deepEqual(await once(child, "exit"), [0, null]);
    });

    it("ends with status 1 and one line that says what is wrong", async () => {
      const locked = file("locked", "");
      chmodSync(locked, 0o400);
      const out = ["--out", "OUT"];
      const cases: [string[], RegExp][] = [
        [[], /--out DIR is needed/],
        [["--colour"], /--colour/],
        [["--out"], /--out/],
        [[...out, "now"], /now/],
        [[...out, "--port", "70000"], /port from 0 to 65535/],
        [[...out, "--lifetime", "90"], /90d/],
        [[...out, "--block", "100"], /after --block/],
        [[...out, "--attributes", "all"], /after --attributes/],
        [[...out, "--misbehave", "well"], /expected what --help lists after --misbehave, not "well"/],
        [[...out, "--busy", "very"], /number after --busy/],
        [[...out, "--root", "est"], /after --root/],
        [[...out, "--delay", "long"], /90d/],
        [["--out", join(locked, "x"), "--port", "0"], /cannot be|ENOTDIR/],
        [[...out, "--host", "203.0.113.1", "--port", "0"], /no address of this machine/],
        [[...out, "--port", String(server.port)], /is in use/],
        [[...out, "--port", "0", "--plain", String(server.port)], /is in use/],
      ];
      const check = async ([given, expected]: [string[], RegExp]) => {
        // They run side by side, and two servers must not make a CA in one directory.
        const args = given.map((arg) => (arg === "OUT" ? mkdtempSync(join(dir, "out-")) : arg));
        const { status, stdout, stderr } = await run(args);
        assert.equal(status, 1, args.join(" "));
        assert.match(stderr, expected);
        assert.match(stderr, /^est-server: [^\n]+\n$/, args.join(" "));
        assert.equal(stdout, "");
      };
      for (let at = 0; at < cases.length; at += 4) await Promise.all(cases.slice(at, at + 4).map(check));
      assert.match((await run(["--help"])).stdout, /--no-tickets/);
    }).timeout(60_000);
  });
});

// Kept out of the way of the formatter: a Block option's value as RFC 7959 section 2.2 has it.
describe("the client of these tests", () => {
  it("encodes blocks as RFC 7959 does", () => {
    assert.equal(block([0, false, 16]).toString("hex"), "");
    assert.equal(block([1, true, 64]).toString("hex"), "1a");
    assert.equal(block([300, false, 1024]).toString("hex"), "12c6");
  });
});
