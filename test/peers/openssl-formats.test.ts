/** What openssl's cms, pkcs7, pkcs8, req and verify say of what is made here, and what is made of what they make. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readCsrAttributes } from "../../src/est/csrattrs.js";
import { planRequest, requestAttributes } from "../../src/est/request.js";
import { parseCertificate } from "../../src/pki/certificate.js";
import { element } from "../../src/pki/der-writer.js";
import { certificateRequest, destroyKey, generateKey, importKey, isTrusted, publicKey } from "../../src/pki/key.js";
import { readCertsOnly } from "../../src/pki/pkcs7.js";
import { certsOnly, DevelopmentCA } from "../../tools/est-server/ca.js";
import { TestCA, writeCertificates } from "../support/certificates.js";
import { newFolder } from "../support/command.js";
import { caCertificates, enrollResponse, fromHex, serverKey, serverKeyCertificate } from "../vectors/rfc9148.js";

function openssl(args: readonly string[], input?: Uint8Array): string {
  return execFileSync("openssl", [...args], { input, encoding: "utf8", stdio: ["pipe", "pipe", "pipe"] });
}

/** The certificates in PEM text, DER. */
function certificatesIn(text: string): Buffer[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => Buffer.from(block.replace(/-----[^-]+-----/g, ""), "base64"));
}

describe("openssl and Torpor", () => {
  const folder = newFolder();
  const at = (name: string) => join(folder, name);

  it("read the same certificates out of certs-only PKCS #7, whoever has made it", async () => {
    const many = await Promise.all([1, 2, 3].map((number) => TestCA.create(`CN=Root ${number}`)));
    const file = writeCertificates(
      folder,
      "many",
      many.map(({ root }) => root),
    );
    const made = execFileSync("openssl", ["crl2pkcs7", "-nocrl", "-certfile", file, "-outform", "DER"]);
    const ours = certsOnly(many.map(({ root }) => root));
    for (const bytes of [new Uint8Array(made), ours, caCertificates, enrollResponse, serverKeyCertificate]) {
      const read = readCertsOnly(bytes).map((der) => Buffer.from(der).toString("hex"));
      for (const command of [["pkcs7"], ["cms", "-cmsout"]]) {
        const file = at("certs.pem");
        const print = command[0] === "pkcs7" ? ["-print_certs"] : ["-certsout", file, "-noout"];
        const text = openssl([...command, "-inform", "DER", ...print], bytes);
        const certificates = certificatesIn(command[0] === "pkcs7" ? text : readFileSync(file, "utf8"));
        assert.deepEqual(certificates.map((der) => der.toString("hex")).sort(), [...read].sort(), command.join(" "));
      }
    }
  });

  for (const curve of ["P-256", "P-384"]) {
    it(`agree on a PKCS #8 key on ${curve}: its public key is the same`, () => {
      const pem = openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", `ec_paramgen_curve:${curve}`]);
      const der = execFileSync("openssl", ["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], { input: pem });
      const key = importKey(0, new Uint8Array(der));
      const spki = execFileSync("openssl", ["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], { input: der });
      const point = publicKey(key);
      assert.deepEqual(Buffer.from(point), spki.subarray(-point.length));
      destroyKey(key);
    });
  }

  it("agree on the key of RFC 9148, A.3: it belongs to its certificate", () => {
    const key = importKey(0, serverKey);
    assert.deepEqual(publicKey(key), parseCertificate(readCertsOnly(serverKeyCertificate)[0]!).publicKey);
    const text = openssl(["pkcs8", "-inform", "DER", "-nocrypt"], serverKey);
    const spki = execFileSync("openssl", ["pkey", "-pubout", "-outform", "DER"], { input: text });
    assert.deepEqual(Buffer.from(publicKey(key)), spki.subarray(-65));
    destroyKey(key);
  });

  it("agree on a request with tls-unique and extensions: signature, subject, attributes", () => {
    const own = readCertsOnly(enrollResponse)[0]!;
    const wishes = element(
      0x30,
      fromHex("06092a864886f70d010907"),
      element(
        0x30,
        fromHex("06092a864886f70d01090e"),
        element(0x31, fromHex("0603551d0f"), fromHex("0603551d11"), fromHex("0603551d25")),
      ),
    );
    const plan = planRequest(readCsrAttributes(wishes), own, "enrolment");
    for (const bits of [256, 384] as const) {
      const key = generateKey(0, bits);
      const attributes = requestAttributes(
        plan,
        Uint8Array.from({ length: 12 }, (_, index) => index),
      );
      const csr = certificateRequest(key, plan.subject, attributes);
      const text = openssl(["req", "-inform", "DER", "-verify", "-noout", "-text"], csr);
      assert.match(text, /challengePassword +:AAECAwQFBgcICQoL/);
      assert.match(text, /Digital Signature/);
      assert.match(text, /TLS Web Client Authentication/);
      assert.match(text, /Hardware Module Name|othername/i);
      assert.match(text, /O = example Inc, OU = IoT, serialNumber = Wt1234/);
      destroyKey(key);
    }
  });

  it("agree on which certificate leads to which trust anchor", async () => {
    const ca = await DevelopmentCA.create();
    const other = await DevelopmentCA.create({ name: "Another" });
    const { chain } = await ca.issueServer({ dnsNames: ["localhost"], addresses: [] });
    const [leaf, issuing] = [chain[0]!, chain[1]!];
    const both = (anchor: Uint8Array, ...untrusted: Uint8Array[]): [boolean, boolean] => {
      const files = { anchor: writeCertificates(folder, "anchor", [anchor]), leaf: at("leaf.pem") };
      writeFileSync(files.leaf, openssl(["x509", "-inform", "DER"], leaf));
      const more = untrusted.length > 0 ? ["-untrusted", writeCertificates(folder, "more", untrusted)] : [];
      let says = true;
      try {
        openssl(["verify", "-CAfile", files.anchor, ...more, files.leaf]);
      } catch {
        says = false;
      }
      return [says, isTrusted(Buffer.concat([leaf, ...untrusted]), anchor)];
    };
    assert.deepEqual(both(ca.root, issuing), [true, true]);
    assert.deepEqual(both(ca.root), [false, false]);
    assert.deepEqual(both(other.root, issuing), [false, false]);
    assert.deepEqual(both(ca.root, other.issuing), [false, false]);
  });
});
