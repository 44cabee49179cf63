import { strict as assert } from "node:assert";
import {
  Code,
  codeText,
  type DecodedMessage,
  decode,
  encode,
  type Message,
  MessageType,
  type Option,
  OptionNumber,
  stringValue,
  uintValue,
} from "../../../src/coap/message.js";
import { FormatError, LimitError } from "../../../src/errors.js";
import { bytes, hex } from "./hex.js";
import { A1_CERTIFICATES, A2_CSR, B1_BLOCK_0 } from "./rfc9148.js";

const NONE = new Uint8Array(0);

function message(fields: Partial<Message>): Message {
  return {
    type: MessageType.CON,
    code: Code.GET,
    messageId: 0x1234,
    token: bytes("9a"),
    options: [],
    payload: NONE,
    ...fields,
  };
}

function encoded(fields: Partial<Message>): string {
  const buffer = new Uint8Array(2048);
  return hex(buffer.subarray(0, encode(message(fields), buffer)));
}

function decoded(text: string): DecodedMessage {
  return decode(bytes(text));
}

function optionText(options: Option[]): string {
  return options.map(({ number, value }) => `${number}=${hex(value as Uint8Array)}`).join(" ");
}

describe("the CoAP message codec", () => {
  describe("with the figures of RFC 9148", () => {
    // Header 41 01 1234, token 9a, Uri-Host 3b, Uri-Port 42, Uri-Path 43 and 04, Accept 62: the deltas of A.1.
    const A1_REQUEST = `4101 1234 9a 3b 6578616d706c652e636f6d 42 237d 43 657374 04 63727473 62 0119`;
    const A1_OPTIONS: Option[] = [
      { number: OptionNumber.URI_HOST, value: "example.com" },
      { number: OptionNumber.URI_PORT, value: 9085 },
      { number: OptionNumber.URI_PATH, value: "est" },
      { number: OptionNumber.URI_PATH, value: "crts" },
      { number: OptionNumber.ACCEPT, value: 281 },
    ];

    it("writes the request header of A.1", () => {
      assert.equal(encoded({ options: A1_OPTIONS }), hex(bytes(A1_REQUEST)));
    });

    it("reads the request header of A.1", () => {
      const request = decoded(A1_REQUEST);
      assert.equal(request.type, MessageType.CON);
      assert.equal(request.code, Code.GET);
      assert.equal(hex(request.token), "9a");
      assert.equal(stringValue(request.options[0].value), "example.com");
      assert.equal(uintValue(request.options[1].value), 9085);
      assert.equal(stringValue(request.options[3].value), "crts");
      assert.equal(uintValue(request.options[4].value), 281);
      assert.equal(request.payload.length, 0);
    });

    it("writes and reads the 2.05 response of A.1", () => {
      const payload = bytes(A1_CERTIFICATES);
      const fields = {
        type: MessageType.ACK,
        code: Code.CONTENT,
        options: [{ number: OptionNumber.CONTENT_FORMAT, value: 281 }],
        payload,
      };
      const text = encoded(fields);
      assert.equal(text, hex(bytes(`6145 1234 9a c2 0119 ff ${A1_CERTIFICATES}`)));
      const response = decoded(text);
      assert.equal(response.code, 0x45);
      assert.equal(uintValue(response.options[0].value), 281);
      assert.equal(hex(response.payload), A1_CERTIFICATES);
    });

    it("writes the POST of A.2: token 45, Content-Format 286, Accept 281, the CSR", () => {
      const text = encoded({
        code: Code.POST,
        token: bytes("45"),
        options: [
          { number: OptionNumber.ACCEPT, value: 281 },
          { number: OptionNumber.CONTENT_FORMAT, value: 286 },
          { number: OptionNumber.URI_PATH, value: "est" },
          { number: OptionNumber.URI_PATH, value: "sen" },
        ],
        payload: bytes(A2_CSR),
      });
      assert.equal(text, hex(bytes(`4102 1234 45 b3 657374 03 73656e 12 011e 52 0119 ff ${A2_CSR}`)));
    });

    it("writes the 2.04 response headers of A.2 and A.3", () => {
      const response = { type: MessageType.ACK, code: Code.CHANGED, payload: bytes("30") };
      const a2 = [{ number: OptionNumber.CONTENT_FORMAT, value: 281 }];
      assert.equal(encoded({ ...response, token: bytes("45"), options: a2 }), hex(bytes("6144 1234 45 c2 0119 ff 30")));
      const a3 = [{ number: OptionNumber.CONTENT_FORMAT, value: 62 }];
      assert.equal(encoded({ ...response, token: bytes("a5"), options: a3 }), hex(bytes("6144 1234 a5 c1 3e ff 30")));
    });

    it("writes the POST header of A.3: token a5, Accept 62, Content-Format 286", () => {
      const options = [
        { number: OptionNumber.URI_PATH, value: "est" },
        { number: OptionNumber.URI_PATH, value: "skg" },
        { number: OptionNumber.CONTENT_FORMAT, value: 286 },
        { number: OptionNumber.ACCEPT, value: 62 },
      ];
      const text = encoded({ code: Code.POST, token: bytes("a5"), options });
      assert.equal(text, hex(bytes("4102 1234 a5 b3 657374 03 736b67 12 011e 51 3e")));
    });

    it("writes the response header of block 0 of B.1", () => {
      const text = encoded({
        type: MessageType.ACK,
        code: Code.CONTENT,
        options: [
          { number: OptionNumber.CONTENT_FORMAT, value: 281 },
          { number: OptionNumber.BLOCK2, value: 0x0a },
        ],
        payload: bytes(B1_BLOCK_0),
      });
      assert.equal(text, hex(bytes(`6145 1234 9a c2 0119 b1 0a ff ${B1_BLOCK_0}`)));
    });
  });

  it("sorts options and keeps the order of those of one number", () => {
    const text = encoded({
      options: [
        { number: OptionNumber.URI_QUERY, value: "b" },
        { number: OptionNumber.URI_PATH, value: "z" },
        { number: OptionNumber.URI_QUERY, value: "a" },
        { number: OptionNumber.URI_PATH, value: "y" },
      ],
    });
    assert.equal(optionText(decoded(text).options), "11=7a 11=79 15=62 15=61");
  });

  it("writes uints in the fewest bytes, zero in none", () => {
    const values = [0, 1, 255, 256, 65535, 65536, 0xffffff, 0x1000000, 0xffffffff];
    const options = values.map((value) => ({ number: 14, value }));
    assert.equal(
      optionText(decoded(encoded({ options })).options),
      "14= 14=01 14=ff 14=0100 14=ffff 14=010000 14=ffffff 14=01000000 14=ffffffff",
    );
  });

  it("reads uints with leading zeros, up to four bytes", () => {
    assert.equal(uintValue(bytes("0000")), 0);
    assert.equal(uintValue(bytes("00000101")), 257);
    assert.equal(uintValue(bytes("ffffffff")), 0xffffffff);
    assert.throws(() => uintValue(bytes("0000000001")), FormatError);
  });

  it("refuses to write a uint that is negative, fractional or over four bytes", () => {
    for (const value of [-1, 1.5, 0x100000000, Number.NaN]) {
      assert.throws(() => encoded({ options: [{ number: 14, value }] }), FormatError);
    }
  });

  it("extends deltas and lengths at 13 and at 269", () => {
    for (const [number, header] of [
      [12, "c0"],
      [13, "d000"],
      [268, "d0ff"],
      [269, "e00000"],
      [65535, "e0fef2"],
    ] as const) {
      assert.equal(encoded({ token: NONE, options: [{ number, value: NONE }] }), `40011234${header}`);
      assert.equal(decoded(`40011234${header}`).options[0].number, number);
    }
    for (const [length, header] of [
      [12, "1c"],
      [13, "1d00"],
      [268, "1dff"],
      [269, "1e0000"],
      [1000, "1e02db"],
    ] as const) {
      const value = new Uint8Array(length).fill(0xaa);
      const text = encoded({ token: NONE, options: [{ number: 1, value }] });
      assert.equal(text, `40011234${header}${hex(value)}`);
      assert.equal(decoded(text).options[0].value.length, length);
    }
  });

  it("reads an option with extended delta and extended length", () => {
    const options = decoded("40011234 ee 0001 0000".replace(/ /g, "") + "bb".repeat(269)).options;
    assert.equal(options[0].number, 270);
    assert.equal(options[0].value.length, 269);
  });

  it("refuses the reserved nibble 15, and option numbers above 65535", () => {
    for (const text of ["40011234f0", "400112341f", "40011234e0ffff", "40011234e0fef310"]) {
      assert.throws(() => decoded(text), FormatError);
    }
  });

  it("takes tokens of 0 to 8 bytes and refuses 9 to 15", () => {
    for (let length = 0; length <= 15; length++) {
      const text = `4${length.toString(16)}011234${"07".repeat(length)}`;
      if (length <= 8) assert.equal(decoded(text).token.length, length);
      else assert.throws(() => decoded(text), FormatError);
    }
    assert.throws(() => encoded({ token: new Uint8Array(9) }), FormatError);
  });

  it("refuses a payload marker without a payload", () => {
    assert.throws(() => decoded("40011234ff"), FormatError);
    assert.throws(() => decoded("4001123410ff"), FormatError);
  });

  it("takes an Empty message only where it has four bytes", () => {
    assert.equal(decoded("60001234").code, Code.EMPTY);
    for (const text of ["6000123400", "600012", "6100123401", "60001234ff00"]) {
      assert.throws(() => decoded(text), FormatError);
    }
    assert.throws(() => encoded({ code: Code.EMPTY }), FormatError);
    assert.throws(() => encoded({ code: Code.EMPTY, token: NONE, payload: bytes("00") }), FormatError);
  });

  it("refuses other versions, and messages that end too early", () => {
    for (const text of [
      "",
      "40",
      "400112",
      "00011234",
      "80011234",
      "c0011234",
      "42011234aa",
      "40011234d0",
      "40011234e000",
    ]) {
      assert.throws(() => decoded(text), FormatError);
    }
    for (const text of ["4001123412aa", "400112341d", "400112341d00aa", "400112341e0000"]) {
      assert.throws(() => decoded(text), FormatError);
    }
  });

  it("gives views of the bytes it was given", () => {
    const data = bytes("41011234 9a b1 61 ff 62");
    const { token, options, payload } = decode(data);
    data[4] = 1;
    data[6] = 2;
    data[8] = 3;
    assert.equal(hex(token) + hex(options[0].value) + hex(payload), "010203");
  });

  it("writes nothing beyond a buffer that is too small, and says so with a LimitError", () => {
    const fields = message({ options: [{ number: 11, value: "crts" }], payload: bytes("010203") });
    const needed = 4 + 1 + 5 + 4;
    for (let size = 0; size < needed; size++) {
      const whole = new Uint8Array(64);
      assert.throws(() => encode(fields, whole.subarray(0, size)), LimitError);
      assert.equal(hex(whole.subarray(size)), "00".repeat(64 - size));
    }
    assert.equal(encode(fields, new Uint8Array(needed)), needed);
  });

  it("refuses header fields out of their range", () => {
    for (const fields of [{ type: 4 }, { type: -1 }, { code: 256 }, { messageId: 65536 }, { messageId: 0.5 }]) {
      assert.throws(() => encoded(fields), FormatError);
    }
    for (const number of [-1, 65536, 1.5]) {
      assert.throws(() => encoded({ options: [{ number, value: NONE }] }), FormatError);
    }
  });

  it("writes codes as text", () => {
    assert.equal(codeText(0x45), "2.05");
    assert.equal(codeText(Code.GET), "0.01");
    assert.equal(codeText(Code.CONTINUE), "2.31");
    assert.equal(codeText(Code.SERVICE_UNAVAILABLE), "5.03");
    assert.equal(codeText(0xff), "7.31");
  });

  describe("with strings", () => {
    const TEXTS = [
      ["crts", "63727473"],
      ["é", "c3a9"],
      ["\u07ff\u0800\uffff", "dfbfe0a080efbfbf"],
      ["€", "e282ac"],
      ["🐦", "f09f90a6"],
      ["\u{10ffff}", "f48fbfbf"],
      ["", ""],
    ] as const;

    it("writes and reads UTF-8", () => {
      for (const [text, digits] of TEXTS) {
        const [option] = decoded(encoded({ options: [{ number: 11, value: text }] })).options;
        assert.equal(hex(option.value), digits);
        assert.equal(stringValue(option.value), text);
      }
    });

    it("refuses malformed UTF-8", () => {
      const malformed = ["80", "bf", "c3", "c328", "c080", "c1bf", "e08080", "e0a0", "eda080", "edbfbf", "f0808080"];
      for (const text of [...malformed, "f4908080", "f8888080", "ff", "e28228", "f09f90"]) {
        assert.throws(() => stringValue(bytes(text)), FormatError);
      }
    });

    it("refuses to write a lone surrogate", () => {
      assert.throws(() => encoded({ options: [{ number: 11, value: "\ud83d" }] }), FormatError);
      assert.throws(() => encoded({ options: [{ number: 11, value: "\udc26x" }] }), FormatError);
    });
  });
});
