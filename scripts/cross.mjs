// Compiles the C core, its XS glue and a board's C for the processors of devices, and links them with mbedTLS as firmware
// would: -Os, each function that nothing calls left out. npm run bench:size prints what they take of flash and RAM.

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { SetupError, say, step } from "./run.mjs";
import { cached, ensureTools, ensureXsSources, hashOf, mbedtlsSource, ROOT, wolfsslForDevices } from "./setup.mjs";

const TARGETS = [
  {
    name: "rv32imc",
    prefix: "riscv64-unknown-elf-",
    flags: ["--specs=picolibc.specs", "-march=rv32imc", "-mabi=ilp32"],
    link: ["-Wl,--defsym=__flash_size=0x400000", "-Wl,--defsym=__ram_size=0x100000"],
    packages: {
      "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
      "/usr/lib/picolibc/riscv64-unknown-elf/picolibc.specs": "picolibc-riscv64-unknown-elf",
    },
  },
  {
    name: "Cortex-M4",
    prefix: "arm-none-eabi-",
    flags: ["-mcpu=cortex-m4", "-mthumb", "--specs=nano.specs"],
    link: [],
    packages: {
      "arm-none-eabi-gcc": "gcc-arm-none-eabi",
      "/usr/lib/arm-none-eabi/newlib/nano.specs": "libnewlib-arm-none-eabi",
    },
  },
];

/** The DTLS engine alone, of the two that there are. */
const ENGINES = { mbedTLS: "src/dtls/dtls.c", wolfSSL: "src/dtls/wolfssl/core.c" };

/** The parts of the table. Those of a board are compiled against declarations of the few ESP-IDF functions they call. */
const PARTS = [
  { name: "C core", sources: ["src/dtls/verification.c", "src/pki/crypto.c"] },
  { name: "XS glue", sources: ["src/dtls/engine.c", "src/pki/key.c", "hosts/moddable/device.c"] },
  {
    name: "board (ESP32)",
    sources: ["hosts/moddable/retained.c", "hosts/esp32/store.c", "hosts/esp32/device_esp32.c"],
  },
];

const STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror"];
const SMALL = ["-Os", "-ffunction-sections", "-fdata-sections", "-fno-common"];

/** What XS asks of its platform, for a processor without a system: types only. */
const PLATFORM = `#define mxLittleEndian 1
#define mxExport extern
#define mxImport extern
#define mxMachinePlatform void *host;
#define XS_FUNCTION_NORETURN __attribute__((noreturn))
#include <ctype.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
`;

const compiler = ({ prefix }) => `${prefix}gcc`;

async function compile(target, sources, options, folder) {
  const objects = [];
  for (const source of sources) {
    const object = join(folder, `${basename(source)}.o`);
    const args = [...target.flags, ...SMALL, ...options, "-c", source, "-o", object];
    await step(`${target.name}: ${basename(source)}`, compiler(target), args);
    objects.push(object);
  }
  return objects;
}

const configuration = () => `-DMBEDTLS_CONFIG_FILE="${join(ROOT, "src", "dtls", "mbedtls", "config.h")}"`;

/** mbedTLS for the processor, with the device's configuration: one archive. */
async function ensureLibrary(target, mbedtls) {
  const config = readFileSync(join(ROOT, "src", "dtls", "mbedtls", "config.h"));
  const name = `mbedtls-${mbedtls.version}-${target.name}-${hashOf(config, target.flags.join(" "), SMALL.join(" "))}`;
  const folder = await cached(name, async (out, work) => {
    const library = join(mbedtls.source, "library");
    const sources = readdirSync(library).filter((file) => file.endsWith(".c"));
    const options = [configuration(), `-I${join(mbedtls.source, "include")}`, `-I${library}`];
    // Random numbers come from the hardware, as on a board.
    options.push("-DMBEDTLS_NO_PLATFORM_ENTROPY", "-DMBEDTLS_ENTROPY_HARDWARE_ALT");
    options.push(`-I${join(ROOT, "hosts", "desktop", "include")}`);
    await step(`compiling mbedTLS ${mbedtls.version} for ${target.name}`, "sh", [
      "-c",
      `set -e; cd "$1"; shift; for source in ${sources.join(" ")}; do "$@" -c "${library}/$source" -o "$source.o"; done; ` +
        `${target.prefix}ar rc "${join(out, "libmbedtls.a")}" *.o`,
      "sh",
      ...[work, compiler(target), ...target.flags, ...SMALL, "-w", ...options],
    ]);
  });
  return join(folder, "libmbedtls.a");
}

/** wolfSSL for the processor, with the device's configuration: one archive. */
async function ensureWolfsslArchive(target, { sources, version, options }) {
  const settings = readFileSync(join(ROOT, "src", "dtls", "wolfssl", "user_settings.h"));
  const inputs = [settings, sources.join(" "), options.join(" "), target.flags.join(" "), SMALL.join(" ")];
  const folder = await cached(`wolfssl-${version}-${target.name}-${hashOf(...inputs)}`, async (out, work) => {
    await step(`compiling wolfSSL ${version} for ${target.name}`, "sh", [
      "-c",
      `set -e; cd "$1"; shift; for source in ${sources.join(" ")}; do "$@" -c "$source" -o "$(basename "$source").o"; done; ` +
        `${target.prefix}ar rc "${join(out, "libwolfssl.a")}" *.o`,
      "sh",
      ...[work, compiler(target), ...target.flags, ...SMALL, "-w", ...options],
    ]);
  });
  return join(folder, "libwolfssl.a");
}

/** Bytes by input file of what a link keeps: the lines of GNU ld's map. */
export function readMap(map) {
  const sizes = new Map();
  const body = map.slice(map.indexOf("Linker script and memory map"));
  for (const [, section, address, size, file] of body.matchAll(
    /^ (\.[^\s]+)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) ([^\s].*)$/gm,
  )) {
    const kind = /^\.(text|rodata|data|sdata|bss|sbss|srodata|rtc_noinit)/.exec(section)?.[1];
    if (kind === undefined || Number.parseInt(size, 16) === 0 || Number.parseInt(address, 16) === 0) {
      continue;
    }
    const column = { sdata: "data", srodata: "rodata", sbss: "bss", rtc_noinit: "rtc" }[kind] ?? kind;
    const sums = sizes.get(file) ?? { text: 0, rodata: 0, data: 0, bss: 0, rtc: 0 };
    sums[column] += Number.parseInt(size, 16);
    sizes.set(file, sums);
  }
  return sizes;
}

function add(sums, other) {
  for (const column of Object.keys(sums)) {
    sums[column] += other[column];
  }
}

/** The functions that TypeScript reaches by name: what a link starts from. */
function roots(sources) {
  return sources.flatMap((source) =>
    [...readFileSync(join(ROOT, source), "utf8").matchAll(/^void (xs_torpor_\w+)\(/gm)].map(([, name]) => name),
  );
}

async function measure(target, folder, xs, mbedtls, wolfssl) {
  const libraries = [await ensureLibrary(target, mbedtls)];
  if (wolfssl !== undefined) {
    libraries.unshift(await ensureWolfsslArchive(target, wolfssl));
  }
  writeFileSync(join(folder, "platform.h"), PLATFORM);
  const includes = [`-I${join(mbedtls.source, "include")}`, `-I${join(ROOT, "test", "idf")}`, `-I${folder}`];
  const system = ["includes", "platforms"].flatMap((name) => ["-isystem", join(xs, name)]);
  const defines = ["-DINCLUDE_XSPLATFORM", '-DXSPLATFORM="platform.h"', configuration()];
  const objects = new Map();
  const engine = {
    name: "DTLS engine",
    sources: [ENGINES[wolfssl === undefined ? "mbedTLS" : "wolfSSL"], "src/dtls/association.c"],
    options: wolfssl?.options ?? [],
  };
  const parts = [engine, ...PARTS];
  for (const { name, sources, options = [] } of parts) {
    const paths = sources.map((source) => join(ROOT, source));
    for (const object of await compile(
      target,
      paths,
      [...STRICT, ...defines, ...options, ...includes, ...system],
      folder,
    )) {
      objects.set(object, name);
    }
  }
  const map = join(folder, "map");
  // XS, ESP-IDF and PSA's storage are not there to be linked: what they are called by counts, they do not.
  await step(`${target.name}: linking`, compiler(target), [
    ...[
      ...target.flags,
      ...target.link,
      "-nostartfiles",
      "-nostdlib",
      "-Wl,--gc-sections",
      "-Wl,--unresolved-symbols=ignore-all",
    ],
    ...["-Wl,-e,0", `-Wl,-Map=${map}`, "-o", join(folder, "linked.elf")],
    ...roots(parts.flatMap(({ sources }) => sources)).map((name) => `-Wl,-u,${name}`),
    ...[...objects.keys(), ...libraries, "-lc", "-lgcc"],
  ]);
  const none = () => ({ text: 0, rodata: 0, data: 0, bss: 0, rtc: 0 });
  const table = new Map(
    [...parts.map(({ name }) => name), "mbedTLS", ...(wolfssl ? ["wolfSSL"] : []), "C library"].map((name) => [
      name,
      none(),
    ]),
  );
  for (const [file, sizes] of readMap(readFileSync(map, "utf8"))) {
    const library = file.includes("libmbedtls.a") ? "mbedTLS" : file.includes("libwolfssl.a") ? "wolfSSL" : "C library";
    const part = objects.get(file) ?? library;
    add(table.get(part), sizes);
  }
  checkAgainst(target, join(folder, "linked.elf"), [...table.values()]);
  return Object.fromEntries(table);
}

/** The sums must be those of `size`, which counts alignment too: else the map is written in another way than is read. */
function checkAgainst({ name, prefix }, elf, parts) {
  const { stdout } = spawnSync(`${prefix}size`, ["-A", elf], { encoding: "utf8" });
  const allocated = [...stdout.matchAll(/^\.(\S+)\s+(\d+)\s+(\d+)$/gm)].filter(([, , , address]) => address !== "0");
  const expected = allocated
    .filter(([, section]) => /^(text|rodata|data|bss|rtc_noinit|init)/.test(section))
    .reduce((sum, [, , bytes]) => sum + Number(bytes), 0);
  const found = parts.reduce((sum, p) => sum + p.text + p.rodata + p.data + p.bss + p.rtc, 0);
  if (Math.abs(expected - found) > expected / 50) {
    throw new SetupError(`${name}: the linker's map adds up to ${found} bytes, the program has ${expected}`);
  }
}

/** Compiles and links for every target, with each engine; sizes by target, engine and part. */
export async function sizes() {
  for (const { packages } of TARGETS) {
    await ensureTools(packages, "cross-compiling for devices");
  }
  const mbedtls = await mbedtlsSource();
  const wolfssl = await wolfsslForDevices().catch((error) => {
    if (process.env.CI) {
      throw error;
    }
    say(`torpor: NO WOLFSSL HERE: no sizes of it. ${error.message}`);
  });
  const xs = join(await ensureXsSources(), "moddable", "xs");
  const work = mkdtempSync(join(tmpdir(), "torpor-cross-"));
  const all = {};
  try {
    for (const target of TARGETS) {
      all[target.name] = {};
      for (const engine of ["mbedTLS", ...(wolfssl === undefined ? [] : ["wolfSSL"])]) {
        const folder = join(work, `${target.name}-${engine}`);
        mkdirSync(folder);
        const second = engine === "wolfSSL" ? wolfssl : undefined;
        all[target.name][engine] = await measure(target, folder, xs, mbedtls, second);
      }
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return { version: mbedtls.version, wolfssl: wolfssl?.version, sizes: all };
}
