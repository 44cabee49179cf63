/**
 * The folder that stands for a device: retained.bin is what survives deep sleep, flash/ what survives power-off.
 *
 *     const state = new DeviceState("./state");
 *     const store = state.open("torpor");                     // key-value storage
 *     const table = state.retain(SessionTable.byteLength({})); // retained memory
 */

import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { TorporError } from "../../src/errors.js";
import type { KeyValueStore } from "../../src/io.js";

/** The folder of the device's state cannot be read or written. */
export class StorageError extends TorporError {}

/** Bytes of an ESP32's RTC slow memory: more can't be retained. */
export const RETAINED_BYTES_MAX = 8192;

/*
 * retained.bin: the host's own part, then the session table. What lies from 8 on is the simulator's (host.c).
 *
 *   0      4       8                  160
 *   | TRET | wakes | …                | table …
 *            u32 LE
 */
const HOST_BYTES = 160;
const MAGIC = 0x54455254; // "TRET", little endian

function explain(action: string, path: string, error: unknown): StorageError {
  const code = (error as NodeJS.ErrnoException).code;
  const advice: Record<string, string> = {
    EACCES: "no permission; is the folder writable?",
    EPERM: "no permission; is the folder writable?",
    EROFS: "the file system is read-only",
    ENOSPC: "the disk is full",
    EDQUOT: "the disk quota is used up",
    EFBIG: "the file system takes no more",
    ENOTDIR: "a part of the path is a file, not a folder",
    EEXIST: "it is a file, not a folder",
    EISDIR: "it is a folder, not a file",
  };
  return new StorageError(`cannot ${action} ${path}: ${advice[code ?? ""] ?? (error as Error).message}`);
}

/**
 * Makes what was done to the entries of a folder durable: a rename is not, before this. A file system that cannot do it
 * is no reason to fail: the rename has taken place.
 */
function syncFolder(path: string): void {
  try {
    const fd = openSync(path, "r");
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch {
    // as said above
  }
}

/** Replaces a file by one whole write, synced and renamed: the old content or the new one, never half. Mode 0600. */
function replaceFile(path: string, bytes: Uint8Array): void {
  const next = `${path}.new`;
  try {
    const fd = openSync(next, "w", 0o600);
    try {
      writeFileSync(fd, bytes);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(next, path);
    syncFolder(dirname(path));
  } catch (error) {
    rmSync(next, { force: true });
    throw explain("write", path, error);
  }
}

function makeFolder(path: string): void {
  try {
    const made = mkdirSync(path, { recursive: true, mode: 0o700 });
    if (made !== undefined) {
      syncFolder(dirname(made));
    }
    if (!statSync(path).isDirectory()) {
      throw Object.assign(new Error("not a folder"), { code: "ENOTDIR" });
    }
  } catch (error) {
    throw explain("use", path, error);
  }
}

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      return undefined;
    }
    throw explain("read", path, error);
  }
}

/** When a process was started, as Linux counts (proc(5), the 22nd field); undefined where it has ended or cannot tell. */
function startOf(process_: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${process_}/stat`, "latin1");
    const [state, ...fields] = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return state === "Z" || state === "X" ? undefined : fields[18];
  } catch {
    return undefined;
  }
}

/**
 * Whether the process that made a lock still runs. Its number alone does not tell: another one may have it by now, after
 * a reboot above all, and one that was killed keeps it until somebody asks how it ended.
 */
function isAlive(process_: number, start: string): boolean {
  try {
    process.kill(process_, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EPERM") {
      return false;
    }
  }
  return start === "" || startOf(process_) === start;
}

/** Key-value storage, one file for each key. */
class Store implements KeyValueStore {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  #path(key: string): string {
    if (!/^[a-z0-9-]{1,15}$/.test(key)) {
      throw new StorageError(`"${key}" is no key: expected 1 to 15 of a-z, 0-9 and -`);
    }
    return join(this.#folder, key);
  }

  read(key: string): ArrayBuffer | undefined {
    const bytes = readIfThere(this.#path(key));
    if (bytes === undefined) {
      return undefined;
    }
    const value = new ArrayBuffer(bytes.length);
    new Uint8Array(value).set(bytes);
    return value;
  }

  write(key: string, value: ArrayBufferLike | Uint8Array): void {
    const path = this.#path(key);
    makeFolder(this.#folder);
    replaceFile(path, value instanceof Uint8Array ? value : new Uint8Array(value));
  }

  delete(key: string): void {
    const path = this.#path(key);
    try {
      rmSync(path, { force: true });
    } catch (error) {
      throw explain("erase", path, error);
    }
  }

  close(): void {}
}

/** Memory that survives deep sleep, for the table; in a file here, so it is written out by `commit`. */
export interface RetainedMemory {
  readonly bytes: Uint8Array;
  readonly commit: () => void;
}

export class DeviceState {
  readonly #folder: string;

  /** @throws StorageError where the folder cannot be made or is none. */
  constructor(folder: string) {
    this.#folder = folder;
    makeFolder(folder);
  }

  /** The device in a folder that must be there already: to look at, not to wake. @throws StorageError */
  static existing(folder: string): DeviceState {
    if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) {
      throw new StorageError(`no device in ${folder}: there is no such folder`);
    }
    return new DeviceState(folder);
  }

  /**
   * Takes the folder for this process until it ends: two wakes at once would each change half of the identity. The file
   * "lock" holds the number and the start of the process that has it; one that has died gives way, and the files that it
   * had half written go.
   * @throws StorageError where another process has it.
   */
  lock(): void {
    const path = join(this.#folder, "lock");
    for (let tries = 0; tries < 3; tries++) {
      try {
        writeFileSync(path, `${process.pid} ${startOf(process.pid) ?? ""}`, { flag: "wx", mode: 0o600 });
        process.once("exit", () => rmSync(path, { force: true }));
        this.#sweep();
        return;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") {
          throw explain("write", path, error);
        }
      }
      const [number, start = ""] = readIfThere(path)?.toString("latin1").split(" ") ?? [];
      const owner = Number(number);
      if (owner === process.pid) {
        return;
      }
      if (Number.isInteger(owner) && owner > 0 && isAlive(owner, start)) {
        throw new StorageError(
          `another wake (process ${owner}) is using ${this.#folder}: one device does one wake at a time`,
        );
      }
      rmSync(path, { force: true });
    }
    throw new StorageError(`cannot lock ${this.#folder}: other processes come and go; try again`);
  }

  /** Removes what writes that were cut off have left: a new value, never renamed; a private key, maybe. */
  #sweep(): void {
    const flash = join(this.#folder, "flash");
    for (const file of existsSync(flash) ? readdirSync(flash, { recursive: true, encoding: "utf8" }) : []) {
      if (file.endsWith(".new")) {
        rmSync(join(flash, file), { force: true });
      }
    }
  }

  /** Removes all that the device remembers, in retained memory and in flash. @throws StorageError */
  erase(): void {
    for (const part of [join(this.#folder, "flash"), this.#retained]) {
      try {
        rmSync(part, { recursive: true, force: true });
      } catch (error) {
        throw explain("erase", part, error);
      }
    }
  }

  /** Key-value storage for one path, as ECMA-419's `open({ path })`. */
  open(path: string): KeyValueStore {
    return new Store(join(this.#folder, "flash", path));
  }

  /** Where PSA keeps its keys. */
  get keys(): string {
    makeFolder(join(this.#folder, "flash"));
    return join(this.#folder, "flash", "keys");
  }

  get #retained(): string {
    return join(this.#folder, "retained.bin");
  }

  /**
   * The retained memory with `length` bytes for the table. Bytes of another length, as another geometry leaves them,
   * are no table: it starts from zeros then. The number of wakes goes on.
   * @throws StorageError where it exceeds what a device can retain, or cannot be read.
   */
  retain(length: number): RetainedMemory {
    if (HOST_BYTES + length > RETAINED_BYTES_MAX) {
      throw new StorageError(
        `a session table of ${length} bytes does not fit the ${RETAINED_BYTES_MAX - HOST_BYTES} bytes of retained ` +
          "memory: take fewer or smaller slots",
      );
    }
    const all = new Uint8Array(HOST_BYTES + length);
    const stored = readIfThere(this.#retained);
    if (stored !== undefined && stored.length >= HOST_BYTES && stored.readUInt32LE(0) === MAGIC) {
      all.set(stored.subarray(0, HOST_BYTES));
      if (stored.length === all.length) {
        all.set(stored);
      }
    }
    const header = new DataView(all.buffer);
    header.setUint32(0, MAGIC, true);
    return {
      bytes: all.subarray(HOST_BYTES),
      commit: () => replaceFile(this.#retained, all),
    };
  }

  /** What is in the retained memory for the session table; undefined where there is nothing yet. @throws StorageError */
  peek(): Uint8Array | undefined {
    const stored = readIfThere(this.#retained);
    return stored !== undefined && stored.length > HOST_BYTES
      ? Uint8Array.from(stored.subarray(HOST_BYTES))
      : undefined;
  }

  /** Counts this wake in the retained memory and gives its number, from 1 after power-on. @throws StorageError */
  countWake(): number {
    const stored = readIfThere(this.#retained);
    const isOurs = stored !== undefined && stored.length >= HOST_BYTES && stored.readUInt32LE(0) === MAGIC;
    const bytes = isOurs ? Uint8Array.from(stored) : new Uint8Array(HOST_BYTES);
    const header = new DataView(bytes.buffer);
    const wake = (header.getUint32(4, true) + 1) >>> 0;
    header.setUint32(0, MAGIC, true);
    header.setUint32(4, wake, true);
    replaceFile(this.#retained, bytes);
    return wake;
  }
}

/** A device without a memory: what it keeps ends with the process. */
export class MemoryState {
  readonly keys = undefined;

  open(_path: string): KeyValueStore {
    const values = new Map<string, ArrayBuffer>();
    return {
      read: (key) => values.get(key),
      write: (key, value) => {
        const copy = value instanceof Uint8Array ? Uint8Array.from(value) : new Uint8Array(value.slice(0));
        values.set(key, copy.buffer as ArrayBuffer);
      },
      delete: (key) => {
        values.delete(key);
      },
      close: () => {},
    };
  }

  retain(length: number): RetainedMemory {
    return { bytes: new Uint8Array(length), commit: () => {} };
  }

  countWake(): number {
    return 1;
  }

  lock(): void {}
}
