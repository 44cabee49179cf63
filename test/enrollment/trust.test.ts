/** Which CA certificates become trust anchors: src/enrollment/trust.ts, against what the development CA and openssl make. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { joinBytes } from "../../src/bytes.js";
import { IdentityError } from "../../src/enrollment/identity.js";
import { anchorsOf, isRegistrationAuthority, leadsTo } from "../../src/enrollment/trust.js";
import { isTrusted } from "../../src/pki/key.js";
import { readCertsOnly } from "../../src/pki/pkcs7.js";
import { DevelopmentCA } from "../../tools/est-server/ca.js";
import { TestCA, writeCertificates } from "../support/certificates.js";
import { newFolder } from "../support/command.js";
import { caCertificates } from "../vectors/rfc9148.js";

const NAMES = { dnsNames: ["localhost"], addresses: ["127.0.0.1"] };

describe("trust anchors", () => {
  let old: DevelopmentCA;
  let next: DevelopmentCA;
  /** By their names in RFC 4210, section 4.4. */
  let oldWithOld: Uint8Array;
  let oldWithNew: Uint8Array;
  let newWithOld: Uint8Array;
  let newWithNew: Uint8Array;
  let issuing: Uint8Array;

  before(async () => {
    let time = Date.now() - 365 * 86400_000;
    old = await DevelopmentCA.create({ clock: () => time });
    time = Date.now(); // the new root expires a year later
    next = await old.rollOver();
    [newWithNew, issuing, oldWithOld, oldWithNew, newWithOld] = next.certificates as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
  });

  it("are the self-issued ones, and all where there is none", () => {
    assert.deepEqual(anchorsOf(old.certificates), [old.root]);
    assert.deepEqual(anchorsOf([old.issuing]), [old.issuing]);
    assert.deepEqual(anchorsOf(readCertsOnly(caCertificates)), readCertsOnly(caCertificates));
    assert.deepEqual(anchorsOf([old.issuing, old.root, old.factoryCA]), [old.root, old.factoryCA]);
  });

  it("are after a rollover the new root, and the old key by OldWithNew, in whatever order they come", () => {
    for (const order of [
      [newWithNew, issuing, oldWithOld, oldWithNew, newWithOld],
      [newWithOld, oldWithNew, oldWithOld, issuing, newWithNew],
      [oldWithNew, newWithOld, newWithNew],
    ]) {
      const anchors = anchorsOf(order);
      assert.equal(anchors.length, 2);
      assert.deepEqual([...anchors].sort(Buffer.compare), [newWithNew, oldWithNew].sort(Buffer.compare));
    }
    assert.deepEqual(anchorsOf([newWithNew, newWithOld, oldWithOld]).includes(newWithOld), false);
  });

  it("of a rollover are certificates that openssl verifies by each other", () => {
    const folder = newFolder();
    const write = (name: string, ...certificates: Uint8Array[]) => writeCertificates(folder, name, certificates);
    const verify = (anchor: Uint8Array, untrusted: Uint8Array | undefined, certificate: Uint8Array) =>
      execFileSync(
        "openssl",
        [
          ...["verify", "-CAfile", write("anchor", anchor)],
          ...(untrusted === undefined ? [] : ["-untrusted", write("untrusted", untrusted)]),
          write("certificate", certificate),
        ],
        { encoding: "utf8" },
      );
    assert.match(verify(newWithNew, undefined, oldWithNew), /OK/);
    assert.match(verify(oldWithOld, undefined, newWithOld), /OK/);
    assert.match(verify(oldWithOld, newWithOld, issuing), /OK/);
    writeFileSync(join(folder, "root.der"), newWithNew);
    assert.match(
      execFileSync("openssl", ["x509", "-inform", "DER", "-in", join(folder, "root.der"), "-noout", "-text"], {
        encoding: "utf8",
      }),
      /CA:TRUE/,
    );
  });

  it("do not count a certificate of the same names as signed by a root that did not sign it", async () => {
    const stranger = await (await DevelopmentCA.create()).rollOver();
    const [, , , foreignBridge] = stranger.certificates;
    assert.equal(isTrusted(foreignBridge!, newWithNew), false);
    assert.equal(isTrusted(oldWithNew, newWithNew), true);
    assert.ok(!anchorsOf([newWithNew, newWithOld, oldWithOld, foreignBridge!]).includes(newWithOld));
  });

  it("are refused where one is no CA", async () => {
    for (const wrong of [old.factory.chain[0]!, (await old.issueServer(NAMES)).chain[0]!]) {
      assert.throws(() => anchorsOf([wrong]), IdentityError);
    }
  });

  it("lead to a server, whose chain has its own certificate last, by way of what it gave", async () => {
    const server = await next.issueServer(NAMES);
    // As the verification leaves it: the anchor first.
    const chain = joinBytes(oldWithOld, newWithOld, server.chain[1]!, server.chain[0]!);
    assert.ok(leadsTo(chain, [], [newWithNew]));
    assert.ok(leadsTo(chain, [], [oldWithOld]));
    assert.ok(leadsTo(server.chain[0]!, [issuing], [newWithNew]));
    assert.ok(!leadsTo(server.chain[0]!, [], [newWithNew]));
    assert.ok(!leadsTo(chain, next.certificates, [old.factoryCA]));
  });

  it("tell a registration authority by id-kp-cmcRA alone", async () => {
    const ra = await old.issueServer(NAMES);
    assert.ok(isRegistrationAuthority(joinBytes(old.root, old.issuing, ra.chain[0]!)));
    const plain = await old.issueServer({ ...NAMES, role: "server" });
    assert.ok(!isRegistrationAuthority(joinBytes(old.root, old.issuing, plain.chain[0]!)));
    assert.ok(!isRegistrationAuthority((await TestCA.create()).root), "no extendedKeyUsage at all");
  });
});
