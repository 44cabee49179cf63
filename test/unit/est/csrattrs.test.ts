// CSR attributes: src/est/csrattrs.ts.
import { strict as assert } from "node:assert";
import { FormatError, LimitError } from "../../../src/errors.js";
import { readCsrAttributes } from "../../../src/est/csrattrs.js";
import { csrAttributes, fromHex } from "../../vectors/rfc9148.js";

describe("CSR attributes", () => {
  it("of RFC 9148, appendix A.4, are read with their values", () => {
    assert.deepEqual(readCsrAttributes(csrAttributes), [
      { oid: "1.3.6.1.1.1.1.22" },
      { oid: "2.999.1", values: [fromHex("131950617273652053455420617320322e3939392e312064617461")] },
      { oid: "1.2.840.113549.1.9.7" },
      {
        oid: "2.999.2",
        values: [
          fromHex("0603883703"),
          fromHex("0603883704"),
          fromHex("131950617273652053455420617320322e3939392e322064617461"),
        ],
      },
      { oid: "1.3.36.3.3.2.8.1.1.11" },
      { oid: "2.16.840.1.101.3.4.2.2" },
    ]);
  });

  it("of RFC 8951, section 4, are read with their values", () => {
    const bytes = fromHex(
      "304106092a864886f70d010907301206072a8648ce3d020131070605" +
        "2b81040022301606092a864886f70d01090e310906072b060101010116" +
        "06082a8648ce3d040303",
    );
    assert.deepEqual(readCsrAttributes(bytes), [
      { oid: "1.2.840.113549.1.9.7" },
      { oid: "1.2.840.10045.2.1", values: [fromHex("06052b81040022")] },
      { oid: "1.2.840.113549.1.9.14", values: [fromHex("06072b060101010116")] },
      { oid: "1.2.840.10045.4.3.3" },
    ]);
  });

  it("are none in an empty body and in an empty sequence", () => {
    assert.deepEqual(readCsrAttributes(new Uint8Array(0)), []);
    assert.deepEqual(readCsrAttributes(fromHex("3000")), []);
  });

  it("are refused in another structure", () => {
    const wrong = [
      // no sequence, bytes behind it, an entry that is neither OID nor attribute
      "00",
      "3100",
      "300000",
      "30020500",
      // an attribute without a set, with an empty set, with something behind the set, with a sequence for a set
      "300730050603550403",
      "3009300706035504033100",
      "300d300b0603550403310205000500",
      "300b3009060355040330020500",
      // an OID that is cut short
      "3003060188",
    ];
    for (const hex of wrong) assert.throws(() => readCsrAttributes(fromHex(hex)), FormatError, hex);
    for (let length = 1; length < csrAttributes.length; length++) {
      assert.throws(() => readCsrAttributes(csrAttributes.subarray(0, length)), FormatError);
    }
  });

  it("are at most 64 OIDs, attributes and values, or what the caller says", () => {
    const oids = (count: number) => fromHex(`3081${(count * 3).toString(16)}${"06012a".repeat(count)}`);
    assert.equal(readCsrAttributes(oids(64)).length, 64);
    assert.throws(() => readCsrAttributes(oids(65)), LimitError);
    assert.equal(readCsrAttributes(csrAttributes, { maxEntries: 10 }).length, 6);
    assert.throws(() => readCsrAttributes(csrAttributes, { maxEntries: 9 }), LimitError);
  });
});
