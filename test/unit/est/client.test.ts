// The EST-coaps client: src/est/client.ts, over a CoAP client on a scripted socket. RFC 9148 sections 4.1 to 4.5.
import { strict as assert } from "node:assert";
import { joinBytes } from "../../../src/bytes.js";
import { Code, type DecodedMessage, MessageType, type Option, OptionNumber } from "../../../src/coap/message.js";
import { lengthUTF8, writeUTF8 } from "../../../src/coap/utf8.js";
import { FormatError, LimitError, TimeoutError } from "../../../src/errors.js";
import {
  ContentFormat,
  ESTClient,
  type ESTClientOptions,
  ESTError,
  type ESTResponse,
  ServerKeyError,
} from "../../../src/est/client.js";
import { readCsrAttributes } from "../../../src/est/csrattrs.js";
import { describeLeniency } from "../../../src/est/leniency.js";
import { parseCertificate } from "../../../src/pki/certificate.js";
import { readCertsOnly } from "../../../src/pki/pkcs7.js";
import {
  caCertificates,
  csrAttributes,
  enrollRequest,
  enrollResponse,
  fromHex,
  serverKey,
  serverKeyCertificate,
  serverKeyRequest,
} from "../../vectors/rfc9148.js";
import { Harness, type Reply, rejection } from "../coap/harness.js";
import { hex } from "../coap/hex.js";

type Operation = (est: ESTClient) => Promise<ESTResponse>;

const crts: Operation = (est) => est.caCertificates();
const att: Operation = (est) => est.csrAttributes();
const sen: Operation = (est) => est.simpleEnroll(enrollRequest);
const sren: Operation = (est) => est.simpleReenroll(enrollRequest);

let harness: Harness;
let est: ESTClient;

async function connect(options: Omit<ESTClientOptions, "coap"> = {}): Promise<void> {
  harness = await Harness.connected({ kept: { token: 0x9a, messageId: 0x1234 } });
  est = new ESTClient({ coap: harness.client, ...options });
}

/** The request of an operation. */
async function requestOf(operation: Operation, options?: Omit<ESTClientOptions, "coap">): Promise<DecodedMessage> {
  await connect(options);
  rejection(operation(est)).catch(() => {});
  await harness.time.advance(0);
  return harness.last;
}

function utf8(text: string): Uint8Array {
  const bytes = new Uint8Array(lengthUTF8(text));
  writeUTF8(text, bytes, 0);
  return bytes;
}

/** Options of one number as text. */
function strings({ options }: DecodedMessage, number: number): string[] {
  return options
    .filter((option) => option.number === number)
    .map(({ value }) => {
      let text = "";
      for (const byte of value) text += String.fromCharCode(byte);
      return text;
    });
}

/** Options of one number as numbers. */
function numbers({ options }: DecodedMessage, number: number): number[] {
  return options
    .filter((option) => option.number === number)
    .map(({ value }) => {
      let sum = 0;
      for (const byte of value) sum = sum * 256 + byte;
      return sum;
    });
}

const contentFormat = (value: number): Option => ({ number: OptionNumber.CONTENT_FORMAT, value });
const maxAge = (value: number): Option => ({ number: OptionNumber.MAX_AGE, value });

/** An answer: code, Content-Format (if any), payload (if any), more options. */
function answer(code: number, format?: number, payload?: Uint8Array, ...more: Option[]): Reply {
  return {
    code,
    options: format === undefined ? more : [contentFormat(format), ...more],
    ...(payload === undefined ? {} : { payload }),
  };
}

/** What an operation resolves with, given the answer. */
async function result<R extends ESTResponse>(operation: (client: ESTClient) => Promise<R>, reply: Reply): Promise<R> {
  await connect();
  const promise = operation(est);
  await harness.time.advance(0);
  await harness.reply(reply);
  return promise;
}

/** What an operation rejects with, given the answer. */
async function failure(operation: Operation, reply: Reply): Promise<Error> {
  await connect();
  const error = rejection(operation(est));
  await harness.time.advance(0);
  await harness.reply(reply);
  return error;
}

async function refusal(operation: Operation, reply: Reply): Promise<ESTError> {
  const error = await failure(operation, reply);
  assert.ok(error instanceof ESTError, `${error}`);
  return error as ESTError;
}

describe("an EST client", () => {
  describe("asks", () => {
    it("for CA certificates as in RFC 9148, appendix A.1, under /.well-known", async () => {
      const request = await requestOf(crts);
      assert.equal(request.type, MessageType.CON);
      assert.equal(request.code, Code.GET);
      assert.deepEqual(request.token, fromHex("9a"));
      assert.deepEqual(strings(request, OptionNumber.URI_PATH), [".well-known", "est", "crts"]);
      // The figure's Accept option: delta 6 from Uri-Path, length 2, value 281.
      assert.deepEqual(request.options[request.options.length - 1], { number: 17, value: fromHex("0119") });
      assert.equal(request.options.length, 4);
      assert.equal(request.payload.length, 0);
    });

    it("for CSR attributes as in appendix A.4, with Accept 285", async () => {
      const request = await requestOf(att);
      assert.equal(request.code, Code.GET);
      assert.deepEqual(strings(request, OptionNumber.URI_PATH), [".well-known", "est", "att"]);
      assert.deepEqual(numbers(request, OptionNumber.ACCEPT), [285]);
      assert.deepEqual(numbers(request, OptionNumber.CONTENT_FORMAT), []);
      assert.equal(request.payload.length, 0);
    });

    it("for enrolment as in appendix A.2: the CSR in raw DER as 286, the certificate as 281", async () => {
      const request = await requestOf(sen);
      assert.equal(request.type, MessageType.CON);
      assert.equal(request.code, Code.POST);
      assert.deepEqual(strings(request, OptionNumber.URI_PATH), [".well-known", "est", "sen"]);
      assert.deepEqual(numbers(request, OptionNumber.CONTENT_FORMAT), [286]);
      assert.deepEqual(numbers(request, OptionNumber.ACCEPT), [281]);
      assert.deepEqual(request.payload, enrollRequest);
      assert.equal(request.options.length, 5);
    });

    it("for renewal in the same way, at sren", async () => {
      const request = await requestOf(sren);
      assert.equal(request.code, Code.POST);
      assert.deepEqual(strings(request, OptionNumber.URI_PATH), [".well-known", "est", "sren"]);
      assert.deepEqual(numbers(request, OptionNumber.CONTENT_FORMAT), [286]);
      assert.deepEqual(numbers(request, OptionNumber.ACCEPT), [281]);
      assert.deepEqual(request.payload, enrollRequest);
    });

    it("under the label that it is given, for each operation", async () => {
      const operations: [string, Operation][] = [
        ["crts", crts],
        ["att", att],
        ["sen", sen],
        ["sren", sren],
      ];
      for (const [name, operation] of operations) {
        const request = await requestOf(operation, { label: "arbitraryLabel" });
        assert.deepEqual(strings(request, OptionNumber.URI_PATH), [".well-known", "est", "arbitraryLabel", name]);
        for (const label of ["", undefined]) {
          const without = await requestOf(operation, { label });
          assert.deepEqual(strings(without, OptionNumber.URI_PATH), [".well-known", "est", name]);
        }
      }
    });

    it("for a single certificate, 287, where it is told to; for CA certificates as 281 all the same", async () => {
      const options = { certificateFormat: ContentFormat.PKIX_CERT };
      assert.deepEqual(numbers(await requestOf(sen, options), OptionNumber.ACCEPT), [287]);
      assert.deepEqual(numbers(await requestOf(sren, options), OptionNumber.ACCEPT), [287]);
      assert.deepEqual(numbers(await requestOf(crts, options), OptionNumber.ACCEPT), [281]);
    });

    it("with a CSR in blocks where it is long", async () => {
      harness = await Harness.connected({ blockSize: 64 });
      est = new ESTClient({ coap: harness.client });
      const response = est.simpleEnroll(enrollRequest);
      await harness.time.advance(0);
      let sent = harness.last.payload.slice();
      const blocks = Math.ceil(enrollRequest.length / 64);
      for (let number = 0; number < blocks - 1; number++) {
        await harness.reply({ code: Code.CONTINUE, block1: { number, more: true, size: 64 } });
        const { payload } = harness.last;
        const longer = new Uint8Array(sent.length + payload.length);
        longer.set(sent);
        longer.set(payload, sent.length);
        sent = longer;
        assert.deepEqual(numbers(harness.last, OptionNumber.CONTENT_FORMAT), [286]);
      }
      assert.deepEqual(sent, enrollRequest);
      for (let number = 0; number * 64 < enrollResponse.length; number++) {
        const end = (number + 1) * 64;
        const more = end < enrollResponse.length;
        await harness.reply({
          code: Code.CHANGED,
          ...(number === 0 ? { block1: { number: blocks - 1, more: false, size: 64 } } : {}),
          block2: { number, more, size: 64 },
          options: [contentFormat(281)],
          payload: enrollResponse.subarray(number * 64, end),
        });
      }
      assert.deepEqual((await response).body, enrollResponse);
    });
  });

  describe("reads", () => {
    it("the CA certificates of appendix A.1", async () => {
      const { code, body, certificates } = await result(
        (client) => client.caCertificates(),
        answer(Code.CONTENT, 281, caCertificates),
      );
      assert.equal(code, Code.CONTENT);
      assert.deepEqual(body, caCertificates);
      assert.deepEqual(certificates, readCertsOnly(caCertificates));
      assert.equal(certificates.length, 1);
      const { subject, issuer } = parseCertificate(certificates[0]!);
      assert.deepEqual(subject, issuer);
    });

    it("the certificate of appendix A.2, for the key of the request", async () => {
      for (const operation of ["simpleEnroll", "simpleReenroll"] as const) {
        const { code, body, certificates } = await result(
          (client) => client[operation](enrollRequest),
          answer(Code.CHANGED, 281, enrollResponse),
        );
        assert.equal(code, Code.CHANGED);
        assert.deepEqual(body, enrollResponse);
        assert.deepEqual(certificates, readCertsOnly(enrollResponse));
        const point = parseCertificate(certificates[0]!).publicKey;
        assert.equal(point.length, 65);
        assert.ok(hex(enrollRequest).includes(hex(point)));
      }
    });

    it("the certificate of appendix A.3", async () => {
      const { certificates } = await result(
        (client) => client.simpleEnroll(serverKeyRequest),
        answer(Code.CHANGED, 281, serverKeyCertificate),
      );
      assert.deepEqual(certificates, readCertsOnly(serverKeyCertificate));
    });

    it("the CSR attributes of appendix A.4", async () => {
      const { code, body, attributes } = await result(
        (client) => client.csrAttributes(),
        answer(Code.CONTENT, 285, csrAttributes),
      );
      assert.equal(code, Code.CONTENT);
      assert.deepEqual(body, csrAttributes);
      assert.deepEqual(attributes, readCsrAttributes(csrAttributes));
      assert.equal(attributes.length, 6);
    });

    it("a single certificate, 287, for each operation that gives certificates", async () => {
      const certificate = readCertsOnly(enrollResponse)[0]!;
      for (const operation of ["caCertificates", "simpleEnroll", "simpleReenroll"] as const) {
        const { body, certificates } = await result(
          (client) => client[operation](enrollRequest),
          answer(Code.CHANGED, 287, certificate),
        );
        assert.deepEqual(certificates, [certificate]);
        assert.deepEqual(body, certificate);
      }
    });

    it("any success code: 2.01 from an enrolment like 2.04, and 2.04 for certificates", async () => {
      for (const code of [Code.CREATED, Code.CHANGED, Code.CONTENT]) {
        assert.equal((await result(sen, answer(code, 281, enrollResponse))).code, code);
        assert.equal((await result(sren, answer(code, 281, enrollResponse))).code, code);
        assert.equal((await result(crts, answer(code, 281, caCertificates))).code, code);
        assert.equal((await result(att, answer(code, 285, csrAttributes))).code, code);
      }
    });

    it("an answer with a number that servers confuse by its bytes, and says so", async () => {
      const certificate = readCertsOnly(enrollResponse)[0]!;
      for (const format of [285, 286]) {
        for (const body of [enrollResponse, certificate]) {
          const { certificates, leniencies } = await result(
            (client) => client.simpleEnroll(enrollRequest),
            answer(Code.CHANGED, format, body),
          );
          assert.deepEqual(certificates, [certificate]);
          assert.deepEqual(leniencies, ["other-format-number"]);
        }
      }
      const { attributes, leniencies } = await result(
        (client) => client.csrAttributes(),
        answer(Code.CONTENT, 287, csrAttributes),
      );
      assert.equal(attributes.length, 6);
      assert.deepEqual(leniencies, ["other-format-number"]);
    });

    it("what it puts up with out loud: 2.01 for 2.04, no Content-Format; and nothing where all is as it should be", async () => {
      assert.deepEqual((await result(sen, answer(Code.CREATED, 281, enrollResponse))).leniencies, ["success-code"]);
      assert.deepEqual((await result(crts, answer(Code.CONTENT, undefined, caCertificates))).leniencies, ["no-format"]);
      assert.equal((await result(sen, answer(Code.CHANGED, 281, enrollResponse))).leniencies, undefined);
      assert.equal((await result(crts, answer(Code.CONTENT, 281, caCertificates))).leniencies, undefined);
      for (const name of ["success-code", "no-format", "other-format-number"] as const) {
        assert.match(describeLeniency(name), /^the server .*: accepted, for .*/);
      }
    });

    it("an answer without a Content-Format as what was asked for", async () => {
      const { certificates } = await result(
        (client) => client.caCertificates(),
        answer(Code.CONTENT, undefined, caCertificates),
      );
      assert.deepEqual(certificates, readCertsOnly(caCertificates));
      assert.deepEqual((await result(sen, answer(Code.CHANGED, undefined, enrollResponse))).body, enrollResponse);
      const { attributes } = await result(
        (client) => client.csrAttributes(),
        answer(Code.CONTENT, undefined, csrAttributes),
      );
      assert.equal(attributes.length, 6);
    });

    it("a separate answer, as a server sends it that needs time for a certificate", async () => {
      await connect();
      const promise = est.simpleEnroll(enrollRequest);
      await harness.time.advance(0);
      await harness.reply({ code: Code.EMPTY });
      await harness.time.advance(30_000);
      await harness.reply({ ...answer(Code.CHANGED, 281, enrollResponse), type: MessageType.CON, messageId: 0x7777 });
      assert.deepEqual((await promise).body, enrollResponse);
    });

    it("no CSR attributes as an empty list: 4.04, an empty body, an empty sequence", async () => {
      const none = [
        answer(Code.NOT_FOUND),
        answer(Code.NOT_FOUND, undefined, utf8("no such resource")),
        answer(Code.CONTENT, 285),
        answer(Code.CONTENT),
        answer(Code.CONTENT, 285, fromHex("3000")),
      ];
      for (const reply of none) {
        const { code, body, attributes } = await result((client) => client.csrAttributes(), reply);
        assert.deepEqual(attributes, []);
        assert.equal(code, reply.code);
        assert.deepEqual(body, reply.code === Code.CONTENT ? (reply.payload ?? new Uint8Array(0)) : new Uint8Array(0));
      }
    });
  });

  describe("rejects with an ESTError", () => {
    it("what the server refuses, with the code, its name and the server's words", async () => {
      const codes: [number, RegExp][] = [
        [Code.BAD_REQUEST, /4\.00 Bad Request: "why"/],
        [Code.UNAUTHORIZED, /4\.01 Unauthorized: "why"/],
        [Code.BAD_OPTION, /4\.02 Bad Option: "why"/],
        [Code.FORBIDDEN, /4\.03 Forbidden: "why"/],
        [Code.NOT_FOUND, /4\.04 Not Found: "why"/],
        [Code.METHOD_NOT_ALLOWED, /4\.05 Method Not Allowed: "why"/],
        [Code.NOT_ACCEPTABLE, /4\.06 Not Acceptable: "why"/],
        [Code.REQUEST_ENTITY_INCOMPLETE, /4\.08 Request Entity Incomplete: "why"/],
        [Code.REQUEST_ENTITY_TOO_LARGE, /4\.13 Request Entity Too Large: "why"/],
        [Code.UNSUPPORTED_CONTENT_FORMAT, /4\.15 Unsupported Content-Format: "why"/],
        [Code.INTERNAL_SERVER_ERROR, /5\.00 Internal Server Error: "why"/],
        [Code.NOT_IMPLEMENTED, /5\.01 Not Implemented: "why"/],
        [Code.SERVICE_UNAVAILABLE, /5\.03 Service Unavailable: "why"/],
        // Without a name here.
        [0x9d, /4\.29: "why"/],
      ];
      for (const [code, text] of codes) {
        const error = await refusal(sen, answer(code, undefined, utf8("why")));
        assert.match(error.message, text);
        assert.match(error.message, /refused sen with/);
        assert.equal(error.code, code);
        assert.equal(error.diagnostic, "why");
        assert.equal(error.name, "ESTError");
      }
    });

    it("each operation by its name", async () => {
      assert.match((await refusal(crts, answer(Code.FORBIDDEN))).message, /refused crts with 4\.03 Forbidden$/);
      assert.match((await refusal(att, answer(Code.FORBIDDEN))).message, /refused att with 4\.03 Forbidden$/);
      assert.match((await refusal(sen, answer(Code.FORBIDDEN))).message, /refused sen with 4\.03 Forbidden$/);
      assert.match((await refusal(sren, answer(Code.NOT_FOUND))).message, /refused sren with 4\.04 Not Found$/);
      assert.match((await refusal(crts, answer(Code.NOT_FOUND))).message, /refused crts with 4\.04 Not Found$/);
    });

    it("5.03 with the seconds to wait: those of Max-Age, or 60 without", async () => {
      const unavailable = Code.SERVICE_UNAVAILABLE;
      for (const seconds of [0, 7, 86400]) {
        const error = await refusal(sen, answer(unavailable, undefined, undefined, maxAge(seconds)));
        assert.equal(error.retryAfter, seconds);
        assert.match(error.message, new RegExp(`try again in ${seconds} s$`));
      }
      const error = await refusal(sen, answer(unavailable, undefined, utf8("a human looks at it")));
      assert.equal(error.retryAfter, 60);
      assert.match(error.message, /"a human looks at it"; try again in 60 s$/);
      // Max-Age of any other error says how long it may be cached, which is nobody's affair here.
      assert.equal((await refusal(sen, answer(Code.FORBIDDEN, undefined, undefined, maxAge(7)))).retryAfter, undefined);
    });

    it("and can be asked again, with the same CSR", async () => {
      await connect();
      const first = rejection(est.simpleEnroll(enrollRequest));
      await harness.time.advance(0);
      await harness.reply(answer(Code.SERVICE_UNAVAILABLE, undefined, undefined, maxAge(1)));
      assert.ok((await first) instanceof ESTError);
      const second = est.simpleEnroll(enrollRequest);
      await harness.time.advance(0);
      assert.deepEqual(harness.last.payload, enrollRequest);
      await harness.reply(answer(Code.CHANGED, 281, enrollResponse));
      assert.deepEqual((await second).body, enrollResponse);
    });
  });

  describe("shows a diagnostic payload", () => {
    const diagnosticOf = async (payload: Uint8Array, format?: number): Promise<string> => {
      const error = await refusal(sen, answer(Code.BAD_REQUEST, format, payload));
      if (error.diagnostic === "") assert.match(error.message, /4\.00 Bad Request$/);
      else assert.ok(error.message.includes(`"${error.diagnostic}"`), error.message);
      return error.diagnostic;
    };

    it("of text, with and without Content-Format 0", async () => {
      assert.equal(await diagnosticOf(utf8("the CSR's key is too short")), "the CSR's key is too short");
      assert.equal(await diagnosticOf(utf8("Schlüssel zu kurz: 鍵 🔑"), 0), "Schlüssel zu kurz: 鍵 🔑");
    });

    it("not of another Content-Format", async () => {
      for (const format of [40, 50, 60, 281]) assert.equal(await diagnosticOf(utf8("text"), format), "");
    });

    it("as one line without control characters: terminals and logs obey them", async () => {
      assert.equal(await diagnosticOf(utf8("\u001b[2J\u001b[31mred\u001b[0m")), "[2J [31mred [0m");
      assert.equal(await diagnosticOf(utf8("one\r\ntwo\nthree\tfour\u0000five")), "one two three four five");
      assert.equal(await diagnosticOf(utf8("a\u007fb\u0085c\u009bd\u2028e\u2029f")), "a b c d e f");
      assert.equal(await diagnosticOf(utf8("\r\n  in the middle  \r\n")), "in the middle");
      assert.equal(await diagnosticOf(utf8("\u0007\u0007\n")), "");
    });

    it("not where it is no UTF-8", async () => {
      for (const digits of ["ff", "c0af", "eda080", "74657874ff", "f5808080", "74657874c3"]) {
        assert.equal(await diagnosticOf(fromHex(digits)), "", digits);
      }
    });

    it("of 200 bytes at most", async () => {
      assert.equal(await diagnosticOf(utf8("x".repeat(200))), "x".repeat(200));
      assert.equal(await diagnosticOf(utf8("x".repeat(201))), "x".repeat(200));
      assert.equal(await diagnosticOf(utf8("x".repeat(1000))), "x".repeat(200));
    });

    it("up to the last whole character where 200 bytes end within one", async () => {
      for (const character of ["ü", "鍵", "🔑"]) {
        for (let before = 196; before <= 200; before++) {
          const diagnostic = await diagnosticOf(utf8("x".repeat(before) + character.repeat(20)));
          assert.ok(diagnostic.startsWith("x".repeat(before)), `${before} bytes, then ${character}: "${diagnostic}"`);
        }
      }
    });

    it("of its first block where it comes in blocks", async () => {
      const error = await refusal(sen, {
        code: Code.BAD_REQUEST,
        block2: { number: 0, more: true, size: 16 },
        payload: utf8("sixteen bytes on"),
      });
      assert.equal(error.diagnostic, "sixteen bytes on");
    });
  });

  describe("rejects with a FormatError", () => {
    it("an answer of another Content-Format, which it names", async () => {
      for (const operation of [crts, sen, sren]) {
        for (const format of [0, 62, 280, 284]) {
          const error = await failure(operation, answer(Code.CONTENT, format, enrollResponse));
          assert.ok(error instanceof FormatError, `${error}`);
          assert.match(error.message, new RegExp(`expected Content-Format 281 or 287 in the answer, got ${format}$`));
        }
      }
      for (const format of [0, 62, 281]) {
        const error = await failure(att, answer(Code.CONTENT, format, csrAttributes));
        assert.ok(error instanceof FormatError, `${error}`);
        assert.match(error.message, /att: expected Content-Format 285/);
      }
    });

    it("an answer whose number servers confuse, where its bytes are not what was asked for either", async () => {
      for (const format of [285, 286]) {
        for (const operation of [crts, sen, sren]) {
          assert.ok((await failure(operation, answer(Code.CHANGED, format, csrAttributes))) instanceof FormatError);
          assert.ok((await failure(operation, answer(Code.CHANGED, format, serverKey))) instanceof FormatError);
        }
      }
      for (const format of [286, 287]) {
        assert.ok((await failure(att, answer(Code.CONTENT, format, enrollResponse))) instanceof FormatError);
      }
    });

    it("an answer without certificates where some are due", async () => {
      for (const operation of [crts, sen, sren]) {
        for (const format of [281, 287, undefined]) {
          const error = await failure(operation, answer(Code.CHANGED, format));
          assert.ok(error instanceof FormatError, `${error}`);
          assert.match(error.message, /expected certificates in the answer, got an empty body/);
        }
        assert.ok((await failure(operation, answer(Code.VALID))) instanceof FormatError);
      }
    });

    it("a body that is not what its Content-Format says", async () => {
      const certificate = readCertsOnly(enrollResponse)[0]!;
      // Certs-only with an empty SEQUENCE in the place of a certificate.
      const noX509 = fromHex("302706092a864886f70d010702a01a30180201013100300b06092a864886f70d010701a00230003100");
      assert.equal(readCertsOnly(noX509).length, 1);
      const wrong: [Operation, number, Uint8Array][] = [
        [sen, 281, certificate],
        [sen, 287, enrollResponse],
        [sen, 281, enrollResponse.subarray(0, enrollResponse.length - 1)],
        [sen, 287, certificate.subarray(0, certificate.length - 1)],
        [crts, 281, utf8("MIICegYJKoZIhvcNAQcCoIICazCCAmcCAQExADALBgkqhkiG9w0BBwE=")],
        [crts, 281, csrAttributes],
        [crts, 281, noX509],
        [att, 285, enrollRequest],
        [att, 285, csrAttributes.subarray(1)],
      ];
      for (const [operation, format, body] of wrong) {
        const error = await failure(operation, answer(Code.CHANGED, format, body));
        assert.ok(error instanceof FormatError, `${error}`);
      }
    });
  });

  describe("with server-side key generation", () => {
    const skg = (client: ESTClient) => client.serverKeyGeneration("skg", serverKeyRequest);
    const skc = (client: ESTClient) => client.serverKeyGeneration("skc", serverKeyRequest);
    const certificate = readCertsOnly(serverKeyCertificate)[0]!;

    /** A multipart-core of format and body in turn. */
    function multipart(...parts: readonly (readonly [number, Uint8Array | null])[]): Uint8Array {
      const bytes = [0x80 + 2 * parts.length];
      for (const [format, body] of parts) {
        bytes.push(0x19, format >> 8, format & 0xff);
        if (body === null) bytes.push(0xf6);
        else bytes.push(0x59, body.length >> 8, body.length & 0xff, ...body);
      }
      return Uint8Array.from(bytes);
    }

    it("asks as in RFC 9148, appendix A.3: the CSR as 286, the answer as 62", async () => {
      for (const [name, operation] of [
        ["skg", skg],
        ["skc", skc],
      ] as const) {
        const request = await requestOf(operation);
        assert.equal(request.code, Code.POST);
        assert.deepEqual(strings(request, OptionNumber.URI_PATH), [".well-known", "est", name]);
        assert.deepEqual(numbers(request, OptionNumber.CONTENT_FORMAT), [286]);
        assert.deepEqual(numbers(request, OptionNumber.ACCEPT), [62]);
        assert.deepEqual(request.payload, serverKeyRequest);
      }
    });

    it("reads key and certificate of appendix A.3, in either order", async () => {
      const [head, middle] = [fromHex("8419011c588a"), fromHex("1901195901d3")];
      const figure = joinBytes(head, serverKey, middle, serverKeyCertificate);
      const parts = [
        [284, serverKey],
        [281, serverKeyCertificate],
      ] as const;
      for (const body of [figure, multipart(...parts), multipart(parts[1], parts[0])]) {
        const {
          code,
          privateKey,
          certificates,
          leniencies,
          body: kept,
        } = await result(skg, answer(Code.CHANGED, 62, body));
        assert.equal(code, Code.CHANGED);
        assert.deepEqual(privateKey, serverKey);
        assert.deepEqual(certificates, [certificate]);
        assert.deepEqual(kept, serverKeyCertificate);
        assert.equal(leniencies, undefined);
      }
    });

    it("reads a single certificate, 287, of skc, and of skg too", async () => {
      for (const operation of [skc, skg]) {
        for (const order of [0, 1]) {
          const parts = [[284, serverKey] as const, [287, certificate] as const];
          if (order === 1) parts.reverse();
          const { certificates } = await result(operation, answer(Code.CHANGED, 62, multipart(...parts)));
          assert.deepEqual(certificates, [certificate]);
        }
      }
      const error = await failure(
        skc,
        answer(Code.CHANGED, 62, multipart([284, serverKey], [281, serverKeyCertificate])),
      );
      assert.match(error.message, /certificate as Content-Format 287, got 281/);
    });

    it("takes the numbers that servers confuse by the bytes, and says so", async () => {
      const { privateKey, certificates, leniencies } = await result(
        skg,
        answer(Code.CREATED, 62, multipart([286, serverKey], [281, serverKeyCertificate])),
      );
      assert.deepEqual(privateKey, serverKey);
      assert.deepEqual(certificates, [certificate]);
      assert.deepEqual(leniencies, ["success-code", "other-format-number"]);
    });

    it("refuses a key that is wrapped in CMS, 280, with a ServerKeyError: no key for it is agreed", async () => {
      for (const operation of [skg, skc]) {
        const error = await failure(
          operation,
          answer(Code.CHANGED, 62, multipart([280, caCertificates], [287, certificate])),
        );
        assert.ok(error instanceof ServerKeyError, `${error}`);
        assert.match(error.message, /wrapped in CMS \(280\)/);
      }
    });

    it("refuses what misses a part, has one twice, as null, or of another format", async () => {
      for (const [parts, kind] of [
        [[], ServerKeyError],
        [[[284, serverKey]], ServerKeyError],
        [[[281, serverKeyCertificate]], ServerKeyError],
        [
          [
            [284, serverKey],
            [284, serverKey],
            [281, serverKeyCertificate],
          ],
          FormatError,
        ],
        [
          [
            [284, serverKey],
            [281, serverKeyCertificate],
            [287, certificate],
          ],
          FormatError,
        ],
        [
          [
            [284, null],
            [281, serverKeyCertificate],
          ],
          FormatError,
        ],
        [
          [
            [284, serverKey],
            [281, null],
          ],
          FormatError,
        ],
        [
          [
            [284, serverKey],
            [0, serverKeyCertificate],
          ],
          FormatError,
        ],
        [
          [
            [284, serverKey],
            [281, serverKey],
          ],
          FormatError,
        ],
        [
          [
            [284, serverKey],
            [287, serverKeyCertificate],
          ],
          FormatError,
        ],
      ] as const) {
        const error = await failure(skg, answer(Code.CHANGED, 62, multipart(...parts)));
        assert.ok(error instanceof kind, `${error}`);
      }
      assert.ok((await failure(skg, answer(Code.CHANGED, 281, serverKeyCertificate))) instanceof FormatError);
    });

    it("is refused as other operations are, by name", async () => {
      assert.match((await refusal(skg, answer(Code.NOT_FOUND))).message, /refused skg with 4\.04/);
      assert.match((await refusal(skc, answer(Code.FORBIDDEN))).message, /refused skc with 4\.03/);
    });
  });

  it("asks where the resources are, and then goes there", async () => {
    const request = await requestOf((client) => client.discover());
    assert.equal(request.code, Code.GET);
    assert.deepEqual(strings(request, OptionNumber.URI_PATH), [".well-known", "core"]);
    assert.deepEqual(strings(request, OptionNumber.URI_QUERY), ["rt=ace.est*"]);
    assert.deepEqual(numbers(request, OptionNumber.ACCEPT), [40]);
    const links = utf8('</est/x/crts>;rt="ace.est.crts";ct="281 287",</e/sen>;rt="ace.est.sen"');
    const { resources } = await result((client) => client.discover(), answer(Code.CONTENT, 40, links));
    assert.deepEqual(
      resources.map(({ name }) => name),
      ["crts", "sen"],
    );
    assert.deepEqual(strings(await requestOf(crts, { resources }), OptionNumber.URI_PATH), ["est", "x", "crts"]);
    assert.deepEqual(strings(await requestOf(sen, { resources }), OptionNumber.URI_PATH), ["e", "sen"]);
    assert.deepEqual(strings(await requestOf(att, { resources }), OptionNumber.URI_PATH), [
      ".well-known",
      "est",
      "att",
    ]);
  });

  it("rejects a body over the limit with a LimitError", async () => {
    harness = await Harness.connected({ maxBody: enrollResponse.length - 1 });
    est = new ESTClient({ coap: harness.client });
    const error = rejection(est.simpleEnroll(enrollRequest));
    await harness.time.advance(0);
    await harness.reply(answer(Code.CHANGED, 281, enrollResponse));
    assert.ok((await error) instanceof LimitError, `${await error}`);
  });

  it("rejects with a TimeoutError where the server is silent", async () => {
    await connect();
    const error = rejection(est.simpleEnroll(enrollRequest));
    await harness.time.advance(120_000);
    assert.ok((await error) instanceof TimeoutError, `${await error}`);
  });

  it("rejects with a LimitError what has no room for its label", async () => {
    await connect({ label: "x".repeat(256) });
    await assert.rejects(est.caCertificates(), LimitError);
  });
});
