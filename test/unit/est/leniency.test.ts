import { strict as assert } from "node:assert";
import { describeLeniency, isConfused, shapeOf } from "../../../src/est/leniency.js";
import { Tag } from "../../../src/pki/der.js";
import * as vectors from "../../vectors/rfc9148.js";
import { element } from "../pki/element.js";

describe("what a body looks like", () => {
  it("tells the bodies of RFC 9148, appendix A, from one another", () => {
    assert.equal(shapeOf(vectors.serverKey), "key");
    assert.equal(shapeOf(vectors.caCertificates), "certs-only");
    assert.equal(shapeOf(element(Tag.SEQUENCE, element(Tag.SEQUENCE))), "certificate");
  });

  it("is unknown for anything else, without an error", () => {
    for (const bytes of [
      new Uint8Array(0),
      Uint8Array.of(0x30),
      element(Tag.SEQUENCE),
      element(Tag.SET),
      element(Tag.SEQUENCE, element(Tag.SET)),
    ]) {
      assert.equal(shapeOf(bytes), "unknown");
    }
  });
});

describe("what is put up with", () => {
  it("is the three Content-Format numbers that servers mix up, and no others", () => {
    assert.deepEqual(
      [281, 284, 285, 286, 287, 288].map((format) => isConfused(format)),
      [false, false, true, true, true, false],
    );
  });

  it("is told in a sentence, with the reason", () => {
    assert.match(describeLeniency("no-format"), /^the server leaves out .*: accepted, for /);
  });
});
