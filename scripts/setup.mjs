// Sets up what is missing: npm packages, compilers, mbedTLS, the native binding, the compiled TypeScript.
//
//     node scripts/setup.mjs            what `npm start` and `npx torpor` need
//     node scripts/setup.mjs --tests    also the peers and tools that `npm test` needs, and the second engine
//     node scripts/setup.mjs --engine wolfssl    also the DTLS engine over wolfSSL (GPL or commercial)
//
// Builds are kept in a cache outside the checkout, in a folder named by the hash of everything that went into them:
// $TORPOR_CACHE, else $XDG_CACHE_HOME/torpor, else ~/.cache/torpor.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { engineOf, main, SetupError, say, step } from "./run.mjs";

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
export const CACHE =
  process.env.TORPOR_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "torpor");

const BUILD = join(ROOT, "build");
const MBEDTLS_SERIES = "3.6";
/** The Debian release whose mbedTLS source package is of that series, and older ones that can fetch it from there. */
const MBEDTLS_SUITE = "trixie";
/**
 * wolfSSL, the second engine and a peer of the tests: the oldest version that was tried and works, and the suite of Debian that
 * has it or a later one. docs/decisions.md tells what older ones lack.
 */
const WOLFSSL_FIRST = "5.9.2";
const WOLFSSL_SUITE = "sid";

// ---- what the setup needs from the system ----

/** Commands by the Debian package that has them. */
const BUILD_TOOLS = { gcc: "gcc", cmake: "cmake", ninja: "ninja-build" };
const CLANG_TOOLS = { clang: "clang", "llvm-profdata": "llvm", "llvm-cov": "llvm" };
const FETCH_TOOLS = { "dpkg-source": "dpkg-dev" };
const TEST_TOOLS = {
  openssl: "openssl",
  "gnutls-serv": "gnutls-bin",
  "coap-server-openssl": "libcoap3-bin",
  "coap-server-gnutls": "libcoap3-bin",
  socat: "socat",
  valgrind: "valgrind",
  strace: "strace",
  chromium: "chromium",
};

/** Whether the command is found, or the file where `command` is a whole path. */
function onPath(command) {
  return command.startsWith("/")
    ? existsSync(command)
    : (process.env.PATH ?? "").split(delimiter).some((folder) => {
        try {
          accessSync(join(folder, command), constants.X_OK);
          return true;
        } catch {
          return false;
        }
      });
}

export async function ensureTools(tools, purpose) {
  const missing = Object.keys(tools).filter((command) => !onPath(command));
  // A compiler without the C library's headers is of no use; Debian has them apart.
  const headers = "gcc" in tools && !existsSync("/usr/include/stdio.h");
  if (missing.length === 0 && !headers) {
    return;
  }
  const packages = [...new Set(missing.map((command) => tools[command])), ...(headers ? ["libc6-dev"] : [])];
  if (process.getuid?.() !== 0 || !onPath("apt-get")) {
    throw new SetupError(
      `${missing.join(", ") || "libc6-dev"} not found, needed for ${purpose}: sudo apt-get install ${packages.join(" ")}`,
    );
  }
  say(`torpor: installing Debian packages for ${purpose}: ${packages.join(", ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  await step("reading Debian's package lists", "apt-get", ["update"], { env });
  await step(
    `installing ${packages.join(", ")}`,
    "apt-get",
    ["install", "-y", "--no-install-recommends", ...packages],
    {
      env,
    },
  );
}

// ---- hashes and the cache ----

export function hashOf(...parts) {
  const hash = createHash("sha256");
  for (const part of parts) {
    hash.update(part);
    hash.update("\0");
  }
  return hash.digest("hex").slice(0, 16);
}

function filesBelow(folder, matches) {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && matches.test(entry.name))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

/** Names and bytes of files; names as seen from `folder`, so that checkouts in other places share their builds. */
function contents(files, folder = ROOT) {
  return files.flatMap((file) => [relative(folder, file), readFileSync(file)]);
}

/**
 * The folder `name` of the cache, made by `build(folder)` where it is not there. It is made under another name and
 * renamed when complete: an interrupted build leaves nothing that looks done, and two at once do no harm.
 */
export async function cached(name, build) {
  const folder = join(CACHE, name);
  if (existsSync(folder)) {
    return folder;
  }
  mkdirSync(CACHE, { recursive: true });
  const work = mkdtempSync(join(CACHE, "work-"));
  try {
    const made = join(work, name);
    mkdirSync(made);
    await build(made, work);
    try {
      renameSync(made, folder);
    } catch (error) {
      if (!existsSync(folder)) {
        throw error;
      }
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return folder;
}

// ---- npm packages ----

async function ensurePackages() {
  const lock = join(ROOT, "package-lock.json");
  const stamp = join(ROOT, "node_modules", ".torpor-lock");
  const wanted = hashOf(readFileSync(lock));
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) {
    return;
  }
  say("torpor: installing npm packages as package-lock.json pins them");
  await step("npm ci", "npm", ["ci", "--no-audit", "--no-fund"], { cwd: ROOT });
  writeFileSync(stamp, wanted);
}

// ---- mbedTLS ----

function versionOf(source) {
  const info = join(source, "include", "mbedtls", "build_info.h");
  if (!existsSync(info)) {
    return undefined;
  }
  return /MBEDTLS_VERSION_STRING\s+"([^"]+)"/.exec(readFileSync(info, "utf8"))?.[1];
}

const GET_MBEDTLS = `get the mbedTLS ${MBEDTLS_SERIES} sources and name their folder: MBEDTLS_DIR=/path/to/mbedtls npm start`;

/** The machine's own Debian sources for packages of that type ("deb", "deb-src") of another suite, in apt's deb822 form. */
function debianSources(suite, type) {
  const release = readFileSync("/etc/os-release", "utf8");
  const codename = /^VERSION_CODENAME=(.+)$/m.exec(release)?.[1];
  if (!/^ID=debian$/m.test(release) || codename === undefined) {
    return undefined;
  }
  const stanzas = [];
  // Debian's own archive only: other suppliers use the same code names, but not the component "main".
  const add = (uri, own, components, options) => {
    const isDebian = /\/debian(-security)?\/?$/.test(uri) && components.split(/\s+/).includes("main");
    // sid has no updates and no security archive beside it.
    if (isDebian && (own === codename || (suite !== "sid" && own.startsWith(codename) && !own.includes("backports")))) {
      const lines = [`URIs: ${uri}`, `Suites: ${own.replace(codename, suite)}`, "Components: main"];
      stanzas.push(
        [`Types: ${type}`, ...lines, options ?? "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"].join("\n"),
      );
    }
  };
  const folder = "/etc/apt/sources.list.d";
  const lists = existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [];
  for (const file of ["/etc/apt/sources.list", ...lists]) {
    if (!existsSync(file)) {
      continue;
    }
    const text = readFileSync(file, "utf8");
    if (file.endsWith(".sources")) {
      for (const stanza of text.split(/\n\s*\n/)) {
        const field = (name) => new RegExp(`^${name}:\\s*(.+)$`, "mi").exec(stanza)?.[1];
        if (/^no$/i.test(field("Enabled") ?? "yes") || !/\bdeb\b/.test(field("Types") ?? "")) {
          continue;
        }
        for (const uri of field("URIs")?.split(/\s+/) ?? []) {
          for (const own of field("Suites")?.split(/\s+/) ?? []) {
            add(uri, own, field("Components") ?? "main", field("Signed-By") && `Signed-By: ${field("Signed-By")}`);
          }
        }
      }
    } else if (file.endsWith(".list")) {
      for (const line of text.split("\n")) {
        const match = /^deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.+)$/.exec(line.trim());
        if (match) {
          const keyring = /signed-by=([^\]\s]+)/.exec(line)?.[1];
          add(match[1], match[2], match[3], keyring && `Signed-By: ${keyring}`);
        }
      }
    }
  }
  return [...new Set(stanzas)].join("\n\n");
}

/**
 * Runs `apt-get source`, or `download` for what is built, in the folder `apt` with a private configuration of apt that knows the
 * suite; apt verifies what it gets against Debian's keyring. Throws a SetupError that ends with `orElse`.
 */
async function fetchFromDebian({ suite, apt, what = "source", args, orElse }) {
  const type = what === "source" ? "deb-src" : "deb";
  const sources = onPath("apt-get") && existsSync("/etc/os-release") ? debianSources(suite, type) : undefined;
  if (!sources) {
    throw new SetupError(`no Debian package sources on this machine; ${orElse}`);
  }
  for (const part of ["parts", "lists/partial", "state", "cache/archives/partial"]) {
    mkdirSync(join(apt, part), { recursive: true });
  }
  writeFileSync(join(apt, "parts", "torpor.sources"), `${sources}\n`);
  writeFileSync(
    join(apt, "apt.conf"),
    [
      `Dir::Etc::SourceList "/dev/null";`,
      `Dir::Etc::SourceParts "${apt}/parts";`,
      `Dir::State "${apt}/state";`,
      `Dir::State::Lists "${apt}/lists";`,
      `Dir::Cache "${apt}/cache";`,
      `APT::Sandbox::User "";`,
    ].join("\n"),
  );
  const options = { cwd: apt, env: { ...process.env, APT_CONFIG: join(apt, "apt.conf") } };
  try {
    await step(`reading the lists of Debian ${suite}`, "apt-get", ["update"], options);
    await step(`apt-get ${what} ${args.join(" ")}`, "apt-get", [what, ...args], options);
  } catch (error) {
    throw new SetupError(`${error.message}\n  Without Debian's package: ${orElse}`);
  }
}

/** Debian's source package of mbedTLS. */
function debianMbedtls() {
  return cached(`mbedtls-source-${MBEDTLS_SERIES}-${MBEDTLS_SUITE}`, async (folder, work) => {
    await ensureTools(FETCH_TOOLS, "unpacking Debian's source package of mbedTLS");
    say(`torpor: fetching Debian's source package of mbedTLS ${MBEDTLS_SERIES} (${MBEDTLS_SUITE})`);
    const apt = join(work, "apt");
    await fetchFromDebian({ suite: MBEDTLS_SUITE, apt, args: ["mbedtls"], orElse: GET_MBEDTLS });
    const unpacked = readdirSync(apt).find((name) => versionOf(join(apt, name)) !== undefined);
    if (unpacked === undefined) {
      throw new SetupError(`Debian's package holds no mbedTLS; ${GET_MBEDTLS}`);
    }
    rmSync(folder, { recursive: true });
    renameSync(join(apt, unpacked), folder);
  });
}

export async function mbedtlsSource() {
  const given = process.env.MBEDTLS_DIR;
  const source = given ? given : await debianMbedtls();
  const version = versionOf(source);
  if (!version?.startsWith(`${MBEDTLS_SERIES}.`)) {
    throw new SetupError(`${given ? "MBEDTLS_DIR" : source} holds ${version ?? "no mbedTLS"}; ${GET_MBEDTLS}`);
  }
  return { source, version };
}

/**
 * mbedTLS as three static libraries with our configuration: a folder with include/ and lib/. For the desktop with the
 * server role, which the development server needs; for the simulated device without.
 */
export async function ensureMbedtls({ role = "server", bits = 64, sanitize = false, fuzz = false } = {}) {
  const { source, version } = await mbedtlsSource();
  const config = join(ROOT, "src", "dtls", "mbedtls", "config.h");
  const inputs = [
    ...contents([config, ...filesBelow(join(ROOT, "hosts", "desktop", "include"), /\.h$/)]),
    ...contents(
      ["library", "include"].flatMap((folder) => filesBelow(join(source, folder), /\.[ch]$/)),
      source,
    ),
  ];
  const ours = ["-O2", "-g", ...(role === "server" ? ["-DTORPOR_SERVER"] : []), ...(bits === 32 ? ["-m32"] : [])];
  if (sanitize) {
    // Its assembler for 32 bits needs the register of the frame pointer.
    ours.push("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fomit-frame-pointer");
  }
  if (fuzz) {
    // The library compares names of no bytes by null pointers (x509_name_cmp): undefined before C2y, and harmless.
    ours.push("-fsanitize=fuzzer-no-link,address,undefined", "-fno-sanitize=nonnull-attribute");
    ours.push("-fno-sanitize-recover=all");
  }
  const cc = fuzz ? "clang" : "gcc";
  const flags = [...ours, `-I"${join(ROOT, "hosts", "desktop", "include")}"`];
  const label = `${role}-${bits}-${sanitize ? "sanitized-" : ""}${fuzz ? "fuzz-" : ""}`;
  const name = `mbedtls-${version}-${label}${hashOf(compiler(cc), ours.join(" "), ...inputs)}`;
  return cached(name, async (folder, work) => {
    say(`torpor: building mbedTLS ${version} for a ${bits}-bit ${role}, with the device's configuration`);
    const build = join(work, "build");
    await step("configuring mbedTLS", "cmake", [
      ...["-S", source, "-B", build, "-G", "Ninja"],
      ...["-DCMAKE_BUILD_TYPE=None", "-DENABLE_PROGRAMS=OFF", "-DENABLE_TESTING=OFF", "-DGEN_FILES=OFF"],
      ...["-DCMAKE_POSITION_INDEPENDENT_CODE=ON", "-DCMAKE_INSTALL_LIBDIR=lib", `-DCMAKE_INSTALL_PREFIX=${folder}`],
      ...[`-DMBEDTLS_CONFIG_FILE=${config}`, `-DCMAKE_C_FLAGS=${flags.join(" ")}`],
      ...(fuzz ? ["-DCMAKE_C_COMPILER=clang"] : []),
    ]);
    await step("compiling mbedTLS", "ninja", ["-C", build, "install"]);
  });
}

// ---- our own native code ----

function compiler(command = "gcc") {
  return spawnSync(command, ["--version"], { encoding: "utf8" }).stdout.split("\n")[0];
}

/** clang with libFuzzer and the sanitizers, whose libraries Debian has in a package for each version. */
async function ensureClang() {
  const purpose = "fuzzing and coverage of the C core";
  await ensureTools(CLANG_TOOLS, purpose);
  const links = () => {
    const input = "int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return p == 0 && n > 0; }\n";
    const args = ["-fsanitize=fuzzer,address", "-x", "c", "-", "-o", "/dev/null"];
    return spawnSync("clang", args, { input, stdio: ["pipe", "ignore", "ignore"] }).status === 0;
  };
  if (!links()) {
    const major = /version (\d+)/.exec(compiler("clang"))?.[1];
    await ensureTools({ libFuzzer: `libclang-rt-${major}-dev` }, purpose);
    if (!links()) {
      throw new SetupError(
        `clang does not link with libFuzzer, needed for ${purpose}: install libclang-rt-${major}-dev`,
      );
    }
  }
}

/**
 * The binding `torpor.node` and, over mbedTLS, the test programs `core_test` and `device_test`: the folder that holds them.
 */
export async function ensureNative({ sanitize = false, coverage = false, engine = "mbedtls" } = {}) {
  const mbedtls = await ensureMbedtls();
  const wolfssl = engine === "wolfssl" ? await ensureWolfsslLibrary({ sanitize }) : undefined;
  if (coverage) {
    await ensureClang();
  }
  const headers = join(ROOT, "node_modules", "node-api-headers", "include");
  const inputs = [
    join(ROOT, "CMakeLists.txt"),
    ...["src", "hosts", "test/core"].flatMap((folder) => filesBelow(join(ROOT, folder), /\.[ch]$/)),
  ];
  const label = `${engine === "mbedtls" ? "" : `${engine}-`}${sanitize ? "sanitized-" : ""}${coverage ? "coverage-" : ""}`;
  const compilers = coverage ? compiler("clang") : "";
  const name = `native-${label}${hashOf(mbedtls, wolfssl?.folder ?? "", compilers, ...contents(inputs))}`;
  return cached(name, async (folder, work) => {
    const how = sanitize ? " with sanitizers" : ` and its Node.js binding${coverage ? ", with coverage" : ""}`;
    say(`torpor: building the C core${wolfssl === undefined ? "" : " over wolfSSL"}${how}`);
    const build = join(work, "build");
    await step("configuring the C core", "cmake", [
      ...["-S", ROOT, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"],
      ...[`-DMBEDTLS_PREFIX=${mbedtls}`, `-DNODE_API_HEADERS=${sanitize ? "" : headers}`],
      ...[`-DTORPOR_SANITIZE=${sanitize ? "ON" : "OFF"}`, `-DTORPOR_COVERAGE=${coverage ? "ON" : "OFF"}`],
      ...(coverage ? ["-DCMAKE_C_COMPILER=clang"] : []),
      ...(wolfssl?.options ?? []),
    ]);
    await step("compiling the C core", "ninja", ["-C", build]);
    for (const made of ["torpor.node", "core_test", "device_test"]) {
      if (existsSync(join(build, made))) {
        renameSync(join(build, made), join(folder, made));
      }
    }
  });
}

/** The C core's fuzzers, one program each: test/fuzz/core/. By engine: those that know of one are built over each. */
const FUZZERS_BY_ENGINE = {
  mbedtls: ["handshake", "records", "saved", "crypto", "storage"],
  wolfssl: ["handshake", "records", "saved"],
};
const fuzzerName = (target, engine) => (engine === "mbedtls" ? target : `${target}-${engine}`);
/** Their names, such as "records" and "records-wolfssl". */
export const CORE_FUZZERS = Object.entries(FUZZERS_BY_ENGINE).flatMap(([engine, targets]) =>
  targets.map((target) => fuzzerName(target, engine)),
);

/** What clang builds: the fuzzers, or for line coverage the fuzzers, the binding and the core's tests. The folder. */
export async function ensureFuzzers({ coverage = false } = {}) {
  await ensureClang();
  const mbedtls = await ensureMbedtls({ fuzz: true });
  const wolfssl = await ensureWolfsslLibrary({ fuzz: true });
  const inputs = [
    join(ROOT, "CMakeLists.txt"),
    ...["src", "hosts", "test"].flatMap((folder) => filesBelow(join(ROOT, folder), /\.[ch]$/)),
  ];
  const label = `fuzzers-${coverage ? "coverage-" : ""}`;
  const name = `${label}${hashOf(compiler("clang"), mbedtls, wolfssl.folder, ...contents(inputs))}`;
  return cached(name, async (folder, work) => {
    say(`torpor: building the fuzzers of the C core, over both engines${coverage ? ", with coverage" : ""}`);
    for (const [engine, targets] of Object.entries(FUZZERS_BY_ENGINE)) {
      const build = join(work, engine);
      await step(`configuring the fuzzers over ${engine}`, "cmake", [
        ...["-S", ROOT, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DCMAKE_C_COMPILER=clang"],
        ...[`-DMBEDTLS_PREFIX=${mbedtls}`, "-DTORPOR_FUZZ=ON", `-DTORPOR_COVERAGE=${coverage ? "ON" : "OFF"}`],
        ...(engine === "wolfssl" ? wolfssl.options : []),
      ]);
      await step(`compiling the fuzzers over ${engine}`, "ninja", ["-C", build]);
      for (const target of targets) {
        renameSync(join(build, target), join(folder, fuzzerName(target, engine)));
      }
    }
  });
}

/** What runs once more over the second engine: its own tests, and those that both engines must pass from the same files. */
export const SECOND_ENGINE_TESTS = [
  "test/wolfssl/**/*.test.ts",
  ...["engine", "hostile", "hostile-server", "loss"].map((name) => `test/dtls/${name}.test.ts`),
  "test/enrollment/hostile-server.test.ts",
  ...["kill", "loss", "misbehave"].map((name) => `test/command/${name}.test.ts`),
];

/** The program `measure` of the benchmarks: the folder that holds it. */
function ensureMeasure() {
  const source = join(ROOT, "tools", "bench", "measure.c");
  return cached(`measure-${hashOf(compiler(), readFileSync(source))}`, (folder) =>
    step("compiling what measures processes", "gcc", [
      ...["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", source, "-o", join(folder, "measure")],
    ]),
  );
}

// ---- wolfSSL, the second engine and a peer of the tests ----

const GET_WOLFSSL = `get the sources of wolfSSL ${WOLFSSL_FIRST} or later and name their folder: WOLFSSL_DIR=/path/to/wolfssl npm test`;

/** Which of its sources every build of it takes, and how CMake reads that. */
const WOLFSSL_LIST = ["manifest.json", "sources.cmake"].map((name) => join(ROOT, "src", "dtls", "wolfssl", name));

function wolfsslVersionOf(source) {
  const file = join(source, "wolfssl", "version.h");
  return existsSync(file) ? /LIBWOLFSSL_VERSION_STRING\s+"([^"]+)"/.exec(readFileSync(file, "utf8"))?.[1] : undefined;
}

function isAtLeast(version, least) {
  const [parts, bounds] = [version, least].map((text) => text.split(".").map(Number));
  const at = bounds.findIndex((bound, index) => parts[index] !== bound);
  return at < 0 || parts[at] > bounds[at];
}

/** Upstream's archive as Debian has it, by the hash in Debian's signed list; its packaging is of no use here. */
function debianWolfssl() {
  return cached(`wolfssl-source-${WOLFSSL_FIRST}-${WOLFSSL_SUITE}-examples`, async (folder, work) => {
    say(`torpor: fetching Debian's source of wolfSSL (${WOLFSSL_SUITE}), a DTLS peer of the tests`);
    const apt = join(work, "apt");
    await fetchFromDebian({ suite: WOLFSSL_SUITE, apt, args: ["--tar-only", "wolfssl"], orElse: GET_WOLFSSL });
    const archive = readdirSync(apt).find((name) => /^wolfssl_.*\.orig\.tar\.\w+$/.test(name));
    if (archive === undefined) {
      throw new SetupError(`Debian's package holds no archive of wolfSSL; ${GET_WOLFSSL}`);
    }
    const wanted = ["src", "wolfcrypt/src", "wolfssl", "examples/server", "COPYING", "LICENSING"].map(
      (name) => `*/${name}`,
    );
    const args = ["xf", join(apt, archive), "-C", folder, "--strip-components=1", "--wildcards"];
    await step("unpacking wolfssl", "tar", [...args, "--no-wildcards-match-slash", ...wanted]);
  });
}

async function wolfsslSource() {
  const source = process.env.WOLFSSL_DIR || (await debianWolfssl());
  const version = wolfsslVersionOf(source);
  if (version === undefined || !isAtLeast(version, WOLFSSL_FIRST)) {
    throw new SetupError(`${source} holds ${version ? `wolfSSL ${version}` : "no wolfSSL"}; ${GET_WOLFSSL}`);
  }
  return { source, version };
}

/** What a device's compiler is to be told: the sources, of which manifest.json has the list, their version, and options. */
export async function wolfsslForDevices() {
  const { source, version } = await wolfsslSource();
  const definitions = ["WOLFSSL_USER_SETTINGS", "TORPOR_WOLFSSL_CORE"].map((name) => `-D${name}`);
  const { modules } = JSON.parse(readFileSync(WOLFSSL_LIST[0], "utf8"));
  const listed = modules["*"].filter((path) => path.startsWith("$(TORPOR_WOLFSSL)/") && path.endsWith(".c"));
  const sources = listed.map((path) => path.replace("$(TORPOR_WOLFSSL)", source));
  return {
    source,
    // Without ML-KEM, which a board takes by an option.
    sources: sources.filter((path) => !/\/wc_mlkem\w*\.c$/.test(path)),
    version,
    options: [...definitions, `-I${join(ROOT, "src", "dtls", "wolfssl")}`, "-isystem", source],
  };
}

/**
 * wolfSSL as a static library with our configuration: the folder with libwolfssl.a, and the options of CMake for what is
 * linked with it. Under the GPL or a commercial licence: only where it was asked for.
 */
export async function ensureWolfsslLibrary({ role = "server", bits = 64, sanitize = false, fuzz = false } = {}) {
  const { source, version } = await wolfsslSource();
  const here = join(ROOT, "src", "dtls", "wolfssl");
  const definitions = ["TORPOR_WOLFSSL_CORE", "TORPOR_MLKEM"];
  if (role === "server") {
    definitions.push("TORPOR_SERVER");
  }
  const inputs = [
    ...contents([join(here, "user_settings.h"), join(here, "CMakeLists.txt"), ...WOLFSSL_LIST]),
    ...contents(
      ["src", "wolfcrypt", "wolfssl"].flatMap((name) => filesBelow(join(source, name), /\.[chi]$/)),
      source,
    ),
  ];
  const defines = `-DTORPOR_WOLFSSL_DEFINITIONS=${definitions.join(";")}`;
  const label = `${role}-${bits}-${sanitize ? "sanitized-" : ""}${fuzz ? "fuzz-" : ""}`;
  const folder = await cached(
    `wolfssl-library-${version}-${label}${hashOf(compiler(fuzz ? "clang" : "gcc"), defines, ...inputs)}`,
    async (made, work) => {
      say(`torpor: building wolfSSL ${version} for a ${bits}-bit ${role}`);
      const build = join(work, "build");
      await step("configuring wolfSSL", "cmake", [
        ...["-S", here, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=None", `-DWOLFSSL_SOURCE=${source}`],
        ...[`-DBITS=${bits}`, `-DTORPOR_SANITIZE=${sanitize ? "ON" : "OFF"}`, defines],
        ...(fuzz ? ["-DTORPOR_FUZZ=ON", "-DCMAKE_C_COMPILER=clang"] : []),
      ]);
      await step("compiling wolfSSL", "ninja", ["-C", build]);
      renameSync(join(build, "libwolfssl.a"), join(made, "libwolfssl.a"));
    },
  );
  const options = ["-DTORPOR_ENGINE=wolfssl", `-DWOLFSSL_PREFIX=${folder}`, `-DWOLFSSL_SOURCE=${source}`, defines];
  return { folder, options, version };
}

// ---- DTLS servers that the tests build ----

/**
 * The folder with the program `NAME_server` of test/peers/NAME, and `more` that are built with it, over a library of that version;
 * `inputs` and `options` of CMake are what they need beside our own files.
 */
async function ensurePeer(name, version, { inputs, options, more = [] }) {
  const peers = join(ROOT, "test", "peers");
  const own = [
    ...["server.c", "server.h"].map((file) => join(peers, file)),
    ...filesBelow(join(peers, name), /\.[ch]$|^CMakeLists\.txt$/),
  ];
  return cached(`${name}-${version}-${hashOf(compiler(), ...contents(own), ...inputs)}`, async (folder, work) => {
    say(`torpor: building a test server over ${name} ${version}`);
    const build = join(work, "build");
    await step(`configuring ${name}_server`, "cmake", [
      ...["-S", join(peers, name), "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", ...options],
    ]);
    await step(`compiling ${name}_server`, "ninja", ["-C", build]);
    for (const program of [`${name}_server`, ...more]) {
      renameSync(join(build, program), join(folder, program));
    }
  });
}

/** The server of ours, and the one that is among wolfSSL's own examples. */
async function wolfsslServers() {
  const { source, version } = await wolfsslSource();
  const folders = ["src", "wolfcrypt", "wolfssl", "examples/server"];
  const library = folders.flatMap((name) => filesBelow(join(source, name), /\.[ch]$/));
  const inputs = [...contents(WOLFSSL_LIST), ...contents(library, source)];
  const options = [`-DWOLFSSL_SOURCE=${source}`];
  const folder = await ensurePeer("wolfssl", version, { inputs, options, more: ["wolfssl_example"] });
  return { wolfssl: join(folder, "wolfssl_server"), wolfsslExample: join(folder, "wolfssl_example") };
}

/**
 * NSS: the suite of Debian whose version speaks DTLS 1.3 as RFC 9147 numbers it (Debian 12's 3.87 has the number of a draft), and
 * the packages to build and run a program with it on an older Debian: it needs the C library of its own.
 */
const NSS_SUITE = "trixie";
const NSS_PACKAGES = ["libnss3-dev", "libnspr4-dev", "libnss3", "libnspr4", "libsqlite3-0", "zlib1g", "libc6"];

/** The unpacked packages: a folder that stands for /. */
function debianNss() {
  return cached(`nss-packages-${NSS_SUITE}`, async (folder, work) => {
    say(`torpor: fetching Debian's NSS (${NSS_SUITE}), a DTLS peer of the tests`);
    const apt = join(work, "apt");
    const orElse = "the tests against it are for Debian";
    await fetchFromDebian({ suite: NSS_SUITE, apt, what: "download", args: NSS_PACKAGES, orElse });
    for (const file of readdirSync(apt).filter((name) => name.endsWith(".deb"))) {
      await step(`unpacking ${file}`, "dpkg-deb", ["-x", join(apt, file), folder]);
    }
  });
}

async function nssServers() {
  const root = await debianNss();
  const header = readFileSync(join(root, "usr", "include", "nss", "nss.h"), "utf8");
  const version = /NSS_VERSION\s+"([\d.]+)"/.exec(header)?.[1];
  const folder = await ensurePeer("nss", version, { inputs: [root], options: [`-DNSS_ROOT=${root}`] });
  return { nss: join(folder, "nss_server") };
}

/** The programs that `ensure` gives; none, and said, where it cannot be had. In CI, and of sources that were named, a failure. */
async function peersOrPending(name, ensure, named) {
  try {
    return await ensure();
  } catch (error) {
    if (process.env.CI || named) {
      throw error;
    }
    say(`torpor: NO ${name} HERE: the tests against it will be shown as pending. ${error.message}`);
    return {};
  }
}

// ---- the simulator ----

/** XS, from the npm package that carries its sources; taken by its hash, without its dependencies and install script. */
const XSNAP = "@agoric/xsnap@0.15.0";
const XSNAP_SHA512 = "ZBm4DZxbtfacxMHVVdJjZi0Y8zOxN77vpu1WwI5RWfPkaRh0aHkz/dVdTGKXalDNzWfz183lljKxlxl3/h0n+A==";

export async function ensureXsSources() {
  return cached(`xsnap-0.15.0-${hashOf(XSNAP_SHA512)}`, async (folder, work) => {
    say("torpor: fetching the sources of XS (npm package @agoric/xsnap)");
    await step(`npm pack ${XSNAP}`, "npm", ["pack", XSNAP, "--pack-destination", work], { cwd: work });
    const file = readdirSync(work).find((name) => name.endsWith(".tgz"));
    const hash = createHash("sha512")
      .update(readFileSync(join(work, file)))
      .digest("base64");
    if (hash !== XSNAP_SHA512) {
      throw new SetupError(`the sources of XS are not those that are pinned: SHA-512 ${hash}`);
    }
    await step("unpacking", "tar", ["xzf", join(work, file), "-C", folder, "--strip-components=1"]);
  });
}

/** Whether the compiler makes 32-bit programs: on x86-64 with Debian's gcc-multilib. */
function compiles32(...more) {
  const source = '#include <stdio.h>\n#include <sys/syscall.h>\nint main(void) { return puts("") < 0; }\n';
  const args = ["-m32", ...more, "-x", "c", "-", "-o", "/dev/null"];
  return spawnSync("gcc", args, { input: source, stdio: ["pipe", "ignore", "ignore"] }).status === 0;
}

/** Bits of the slots of the simulated device: 32 as the device's, or 64 where no compiler can. */
async function deviceBits() {
  if (compiles32()) {
    return 32;
  }
  if (process.arch === "x64") {
    try {
      await ensureTools({ "gcc -m32": "gcc-multilib" }, "the 32-bit simulator");
    } catch (error) {
      say(`torpor: ${error.message}`);
    }
  }
  if (compiles32()) {
    return 32;
  }
  say("torpor: no 32-bit compiler here: the simulator has 64-bit slots, twice the size of the device's");
  return 64;
}

/**
 * The program `simulator`, with slots of 32 or 64 bits. `variant` is "" for the device as it is; "debug" has stack
 * traces with file and line; "sanitized" is built with AddressSanitizer, UndefinedBehaviorSanitizer.
 */
export async function ensureSimulator({ bits, variant = "", engine = "mbedtls" }) {
  const mbedtls = await ensureMbedtls({ role: "device", bits, sanitize: variant === "sanitized" });
  const wolfssl =
    engine === "wolfssl"
      ? await ensureWolfsslLibrary({ role: "device", bits, sanitize: variant === "sanitized" })
      : undefined;
  const xs = join(await ensureXsSources(), "moddable", "xs");
  const here = join(ROOT, "hosts", "simulator");
  const xsInputs = [join(here, "CMakeLists.txt"), join(here, "xsplatform.h")];
  const cmake = (build, part, ...more) => [
    ...["-S", here, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"],
    ...[`-DPART=${part}`, `-DXS=${xs}`, `-DBITS=${bits}`, ...more],
    ...[`-DTORPOR_DEBUG=${variant === "debug" ? "ON" : "OFF"}`],
    ...[`-DTORPOR_SANITIZE=${variant === "sanitized" ? "ON" : "OFF"}`],
  ];
  const label = `${bits}-${variant === "" ? "" : `${variant}-`}`;
  const called = `for ${bits} bits${variant === "" ? "" : `, ${variant}`}`;
  const library = await cached(
    `xs-${label}${hashOf(compiler(), XSNAP_SHA512, ...contents(xsInputs))}`,
    async (folder, work) => {
      say(`torpor: building XS ${called}`);
      const build = join(work, "build");
      await step("configuring XS", "cmake", cmake(build, "xs"));
      await step("compiling XS", "ninja", ["-C", build]);
      renameSync(join(build, "libxs.a"), join(folder, "libxs.a"));
    },
  );
  const inputs = ["src", "hosts"].flatMap((folder) => filesBelow(join(ROOT, folder), /\.[ch]$|^CMakeLists\.txt$/));
  const own = `${engine === "mbedtls" ? "" : `${engine}-`}${label}`;
  const name = `simulator-${own}${hashOf(mbedtls, wolfssl?.folder ?? "", library, ...contents(inputs))}`;
  return cached(name, async (folder, work) => {
    say(`torpor: building the simulator ${called}${wolfssl === undefined ? "" : ", over wolfSSL"}`);
    const build = join(work, "build");
    const parts = [
      ...[`-DXS_LIBRARY=${join(library, "libxs.a")}`, `-DMBEDTLS_PREFIX=${mbedtls}`],
      ...(wolfssl?.options ?? []),
    ];
    await step("configuring the simulator", "cmake", cmake(build, "simulator", ...parts));
    await step("compiling the simulator", "ninja", ["-C", build]);
    renameSync(join(build, "simulator"), join(folder, "simulator"));
  });
}

/**
 * Tells the program where its native parts are: build/native.json. `simulator` and `bits` are the device; `debug` and
 * `sanitized` are the other builds of it, `plain64` the device in 64 bits, `wolfssl`, `wolfsslExample` and `nss` peers of the tests,
 * `wolfsslBinding`, `wolfsslSimulator` and `wolfsslDebug` the second engine, `measure` what the benchmarks run processes by, each only
 * where it was asked for.
 */
function announce(parts) {
  const file = join(BUILD, "native.json");
  const text = `${JSON.stringify(parts)}\n`;
  mkdirSync(BUILD, { recursive: true });
  if (!existsSync(file) || readFileSync(file, "utf8") !== text) {
    writeFileSync(file, text);
  }
}

// ---- TypeScript ----

async function ensureCompiled(simulator) {
  const tsc = join(ROOT, "node_modules", "typescript", "bin", "tsc");
  await step("compiling TypeScript", process.execPath, [tsc, "-b"], { cwd: ROOT });
  // A wake is to begin as on a device, whose modules are byte code: parsing them takes longer than most wakes.
  const device = join(BUILD, "hosts", "simulator", "main.js");
  await step("compiling the device's modules to XS byte code", simulator, [device, "--compile", "1"]);
}

// ---- all of it ----

/** Everything of the checkout that the builds below depend on. */
function ownInputs() {
  const folders = ["src", "hosts", "tools", "test"].map((name) => join(ROOT, name)).filter(existsSync);
  const files = ["CMakeLists.txt", "package-lock.json", "tsconfig.base.json", "tsconfig.json"];
  return [
    ...[...files, "scripts/setup.mjs"].map((name) => join(ROOT, name)),
    ...folders.flatMap((folder) => filesBelow(folder, /\.(ts|c|h)$|^(tsconfig\.json|CMakeLists\.txt)$/)),
    ...WOLFSSL_LIST,
  ];
}

/** Whether all is built from what the checkout holds now; the quick way out for every later start. */
function isReady(wanted, parts) {
  const [stamp, native] = [join(BUILD, ".ready"), join(BUILD, "native.json")];
  const made = [stamp, native, join(BUILD, "hosts", "node", "torpor.js"), join(ROOT, "node_modules", ".torpor-lock")];
  if (!made.every(existsSync) || readFileSync(stamp, "utf8") !== wanted) {
    return false;
  }
  const found = JSON.parse(readFileSync(native, "utf8"));
  return parts.every((part) => found[part] !== undefined && existsSync(found[part]));
}

/**
 * @param tests also what the tests need: peers and tools, and the simulator's other builds
 * @param peers of these only what a benchmark needs: the DTLS and CoAP peers, and what measures processes
 * @param debug also the simulator's debug build
 * @param engine "wolfssl": also the second engine.
 */
export async function setup({
  tests = false,
  peers = tests,
  debug = false,
  engine = tests ? "wolfssl" : "mbedtls",
} = {}) {
  if (engine !== "mbedtls" && engine !== "wolfssl") {
    throw new SetupError(`--engine ${engine}: expected mbedtls or wolfssl`);
  }
  const major = Number(process.versions.node.split(".")[0]);
  if (major < 20) {
    throw new SetupError(`Node.js ${process.versions.node} is too old: 20 or later is needed`);
  }
  if (peers) {
    await ensureTools(TEST_TOOLS, "the tests (DTLS and CoAP peers)");
  }
  const wanted = hashOf(process.env.MBEDTLS_DIR ?? "", process.env.WOLFSSL_DIR ?? "", ...contents(ownInputs()));
  const others = [...(debug || tests ? ["debug"] : []), ...(tests ? ["sanitized", "plain64"] : [])];
  if (peers) {
    others.push("wolfssl", "wolfsslExample", "nss", "measure");
  }
  if (engine === "wolfssl") {
    others.push("wolfsslBinding", "wolfsslSimulator", ...(debug || tests ? ["wolfsslDebug"] : []));
  }
  if (isReady(wanted, ["binding", "simulator", ...others])) {
    return;
  }
  await ensurePackages();
  await ensureTools(BUILD_TOOLS, "building the C core");
  const bits = await deviceBits();
  const simulator = async (which) => join(await ensureSimulator(which), "simulator");
  const parts = { binding: join(await ensureNative(), "torpor.node"), simulator: await simulator({ bits }), bits };
  if (others.includes("debug")) {
    parts.debug = await simulator({ bits: 64, variant: "debug" });
  }
  if (tests) {
    const sanitizedBits = bits === 32 && compiles32("-fsanitize=address,undefined") ? 32 : 64;
    parts.sanitized = await simulator({ bits: sanitizedBits, variant: "sanitized" });
    parts.plain64 = bits === 64 ? parts.simulator : await simulator({ bits: 64 });
  }
  if (peers) {
    Object.assign(parts, await peersOrPending("WOLFSSL", wolfsslServers, process.env.WOLFSSL_DIR));
    Object.assign(parts, await peersOrPending("NSS", nssServers));
    parts.measure = join(await ensureMeasure(), "measure");
  }
  if (engine === "wolfssl") {
    parts.wolfsslBinding = join(await ensureNative({ engine }), "torpor.node");
    parts.wolfsslSimulator = await simulator({ bits, engine });
    if (others.includes("wolfsslDebug")) {
      parts.wolfsslDebug = await simulator({ bits: 64, variant: "debug", engine });
    }
  }
  announce(parts);
  await ensureCompiled(parts.simulator);
  writeFileSync(join(BUILD, ".ready"), wanted);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    const tests = process.argv.includes("--tests");
    await setup({ tests, engine: tests ? "wolfssl" : engineOf() });
    say("torpor: all set up");
  });
}
