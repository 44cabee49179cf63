/**
 * CSR attributes, what a server wants to see in a certification request: RFC 7030 section 4.5.2 as replaced by RFC 8951
 * section 4 (content format 285).
 *
 *     const wantsProof = readCsrAttributes(response).some(({ oid }) => oid === "1.2.840.113549.1.9.7");
 */
import { FormatError, LimitError } from "../errors.js";
import { DERReader, dottedOID, Tag } from "../pki/der.js";

/** An OID alone, or an attribute: then with its values, each a view of one DER element with tag and length. */
export interface CsrAttribute {
  /** Dotted form. */
  readonly oid: string;
  readonly values?: Uint8Array[];
}

const MAX_ENTRIES = 64;

/**
 * What the server asks for, in its order; an empty body or an empty sequence is an empty list. Entries that the caller
 * does not know are to be ignored.
 *
 *     CsrAttrs  SEQUENCE OF { OID | SEQUENCE { OID type, SET OF ANY values } }
 *
 * Throws a FormatError where the bytes are not that, a LimitError for more than `maxEntries` (64 unless told): OIDs,
 * attributes and values counted together.
 */
export function readCsrAttributes(
  bytes: Uint8Array,
  { maxEntries = MAX_ENTRIES }: { readonly maxEntries?: number } = {},
): CsrAttribute[] {
  const list: CsrAttribute[] = [];
  if (bytes.length === 0) return list;
  const reader = new DERReader(bytes);
  const entries = reader.enter(Tag.SEQUENCE);
  reader.finish();
  let left = maxEntries;
  const count = () => {
    if (--left < 0)
      throw new LimitError(`csrattrs: expected at most ${maxEntries} OIDs, attributes and values, got more`);
  };
  while (!entries.done) {
    count();
    if (entries.tag === Tag.OBJECT_IDENTIFIER) {
      list.push({ oid: dottedOID(entries.readOID()) });
      continue;
    }
    const attribute = entries.enter(Tag.SEQUENCE);
    const oid = dottedOID(attribute.readOID());
    const set = attribute.enter(Tag.SET);
    attribute.finish();
    if (set.done) throw new FormatError(`csrattrs: expected a value of attribute ${oid}, got none`);
    const values: Uint8Array[] = [];
    while (!set.done) {
      count();
      values.push(set.readElement());
    }
    list.push({ oid, values });
  }
  return list;
}
