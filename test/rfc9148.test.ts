/**
 * RFC 9148 on the side of the client, row by row: each requirement, and the tests that show it, by file and name. That
 * they are there is checked; what they show is theirs.
 */

import { strict as assert } from "node:assert";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { checkout } from "../hosts/node/native.js";

interface Row {
  readonly section: string;
  readonly requirement: string;
  /** File below test/, without ".test.ts", and the name of a test there as it stands in the source. */
  readonly shown: readonly (readonly [file: string, test: string])[];
  /** Why there is no test yet. */
  readonly open?: string;
}

const ROWS: readonly Row[] = [
  {
    section: "1, 3",
    requirement: "certificate client authentication only; mutual authentication for every function; no PSK",
    shown: [
      [
        "dtls/engine",
        "makes a full handshake with CCM_8 and mutual certificates, and both ends have the same channel binding",
      ],
      ["dtls/client-hello", "offers CCM_8 first, then CCM and GCM, all with ECDHE and ECDSA, and nothing else"],
      ["tools/est-server", "refuses a client without a certificate, or with one of a CA that it does not know"],
      ["command/bad-input", "refuses a server of another CA"],
    ],
  },
  {
    section: "3",
    requirement: "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8; P-256; uncompressed points; CCM and GCM beside it",
    shown: [
      ["dtls/client-hello", "offers CCM_8 first, then CCM and GCM, all with ECDHE and ECDSA, and nothing else"],
      ["dtls/client-hello", "offers P-256 first, and uncompressed points alone"],
      ["peers/openssl", "negotiates CCM and GCM where the server has no CCM_8"],
    ],
  },
  {
    section: "3",
    requirement: "an Implicit trust anchor database at least, an Explicit one after crts",
    shown: [
      ["command/life", "needs no --trust once it has fetched the CA certificates"],
      [
        "unit/enrollment/schedule",
        "begins with a first boot: CA certificates, attributes, enrolment, as the factory made the device",
      ],
      [
        "unit/enrollment/schedule",
        "goes back to the trust anchors of the factory where the server is refused three times, if there are any",
      ],
    ],
  },
  {
    section: "3",
    requirement: "proof of possession by tls-unique, Base64, in challengePassword: full, resumed, restored",
    shown: [
      ["unit/est/request", "carries tls-unique in Base64 as challengePassword, as the text of RFC 9148, A.2, has it"],
      [
        "command/operations",
        "carries the tls-unique of a full handshake, of a resumed one by each way, and of a restored association",
      ],
      ["dtls/engine", "resumes by session id: two flights each way, the same keys' owner, another tls-unique"],
    ],
  },
  {
    section: "3",
    requirement: "proof of possession by tls-exporter (RFC 9266) with DTLS 1.3",
    shown: [
      [
        "wolfssl/engine",
        "makes a full handshake with mutual certificates; both ends have the same tls-exporter binding",
      ],
      [
        "wolfssl/command",
        "proves possession by tls-exporter (RFC 9266), in a full handshake and in one resumed by a ticket",
      ],
    ],
  },
  {
    section: "3",
    requirement: "resumption or connection ID for sleeping devices",
    shown: [
      [
        "dtls/ladder",
        "sends the message at once over a saved association: no handshake byte, from another port, as often as one likes",
      ],
      [
        "dtls/ladder",
        "goes down to the session id where the server has forgotten the association, after one short patience",
      ],
      ["peers/openssl", "resumes by ticket where asked to, which the server confirms"],
    ],
  },
  {
    section: "4.1",
    requirement: "short paths under /.well-known/est[/label]",
    shown: [
      ["unit/est/client", "under the label that it is given, for each operation"],
      ["command/operations", "uses the label of the server's URI, and is refused under one that is not there"],
    ],
  },
  {
    section: "4.1",
    requirement: "discovery by GET /.well-known/core?rt=ace.est*: absolute links, other ports, ct",
    shown: [
      ["unit/est/client", "asks where the resources are, and then goes there"],
      ["unit/est/discovery", "finds the resources of RFC 9148, section 4.1, with their formats"],
      ["unit/est/discovery", "follows absolute links to another port, as in the second example of section 4.1"],
      ["command/operations", "goes to another port that absolute links name"],
    ],
  },
  {
    section: "4.2",
    requirement: "crts, sen, sren; skg, skc, att optional",
    shown: [
      [
        "command/life",
        "enrols at the first boot, sleeps, comes back by each way and renews; the figures are those of a capture",
      ],
      [
        "command/operations",
        // biome-ignore lint/suspicious/noTemplateCurlyInString: as it stands in the source
        "takes a key and its certificate by ${operation}, keeps the key in its key storage alone, and uses it",
      ],
      ["unit/est/client", "no CSR attributes as an empty list: 4.04, an empty body, an empty sequence"],
    ],
  },
  {
    section: "4.3",
    requirement: "raw DER, never Base64; Accept 281 or 287",
    shown: [
      ["unit/est/client", "for enrolment as in appendix A.2: the CSR in raw DER as 286, the certificate as 281"],
      [
        "unit/est/client",
        "for a single certificate, 287, where it is told to; for CA certificates as 281 all the same",
      ],
      ["unit/est/client", "a body that is not what its Content-Format says"],
    ],
  },
  {
    section: "4.3, 8.1",
    requirement:
      "62 multipart-core, 280 server-generated-key, 281 certs-only, 284 pkcs8, 285 csrattrs, 286 pkcs10, 287 pkix-cert",
    shown: [
      ["unit/est/multipart", "of RFC 9148, figure 2, is read part by part"],
      ["unit/est/client", "reads key and certificate of appendix A.3, in either order"],
      ["unit/est/client", "an answer of another Content-Format, which it names"],
      ["unit/est/client", "an answer with a number that servers confuse by its bytes, and says so"],
    ],
  },
  {
    section: "4.4",
    requirement: "CON; Uri-Host, Uri-Path, Uri-Port, Content-Format, Block1, Block2, Accept",
    shown: [
      ["unit/coap/client", "with the header of RFC 9148 appendix A.1"],
      ["unit/coap/message", "writes the POST of A.2: token 45, Content-Format 286, Accept 281, the CSR"],
    ],
  },
  {
    section: "4.5",
    requirement: "2.05 for GET, 2.04 for POST; 4.00, 4.01, 4.03, 4.04; 5.03 with Max-Age",
    shown: [
      ["unit/est/client", "what the server refuses, with the code, its name and the server's words"],
      ["unit/est/client", "5.03 with the seconds to wait: those of Max-Age, or 60 without"],
      [
        "unit/est/client",
        "what it puts up with out loud: 2.01 for 2.04, no Content-Format; and nothing where all is as it should be",
      ],
    ],
  },
  {
    section: "4.6",
    requirement: "Block2; Block1 when a request may exceed the path MTU; Size1 and Size2",
    shown: [
      ["unit/coap/client", "as in RFC 9148 appendix B.1, with one token and a new message ID for each block"],
      ["unit/est/client", "with a CSR in blocks where it is long"],
      ["unit/coap/client", "of the size that Size2 says, or of another"],
      ["command/life", "carries blocks of 64 bytes through an MTU of 256"],
    ],
  },
  {
    section: "4.7",
    requirement: "empty acknowledgement and separate response",
    shown: [
      ["unit/coap/client", "waits for a separate response to the last block, as in RFC 9148 figure 3"],
      ["unit/est/client", "a separate answer, as a server sends it that needs time for a certificate"],
      ["command/operations", "waits for an answer that comes separately, after an empty acknowledgement"],
    ],
  },
  {
    section: "4.7",
    requirement: "after 5.03 wait Max-Age, resend the same CSR; rebuild it where a proof is linked to a new connection",
    shown: [
      [
        "command/operations",
        "sends the same request again after 5.03 and Max-Age, and keeps the old certificate until then",
      ],
      [
        "command/operations",
        "does not come back before Max-Age is over when it does what is due, and says when it will",
      ],
      ["command/operations", "makes the request anew where the connection was lost under it"],
      ["unit/coap/client", "asks for it when the request begins, and again once the connection was made anew"],
    ],
  },
  {
    section: "4.8",
    requirement: "server key generation: 284; multipart array of 4, parts in any order; 280 where a key is agreed",
    shown: [
      ["unit/est/client", "reads key and certificate of appendix A.3, in either order"],
      ["unit/est/client", "reads a single certificate, 287, of skc, and of skg too"],
      ["unit/est/client", "refuses a key that is wrapped in CMS, 280, with a ServerKeyError: no key for it is agreed"],
      ["command/operations", "is answered with what openssl reads as a PKCS #8 key of that certificate"],
    ],
  },
  {
    section: "6",
    requirement: "RFC 7252 transmission parameters, NSTART 1",
    shown: [
      ["unit/coap/exchange", "retransmits after 2, 4, 8 and 16 s, and gives up after 62 s"],
      ["peers/coap-plain", "runs requests one after the other over one socket"],
    ],
  },
  {
    section: "9.1",
    requirement:
      "revalidate the server against the new explicit trust anchors after crts, else close; explicit ones from then on",
    shown: [
      [
        "command/operations",
        "refuses one whose own certificate does not lead to the CA certificates that it gives, and keeps nothing",
      ],
      ["enrollment/trust", "lead to a server, whose chain has its own certificate last, by way of what it gave"],
      [
        "command/operations",
        "follows a rollover of the CA's root key from before, and trusts the new root from then on",
      ],
    ],
  },
  {
    section: "9.1",
    requirement: "extended master secret",
    shown: [["dtls/client-hello", "offers the extended master secret, which the server agrees to"]],
  },
  {
    section: "9.2",
    requirement: "with implicit trust anchors check id-kp-cmcRA in the server's certificate",
    shown: [
      ["enrollment/trust", "tell a registration authority by id-kp-cmcRA alone"],
      [
        "command/operations",
        "refuses one that is verified by --trust and is no registration authority, where it is told to",
      ],
      ["command/operations", "notes one that is no registration authority, and goes on"],
    ],
  },
  {
    section: "RFC 7252 9.1",
    requirement: "a response matches only within the same DTLS session and epoch",
    shown: [
      [
        "unit/coap/exchange",
        "sends a request again over a new connection where a kept one was lost, with the tokens from 0, and says so",
      ],
      ["command/rollback", "are not taken by a restored association: the request gets its own answer"],
    ],
  },
  {
    section: "RFC 9175 4.2",
    requirement: "tokens from a counter that starts at 0 on a new connection and goes with a restored context",
    shown: [
      ["unit/coap/exchange", "counts tokens from 0 on a new connection, in at least one byte"],
      ["unit/coap/exchange", "goes on where it was over a kept connection: the next token, the next message ID"],
      ["dtls/ladder", "gives the layer above the state that it gave to sleep, and none after a handshake"],
    ],
  },
  {
    section: "RFC 7959",
    requirement: "block size negotiation, 2.31, 4.08, 4.13; one token for all blocks of a transfer",
    shown: [
      ["unit/coap/client", "once more from block 0 and under a new token after 4.08, then gives up"],
      ["unit/coap/client", "once more in the smaller size that 4.13 hints at"],
      ["unit/coap/client", "and breaks off where 2.31 answers the last block, or a request without blocks"],
      ["tools/est-server", "refuses blocks out of order, of another token, resource or format"],
    ],
  },
  {
    section: "RFC 7925 7",
    requirement: "resumption",
    shown: [
      [
        "peers/openssl",
        // biome-ignore lint/suspicious/noTemplateCurlyInString: as it stands in the source
        'resumes by session id at each further wake, which the server confirms (${options.join(" ") || "default"})',
      ],
    ],
  },
  {
    section: "RFC 7925 11",
    requirement: "handshake timer of 9 s",
    shown: [["dtls/client-hello", "is sent again after 9 seconds, and then after twice that, where nobody answers"]],
  },
  {
    section: "RFC 7925 12",
    requirement: "no renegotiation",
    shown: [
      [
        "dtls/client-hello",
        "is not sent in an association that is open: a server that wants to renegotiate is told no",
      ],
    ],
  },
  {
    section: "RFC 8951",
    requirement: "unrecognised csrattrs are ignored, others obeyed; templates of RFC 9908",
    shown: [
      ["unit/est/request", "ignores what it does not know: of RFC 9148, A.4, all but the challengePassword"],
      [
        "unit/est/request",
        "of RFC 8951, section 4, is planned: P-384, proof of possession, an unknown extension ignored",
      ],
      ["unit/est/request", "has the subject, the key and the extensions of it"],
      ["command/operations", "makes the key that the server wishes, and the one that it is told to"],
      ["command/operations", "asks for the extensions that the server wishes, as openssl sees them in the request"],
    ],
  },
  {
    section: "RFC 7030 4.1.3",
    requirement: "OldWithNew, NewWithOld and NewWithNew in crts",
    shown: [
      [
        "enrollment/trust",
        "are after a rollover the new root, and the old key by OldWithNew, in whatever order they come",
      ],
      ["enrollment/trust", "of a rollover are certificates that openssl verifies by each other"],
      ["enrollment/ten-years", "holds one matching pair whatever happens, leaks no key, and ends enrolled"],
    ],
  },
  {
    section: "A.1 to A.4, B.1",
    requirement: "the examples, where they are deterministic",
    shown: [
      ["unit/est/client", "for CA certificates as in RFC 9148, appendix A.1, under /.well-known"],
      ["unit/est/client", "the CA certificates of appendix A.1"],
      ["unit/coap/message", "writes the POST of A.2: token 45, Content-Format 286, Accept 281, the CSR"],
      ["unit/est/client", "the certificate of appendix A.2, for the key of the request"],
      ["unit/est/client", "asks as in RFC 9148, appendix A.3: the CSR as 286, the answer as 62"],
      ["unit/est/client", "reads key and certificate of appendix A.3, in either order"],
      ["unit/est/client", "for CSR attributes as in appendix A.4, with Accept 285"],
      ["unit/est/client", "the CSR attributes of appendix A.4"],
      ["unit/coap/client", "as in RFC 9148 appendix B.1, with one token and a new message ID for each block"],
    ],
  },
];

/** The names of the tests in a file, as they stand there. */
function testsIn(source: string): Set<string> {
  const names = new Set<string>();
  for (const [, , name] of source.matchAll(/\bit\(\s*(["'`])((?:(?!\1)[^\\]|\\.)*)\1/g)) {
    names.add(name!.replace(/\\(.)/g, "$1"));
  }
  return names;
}

describe("RFC 9148, client side", () => {
  const folder = join(checkout(), "test");
  const sources = new Map(
    readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".test.ts"))
      .map((name) => [name.replace(/\.test\.ts$/, ""), readFileSync(join(folder, name), "utf8")]),
  );

  for (const { section, requirement, shown, open } of ROWS) {
    it(`${section}: ${requirement}${open === undefined ? "" : ` (open: ${open})`}`, () => {
      assert.equal(shown.length > 0, open === undefined, "a test, or a reason why there is none");
      for (const [file, test] of shown) {
        const source = sources.get(file);
        assert.ok(source !== undefined, `there is no test/${file}.test.ts`);
        assert.ok(testsIn(source).has(test), `test/${file}.test.ts has no test "${test}"`);
      }
    });
  }

  it("has no row open", () => {
    assert.deepEqual(
      ROWS.filter(({ open }) => open !== undefined).map(({ requirement }) => requirement),
      [],
    );
  });

  it("is shown by tests that run: none is skipped, and none runs alone", () => {
    for (const [name, source] of sources) {
      assert.doesNotMatch(source, /\b(it|describe|context)\.(skip|only)\(|\bx(it|describe)\(/, name);
    }
  });
});
