/**
 * A server that deviates in its handshake: at each message, full or abbreviated, each time or once. Whatever it does, the
 * device has a typed error or an association in bounded time; its session is what it was, and the next handshake with the
 * same server, honest again, succeeds. Real engines, joined in one process, in virtual time; nothing here knows which
 * DTLS library they rest on.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { dtlsHeap } from "../../hosts/node/native.js";
import { MemoryState } from "../../hosts/node/storage.js";
import { AlertError, buildFingerprint, CertificateError, DTLSError } from "../../src/dtls/engine.js";
import { ResumptionMemory } from "../../src/dtls/resumption.js";
import { AssociationReport, DTLSSocket, type Resume } from "../../src/dtls/socket.js";
import { TimeoutError, TorporError } from "../../src/errors.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { ServerEngine } from "../../tools/est-server/engine.js";
import { HANDSHAKE_MESSAGES, HANDSHAKE_WAYS } from "../../tools/est-server/handshake-deviation.js";
import { fragmentOf, recordsOf } from "../../tools/est-server/handshake-records.js";
import { Misconduct } from "../../tools/est-server/misbehave.js";
import { isProtected } from "../../tools/est-server/protected-records.js";
import { TestCA, type TestIdentity } from "../support/certificates.js";
import { ENGINE } from "../support/engine.js";
import { JoinedNetwork, SERVER } from "../support/joined.js";

/** Milliseconds of virtual time. */
const PATIENCE = 20_000;
/** The patience, and what a timer that is due at its end may take. */
const BOUND = PATIENCE + 1000;
/** Datagrams of a device in one wake, whatever the server does: two handshakes' at most. It has a battery. */
const DATAGRAMS_MAX = 2 * 210;

/** Handshake types of the client's flight with its certificate (RFC 5246 section 7.4). */
const CLIENT_CERTIFICATE = 11;
const CLIENT_KEY_EXCHANGE = 16;

/** A protected datagram of so many bytes has a certificate: alerts and ACKs are shorter. */
const MORE_THAN_AN_ALERT = 150;

const TYPED = [TimeoutError, DTLSError, AlertError, CertificateError];

type Outcome =
  /** No association, and nothing secret or signed went to the server: it was seen before the client's second flight. */
  | "seen"
  /** No association. */
  | "refused"
  /** An association: the protocol takes care of it. */
  | "harmless"
  /** A record that makes no sense may be ignored (RFC 6347 section 4.1.2.7), or end the handshake. */
  | "either";

/** What becomes of a deviation each time; where it is done once, a message that comes again may repair it. */
const OUTCOMES: Readonly<Record<string, Outcome>> = {
  drop: "refused",
  double: "harmless",
  replay: "harmless",
  late: "either",
  cut: "refused",
  empty: "refused",
  lengthen: "refused",
  "lengthen-N": "refused",
  // What follows a cookie is not looked at by every client.
  // Nothing is changed.
  "ServerHelloDone:cut": "harmless",
  "ServerHelloDone:empty": "harmless",
  "ServerHelloDone:fragment-short": "harmless",
  "ChangeCipherSpec:content-20": "harmless",
  "HelloVerifyRequest:lengthen": "either",
  "HelloVerifyRequest:lengthen-N": "either",
  "flip-N": "either",
  "flip-record-N": "either",
  "as-N": "refused",
  "content-N": "refused",
  "record-length": "refused",
  "record-empty": "refused",
  "record-huge": "refused",
  "sequence-before": "refused",
  "sequence-after": "refused",
  "sequence-far": "refused",
  fragments: "harmless",
  "fragments-reversed": "harmless",
  "fragments-overlap": "either",
  "fragments-contradict": "either",
  "fragments-lengths": "either",
  "fragments-types": "either",
  "fragments-missing": "refused",
  "fragment-beyond": "refused",
  "fragment-short": "refused",
  "fragment-huge": "refused",
  "fragment-far": "refused",
  "warning-N": "either",
  "fatal-N": "refused",
  "fatal-sealed-N": "refused",
  "alert-short": "refused",
  "alert-level": "either",
  warnings: "either",
  "application-data": "either",
  "early-change": "either",
  "hello-request": "either",
  flood: "either",
  garbage: "harmless",
  nothing: "harmless",
  // Those of one message: whatever can be known from the server's first flight is seen before the client signs anything.
  "cookie-empty": "either",
  "cookie-long": "refused",
  "cookie-beyond": "refused",
  "cookie-wrong": "refused",
  // RFC 5246 section 7.4.1.4 wants it seen at once. A client that ignores it sees it at the end: nothing rests on it.
  "extension-other": "refused",
  "extension-alpn": "refused",
  "extension-points": "either",
  "connection-id-long": "seen",
  "types-none": "either",
  reversed: "either",
  "ticket-none": "either",
  "ticket-beyond": "refused",
  "lifetime-long": "refused",
  value: "refused",
  plain: "refused",
  "epoch-far": "refused",
};

/** What has no effect on messages that are no handshake messages in the clear, for it is about those. */
const OF_MESSAGES = /^(sequence|fragment|as-|hello-request|flood)/;

/** The version that the engine of this process prefers, and its development server has. */
const VERSION = ENGINE === "wolfssl" ? "1.3" : "1.2";

/** Where DTLS 1.3 has it otherwise. */
const OUTCOMES_13: Readonly<Record<string, Outcome>> = {
  "Finished:as-20": "harmless", // nothing is changed
  // In a full handshake nothing is changed; else the ladder goes on from the ticket to the full handshake.
  "ServerHello:key-other": "harmless",
  "ServerHello:key-long": "harmless",
};

/** What an open association lives on with: a ticket comes when the handshake is over, and nothing in the clear counts then. */
const HARMLESS_TICKETS =
  /^(drop|double|replay|late|record-length|sequence-before|fragments|fragments-reversed|warning-N|fatal-N|alert-short|alert-level|warnings|application-data|early-change|garbage|nothing|nonce-long|lifetime-none)$/;

const FULL = [
  "HelloVerifyRequest",
  "ServerHello",
  "Certificate",
  "ServerKeyExchange",
  "CertificateRequest",
  "ServerHelloDone",
  "ChangeCipherSpec",
  "Finished",
];
const TICKET = [...FULL, "NewSessionTicket"];
const ABBREVIATED = ["HelloVerifyRequest", "ServerHello", "ChangeCipherSpec", "Finished"];
const FULL_13 = [
  "HelloRetryRequest",
  "ServerHello",
  "EncryptedExtensions",
  "CertificateRequest",
  "Certificate",
  "CertificateVerify",
  "Finished",
  "NewSessionTicket",
];
/** Who shows a ticket needs no cookie. */
const ABBREVIATED_13 = ["ServerHello", "EncryptedExtensions", "Finished", "NewSessionTicket"];

/** One script for each way at each message; a name with a number comes with some. */
const NUMBERS: Readonly<Record<string, readonly number[]>> = {
  "lengthen-N": [1000],
  "flip-record-N": [0, 1, 2, 3, 4, 10, 11, 12],
  "as-N": [0, 1, 16, 20, 99],
  "content-N": [0, 20, 21, 23, 24, 25, 255],
  "warning-N": [0, 41, 90, 100, 255],
  "fatal-N": [0, 10, 40, 42, 255],
  "fatal-sealed-N": [0, 10, 40, 42, 255],
};

/** Bytes of a message that are flipped: its header's, and so many of its content. */
const HEADER = 12;
const FLIPS: Readonly<Record<string, number>> = {
  HelloVerifyRequest: 35,
  HelloRetryRequest: 80,
  EncryptedExtensions: 12,
  CertificateVerify: 80,
  ServerHello: 100,
  Certificate: 40,
  ServerKeyExchange: 150,
  CertificateRequest: 30,
  ServerHelloDone: 0,
  NewSessionTicket: 30,
  ChangeCipherSpec: 0,
  Finished: 40,
};

function flipsOf(message: string): number[] {
  // A certificate is long, and a flip in it is one of four: in the signature, the key, the names, or the frame.
  const stride = message === "Certificate" ? 23 : 1;
  return [
    ...Array.from({ length: HEADER }, (_, at) => at),
    ...Array.from({ length: FLIPS[message]! }, (_, at) => HEADER + at * stride),
  ];
}

interface Script {
  readonly text: string;
  readonly outcome: Outcome;
}

function outcomeOf(message: string, name: string, how: string): Outcome | undefined {
  if (VERSION === "1.3" && message === "NewSessionTicket") {
    return HARMLESS_TICKETS.test(name) ? "harmless" : "either";
  }
  const outcomes = VERSION === "1.3" ? { ...OUTCOMES, ...OUTCOMES_13 } : OUTCOMES;
  return outcomes[`${message}:${how}`] ?? outcomes[`${message}:${name}`] ?? outcomes[name];
}

function scriptsOf(message: string): Script[] {
  const ways = HANDSHAKE_WAYS.filter(
    ([of, , , only = VERSION]) => (of === "MESSAGE" || of === message) && only === VERSION,
  );
  return ways.flatMap(([of, name]) => {
    const numbers = name === "flip-N" ? flipsOf(message) : NUMBERS[name];
    return (numbers ?? [undefined]).map((number) => {
      const how = number === undefined ? name : name.replace("N", String(number));
      const outcome = outcomeOf(message, name, how) ?? (of === "MESSAGE" ? undefined : "seen");
      assert.ok(outcome !== undefined, `${name}: what should become of it?`);
      return { text: `handshake:${message}:${how}`, outcome };
    });
  });
}

interface Connected {
  readonly way: string | undefined;
  readonly error: Error | undefined;
  readonly took: number;
}

describe("a device and a server that deviates in its handshake", () => {
  let ca: TestCA;
  let serverIdentity: TestIdentity;
  let device: TestIdentity;
  let serverKey: KeyId;
  let deviceKey: KeyId;
  let server: ServerEngine;
  let network: JoinedNetwork;
  let heapBefore: number;
  let retained: Uint8Array;
  let memory: ResumptionMemory;

  before(async () => {
    ca = await TestCA.create();
    serverIdentity = await ca.issue({ subject: "CN=est", dnsNames: ["est.example.net"] });
    device = await ca.issue({ subject: "CN=device", usage: "client" });
    serverKey = importKey(0, serverIdentity.pkcs8);
    deviceKey = importKey(0, device.pkcs8);
  });
  after(() => {
    destroyKey(serverKey);
    destroyKey(deviceKey);
  });
  beforeEach(() => {
    heapBefore = dtlsHeap().now;
    network = new JoinedNetwork();
    server = new ServerEngine({ trust: [ca.root], key: serverKey, chain: serverIdentity.chain });
    network.serve(server);
  });
  afterEach(() => {
    network.free();
    server.free();
    assert.equal(dtlsHeap().now, heapBefore, "memory of the DTLS library is left");
  });

  function forget(): void {
    retained = new Uint8Array(SessionTable.byteLength({ slots: 2, slotBytes: 1536 }));
    memory = new ResumptionMemory(new MemoryState().open("memory"), network.clock);
  }

  const sessions = () =>
    new SessionTable(retained, { clock: network.clock, fingerprint: buildFingerprint(), slots: 2, slotBytes: 1536 });

  /** The server from now on. */
  function misbehave(script: string): Misconduct {
    const misconduct = new Misconduct(script);
    network.rewrite = (datagram, engine) => misconduct.rewrite(datagram, engine);
    return misconduct;
  }
  function behave(): void {
    network.rewrite = (datagram) => [datagram];
  }

  /** What a wake finds in the table. */
  function session(): string {
    const stored = sessions().get(SERVER);
    return stored === undefined ? "none" : `${stored.kind} ${Buffer.from(stored.data).toString("hex")}`;
  }

  /** Connects, has a message echoed, and puts all away. */
  async function connect(resume: Resume, groups?: readonly string[]): Promise<Connected> {
    const started = network.time.now;
    const report = new AssociationReport();
    const buffer = new Uint8Array(100);
    const outcome: { way?: string | undefined; error?: Error; ended?: number } = {};
    const end = (error?: Error) => {
      outcome.ended ??= network.time.now;
      if (error === undefined) {
        outcome.way = report.way;
        socket.sleep(new Uint8Array());
      } else {
        outcome.error = error;
      }
    };
    const socket: DTLSSocket = new DTLSSocket({
      ...SERVER,
      host: "est.example.net",
      socket: { io: network.UDP },
      timer: network.time,
      clock: network.clock,
      secure: {
        trustAnchors: [ca.root],
        certificates: device.chain,
        key: deviceKey,
        patience: PATIENCE,
        handshakeTimer: 1000,
        groups,
      },
      sessions: sessions(),
      memory,
      resume,
      report,
      onWritable: () => socket.write(Uint8Array.of(1, 2, 3)),
      onReadable: () => {
        if ((socket.read(buffer) ?? 0) > 0) {
          end();
        }
      },
      onError: end,
    });
    for (let steps = 0; outcome.ended === undefined && steps < 20_000; steps++) {
      if (!(await network.time.step(started + BOUND))) {
        break;
      }
    }
    socket.close();
    return { way: outcome.way, error: outcome.error, took: (outcome.ended ?? Number.POSITIVE_INFINITY) - started };
  }

  /** Whether the client has sent what it signs or encrypts for a server that it has accepted. */
  const hasAnswered = (from: number): boolean => {
    const out = network.trace.slice(from).filter(({ direction }) => direction === "out");
    return VERSION === "1.3"
      ? out.some(({ bytes }) => isProtected(bytes) && bytes.length > MORE_THAN_AN_ALERT)
      : out
          .flatMap(({ bytes }) => [...recordsOf(Buffer.from(bytes))])
          .some((record) => [CLIENT_CERTIFICATE, CLIENT_KEY_EXCHANGE].includes(fragmentOf(record)?.type ?? -1));
  };

  interface Round {
    readonly resume: Resume;
    readonly isAbbreviated: boolean;
  }

  /** One deviation, then an honest server. */
  async function attempt(
    { text, outcome }: Script,
    times: "always" | "once",
    { resume, isAbbreviated }: Round,
  ): Promise<string> {
    const script = times === "once" ? `${text}:once` : text;
    forget();
    behave();
    if (isAbbreviated) {
      assert.equal((await connect(resume)).way, "full");
      network.forget();
    }
    const before = session();
    const misconduct = misbehave(script);
    const from = network.trace.length;
    const { way, error, took } = await connect(resume);
    assert.ok(misconduct.count > 0, `${script}: did not take place`);
    assert.ok(took <= BOUND, `${script}: neither an error nor an association within ${BOUND} ms`);
    const sent = network.trace.slice(from).filter(({ direction }) => direction === "out").length;
    assert.ok(sent <= DATAGRAMS_MAX, `${script}: ${sent} datagrams`);
    if (error !== undefined) {
      assert.ok(
        TYPED.some((kind) => error.constructor === kind) && error instanceof TorporError,
        `${script}: ${error.stack}`,
      );
      assert.match(error.message, /^[a-z][^\n]{20,}/i, script);
      // A Certificate message that cannot be decoded was once judged by flags that mbedTLS had not set, all ones: the
      // error named every reason there is, from "it has expired" to "its key is too short".
      assert.doesNotMatch(error.message, /has expired;.*not yet valid/, script);
      // A ticket of DTLS 1.3 went before the hello that showed it.
      const left = VERSION === "1.3" && isAbbreviated ? "none" : before;
      assert.equal(session(), left, `${script}: the session is another one after ${error.message}`);
    }
    // Without saved associations, no connection ID is offered: nothing is changed then.
    const isDone =
      outcome !== "either" &&
      !(resume === "session" && text.includes("connection-id")) &&
      !(VERSION === "1.2" && OF_MESSAGES.test(text.split(":")[2]!) && /ChangeCipherSpec|Finished/.test(text));
    // A resumption that fails is followed by a full handshake; where the deviation was done once, that is an honest one.
    if (isDone && (outcome === "harmless" || times === "always" || (isAbbreviated && resume !== "none"))) {
      // What makes no sense may be ignored until the honest message comes again.
      const isExpected = outcome === "harmless" || times === "once" ? error === undefined : error !== undefined;
      assert.ok(isExpected, `${script}: expected it to be ${outcome}, got ${error?.message ?? way}`);
    }
    if (/:(drop|late|double|replay)$/.test(text) && times === "once") {
      assert.ok(error === undefined, `${script}: got ${error?.message}`);
    }
    if (outcome === "seen" && times === "always") {
      assert.ok(!hasAnswered(from), `${script}: the client went on`);
    }
    network.forget();
    behave();
    const again = await connect(resume);
    assert.equal(again.error, undefined, `${script}: and then with an honest server`);
    if (VERSION === "1.2" && isAbbreviated && error !== undefined) {
      assert.notEqual(again.way, "full", `${script}: the session was lost`);
    }
    network.forget();
    return error === undefined ? "harmless" : error.constructor.name;
  }

  const handshakes: readonly (readonly [string, readonly string[], Round])[] =
    VERSION === "1.3"
      ? [
          ["a full handshake", FULL_13, { resume: "ticket", isAbbreviated: false }],
          ["a resumption by ticket", ABBREVIATED_13, { resume: "ticket", isAbbreviated: true }],
        ]
      : [
          ["a full handshake", FULL, { resume: "context", isAbbreviated: false }],
          ["a full handshake with a ticket", ["NewSessionTicket"], { resume: "ticket", isAbbreviated: false }],
          ["a resumption by session id", ABBREVIATED, { resume: "session", isAbbreviated: true }],
        ];
  for (const [name, messages, round] of handshakes) {
    for (const message of messages) {
      for (const times of ["always", "once"] as const) {
        it(`takes whatever is wrong with ${message} ${times === "always" ? "each time" : "once"}, in ${name}`, async function () {
          this.timeout(0);
          const counts: Record<string, number> = {};
          const failures: string[] = [];
          for (const script of scriptsOf(message)) {
            try {
              const result = await attempt(script, times, round);
              counts[result] = (counts[result] ?? 0) + 1;
            } catch (error) {
              failures.push((error as Error).message);
              network.forget();
            }
          }
          assert.equal(failures.length, 0, failures.join("\n"));
        });
      }
    }
  }

  it("gives up a handshake to which each datagram of the server adds one of the device's", async () => {
    // Found with the table above: HelloVerifyRequests without end, or ServerHellos that call for the flight before, had
    // the device send as fast as the network allows until its patience ended, 2,000 datagrams in 20 s here.
    const scripts = ["handshake:ServerHello:sequence-before"];
    if (VERSION === "1.2") {
      scripts.push("handshake:HelloVerifyRequest:cookie-wrong"); // an alert answers the cookie of DTLS 1.3
    }
    for (const script of scripts) {
      forget();
      misbehave(script);
      const from = network.trace.length;
      const { error, took } = await connect("context");
      assert.ok(error instanceof DTLSError, script);
      assert.match(error.message, /has taken \d+ datagrams and no end: given up/);
      const sent = network.trace.slice(from).filter(({ direction }) => direction === "out").length;
      assert.ok(sent <= DATAGRAMS_MAX / 2 && took < PATIENCE, `${script}: ${sent} datagrams, ${took} ms`);
      network.forget();
    }
  });

  if (VERSION === "1.3") {
    for (const group of ["X25519MLKEM768", "SecP256r1MLKEM768"]) {
      it(`refuses a share of ${group} that has a wrong length or no point, and a request for the share that was there`, async () => {
        for (const script of [
          ...["short", "long", "beyond", "group", "off-curve", "none"].map(
            (how) => `handshake:ServerHello:share-${how}`,
          ),
          "handshake:ServerHello:retry",
          "handshake:HelloRetryRequest:group-same",
          "handshake:HelloRetryRequest:group-other",
        ]) {
          for (const times of ["", ":once"]) {
            forget();
            const misconduct = misbehave(script + times);
            const { error, took } = await connect("ticket", [group, "secp256r1"]);
            assert.ok(misconduct.count > 0 && took <= BOUND, script);
            // The last byte of a share is one of X25519's, which takes any: then the keys differ, and nothing is accepted.
            assert.ok(error !== undefined && TYPED.some((kind) => error.constructor === kind), `${script}${times}`);
            behave();
            network.forget();
            assert.equal((await connect("ticket", [group, "secp256r1"])).error, undefined, script);
            network.forget();
          }
        }
      });
    }

    it("does not keep a ticket that lives for no time (RFC 8446 section 4.6.1)", async () => {
      forget();
      const misconduct = misbehave("handshake:NewSessionTicket:lifetime-none");
      assert.equal((await connect("ticket")).error, undefined);
      assert.ok(misconduct.count > 0);
      assert.equal(session(), "none");
    });

    it("keeps a ticket with a nonce of any length, and resumes by it", async () => {
      forget();
      misbehave("handshake:NewSessionTicket:nonce-long");
      assert.equal((await connect("ticket")).error, undefined);
      assert.match(session(), /^ticket .*(ff){255}/);
      // The server knows another nonce: by the wrong secret nobody resumes.
      behave();
      network.forget();
      const { way, error } = await connect("ticket");
      assert.deepEqual([way, error], ["full", undefined]);
    });
  }

  it("is tested at each message that a server sends, with each way to deviate", () => {
    assert.deepEqual([...HANDSHAKE_MESSAGES].sort(), [...new Set([...TICKET, ...FULL_13])].sort());
    for (const name of Object.keys(OUTCOMES).filter((key) => !key.includes(":"))) {
      assert.ok(
        HANDSHAKE_WAYS.some((way) => way[1] === name),
        `${name} is no way to deviate`,
      );
    }
  });
});
