/** The client engine against the server role, joined in one process: datagrams by hand, time by hand. */

import { strict as assert } from "node:assert";
import { dtlsHeap } from "../../hosts/node/native.js";
import { AlertError, CertificateError, DTLSError, Engine, EngineState, libraryVersion } from "../../src/dtls/engine.js";
import { TimeoutError } from "../../src/errors.js";
import { destroyKey, importKey, type KeyId, sha256 } from "../../src/pki/key.js";
import { parseAddress } from "../../src/session/address.js";
import { type ServerAssociation, ServerEngine, type ServerEngineOptions } from "../../tools/est-server/engine.js";
import { TestCA, type TestIdentity } from "../support/certificates.js";
import { ENGINE } from "../support/engine.js";

const buffer = new Uint8Array(2048);
const PEER = Uint8Array.of(1, 2, 3, 4);
const now = (): number => Math.floor(Date.now() / 1000);

/** Carries datagrams both ways until neither side has one; gives the lengths, outgoing positive. */
function carry(client: Engine, server: Engine, time = 1, pass: (index: number) => boolean = () => true): number[] {
  const lengths: number[] = [];
  const move = (from: Engine, to: Engine, sign: 1 | -1): boolean => {
    const length = from.take(buffer);
    if (length === 0) {
      return false;
    }
    lengths.push(sign * length);
    const datagram = buffer.slice(0, length);
    if (pass(lengths.length - 1)) {
      // The rule of order: nothing may wait to be taken before a receive.
      while (move(to, from, sign === 1 ? -1 : 1));
      to.receive(time, datagram);
    }
    return true;
  };
  while (move(client, server, 1) || move(server, client, -1));
  return lengths;
}

describe("the DTLS engine", () => {
  let ca: TestCA;
  let chainCA: TestCA;
  let serverIdentity: TestIdentity;
  let clientIdentity: TestIdentity;
  let clientKey: KeyId;
  const open: { free(): void }[] = [];
  const keys: KeyId[] = [];

  const keep = <T extends { free(): void }>(engine: T): T => {
    open.push(engine);
    return engine;
  };
  const keyOf = (identity: TestIdentity): KeyId => {
    const key = importKey(0, identity.pkcs8);
    keys.push(key);
    return key;
  };

  before(async () => {
    ca = await TestCA.create();
    chainCA = await TestCA.create("CN=Other root", "below");
    serverIdentity = await ca.issue({
      subject: "CN=est",
      dnsNames: ["est.example.net"],
      addresses: ["192.0.2.7", "2001:db8::7"],
    });
    clientIdentity = await ca.issue({ subject: "CN=device 1", usage: "client" });
    clientKey = importKey(0, clientIdentity.sec1);
  });

  after(() => destroyKey(clientKey));

  afterEach(() => {
    for (const engine of open.splice(0)) {
      engine.free();
    }
    for (const key of keys.splice(0)) {
      destroyKey(key);
    }
  });

  function newServer(options: Partial<ServerEngineOptions> = {}, identity = serverIdentity): ServerEngine {
    return keep(new ServerEngine({ trust: [ca.root], key: keyOf(identity), chain: identity.chain, ...options }));
  }

  function newClient(configure: (engine: Engine) => void = () => {}): Engine {
    const engine = keep(new Engine());
    engine.trust(ca.root);
    engine.identity(clientKey, clientIdentity.chain);
    engine.serverName("est.example.net");
    configure(engine);
    return engine;
  }

  /** A handshake to its end; the two ends of it. */
  function connect(
    server: ServerEngine,
    client: Engine,
    session?: Uint8Array,
    time = now(),
  ): { client: Engine; server: ServerAssociation; lengths: number[] } {
    const association = keep(server.accept(0, time, PEER));
    assert.equal(client.start(0, time, session), true);
    const lengths = carry(client, association);
    return { client, server: association, lengths };
  }

  it("makes a full handshake with CCM_8 and mutual certificates, and both ends have the same channel binding", () => {
    const { client, server } = connect(newServer(), newClient());
    assert.equal(client.state, EngineState.OPEN);
    assert.equal(server.state, EngineState.OPEN);
    const suite = client.protocol === "DTLS 1.3" ? "TLS_AES_128_CCM_8_SHA256" : "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8";
    assert.equal(client.cipherSuite, suite);
    assert.equal(client.resumed, false);
    assert.equal(client.timeChecked, true);
    assert.deepEqual(client.unique, server.unique);
    assert.deepEqual(server.peerDigest, sha256(clientIdentity.chain[0]!));
    assert.deepEqual(server.peerCertificate, clientIdentity.chain[0]);
  });

  it("carries messages both ways, and keeps their boundaries", () => {
    const { client, server } = connect(newServer(), newClient());
    client.write(Uint8Array.of(1, 2, 3));
    carry(client, server);
    assert.equal(server.readable, 3);
    assert.equal(server.read(buffer), 3);
    assert.deepEqual(buffer.slice(0, 3), Uint8Array.of(1, 2, 3));
    assert.equal(server.read(buffer), 0);
    server.write(new Uint8Array(1024).fill(7));
    carry(client, server);
    assert.equal(client.read(buffer), 1024);
  });

  it("cuts a message that is longer than the buffer, tells its length, and reads the next one", () => {
    const { client, server } = connect(newServer(), newClient());
    server.write(new Uint8Array(500).fill(5));
    carry(client, server);
    const short = new Uint8Array(100);
    assert.equal(client.read(short), 500);
    assert.deepEqual(short, new Uint8Array(100).fill(5));
    assert.equal(client.read(short), 0);
    server.write(new Uint8Array(50));
    carry(client, server);
    assert.equal(client.read(buffer), 50);
  });

  it("resumes by session id: two flights each way, the same keys' owner, another tls-unique", () => {
    const server = newServer({ protocol: "DTLS 1.2" });
    const first = connect(server, newClient());
    const session = first.client.session!;
    assert.equal(session.kind, "session");
    const again = connect(server, newClient(), session.data);
    assert.equal(again.client.resumed, true);
    assert.equal(again.client.timeChecked, false);
    assert.deepEqual(again.server.peerDigest, sha256(clientIdentity.chain[0]!));
    assert.equal(again.server.peerCertificate, undefined);
    assert.deepEqual(again.client.unique, again.server.unique);
    assert.notDeepEqual(again.client.unique, first.client.unique);
    const bytes = again.lengths.reduce((sum, length) => sum + Math.abs(length), 0);
    assert.ok(bytes <= 700, `${bytes} handshake bytes`);
  });

  it("resumes by ticket where that is offered, with the server's lifetime hint", () => {
    const server = newServer({ sessionIds: false });
    const offer = (engine: Engine): void => engine.offerTickets();
    const session = connect(server, newClient(offer)).client.session!;
    assert.equal(session.kind, "ticket");
    assert.equal(session.lifetime, 86400);
    assert.equal(connect(server, newClient(offer), session.data).client.resumed, true);
  });

  it("makes a full handshake where the server has lost the session", () => {
    const session = connect(newServer(), newClient()).client.session!;
    const { client } = connect(newServer(), newClient(), session.data);
    assert.equal(client.state, EngineState.OPEN);
    assert.equal(client.resumed, false);
  });

  it("refuses every truncated session and sessions of another build, and starts without them", () => {
    const { data } = connect(newServer(), newClient()).client.session!;
    const association = keep(newServer().accept(0, now(), PEER));
    const client = newClient();
    for (let length = 1; length < data.length; length++) {
      assert.equal(client.start(0, now(), data.subarray(0, length)), false, `${length} bytes`);
    }
    const other = Uint8Array.from(data);
    other[0]! ^= 1;
    assert.equal(client.start(0, now(), other), false);
    assert.equal(client.start(0, now()), true);
    carry(client, association);
    assert.equal(client.state, EngineState.OPEN);
  });

  // ---- names and addresses ----

  const refusedFor = (reason: RegExp, { client }: { client: Engine }): void => {
    assert.equal(client.state, EngineState.FAILED);
    assert.ok(client.failure instanceof CertificateError);
    assert.match(client.failure.message, reason);
  };

  it("refuses a server whose certificate carries another DNS name", () => {
    refusedFor(
      /name or address/,
      connect(
        newServer(),
        newClient((engine) => engine.serverName("other.example.net")),
      ),
    );
  });

  for (const address of ["192.0.2.7", "2001:db8::7"]) {
    it(`accepts the address ${address} among the certificate's iPAddress names, and sends no SNI`, () => {
      const bytes = parseAddress(address);
      const client = newClient((engine) => engine.serverAddress(address.includes(":") ? bytes : bytes.subarray(12)));
      const association = keep(newServer().accept(0, now(), PEER));
      client.start(0, now());
      const hello = buffer.slice(0, client.take(buffer));
      association.receive(1, hello);
      carry(client, association);
      assert.equal(client.state, EngineState.OPEN);
      // The extension server_name has the number 0: in a hello with it the name is there in clear.
      assert.ok(!Buffer.from(hello).includes("192.0.2.7") && !Buffer.from(hello).includes("example"));
    });
  }

  it("sends the DNS name as SNI", () => {
    const client = newClient();
    client.start(0, now());
    assert.ok(Buffer.from(buffer.slice(0, client.take(buffer))).includes("est.example.net"));
  });

  for (const address of ["192.0.2.8", "2001:db8::8"]) {
    it(`refuses a server whose certificate does not carry the address ${address}`, () => {
      const bytes = parseAddress(address);
      refusedFor(
        /name or address/,
        connect(
          newServer(),
          newClient((engine) => engine.serverAddress(address.includes(":") ? bytes : bytes.subarray(12))),
        ),
      );
    });
  }

  it("does not take the subject's common name or a wildcard for the server's name", async () => {
    for (const dnsNames of [[], ["*.example.net"], ["other.example.net"]]) {
      const identity = await ca.issue({ subject: "CN=est.example.net", dnsNames });
      refusedFor(/name or address/, connect(newServer({}, identity), newClient()));
    }
    const upper = await ca.issue({ subject: "CN=est", dnsNames: ["EST.Example.NET"] });
    assert.equal(connect(newServer({}, upper), newClient()).client.state, EngineState.OPEN);
  });

  it("does not take a dNSName or a subject that spells the address for an iPAddress name", async () => {
    const identity = await ca.issue({ subject: "CN=192.0.2.7", dnsNames: ["192.0.2.7"] });
    refusedFor(
      /name or address/,
      connect(
        newServer({}, identity),
        newClient((engine) => engine.serverAddress(Uint8Array.of(192, 0, 2, 7))),
      ),
    );
  });

  // ---- trust and time ----

  it("refuses a server that no trust anchor leads to", async () => {
    const other = await TestCA.create("CN=Somebody else");
    const identity = await other.issue({ subject: "CN=est", dnsNames: ["est.example.net"] });
    refusedFor(/trust anchor/, connect(newServer({}, identity), newClient()));
  });

  it("refuses an expired server certificate, and one that is not yet valid", async () => {
    const hour = 3600_000;
    const names = { subject: "CN=est", dnsNames: ["est.example.net"] };
    const expired = await ca.issue({ ...names, notAfter: new Date(Date.now() - hour) });
    refusedFor(/expired/, connect(newServer({}, expired), newClient()));
    const early = await ca.issue({ ...names, notBefore: new Date(Date.now() + hour) });
    refusedFor(/not yet valid/, connect(newServer({}, early), newClient()));
  });

  it("cannot check validity times without a clock, goes on, and says so", async () => {
    const expired = await ca.issue({
      subject: "CN=est",
      dnsNames: ["est.example.net"],
      notAfter: new Date(Date.now() - 1000),
    });
    const client = newClient();
    const association = keep(newServer({}, expired).accept(0, now(), PEER));
    client.start(0, 0);
    carry(client, association);
    assert.equal(client.state, EngineState.OPEN);
    assert.equal(client.timeChecked, false);
  });

  it("judges a certificate by the second, in leap years and past 2050", async () => {
    const notBefore = new Date("2024-02-29T23:59:58Z");
    const notAfter = new Date("2052-03-01T00:00:01Z");
    const identity = await ca.issue({ subject: "CN=est", dnsNames: ["est.example.net"], notBefore, notAfter });
    const key = keyOf(identity);
    const stateAt = (seconds: number): number => {
      const client = newClient();
      const server = keep(new ServerEngine({ trust: [ca.root], key, chain: identity.chain }));
      const association = keep(server.accept(0, 0, PEER));
      client.start(0, seconds);
      carry(client, association);
      return client.state;
    };
    const from = notBefore.getTime() / 1000;
    const to = notAfter.getTime() / 1000;
    assert.deepEqual([from - 1, from, to, to + 1].map(stateAt), [
      EngineState.FAILED,
      EngineState.OPEN,
      EngineState.OPEN,
      EngineState.FAILED,
    ]);
  });

  it("refuses a key that does not belong to the certificate", async () => {
    const other = await ca.issue({ subject: "CN=device 2", usage: "client" });
    const engine = keep(new Engine());
    assert.throws(() => engine.identity(keyOf(other), clientIdentity.chain), CertificateError);
  });

  it("will not start without a trust anchor", () => {
    const engine = keep(new Engine());
    engine.identity(clientKey, clientIdentity.chain);
    engine.serverName("est.example.net");
    assert.throws(() => engine.start(0, now()), DTLSError);
  });

  it("tells the alert by which a server refuses this device", async () => {
    const stranger = await (await TestCA.create("CN=Unknown")).issue({ subject: "CN=device", usage: "client" });
    const client = keep(new Engine());
    client.trust(ca.root);
    client.identity(keyOf(stranger), stranger.chain);
    client.serverName("est.example.net");
    connect(newServer(), client);
    assert.equal(client.state, EngineState.FAILED);
    assert.ok(client.failure instanceof AlertError);
    assert.match(client.failure.message, /unknown_ca|bad_certificate/);
  });

  // ---- datagrams and time ----

  it("cuts a flight with a two-certificate chain to fit the MTU", async () => {
    const identity = await chainCA.issue({ subject: "CN=est", dnsNames: ["est.example.net"] });
    const own = await chainCA.issue({ subject: "CN=device 1", usage: "client" });
    const client = keep(new Engine());
    client.trust(chainCA.root);
    client.identity(keyOf(own), own.chain);
    client.serverName("est.example.net");
    client.mtu = 300;
    const server = newServer({ trust: [chainCA.root] }, identity);
    const { lengths } = connect(server, client);
    assert.equal(client.state, EngineState.OPEN);
    const outgoing = lengths.filter((length) => length > 0);
    assert.ok(Math.max(...outgoing) <= 300, `${outgoing}`);
    assert.throws(() => client.write(new Uint8Array(300)), DTLSError);
  });

  it("retransmits after the first timer and twice that, by the caller's clock alone", () => {
    const client = newClient((engine) => engine.timers(9000, 60000));
    client.start(1000, now());
    const sent: number[] = [];
    for (let time = 1000; client.state === EngineState.HANDSHAKE; time = client.deadline ?? time) {
      client.elapse(time);
      while (client.take(buffer) > 0) {
        sent.push(time);
      }
    }
    assert.deepEqual(sent, [1000, 10000, 28000]);
    assert.ok(client.failure instanceof TimeoutError);
    assert.match(client.failure.message, /60 s/);
  });

  it("takes a clock that steps back, before the start too, for one that stands still", () => {
    const client = newClient((engine) => engine.timers(9000, 60000));
    const server = newServer();
    client.start(1000, now());
    assert.ok(client.take(buffer) > 0);
    for (const time of [0, 999]) {
      client.elapse(time);
      assert.deepEqual([client.state, client.take(buffer), client.deadline], [EngineState.HANDSHAKE, 0, 10000]);
    }
    client.elapse(10000);
    assert.ok(client.take(buffer) > 0);
    assert.equal(client.deadline, 28000);
    const association = keep(server.accept(10000, now(), PEER));
    client.receive(3, new Uint8Array(20));
    client.elapse(28000);
    carry(client, association, 5);
    assert.equal(client.state, EngineState.OPEN);
  });

  it("takes a datagram that comes when the timer is over already, before the host has said so", () => {
    const client = newClient((engine) => engine.timers(1000, 60000));
    const association = keep(newServer().accept(0, now(), PEER));
    client.start(0, now());
    association.receive(1, buffer.slice(0, client.take(buffer)));
    const answer = buffer.slice(0, association.take(buffer));
    client.receive(5000, answer);
    assert.ok(client.take(buffer) > 140, "the ClientHello with the cookie, not the first one again");
  });

  it("survives the loss of any one datagram of the handshake", () => {
    const server = newServer();
    const count = connect(server, newClient()).lengths.length;
    for (let lost = 0; lost < count; lost++) {
      const client = newClient();
      const association = keep(server.accept(0, now(), PEER));
      client.start(0, now());
      carry(client, association, 1, (index) => index !== lost);
      let time = 1;
      for (
        let turn = 0;
        turn < 20 && (client.state !== EngineState.OPEN || association.state !== EngineState.OPEN);
        turn++
      ) {
        time = Math.min(
          client.deadline ?? Number.MAX_SAFE_INTEGER,
          association.deadline ?? Number.MAX_SAFE_INTEGER,
          time + 60000,
        );
        client.elapse(time);
        carry(client, association, time);
        association.elapse(time);
        carry(client, association, time);
      }
      assert.equal(client.state, EngineState.OPEN, `datagram ${lost} of ${count} lost`);
      client.write(Uint8Array.of(1));
      carry(client, association, time);
      assert.equal(association.read(buffer), 1, `datagram ${lost} of ${count} lost`);
    }
  });

  it("drops doubled, foreign, truncated and empty datagrams without failing", () => {
    const { client, server } = connect(newServer(), newClient());
    server.write(Uint8Array.of(9));
    const datagram = buffer.slice(0, server.take(buffer));
    const damaged = Uint8Array.from(datagram);
    damaged[damaged.length - 1]! ^= 1;
    for (const bad of [new Uint8Array(), datagram.subarray(0, 20), damaged, new Uint8Array(40).fill(255)]) {
      client.receive(1, bad);
      assert.equal(client.take(buffer), 0);
      assert.equal(client.read(buffer), 0);
    }
    client.receive(1, datagram);
    assert.equal(client.read(buffer), 1);
    client.receive(1, datagram);
    assert.equal(client.read(buffer), 0, "a replayed record");
    assert.equal(client.state, EngineState.OPEN);
  });

  // Found by fuzzing the development server: the alert was taken, made anew and taken again, without end.
  // Found by an hour's soak: a server that was restarted, and a hello that came late, made two handshakes of one.
  it("says so where the flights of two handshakes of one server come mixed up", () => {
    const client = newClient();
    const server = newServer({ protocol: "DTLS 1.2" });
    const [first, second] = [keep(server.accept(0, now(), PEER)), keep(server.accept(0, now(), PEER))];
    const SERVER_KEY_EXCHANGE = 12;
    client.start(0, now());
    let sequence = 0;
    const give = (from: typeof first, isWanted: (message: number) => boolean): void => {
      for (let into = from.take(buffer); into > 0; into = from.take(buffer)) {
        for (let rest = buffer.slice(0, into); rest.length > 0; ) {
          const length = 13 + (rest[11]! << 8) + rest[12]!;
          const record = rest.slice(0, length);
          rest = rest.slice(length);
          record[10] = sequence++; // no record is taken for a copy of another one
          if (isWanted(record[13]!)) {
            client.receive(1, record);
          }
        }
      }
    };
    first.receive(1, buffer.slice(0, client.take(buffer)));
    give(first, () => true); // HelloVerifyRequest
    const hello = buffer.slice(0, client.take(buffer));
    first.receive(1, hello);
    second.receive(1, hello);
    give(first, (message) => message < SERVER_KEY_EXCHANGE);
    give(second, (message) => message >= SERVER_KEY_EXCHANGE);
    assert.equal(client.state, EngineState.FAILED);
    assert.match(
      client.failure.message,
      ENGINE === "wolfssl"
        ? /^the DTLS handshake failed: /
        : /^the DTLS handshake failed: the server's signature does not fit/,
    );
  });

  it("sends one alert for a ServerKeyExchange that ends after the point, and fails", () => {
    const client = newClient();
    const association = keep(newServer({ protocol: "DTLS 1.2" }).accept(0, now(), PEER));
    const SERVER_KEY_EXCHANGE = 12;
    const POINT_END = 13 + 12 + 4 + 65;
    client.start(0, now());
    let alerts = 0;
    for (let turn = 0; turn < 100; turn++) {
      const out = client.take(buffer);
      if (out > 0) {
        alerts += buffer[0] === 21 ? 1 : 0;
        association.receive(1, buffer.slice(0, out));
        continue;
      }
      const into = association.take(buffer);
      if (into === 0) {
        break;
      }
      // One engine sends several records in a datagram: each is given by itself.
      for (let rest = buffer.slice(0, into); rest.length > 0; ) {
        const length = 13 + (rest[11]! << 8) + rest[12]!;
        const record = rest.slice(0, length);
        rest = rest.slice(length);
        if (record[13] === SERVER_KEY_EXCHANGE) {
          const cut = record.slice(0, POINT_END + 1);
          const view = new DataView(cut.buffer);
          view.setUint16(11, cut.length - 13);
          view.setUint8(14, 0);
          view.setUint16(15, cut.length - 25);
          view.setUint8(22, 0);
          view.setUint16(23, cut.length - 25);
          client.receive(1, cut);
        } else {
          client.receive(1, record);
        }
      }
    }
    assert.equal(alerts, 1);
    assert.equal(client.state, EngineState.FAILED);
    assert.ok(client.failure instanceof DTLSError);
  });

  it("tells a client without a certificate that it is refused", () => {
    const client = keep(new Engine());
    client.trust(ca.root);
    client.serverName("est.example.net");
    connect(newServer(), client);
    assert.equal(client.state, EngineState.FAILED);
    assert.match(client.failure.message, /handshake_failure|certificate_required/);
  });

  it("ends by close_notify, which the other end sees", () => {
    const { client, server } = connect(newServer(), newClient());
    client.close();
    carry(client, server);
    assert.equal(server.state, EngineState.CLOSED);
    assert.throws(() => client.write(Uint8Array.of(1)), DTLSError);
  });

  // Found by the test of losses above: the 32 key slots of PSA ran out, and a good certificate was "not trusted".
  it("holds 60 associations at once", () => {
    const server = newServer();
    for (let i = 0; i < 60; i++) {
      assert.equal(connect(server, newClient()).client.state, EngineState.OPEN, `association ${i}`);
    }
  });

  it("gives back all memory", () => {
    connect(newServer(), newClient());
    for (const engine of open.splice(0)) {
      engine.free();
    }
    const before = dtlsHeap().now;
    for (let i = 0; i < 5; i++) {
      connect(newServer(), newClient());
      for (const engine of open.splice(0)) {
        engine.free();
      }
      for (const key of keys.splice(0)) {
        destroyKey(key);
      }
    }
    assert.ok(dtlsHeap().now <= before, `${before} bytes before, ${dtlsHeap().now} after`);
  });

  it("says what is wrong with what it is set up by, and goes on as if that had not been", () => {
    assert.match(libraryVersion(), /\d+\.\d+/);
    const client = newClient((engine) => {
      assert.throws(
        () => engine.serverAddress(new Uint8Array(5)),
        new DTLSError("expected an IP address of 4 or 16 bytes, not 5"),
      );
      assert.throws(
        () => engine.offerConnectionId(9),
        new DTLSError("expected a connection ID of 0 to 8 bytes, not 9"),
      );
      assert.equal(engine.session, undefined);
      assert.equal(engine.hasConnectionId, false);
      assert.throws(() => engine.unique, new DTLSError("a channel binding needs an open association"));
    });
    assert.throws(
      () => keep(new Engine()).start(0, now()),
      new DTLSError("no trust anchor: a server cannot be verified"),
    );
    const server = keep(newServer().accept(0, now(), PEER));
    client.start(0, now());
    assert.throws(
      () => client.take(new Uint8Array(20)),
      new DTLSError("a buffer of 20 bytes is shorter than the datagram"),
    );
    carry(client, server);
    assert.equal(client.state, EngineState.OPEN);
  });

  it("says of a server whose only certificate has a signature of an unknown kind that there is none", () => {
    const server = keep(newServer().accept(0, now(), PEER));
    const client = newClient((engine) => engine.versions("DTLS 1.2", "DTLS 1.2")); // whose certificates are in the clear
    client.start(0, now());
    const ecdsaWithSHA256 = Buffer.from("2a8648ce3d040302", "hex");
    for (let turn = 0; client.state === EngineState.HANDSHAKE && turn < 20; turn++) {
      for (let length = client.take(buffer); length > 0; length = client.take(buffer)) {
        server.receive(1, buffer.slice(0, length));
      }
      const flight = Buffer.from(buffer.slice(0, server.take(buffer)));
      for (let at = flight.indexOf(ecdsaWithSHA256); at >= 0; at = flight.indexOf(ecdsaWithSHA256)) {
        flight[at + 7] = 9;
      }
      client.receive(1, Uint8Array.from(flight));
    }
    assert.equal(client.state, EngineState.FAILED);
    assert.ok(client.failure instanceof CertificateError);
    assert.match(
      client.failure.message,
      /there is none, or only such as are signed with an algorithm that is not known/,
    );
  });

  it("throws for calls that no correct program makes, and does not crash", () => {
    const engine = new Engine();
    engine.free();
    assert.throws(() => engine.state, TypeError);
    assert.throws(() => engine.take(buffer), TypeError);
    assert.throws(() => Engine.prototype.take.call({} as Engine, buffer), TypeError);
    assert.throws(() => keep(new Engine()).receive(-1, buffer), TypeError);
    assert.throws(() => keep(new Engine()).receive(0, "text" as unknown as Uint8Array), TypeError);
    const detached = new Uint8Array(32);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    for (const gone of [detached, detached.buffer as unknown as Uint8Array]) {
      assert.throws(() => keep(new Engine()).receive(0, gone), TypeError);
      assert.throws(() => keep(new Engine()).take(gone), TypeError);
      assert.throws(() => sha256(gone), TypeError);
    }
    assert.throws(() => keep(new Engine()).serverName("a\0b"), TypeError);
    assert.throws(() => keep(new Engine()).serverName("x".repeat(300)), TypeError);
  });
});
