// Discovery: src/est/discovery.ts. RFC 9148 section 4.1.
import { strict as assert } from "node:assert";
import { lengthUTF8, writeUTF8 } from "../../../src/coap/utf8.js";
import { FormatError, LimitError } from "../../../src/errors.js";
import { findResources } from "../../../src/est/discovery.js";

function find(text: string) {
  const bytes = new Uint8Array(lengthUTF8(text));
  writeUTF8(text, bytes, 0);
  return findResources(bytes);
}

describe("discovery", () => {
  it("finds the resources of RFC 9148, section 4.1, with their formats", () => {
    const resources = find(
      '</est/crts>;rt="ace.est.crts";ct="281 287",\n</est/sen>;rt="ace.est.sen";ct="281 287",\n' +
        '</est/sren>;rt="ace.est.sren";ct="281 287",\n</est/att>;rt="ace.est.att";ct=285,\n' +
        '</est/skg>;rt="ace.est.skg";ct=62,\n</est/skc>;rt="ace.est.skc";ct=62',
    );
    assert.deepEqual(
      resources.map(({ name, path, formats }) => [name, path, ...formats]),
      [
        ["crts", "/est/crts", 281, 287],
        ["sen", "/est/sen", 281, 287],
        ["sren", "/est/sren", 281, 287],
        ["att", "/est/att", 285],
        ["skg", "/est/skg", 62],
        ["skc", "/est/skc", 62],
      ],
    );
    assert.ok(resources.every(({ host, port }) => host === undefined && port === undefined));
  });

  it("follows absolute links to another port, as in the second example of section 4.1", () => {
    const [crts] = find('<coaps://[2001:db8:3::123]:61617/est/crts>;rt="ace.est.crts";\n              ct="281 287"');
    assert.deepEqual(crts, {
      name: "crts",
      path: "/est/crts",
      host: "2001:db8:3::123",
      port: 61617,
      formats: [281, 287],
    });
    assert.equal(find('<coaps://est.example/crts>;rt="ace.est.crts"')[0]!.port, 5684);
  });

  it("finds labels, resources of several types, and does without ct", () => {
    assert.deepEqual(find('</est/my%20label/sen>;rt="x ace.est.sen"'), [
      { name: "sen", path: "/est/my label/sen", host: undefined, port: undefined, formats: [] },
    ]);
  });

  it("passes over other resources, and links that cannot be followed over DTLS", () => {
    assert.deepEqual(
      find(
        '</temp>;rt="temperature",</est>;rt="ace.est",</x>;rt="ace.est.fullcmc",</y>,' +
          '<coap://192.0.2.1/est/crts>;rt="ace.est.crts",<https://192.0.2.1/crts>;rt="ace.est.crts",' +
          '<//host/est/crts>;rt="ace.est.crts",<est/crts>;rt="ace.est.crts",</a/../crts>;rt="ace.est.crts"',
      ),
      [],
    );
    assert.deepEqual(find(""), []);
  });

  it("refuses what is no link format, and more than 32 resources", () => {
    assert.throws(() => find("html>"), FormatError);
    const link = '</x>;rt="ace.est.crts"';
    assert.equal(find(Array(32).fill(link).join(",")).length, 32);
    assert.throws(() => find(Array(33).fill(link).join(",")), LimitError);
  });
});
