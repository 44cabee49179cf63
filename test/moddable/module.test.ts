/** What the Moddable SDK reads of this repository: the manifests, sdkconfig; and what the factory's tool writes. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { factoryValues, nvsCSV } from "../../tools/factory.js";
import { newFolder, run } from "../support/command.js";

const root = checkout();
const read = (...path: string[]): string => readFileSync(join(root, ...path), "utf8");
const json = (...path: string[]) => JSON.parse(read(...path));

/** The TypeScript modules below a folder, as the manifest names them. */
function modules(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".d.ts"))
    .map((name) => `torpor/${folder}/${name.slice(0, -3)}`);
}

type Modules = Record<string, string | string[]>;

/**
 * The C files that mcconfig compiles of a manifest and of those in this checkout that it includes: each pattern is a folder
 * and the name of files, all of them or that with any ending; what "~" names is left out, whoever else has it.
 */
function cSources(manifest: string, platform: string, wolfssl = ""): string[] {
  const [found, left] = [new Set<string>(), new Set<string>()];
  const visited = new Set<string>();
  const visit = (path: string): void => {
    if (visited.has(path)) {
      return;
    }
    visited.add(path);
    const { include = [], modules = {}, platforms = {} } = JSON.parse(readFileSync(path, "utf8"));
    const place = (name: string): string => join(dirname(path), name);
    for (const name of include.filter((name: string) => name.startsWith("."))) {
      visit(place(name));
    }
    for (const part of [modules, platforms[platform]?.modules ?? {}] as Modules[]) {
      for (const [target, patterns] of Object.entries(part)) {
        for (const pattern of [patterns].flat().filter((name) => /^(\.|\$\(TORPOR_WOLFSSL\))/.test(name))) {
          const file = pattern.startsWith(".") ? place(pattern) : pattern.replace("$(TORPOR_WOLFSSL)", wolfssl);
          const matches = pattern.endsWith("/")
            ? []
            : readdirSync(dirname(file)).filter((name) =>
                [name, name.replace(/\.\w+$/, ""), "*"].includes(basename(file)),
              );
          assert.ok(matches.length > 0 || existsSync(file), `${manifest}: there is no ${pattern}`);
          for (const name of matches.filter((name) => name.endsWith(".c"))) {
            (target === "~" ? left : found).add(join(dirname(file), name));
          }
        }
      }
    }
  };
  visit(join(root, manifest));
  return [...found].filter((file) => !left.has(file));
}

describe("the Moddable module", () => {
  it("preloads every module of src/, which the device then has in flash and not in RAM", () => {
    const { preload, modules: named } = json("manifest.json");
    for (const name of modules("src")) {
      assert.ok(preload.includes(name), `manifest.json does not preload ${name}`);
      const folder = name.slice(0, name.lastIndexOf("/"));
      assert.ok(`${folder}/*` in named, `manifest.json has no modules of ${folder}`);
    }
    assert.equal(new Set(preload).size, preload.length);
  });

  it("hands no constant to a native: in the ROM image of preloaded modules its bytes are read-only", () => {
    // The desktop build found this: saving a context threw, for the empty buffer that asks for its length was a constant.
    for (const name of modules("src")) {
      const source = read(`${name.slice("torpor/".length)}.ts`);
      assert.doesNotMatch(source, /native\("\w+"\)\.call\([^;]*, [A-Z][A-Z_]+\)/, name);
    }
  });

  it("has examples of less than 60 lines, each with a manifest that includes the module and nothing else", () => {
    const examples = readdirSync(join(root, "examples"));
    assert.equal(examples.length, 4);
    for (const name of examples) {
      assert.deepEqual(json("examples", name, "manifest.json").include, ["../../manifest.json"]);
      assert.ok(read("examples", name, "main.ts").split("\n").length < 60, name);
    }
  });

  it("has nothing of wolfSSL unless its manifest is included, which says so", () => {
    for (const platform of ["lin", "esp32"]) {
      const own = cSources(join("hosts", "esp32", "manifest.json"), platform);
      assert.ok(own.includes(join(root, "src", "dtls", "dtls.c")));
      assert.ok(own.every((file) => file.startsWith(root) && !file.includes("wolfssl")));
    }
    for (const name of ["manifest.json", "hosts/esp32/manifest.json", "hosts/esp32/manifest_app.json"]) {
      assert.doesNotMatch(read(name), /wolfssl/i, name);
    }
    assert.deepEqual(json("hosts", "esp32", "manifest.json").include, ["../../manifest.json", "./manifest_app.json"]);
  });

  it("compiles over wolfSSL the same files but for the DTLS engine, no two of one name", async function () {
    this.timeout(60_000);
    const args = [join(root, "scripts", "moddable.mjs"), "--env", "--engine", "wolfssl"];
    const { status, stdout, stderr } = await run(process.execPath, args);
    assert.equal(status, 0, stderr);
    const wolfssl = /^export TORPOR_WOLFSSL='(.+)'$/m.exec(stdout)![1]!;
    const core = join(root, "src", "dtls", "wolfssl", "core.c");
    for (const platform of ["lin", "esp32"]) {
      const all = cSources(join("hosts", "esp32", "manifest_wolfssl.json"), platform, wolfssl);
      const theirs = all.filter((file) => file.startsWith(wolfssl));
      const own = cSources(join("hosts", "esp32", "manifest.json"), platform);
      const expected = [...own.filter((file) => file !== join(root, "src", "dtls", "dtls.c")), core];
      assert.deepEqual(all.filter((file) => !theirs.includes(file)).sort(), expected.sort());
      assert.ok(theirs.length > 20);
      // The SDK puts all objects into one folder, and drops the second of a name without a word.
      const names = all.map((file) => basename(file));
      assert.deepEqual([...new Set(names)], names);
    }
  });

  it("has the one list of wolfSSL's sources: no other build of it names any", () => {
    for (const path of ["src/dtls/wolfssl/CMakeLists.txt", "test/peers/wolfssl/CMakeLists.txt", "scripts/cross.mjs"]) {
      assert.doesNotMatch(read(path), /wolfcrypt\/src|GLOB/, path);
    }
  });

  it("demands of sdkconfig what the C core demands of mbedTLS", () => {
    const sdkconfig = read("hosts", "esp32", "sdkconfig", "sdkconfig.defaults");
    const core = read("src", "dtls", "internal.h");
    for (const [, name] of core.matchAll(/!defined\((MBEDTLS_[A-Z_]+)\)/g)) {
      const entry = name === "MBEDTLS_SSL_SESSION_TICKETS" ? "MBEDTLS_CLIENT_SSL_SESSION_TICKETS" : name;
      assert.match(sdkconfig, new RegExp(`^CONFIG_${entry}=y$`, "m"));
    }
    assert.match(sdkconfig, /^CONFIG_MBEDTLS_SSL_KEEP_PEER_CERTIFICATE=n$/m);
    for (const length of ["IN", "OUT"]) {
      const [, bytes] = new RegExp(`SSL_${length}_CONTENT_LEN (\\d+)`).exec(
        read("src", "dtls", "mbedtls", "config.h"),
      )!;
      assert.match(sdkconfig, new RegExp(`^CONFIG_MBEDTLS_SSL_${length}_CONTENT_LEN=${bytes}$`, "m"));
    }
  });

  it("merges a board's sdkconfig with its own, whose lines hold", async () => {
    const sdk = newFolder();
    mkdirSync(join(sdk, "tools", "mcconfig"), { recursive: true });
    const board = join(sdk, "build", "devices", "esp32", "targets", "board", "sdkconfig");
    mkdirSync(board, { recursive: true });
    writeFileSync(join(board, "sdkconfig.defaults"), "CONFIG_TINYUSB=y\nCONFIG_MBEDTLS_SSL_IN_CONTENT_LEN=16384\n");
    const out = join(newFolder(), "merged");
    const args = [join(root, "scripts", "moddable.mjs"), "--sdkconfig"];
    const { status, stderr } = await run(process.execPath, [...args, "board", out], { env: { MODDABLE: sdk } });
    assert.equal(status, 0, stderr);
    const merged = readFileSync(join(out, "sdkconfig.defaults"), "utf8");
    assert.match(merged, /^CONFIG_TINYUSB=y$/m);
    assert.deepEqual(merged.match(/^CONFIG_MBEDTLS_SSL_IN_CONTENT_LEN=.*$/gm), [
      "CONFIG_MBEDTLS_SSL_IN_CONTENT_LEN=2048",
    ]);
    assert.deepEqual(JSON.parse(readFileSync(join(out, "manifest.json"), "utf8")), { build: { SDKCONFIGPATH: "./" } });
    assert.ok(existsSync(join(out, "sdkconfig.defaults.release")));
    const missing = await run(process.execPath, [...args, "none", out], { env: { MODDABLE: sdk } });
    assert.notEqual(missing.status, 0);
    assert.match(missing.stderr, /the SDK has no board "none"/);
  });
});

describe("the factory's tool", () => {
  it("writes records as a board's storage reads them", () => {
    // The same bytes are in test/core/device_test.c.
    const csv = nvsCSV(factoryValues([], [], Uint8Array.of(1, 2, 3)));
    assert.equal(csv, "key,type,encoding,value\nfactory,namespace,,\nkey.a,data,hex2bin,01000000c58de691010203\n");
    const longest = nvsCSV(factoryValues([new Uint8Array(1)], [new Uint8Array(1)], new Uint8Array(1)));
    for (const [, key] of longest.matchAll(/^(.*\.a),/gm)) {
      assert.ok(key!.length <= 15, `NVS takes keys of up to 15 characters, not ${key}`);
    }
  });

  it("writes PEM files as the files of a desktop device", async () => {
    const folder = newFolder();
    const key = join(folder, "key.pem");
    const certificate = join(folder, "certificate.pem");
    execFileSync(
      "openssl",
      [
        ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"],
        ...["-subj", "/CN=factory", "-keyout", key, "-out", certificate],
      ],
      { stdio: "ignore" },
    );
    const state = join(folder, "device");
    const program = `import("${join(root, "build", "tools", "factory.js")}").then((tool) => tool.main(process.argv.slice(1)))`;
    const args = ["--trust", certificate, "--cert", certificate, "--key", key];
    const { status, stderr } = await run(process.execPath, ["-e", program, "--", ...args, "--state", state]);
    assert.equal(status, 0, stderr);
    assert.deepEqual(readdirSync(join(state, "flash", "factory")).sort(), ["certificate-0", "key", "trust-0"]);
    const refused = await run(process.execPath, ["-e", program, "--", ...args]);
    assert.notEqual(refused.status, 0);
  });
});
