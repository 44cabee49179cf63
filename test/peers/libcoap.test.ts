/** Against libcoap's servers over OpenSSL and GnuTLS, which serve a body and resume nothing. */

import { strict as assert } from "node:assert";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { certsOnly } from "../../tools/est-server/ca.js";
import { Relay } from "../../tools/relay.js";
import { TestCA, writeCertificates, writeIdentity } from "../support/certificates.js";
import { newFolder, type WakeLine, wakeLine } from "../support/command.js";
import { type Peer, startCoapServer } from "../support/peers.js";
import { caCertificates } from "../vectors/rfc9148.js";

/** RFC 6347 section 4.1 */
const APPLICATION_DATA = 23;

for (const library of ["openssl", "gnutls"] as const) {
  describe(`a device against coap-server-${library}`, () => {
    const folder = newFolder();
    let args: string[];
    let bodies: { small: string; large: string };
    let files: { certificate: string; key: string; clientCA: string };
    let peer: Peer | undefined;
    let relay: Relay | undefined;

    before(async () => {
      const ca = await TestCA.create();
      const server = await ca.issue({ subject: "CN=libcoap", addresses: ["127.0.0.1"] });
      const device = writeIdentity(folder, "device", await ca.issue({ subject: "CN=device", usage: "client" }));
      files = { ...writeIdentity(folder, "server", server), clientCA: writeCertificates(folder, "ca", [ca.root]) };
      args = ["--trust", files.clientCA, "--cert", device.certificate, "--key", device.key];
      bodies = { small: join(folder, "small.p7"), large: join(folder, "large.p7") };
      writeFileSync(bodies.small, caCertificates);
      const many = await Promise.all(Array.from({ length: 10 }, (_, at) => TestCA.create(`CN=Root ${at} of many`)));
      writeFileSync(bodies.large, certsOnly(many.map(({ root }) => root)));
    });

    afterEach(async () => {
      relay?.close();
      relay = undefined;
      await peer?.stop();
    });

    async function serve(file: string): Promise<void> {
      peer = await startCoapServer(library, files, { path: "/.well-known/est/crts", file, format: 281 });
      relay = await Relay.to(peer.port);
    }

    const crts = (...more: readonly string[]): Promise<WakeLine> =>
      wakeLine("crts", "--server", `coaps://127.0.0.1:${relay!.port}`, ...args, ...more);

    for (const size of ["small", "large"] as const) {
      for (const block of [64, 1024]) {
        it(`gets a ${size} certs-only body in blocks of ${block}, byte by byte, in as many exchanges as it has blocks`, async () => {
          const body = readFileSync(bodies[size]);
          assert.ok(size === "small" ? body.length === 638 : body.length >= 2500, `${body.length} bytes`);
          await serve(bodies[size]);
          const out = join(folder, "out.p7");
          const line = await crts("--block", String(block), "--out", out);
          assert.deepEqual(readFileSync(out), body);
          assert.equal(line.bytes, body.length);
          assert.equal(relay!.records(APPLICATION_DATA, "out"), Math.ceil(body.length / block));
          assert.equal(relay!.records(APPLICATION_DATA, "in"), Math.ceil(body.length / block));
        });
      }
    }

    for (const resume of ["session", "ticket", "none", undefined]) {
      it(`ends in one full handshake at every wake with --resume ${resume ?? "left out"}`, async () => {
        await serve(bodies.small);
        const more = ["--state", newFolder(), ...(resume ? ["--resume", resume] : [])];
        for (let wake = 1; wake <= 4; wake++) {
          const line = await crts(...more);
          assert.equal(line.wake, wake);
          assert.equal(line.way, "full");
          assert.equal(line.code, "2.05");
          assert.equal(line.bytes, 638);
        }
      });
    }

    it("is remembered as one that does not resume, so that the third wake tries nothing in vain", async () => {
      await serve(bodies.small);
      const more = ["--state", newFolder(), "--slots", "2", "--slot-bytes", "1536"];
      const tried: boolean[] = [];
      for (let wake = 1; wake <= 6; wake++) {
        tried.push((await crts(...more)).notes.some((note) => /resum|gave no/.test(note)));
      }
      assert.deepEqual(tried.slice(4), [false, false], JSON.stringify(tried));
    });
  });
}
