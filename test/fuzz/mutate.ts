/**
 * New inputs out of old ones, for guided.ts: bits, bytes, numbers, parts moved, doubled, taken out, put together, known
 * words put in, and DER changed with its lengths kept right.
 *
 *     const next = mutate(input, other, words, random);
 */

import type { Random } from "./random.js";

const INTERESTING = [0, 1, 0x0c, 0x10, 0x1f, 0x30, 0x31, 0x7f, 0x80, 0x81, 0x82, 0xa0, 0xfe, 0xff];

/** @param other another input, to take parts from  @param limit the longest result, bytes */
export function mutate(
  input: Uint8Array,
  other: Uint8Array,
  words: readonly Uint8Array[],
  random: Random,
  limit: number,
): Uint8Array {
  let bytes = [...input];
  if (random.chance(4)) {
    bytes = mutateDER(bytes, [...other], random) ?? bytes;
  }
  for (let left = 1 << random.below(4); left > 0; left--) {
    bytes = once(bytes, other, words, random);
  }
  return Uint8Array.from(bytes.slice(0, limit));
}

function once(bytes: number[], other: Uint8Array, words: readonly Uint8Array[], random: Random): number[] {
  const at = random.below(bytes.length + 1);
  const length = random.chance(2) ? 1 + random.below(4) : random.below(bytes.length - at + 1);
  const part = (): number[] => {
    const from = random.below(other.length + 1);
    return [...other.subarray(from, from + 1 + random.below(random.chance(2) ? 8 : other.length + 1))];
  };
  switch (random.below(11)) {
    case 0:
      if (at < bytes.length) bytes[at]! ^= 1 << random.below(8);
      return bytes;
    case 1:
      if (at < bytes.length) bytes[at] = random.chance(2) ? random.pick(INTERESTING) : random.below(256);
      return bytes;
    case 2: {
      if (at + 1 >= bytes.length) return bytes;
      const number = bytes[at]! * 256 + bytes[at + 1]! + random.below(65) - 32;
      bytes.splice(at, 2, (number >> 8) & 0xff, number & 0xff);
      return bytes;
    }
    case 3:
      return bytes.slice(0, at);
    case 4:
      bytes.splice(at, length);
      return bytes;
    case 5:
      return [
        ...bytes.slice(0, at),
        ...Array.from({ length: Math.min(length, 16) }, () => random.below(256)),
        ...bytes.slice(at),
      ];
    case 6:
      return [...bytes.slice(0, at + length), ...bytes.slice(at)];
    case 7:
      return [...bytes.slice(0, at), ...part(), ...bytes.slice(at)];
    case 8: {
      const taken = part();
      bytes.splice(at, taken.length, ...taken);
      return bytes;
    }
    default: {
      if (words.length === 0) return bytes;
      const word = [...random.pick(words)];
      bytes.splice(at, random.chance(2) ? word.length : 0, ...word);
      return bytes;
    }
  }
}

interface Node {
  tag: number;
  /** Of a constructed element, or of a string of octets that holds DER. */
  children: Node[] | undefined;
  content: number[];
  /** Unused bits before the DER in a BIT STRING. */
  prefix: number[];
}

/** The DER in these bytes with one element changed and all lengths right; undefined where it is none. */
function mutateDER(bytes: number[], other: number[], random: Random): number[] | undefined {
  const nodes = parse(bytes, 0);
  if (nodes === undefined || nodes.length === 0) return undefined;
  const places: [Node[], number][] = [];
  const walk = (list: Node[]): void => {
    list.forEach((node, index) => {
      places.push([list, index]);
      if (node.children) walk(node.children);
    });
  };
  walk(nodes);
  const [list, index] = random.pick(places);
  const node = list[index]!;
  const donors = parse(other, 0) ?? [];
  const flat = donors.flatMap((donor) => [
    donor,
    ...(donor.children ?? []),
    ...(donor.children ?? []).flatMap((child) => child.children ?? []),
  ]);
  switch (random.below(6)) {
    case 0:
      list.splice(index, 1);
      break;
    case 1:
      for (let times = random.chance(8) ? 20 : 1; times > 0; times--) list.splice(index, 0, node);
      break;
    case 2:
      if (flat.length > 0) list.splice(index, random.below(2), random.pick(flat));
      break;
    case 3:
      list[index] = {
        ...node,
        tag: random.pick([1, 2, 3, 4, 5, 6, 0x0c, 0x13, 0x16, 0x17, 0x18, 0x1e, 0x30, 0x31, 0xa0, 0xa1, 0xa3]),
      };
      break;
    case 4: {
      const [from, at] = random.pick(places);
      [list[index], from[at]] = [from[at]!, list[index]!];
      if (contains(list[index]!, list)) return undefined;
      break;
    }
    default: {
      if (node.children) break;
      const content = [...node.content];
      const at = random.below(content.length + 1);
      content.splice(
        at,
        random.below(3),
        ...Array.from({ length: random.chance(16) ? 200 : random.below(3) }, () => random.below(256)),
      );
      list[index] = { ...node, content };
    }
  }
  const size = { left: 8192 };
  return serialize(nodes, 0, size);
}

function contains(node: Node, list: Node[], depth = 0): boolean {
  return (
    depth > 40 ||
    (node.children !== undefined &&
      (node.children === list || node.children.some((child) => contains(child, list, depth + 1))))
  );
}

function parse(bytes: number[], depth: number): Node[] | undefined {
  const nodes: Node[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at]!;
    let length = bytes[at + 1];
    at += 2;
    if (length === undefined || (tag & 0x1f) === 0x1f || tag === 0) return undefined;
    if (length >= 0x80) {
      const octets = length & 0x7f;
      if (octets === 0 || octets > 2) return undefined;
      length = 0;
      for (let count = octets; count > 0; count--) length = length * 256 + (bytes[at++] ?? 0);
    }
    if (length > bytes.length - at) return undefined;
    const content = bytes.slice(at, at + length);
    at += length;
    const prefix = tag === 3 ? content.slice(0, 1) : [];
    const inside = (tag & 0x20) !== 0 || tag === 3 || tag === 4;
    const children = inside && depth < 16 && length > 0 ? parse(content.slice(prefix.length), depth + 1) : undefined;
    nodes.push({ tag, content, prefix, children: children?.length ? children : undefined });
  }
  return nodes;
}

function serialize(nodes: Node[], depth: number, size: { left: number }): number[] | undefined {
  const bytes: number[] = [];
  for (const { tag, children, content, prefix } of nodes) {
    const inner = children && depth < 40 ? serialize(children, depth + 1, size) : content;
    if (inner === undefined) return undefined;
    const whole = children ? [...prefix, ...inner] : inner;
    const { length } = whole;
    size.left -= length;
    if (size.left < 0) return undefined;
    bytes.push(
      tag,
      ...(length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 0xff]),
      ...whole,
    );
  }
  return bytes;
}
