import { strict as assert } from "node:assert";
import { type Link, parseLinkFormat } from "../../../src/coap/link-format.js";
import { lengthUTF8, writeUTF8 } from "../../../src/coap/utf8.js";
import { FormatError } from "../../../src/errors.js";

function parse(text: string): Link[] {
  const document = new Uint8Array(lengthUTF8(text));
  writeUTF8(text, document, 0);
  return parseLinkFormat(document);
}

describe("a link-format document", () => {
  it("lists the resources of RFC 9148 section 4.1", () => {
    const links = parse(
      '</est/crts>;rt="ace.est.crts";ct="281 287",\n</est/sen>;rt="ace.est.sen";ct="281 287",\n' +
        '</est/skc>;rt="ace.est.skc";ct=62',
    );
    assert.equal(links.length, 3);
    assert.equal(links[0].target, "/est/crts");
    assert.equal(links[0].attributes.get("rt"), "ace.est.crts");
    assert.equal(links[0].attributes.get("ct"), "281 287");
    assert.equal(links[2].target, "/est/skc");
    assert.equal(links[2].attributes.get("ct"), "62");
  });

  it("may link to another port", () => {
    const [link] = parse('<coaps://[2001:db8::3]:61617/est>;rt="ace.est"');
    assert.equal(link.target, "coaps://[2001:db8::3]:61617/est");
  });

  it("may be empty", () => {
    assert.equal(parse("").length, 0);
    assert.equal(parse(" \r\n").length, 0);
  });

  it("has attributes without a value, and of a repeated one the first counts", () => {
    const [{ attributes }] = parse('<>;obs;rt="a";rt="b";if=sensor;title*=UTF-8\'en\'x');
    assert.equal(attributes.get("obs"), "");
    assert.equal(attributes.get("rt"), "a");
    assert.equal(attributes.get("if"), "sensor");
    assert.equal(attributes.get("title*"), "UTF-8'en'x");
    assert.equal(attributes.size, 4);
  });

  it("has quoted values with escapes, separators and UTF-8", () => {
    const [{ attributes }, next] = parse('</a>;title="a \\"b\\" \\\\ ;,<> é";x="",</b>');
    assert.equal(attributes.get("title"), 'a "b" \\ ;,<> é');
    assert.equal(attributes.get("x"), "");
    assert.equal(next.target, "/b");
  });

  it("does not mind an attribute called __proto__", () => {
    const [{ attributes }] = parse("</a>;__proto__=x");
    assert.equal(attributes.get("__proto__"), "x");
  });

  it("is refused where it is malformed", () => {
    for (const text of [
      "x",
      "<",
      "</a",
      "</a b>",
      "</a>,",
      ",</a>",
      "</a></b>",
      "</a>;",
      "</a>;=x",
      "</a>;x=",
      '</a>;x="y',
      '</a>;x="y\\',
      '</a>;x="y\\"',
      '</a>;x="y"z',
      "</a>;é=x",
      "</a>x",
    ]) {
      assert.throws(() => parse(text), FormatError);
    }
    assert.throws(() => parseLinkFormat(new Uint8Array([0x3c, 0xff, 0x3e])), FormatError);
  });
});
