/**
 * The module "embedded:storage/key-value" (ECMA-419) in the simulator: a file of flash/ for each key, by the natives of
 * host.c. A write is atomic and durable.
 *
 *     import storage from "embedded:storage/key-value";
 *     const store = storage.open({ path: "settings", format: "string" });
 *     store.write("name", "hummingbird");
 */

import type { KeyValueStore } from "../../../src/io.js";

/** The formats of numbers, and the bytes of each; they lie little endian. */
const INTEGERS = { uint8: 1, int8: 1, uint16: 2, int16: 2, uint32: 4, int32: 4 } as const;
type Integer = keyof typeof INTEGERS;
export type StorageFormat = "buffer" | "string" | Integer;
type Value = ArrayBufferLike | Uint8Array | string | number;

/** What XS has and the library of TypeScript does not know. */
declare global {
  interface ArrayBufferConstructor {
    fromString(text: string): ArrayBuffer;
  }
  interface StringConstructor {
    fromArrayBuffer(buffer: ArrayBuffer): string;
  }
}

export interface StorageOpenOptions {
  readonly path: string;
  /** "r": only to be read. */
  readonly mode?: "r" | "r+";
  readonly format?: StorageFormat;
}

class Storage implements KeyValueStore {
  #path: string | undefined;
  readonly #writable: boolean;
  readonly format: StorageFormat;

  constructor(path: string, writable: boolean, format: StorageFormat) {
    this.#path = path;
    this.#writable = writable;
    this.format = format;
  }

  private path(): string {
    if (this.#path === undefined) {
      throw new Error("the storage is closed");
    }
    return this.#path;
  }

  private writablePath(): string {
    const path = this.path();
    if (!this.#writable) {
      throw new Error(`the storage of "${path}" is open for reading: open it with the mode "r+"`);
    }
    return path;
  }

  /** The value in the store's format, or undefined where there is none. */
  // biome-ignore lint/suspicious/noExplicitAny: its type is that of the format
  read(key: string): any {
    const bytes: ArrayBuffer | undefined = native("xs_host_store_read").call(undefined, this.path(), key);
    if (bytes === undefined || this.format === "buffer") {
      return bytes;
    }
    if (this.format === "string") {
      return String.fromArrayBuffer(bytes);
    }
    if (bytes.byteLength !== INTEGERS[this.format]) {
      throw new TypeError(`the value of "${key}" is no ${this.format}: it has ${bytes.byteLength} bytes`);
    }
    return readInteger(new DataView(bytes), this.format);
  }

  write(key: string, value: Value): void {
    const bytes =
      this.format === "buffer"
        ? value
        : this.format === "string"
          ? ArrayBuffer.fromString(String(value))
          : integerBytes(Number(value), this.format);
    native("xs_host_store_write").call(undefined, this.writablePath(), key, bytes);
  }

  /** A key that is not there is ignored. */
  delete(key: string): void {
    native("xs_host_store_delete").call(undefined, this.writablePath(), key);
  }

  /** May be called again. */
  close(): void {
    this.#path = undefined;
  }

  /** The keys, in no order. */
  *[Symbol.iterator](): IterableIterator<string> {
    for (let index = 0; ; index++) {
      const key: string | undefined = native("xs_host_store_key").call(undefined, this.path(), index);
      if (key === undefined) {
        return;
      }
      yield key;
    }
  }
}

function readInteger(view: DataView, format: Integer): number {
  switch (format) {
    case "uint8":
      return view.getUint8(0);
    case "int8":
      return view.getInt8(0);
    case "uint16":
      return view.getUint16(0, true);
    case "int16":
      return view.getInt16(0, true);
    case "uint32":
      return view.getUint32(0, true);
    default:
      return view.getInt32(0, true);
  }
}

function integerBytes(value: number, format: Integer): Uint8Array {
  const bytes = new Uint8Array(INTEGERS[format]);
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = value >> (8 * i);
  }
  if (readInteger(new DataView(bytes.buffer), format) !== value) {
    throw new RangeError(`${value} is no ${format}`);
  }
  return bytes;
}

export default Object.freeze({
  /** @throws RangeError for a format that there is not; Error without a path or for another mode. */
  open({ path, mode = "r+", format = "buffer" }: StorageOpenOptions): Storage {
    if (path === undefined || (mode !== "r" && mode !== "r+")) {
      throw new Error(`expected a path and the mode "r" or "r+", not ${path} and "${mode}"`);
    }
    if (format !== "buffer" && format !== "string" && !(format in INTEGERS)) {
      throw new RangeError(`there is no format "${format}"`);
    }
    return new Storage(path, mode === "r+", format);
  },
});
