/** DTLS 1.3 (RFC 9147): the client engine over wolfSSL against its server role, joined in one process. */

import { strict as assert } from "node:assert";
import "../../hosts/node/native.js";
import { CertificateError, DTLSError, Engine, EngineState, type ResumableSession } from "../../src/dtls/engine.js";
import { destroyKey, importKey, type KeyId, sha256 } from "../../src/pki/key.js";
import { type ServerAssociation, ServerEngine, type ServerEngineOptions } from "../../tools/est-server/engine.js";
import { TestCA, type TestIdentity } from "../support/certificates.js";
import { needsDTLS13 } from "../support/engine.js";

const buffer = new Uint8Array(4096);
const PEER = Uint8Array.of(1, 2, 3, 4);
const now = (): number => Math.floor(Date.now() / 1000);

interface Joined {
  client: Engine;
  server: ServerAssociation;
  /** UDP payload of each datagram, outgoing positive. */
  lengths: number[];
}

describe("DTLS 1.3 in the engine over wolfSSL", () => {
  let ca: TestCA;
  let serverIdentity: TestIdentity;
  let clientIdentity: TestIdentity;
  let serverKey: KeyId;
  let clientKey: KeyId;
  const open: { free(): void }[] = [];

  before(async () => {
    needsDTLS13();
    ca = await TestCA.create();
    serverIdentity = await ca.issue({ subject: "CN=est", dnsNames: ["est.example.net"] });
    clientIdentity = await ca.issue({ subject: "CN=device 1", usage: "client" });
    serverKey = importKey(0, serverIdentity.pkcs8);
    clientKey = importKey(0, clientIdentity.sec1);
  });

  after(() => {
    destroyKey(serverKey);
    destroyKey(clientKey);
  });

  afterEach(() => {
    for (const engine of open.splice(0)) {
      engine.free();
    }
  });

  const keep = <T extends { free(): void }>(engine: T): T => {
    open.push(engine);
    return engine;
  };

  const newServer = (options: Partial<ServerEngineOptions> = {}): ServerEngine =>
    keep(new ServerEngine({ trust: [ca.root], key: serverKey, chain: serverIdentity.chain, ...options }));

  function newClient(configure: (engine: Engine) => void = () => {}): Engine {
    const engine = keep(new Engine());
    engine.trust(ca.root);
    engine.identity(clientKey, clientIdentity.chain);
    engine.serverName("est.example.net");
    configure(engine);
    return engine;
  }

  type Change = (datagram: Uint8Array, direction: "out" | "in") => Uint8Array | undefined;

  /** Carries datagrams both ways until neither side has one; `change` may lose or forge them. */
  function carry(client: Engine, server: Engine, time = 1, change: Change = (datagram) => datagram): number[] {
    const lengths: number[] = [];
    const move = (from: Engine, to: Engine, direction: "out" | "in"): boolean => {
      const length = from.take(buffer);
      if (length === 0) {
        return false;
      }
      lengths.push(direction === "out" ? length : -length);
      const datagram = change(buffer.slice(0, length), direction);
      while (move(to, from, direction === "out" ? "in" : "out"));
      if (datagram !== undefined) {
        to.receive(time, datagram);
      }
      return true;
    };
    while (move(client, server, "out") || move(server, client, "in"));
    return lengths;
  }

  function connect(server: ServerEngine, client: Engine, session?: Uint8Array, change?: Change): Joined {
    const association = keep(server.accept(0, now(), PEER));
    assert.equal(client.start(0, now(), session), true);
    const lengths = carry(client, association, 1, change);
    return { client, server: association, lengths };
  }

  const total = (lengths: readonly number[]): number => lengths.reduce((sum, length) => sum + Math.abs(length), 0);

  function ticketOf(client: Engine): ResumableSession {
    assert.equal(client.state, EngineState.OPEN);
    const { session } = client;
    assert.ok(session !== undefined, "no ticket came");
    assert.equal(session.kind, "ticket");
    return session;
  }

  it("makes a full handshake with mutual certificates; both ends have the same tls-exporter binding", () => {
    const { client, server } = connect(newServer(), newClient());
    assert.equal(client.state, EngineState.OPEN);
    assert.equal(server.state, EngineState.OPEN);
    assert.equal(client.protocol, "DTLS 1.3");
    assert.equal(client.cipherSuite, "TLS_AES_128_CCM_8_SHA256");
    assert.equal(client.group, "secp256r1");
    assert.equal(client.unique.length, 32);
    assert.deepEqual(client.unique, server.unique);
    assert.deepEqual(server.peerDigest, sha256(clientIdentity.chain[0]!));
    assert.equal(client.timeChecked, true);
  });

  it("adds 14 bytes to a message, and those of a connection ID", () => {
    const overhead = (configure: (engine: Engine) => void): number => {
      const { client, server } = connect(newServer(), newClient(configure));
      client.write(new Uint8Array(100));
      const length = client.take(buffer);
      server.receive(2, buffer.slice(0, length));
      assert.equal(server.read(buffer), 100);
      assert.equal(length, 100 + client.overhead);
      return client.overhead;
    };
    assert.equal(
      overhead(() => {}),
      14,
    );
    assert.equal(
      overhead((engine) => engine.offerConnectionId(0)),
      18,
    );
  });

  it("resumes by a ticket in at most 900 bytes without a cookie, and gets a new one; it takes at most 390 bytes", () => {
    const server = newServer();
    const first = connect(server, newClient());
    const ticket = ticketOf(first.client);
    assert.equal(ticket.lifetime, 86400);
    assert.ok(ticket.data.length <= 390, `${ticket.data.length} bytes of session`);
    const again = connect(server, newClient(), ticket.data);
    assert.equal(again.client.resumed, true);
    assert.equal(again.client.group, "secp256r1", "a key exchange of its own");
    assert.equal(again.client.timeChecked, false);
    assert.deepEqual(again.server.peerDigest, sha256(clientIdentity.chain[0]!));
    assert.deepEqual(again.client.unique, again.server.unique);
    assert.notDeepEqual(again.client.unique, first.client.unique);
    // The new ticket and its ACK come after the handshake.
    const handshake = again.lengths.slice(0, 4);
    assert.ok(total(handshake) <= 900, `${handshake} handshake bytes`);
    assert.notDeepEqual(ticketOf(again.client).data, ticket.data);
  });

  it("resumes by the secret alone where that is asked for: fewer bytes", () => {
    const server = newServer();
    const ticket = ticketOf(connect(server, newClient()).client);
    const withExchange = connect(server, newClient(), ticket.data);
    const alone = connect(
      server,
      newClient((engine) => engine.resumeByPSKAlone()),
      ticketOf(withExchange.client).data,
    );
    assert.equal(alone.client.state, EngineState.OPEN);
    assert.equal(alone.client.resumed, true);
    assert.ok(total(alone.lengths) < total(withExchange.lengths), `${alone.lengths} and ${withExchange.lengths}`);
  });

  it("makes a full handshake where the server does not know the ticket", () => {
    const ticket = ticketOf(connect(newServer(), newClient()).client);
    const { client } = connect(newServer(), newClient(), ticket.data);
    assert.equal(client.state, EngineState.OPEN);
    assert.equal(client.resumed, false);
    assert.equal(client.timeChecked, true);
  });

  it("does not offer a ticket past its lifetime, and starts without it", () => {
    const server = newServer();
    const ticket = ticketOf(connect(server, newClient()).client);
    const client = newClient();
    assert.equal(client.start(0, now() + 86400 + 60, ticket.data), false);
    assert.equal(client.state, EngineState.IDLE);
    assert.equal(client.start(0, now()), true);
  });

  it("resumes hours later, by the clock that it is told", () => {
    const server = newServer();
    const ticket = ticketOf(connect(server, newClient()).client);
    const later = now() + 6 * 3600;
    const association = keep(server.accept(0, later, PEER));
    const client = newClient();
    assert.equal(client.start(0, later, ticket.data), true);
    carry(client, association);
    assert.equal(client.state, EngineState.OPEN);
    assert.equal(client.resumed, true);
  });

  // ---- versions ----

  it("chooses 1.3 with a server that has both versions, and falls back to 1.2 in the same hello", () => {
    assert.equal(connect(newServer(), newClient()).client.protocol, "DTLS 1.3");
    const old = connect(newServer({ protocol: "DTLS 1.2" }), newClient());
    assert.equal(old.client.state, EngineState.OPEN);
    assert.equal(old.client.protocol, "DTLS 1.2");
    assert.equal(old.client.cipherSuite, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8");
    assert.equal(old.client.unique.length, 12);
    assert.deepEqual(old.client.unique, old.server.unique);
    assert.equal(old.lengths.filter((length) => length > 0).length, 3, "hello, hello with the cookie, the rest");
  });

  it("speaks 1.2 with a client that has only that, where the server has both", () => {
    const { client, server } = connect(
      newServer(),
      newClient((engine) => engine.versions("DTLS 1.2", "DTLS 1.2")),
    );
    assert.equal(client.state, EngineState.OPEN);
    assert.equal(client.protocol, "DTLS 1.2");
    assert.equal(server.protocol, "DTLS 1.2");
  });

  it("resumes by session id after a fallback to 1.2", () => {
    const server = newServer({ protocol: "DTLS 1.2" });
    const { session } = connect(server, newClient()).client;
    assert.equal(session?.kind, "session");
    const again = connect(server, newClient(), session.data);
    assert.equal(again.client.resumed, true);
    assert.equal(again.client.protocol, "DTLS 1.2");
    assert.deepEqual(again.server.peerDigest, sha256(clientIdentity.chain[0]!));
  });

  it("fails with a clear error where the versions have nothing in common", () => {
    const only13 = newClient((engine) => engine.versions("DTLS 1.3", "DTLS 1.3"));
    connect(newServer({ protocol: "DTLS 1.2" }), only13);
    assert.equal(only13.state, EngineState.FAILED);
    assert.match(only13.failure.message, /version/);
    const only12 = newClient((engine) => engine.versions("DTLS 1.2", "DTLS 1.2"));
    connect(newServer({ protocol: "DTLS 1.3" }), only12);
    assert.equal(only12.state, EngineState.FAILED);
    assert.match(only12.failure.message, /version/);
  });

  it("refuses a downgrade that the server's random number shows", () => {
    // Between them, somebody makes supported_versions (43) in each hello unknown: the server answers as to a client of 1.2.
    const hide: Change = (datagram, direction) => {
      const changed = datagram.slice();
      for (let at = 13; direction === "out" && at < changed.length - 8; at++) {
        if (changed[at] === 0 && changed[at + 1] === 43 && changed[at + 2] === 0 && changed[at + 5] === 0xfe) {
          changed[at] = 0x7a;
        }
      }
      return changed;
    };
    const { client, server } = connect(newServer(), newClient(), undefined, hide);
    assert.equal(client.state, EngineState.FAILED);
    assert.match(client.failure.message, /version/);
    assert.notEqual(server.state, EngineState.OPEN);
  });

  it("refuses a server that no trust anchor leads to, and one with another name", async () => {
    const other = await TestCA.create("CN=Somebody else");
    const identity = await other.issue({ subject: "CN=est", dnsNames: ["est.example.net"] });
    const key = importKey(0, identity.pkcs8);
    const { client } = connect(newServer({ key, chain: identity.chain }), newClient());
    destroyKey(key);
    assert.equal(client.state, EngineState.FAILED);
    assert.ok(client.failure instanceof CertificateError);
    const elsewhere = connect(
      newServer(),
      newClient((engine) => engine.serverName("other.example.net")),
    );
    assert.ok(elsewhere.client.failure instanceof CertificateError);
  });

  // ---- groups ----

  for (const group of ["X25519MLKEM768", "SecP256r1MLKEM768"]) {
    it(`exchanges keys by ${group}, with a ClientHello in fragments`, () => {
      const server = newServer();
      const first = connect(
        server,
        newClient((engine) => engine.groups([group, "secp256r1"])),
      );
      assert.equal(first.client.state, EngineState.OPEN);
      assert.equal(first.client.group, group);
      assert.ok(Math.max(...first.lengths) <= 1232, `${first.lengths}`);
    });
  }

  it("refuses groups that there are not", () => {
    const client = newClient();
    assert.throws(() => client.groups(["secp521r1"]), DTLSError);
    assert.throws(() => client.groups([]), DTLSError);
  });

  // ---- what may come after the handshake ----

  it("survives the loss of any one datagram of a resumed handshake", () => {
    const server = newServer();
    const ticket = ticketOf(connect(server, newClient()).client);
    const count = connect(server, newClient(), ticket.data).lengths.length;
    for (let lost = 0; lost < count; lost++) {
      const client = newClient();
      const association = keep(server.accept(0, now(), PEER));
      client.start(0, now(), ticket.data);
      let index = 0;
      carry(client, association, 1, (datagram) => (index++ === lost ? undefined : datagram));
      for (let turn = 0, time = 1; turn < 20; turn++) {
        const next = Math.min(
          client.deadline ?? Number.MAX_SAFE_INTEGER,
          association.deadline ?? Number.MAX_SAFE_INTEGER,
        );
        if (next === Number.MAX_SAFE_INTEGER) {
          break;
        }
        time = next;
        client.elapse(time);
        carry(client, association, time);
        association.elapse(time);
        carry(client, association, time);
      }
      assert.equal(client.state, EngineState.OPEN, `datagram ${lost} of ${count} lost`);
      assert.equal(client.resumed, true, `datagram ${lost} of ${count} lost`);
      assert.equal(client.tickets, 1, `datagram ${lost} of ${count} lost: the new ticket`);
      assert.equal(client.deadline, undefined, "nothing is left to be sent again");
    }
  });

  it("saves no context, and says so", () => {
    const { client } = connect(
      newServer(),
      newClient((engine) => engine.offerConnectionId(0)),
    );
    assert.equal(client.hasConnectionId, true);
    assert.equal(client.save(4096), undefined);
    assert.equal(client.state, EngineState.OPEN, "and goes on");
    assert.equal(keep(new Engine()).restore(0, now(), new Uint8Array(100)), false);
  });
});
