import { strict as assert } from "node:assert";
import { decodePath, parseURI } from "../../../src/coap/uri.js";
import { FormatError } from "../../../src/errors.js";

describe("a CoAP URI", () => {
  it("has the default port of its scheme", () => {
    assert.deepEqual(parseURI("coaps://est.example.com"), {
      scheme: "coaps",
      host: "est.example.com",
      port: 5684,
      path: "/",
    });
    assert.deepEqual(parseURI("coap://192.0.2.1/"), { scheme: "coap", host: "192.0.2.1", port: 5683, path: "/" });
    assert.equal(parseURI("coaps://h:/x").port, 5684);
  });

  it("may have a port and a label", () => {
    assert.deepEqual(parseURI("coaps://example.com:9085/line-7"), {
      scheme: "coaps",
      host: "example.com",
      port: 9085,
      path: "/line-7",
    });
  });

  it("may have an IPv6 address in brackets", () => {
    const uri = parseURI("coaps://[2001:DB8::2:1]:61616/est/sen");
    assert.deepEqual(uri, { scheme: "coaps", host: "2001:db8::2:1", port: 61616, path: "/est/sen" });
    for (const host of [
      "::1",
      "::",
      "1::",
      "fe80::1:2",
      "1:2:3:4:5:6:7:8",
      "::ffff:192.0.2.1",
      "1:2:3:4:5:6:1.2.3.4",
    ]) {
      assert.equal(parseURI(`coaps://[${host}]`).host, host);
    }
  });

  it("has scheme and host in lower case", () => {
    assert.deepEqual(parseURI("COAPS://EST.Example.COM/Label"), {
      scheme: "coaps",
      host: "est.example.com",
      port: 5684,
      path: "/Label",
    });
  });

  it("has a path that is percent-decoded, segment by segment", () => {
    assert.equal(parseURI("coaps://h/caf%C3%A9/a%20b/%25").path, "/café/a b/%");
    assert.equal(decodePath("/.well-known/est/"), "/.well-known/est/");
    assert.equal(decodePath("/a:b@c;d,e=f!$&'()*+~"), "/a:b@c;d,e=f!$&'()*+~");
  });

  it("is refused with another scheme, without a host, or with parts that EST does not use", () => {
    for (const text of [
      "",
      "h",
      "//h",
      "http://h",
      "coaps+tcp://h",
      "coaps:h",
      "coaps:/h",
      "coaps://",
      "coaps:///x",
      "coaps://:5684",
      "coaps://user@h",
      "coaps://h?x",
      "coaps://h/x?y",
      "coaps://h/x#y",
      "coaps://h ",
      " coaps://h",
      "coaps://h\n",
      "coaps://h/a b",
      "coaps://h/é",
      "coaps://h_%41",
    ]) {
      assert.throws(() => parseURI(text), FormatError);
    }
  });

  it("is refused with a malformed port", () => {
    for (const port of ["0", "65536", "99999999999999999999", "-1", "1e3", "5684x", "5:6"]) {
      assert.throws(() => parseURI(`coaps://h:${port}/`), FormatError);
    }
    assert.equal(parseURI("coaps://h:65535").port, 65535);
  });

  it("is refused with a malformed IPv6 address", () => {
    for (const host of [
      "",
      ":",
      ":::",
      "1",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1::2::3",
      "1:2:3:4:5:6:7:8::",
      "12345::",
      "g::",
      "::1%eth0",
      "::1.2.3",
      "::1.2.3.256",
      "::1.2.3.4.",
      "1.2.3.4::",
      "::1]x[",
    ]) {
      assert.throws(() => parseURI(`coaps://[${host}]/`), FormatError);
    }
    assert.throws(() => parseURI("coaps://[::1"), FormatError);
    assert.throws(() => parseURI("coaps://[::1]x"), FormatError);
    assert.throws(() => parseURI("coaps://::1/"), FormatError);
  });

  it("is refused with a path that options could not carry as it is meant", () => {
    for (const path of ["/%2F", "/a/../b", "/.", "/%2e%2E", "/%", "/%4", "/%zz", "/%ff", `/${"x".repeat(256)}`]) {
      assert.throws(() => parseURI(`coaps://h${path}`), FormatError);
    }
    assert.equal(parseURI(`coaps://h/${"x".repeat(255)}`).path.length, 256);
    assert.throws(() => decodePath("est"), FormatError);
  });
});
