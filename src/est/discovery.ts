/**
 * Where a server has its EST resources (RFC 9148 section 4.1): the links of `/.well-known/core?rt=ace.est*`.
 *
 *     const crts = findResources(links).find(({ name }) => name === "crts"); // { path: "/est/crts", port: 61617, … }
 */

import { parseLinkFormat } from "../coap/link-format.js";
import { decodePath, parseURI } from "../coap/uri.js";
import { LimitError, TorporError } from "../errors.js";

/** The functions of RFC 9148, table 1, by their short paths. */
export type ESTFunction = "crts" | "att" | "sen" | "sren" | "skg" | "skc";

export interface ESTResource {
  readonly name: ESTFunction;
  /** Percent-decoded, as `CoAPRequest.path` takes it. */
  readonly path: string;
  /** Of an absolute link; undefined for one that stays on the server that was asked. */
  readonly host: string | undefined;
  readonly port: number | undefined;
  /** What `ct` lists: the values that an Accept option may have; empty where it is not there. */
  readonly formats: readonly number[];
}

const RESOURCE_TYPE = "ace.est.";
const FUNCTIONS: readonly string[] = ["crts", "att", "sen", "sren", "skg", "skc"];
const MAX_RESOURCES = 32;

/**
 * The EST resources among the links of a document, in its order; other links are passed over, and so are those that
 * cannot be followed over DTLS (another scheme). Throws a FormatError where the document is none, a LimitError for more
 * than 32 resources.
 */
export function findResources(document: Uint8Array): ESTResource[] {
  const resources: ESTResource[] = [];
  for (const { target, attributes } of parseLinkFormat(document)) {
    const formats = formatsOf(attributes.get("ct"));
    for (const type of (attributes.get("rt") ?? "").split(" ")) {
      const name = type.startsWith(RESOURCE_TYPE) ? type.slice(RESOURCE_TYPE.length) : "";
      const place = FUNCTIONS.includes(name) ? placeOf(target) : undefined;
      if (place !== undefined) {
        if (resources.length >= MAX_RESOURCES) {
          throw new LimitError(`discovery: expected at most ${MAX_RESOURCES} EST resources, got more`);
        }
        resources.push({ name: name as ESTFunction, ...place, formats });
      }
    }
  }
  return resources;
}

function placeOf(target: string): Pick<ESTResource, "path" | "host" | "port"> | undefined {
  try {
    if (target.startsWith("/") && !target.startsWith("//")) {
      return { path: decodePath(target), host: undefined, port: undefined };
    }
    const { scheme, host, port, path } = parseURI(target);
    return scheme === "coaps" ? { path, host, port } : undefined;
  } catch (error) {
    if (error instanceof TorporError) return undefined;
    throw error;
  }
}

/** RFC 7252 section 7.2.1: numbers with spaces between them. */
function formatsOf(text: string | undefined): readonly number[] {
  const formats: number[] = [];
  for (const word of (text ?? "").split(" ")) {
    if (/^[0-9]{1,5}$/.test(word)) formats.push(Number(word));
  }
  return formats;
}
