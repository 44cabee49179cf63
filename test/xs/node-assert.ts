/**
 * What the portable tests use of node:assert, for XS. The simulator resolves the specifier "node:assert" to this file.
 *
 *     import { strict as assert } from "node:assert";
 */

export class AssertionError extends Error {}

function show(value: unknown): string {
  if (value instanceof Uint8Array) {
    return `bytes [${[...value.subarray(0, 16)].join(",")}${value.length > 16 ? ",…" : ""}] (${value.length})`;
  }
  if (value instanceof Error || typeof value !== "object") {
    return String(value);
  }
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}

function fail(expected: string, message: string | undefined): never {
  throw new AssertionError(message === undefined ? `expected ${expected}` : `${message}: expected ${expected}`);
}

/** As strict deepEqual has it for what tests compare: primitives, byte arrays, arrays, maps, plain objects. */
function isSame(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) {
    return true;
  }
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) {
    return false;
  }
  if (Object.getPrototypeOf(one) !== Object.getPrototypeOf(other)) {
    return false;
  }
  if (one instanceof Map && other instanceof Map) {
    return isSame([...one], [...other]);
  }
  const keys = Object.keys(one);
  if (keys.length !== Object.keys(other).length) {
    return false;
  }
  for (const key of keys) {
    if (
      !Object.hasOwn(other, key) ||
      !isSame((one as Record<string, unknown>)[key], (other as Record<string, unknown>)[key])
    ) {
      return false;
    }
  }
  return true;
}

type Expected = RegExp | (new (...args: never[]) => Error) | ((error: unknown) => boolean) | object;

function checkError(error: unknown, expected: Expected | undefined, message: string | undefined): void {
  if (expected === undefined || typeof expected === "string") {
    return;
  }
  if (expected instanceof RegExp) {
    if (!expected.test(String(error))) {
      fail(`an error like ${expected}, got ${show(error)}`, message);
    }
  } else if (typeof expected === "function") {
    const { prototype } = expected;
    const isClass = prototype instanceof Error || expected === Error;
    if (isClass ? !(error instanceof expected) : !(expected as (error: unknown) => boolean)(error)) {
      fail(`an error that is a ${expected.name}, got ${show(error)}`, message);
    }
  } else {
    for (const [key, value] of Object.entries(expected)) {
      const found = (error as Record<string, unknown>)[key];
      if (value instanceof RegExp ? !value.test(String(found)) : !isSame(found, value)) {
        fail(`an error whose ${key} is ${show(value)}, got ${show(found)}`, message);
      }
    }
  }
}

interface Assert {
  (value: unknown, message?: string): asserts value;
  ok(value: unknown, message?: string): asserts value;
  equal(actual: unknown, expected: unknown, message?: string): void;
  notEqual(actual: unknown, expected: unknown, message?: string): void;
  deepEqual(actual: unknown, expected: unknown, message?: string): void;
  notDeepEqual(actual: unknown, expected: unknown, message?: string): void;
  throws(body: () => unknown, expected?: Expected, message?: string): void;
  doesNotThrow(body: () => unknown): void;
  rejects(body: Promise<unknown> | (() => Promise<unknown>), expected?: Expected, message?: string): Promise<void>;
  match(text: string, expected: RegExp, message?: string): void;
  fail(message?: string): never;
}

function ok(value: unknown, message?: string): asserts value {
  if (!value) {
    fail(`a true value, got ${show(value)}`, message);
  }
}

export const strict: Assert = Object.assign(ok, {
  ok,
  equal(actual: unknown, expected: unknown, message?: string) {
    if (!Object.is(actual, expected)) {
      fail(`${show(expected)}, got ${show(actual)}`, message);
    }
  },
  notEqual(actual: unknown, expected: unknown, message?: string) {
    if (Object.is(actual, expected)) {
      fail(`something else than ${show(expected)}`, message);
    }
  },
  deepEqual(actual: unknown, expected: unknown, message?: string) {
    if (!isSame(actual, expected)) {
      fail(`${show(expected)}, got ${show(actual)}`, message);
    }
  },
  notDeepEqual(actual: unknown, expected: unknown, message?: string) {
    if (isSame(actual, expected)) {
      fail(`something else than ${show(expected)}`, message);
    }
  },
  throws(body: () => unknown, expected?: Expected, message?: string) {
    let error: unknown;
    try {
      body();
    } catch (thrown) {
      error = thrown;
    }
    if (error === undefined) {
      fail("an exception, got none", message);
    }
    checkError(error, expected, message);
  },
  doesNotThrow(body: () => unknown) {
    body();
  },
  async rejects(body: Promise<unknown> | (() => Promise<unknown>), expected?: Expected, message?: string) {
    let error: unknown;
    try {
      await (typeof body === "function" ? body() : body);
    } catch (thrown) {
      error = thrown;
    }
    if (error === undefined) {
      fail("a rejection, got none", message);
    }
    checkError(error, expected, message);
  },
  match(text: string, expected: RegExp, message?: string) {
    if (!expected.test(text)) {
      fail(`text like ${expected}, got ${show(text)}`, message);
    }
  },
  fail(message?: string): never {
    throw new AssertionError(message ?? "failed");
  },
});

export default strict;
