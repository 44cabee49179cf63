/**
 * A reader for application/link-format (RFC 6690), the format of `/.well-known/core`.
 *
 *     const links = parseLinkFormat(response.payload); // </est/crts>;rt="ace.est.crts";ct="281 287"
 *     links[0].target;                                 // "/est/crts"
 *     links[0].attributes.get("ct");                   // "281 287"
 */

import { FormatError } from "../errors.js";
import { readUTF8 } from "./utf8.js";

/** The Content-Format number (RFC 7252 section 12.3). */
export const LINK_FORMAT = 40;

export interface Link {
  /** A URI reference as it stands: a path, or an absolute URI. */
  target: string;
  /** Values without their quotes and escapes; "" where there is none. Of a repeated attribute, the first. */
  attributes: Map<string, string>;
}

//  Link          = [ link-value *( "," link-value ) ]
//  link-value    = "<" URI-Reference ">" *( ";" link-param )
//  link-param    = parmname [ "=" ( ptoken / quoted-string ) ]
//  quoted-string = <"> *( any but <"> and "\" / "\" any ) <">

const TAB = 0x09;
const SPACE = 0x20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const SEMICOLON = 0x3b;
const LESS = 0x3c;
const EQUALS = 0x3d;
const GREATER = 0x3e;
const BACKSLASH = 0x5c;
const DELETE = 0x7f;

/** The links of a document, in its order. Throws FormatError where it is malformed (RFC 6690 section 2). */
export function parseLinkFormat(document: Uint8Array): Link[] {
  return new LinkReader(document).links();
}

class LinkReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  links(): Link[] {
    const links: Link[] = [];
    this.#skipSpace();
    if (this.#at === this.#bytes.length) return links;
    do links.push(this.#link());
    while (this.#skip(COMMA));
    if (this.#at < this.#bytes.length) throw this.#expected('"," or the end');
    return links;
  }

  #link(): Link {
    if (!this.#skip(LESS)) throw this.#expected('"<"');
    const target = this.#textWhile((byte) => byte !== GREATER && byte > SPACE);
    if (!this.#skip(GREATER)) throw this.#expected('">"');
    const attributes = new Map<string, string>();
    while (this.#skip(SEMICOLON)) this.#attribute(attributes);
    return { target, attributes };
  }

  #attribute(attributes: Map<string, string>): void {
    const name = this.#textWhile((byte) => isToken(byte) && byte !== EQUALS);
    if (name === "") throw this.#expected("the name of an attribute");
    const value = this.#skip(EQUALS) ? this.#value() : "";
    if (!attributes.has(name)) attributes.set(name, value);
  }

  #value(): string {
    if (this.#bytes[this.#at] === QUOTE) return this.#quoted();
    const value = this.#textWhile(isToken);
    if (value === "") throw this.#expected("a value");
    return value;
  }

  // Escapes only take bytes out, so the text is put together in a buffer of the same length and decoded once.
  #quoted(): string {
    const start = ++this.#at;
    while (this.#at < this.#bytes.length && this.#bytes[this.#at] !== QUOTE) {
      this.#at += this.#bytes[this.#at] === BACKSLASH ? 2 : 1;
    }
    if (this.#at >= this.#bytes.length) throw this.#expected("a closing quote");
    const text = new Uint8Array(this.#at - start);
    let length = 0;
    for (let at = start; at < this.#at; at++) {
      if (this.#bytes[at] === BACKSLASH) at++;
      text[length++] = this.#bytes[at];
    }
    this.#at++;
    this.#skipSpace();
    return readUTF8(text.subarray(0, length));
  }

  #textWhile(isPart: (byte: number) => boolean): string {
    const start = this.#at;
    while (this.#at < this.#bytes.length && isPart(this.#bytes[this.#at])) this.#at++;
    const text = readUTF8(this.#bytes.subarray(start, this.#at));
    this.#skipSpace();
    return text;
  }

  /** Takes `byte` and the space after it, if it comes next. */
  #skip(byte: number): boolean {
    if (this.#bytes[this.#at] !== byte) return false;
    this.#at++;
    this.#skipSpace();
    return true;
  }

  // RFC 6690 has no space between its parts, but examples and some servers break lines there.
  #skipSpace(): void {
    while (isSpace(this.#bytes[this.#at])) this.#at++;
  }

  #expected(what: string): FormatError {
    return new FormatError(`expected ${what} at byte ${this.#at} of the link-format document`);
  }
}

function isSpace(byte: number): boolean {
  return byte === SPACE || byte === TAB || byte === 0x0a || byte === 0x0d;
}

function isToken(byte: number): boolean {
  return byte > SPACE && byte < DELETE && byte !== QUOTE && byte !== COMMA && byte !== SEMICOLON && byte !== BACKSLASH;
}
