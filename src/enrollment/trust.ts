/**
 * Which of the CA certificates that a server gives become trust anchors, and what the server's own certificates say:
 * RFC 7030 section 4.1.3, RFC 9148 sections 9.1 and 9.2.
 *
 *     const anchors = anchorsOf(certificates);
 *     if (!leadsTo(serverChain, certificates, anchors)) throw …
 */

import { joinBytes, sameBytes } from "../bytes.js";
import { checkedCertificate, parseCertificate } from "../pki/certificate.js";
import { DERReader, Tag } from "../pki/der.js";
import { isTrusted } from "../pki/key.js";
import { IdentityError } from "./identity.js";

const BASIC_CONSTRAINTS = Uint8Array.of(0x55, 0x1d, 0x13);
const EXTENDED_KEY_USAGE = Uint8Array.of(0x55, 0x1d, 0x25);
/** id-kp-cmcRA, 1.3.6.1.5.5.7.3.28 (RFC 6402 section 2.10) */
const CMC_RA = Uint8Array.of(0x2b, 6, 1, 5, 5, 7, 3, 28);

/**
 * The trust anchors among the certificates of crts: the self-issued ones; where there is none, all.
 *
 * Of one CA that changes its root key (RFC 4210 section 4.4, RFC 7030 section 4.1.3) these are the newest root, and the
 * old key as long as the new one vouches for it:
 *
 *     NewWithNew  kept: self-signed, with the latest notAfter
 *     OldWithNew  kept: the old key, signed with the new one; what was issued before is still verified by it
 *     OldWithOld  given up: only OldWithNew speaks for the old key
 *     NewWithOld  given up: for those who know the old root only
 *
 * All of them have been read by parseCertificate before.
 * @throws IdentityError where one of them is no CA.
 */
export function anchorsOf(certificates: readonly Uint8Array[]): readonly Uint8Array[] {
  const selfIssued = certificates.filter(isSelfIssued);
  const candidates = selfIssued.length > 0 ? selfIssued : certificates;
  for (const candidate of candidates) {
    checkCA(candidate);
  }
  if (selfIssued.length < 2) {
    return candidates;
  }
  const bridges = selfIssued.filter((der) => selfIssued.some((other) => isSignedBy(der, other)));
  const roots = selfIssued.filter((der) => !bridges.includes(der));
  const newest = roots.filter((der) => !roots.some((other) => hasSuccessor(der, other)));
  const old = bridges.filter(
    (der) => newest.some((root) => isSignedBy(der, root)) && !newest.some((root) => hasSameKey(der, root)),
  );
  return [...newest, ...old];
}

function isSelfIssued(der: Uint8Array): boolean {
  const certificate = checkedCertificate(der);
  return sameBytes(certificate.subject, certificate.issuer);
}

function hasSameKey(one: Uint8Array, other: Uint8Array): boolean {
  return sameBytes(checkedCertificate(one).publicKey, checkedCertificate(other).publicKey);
}

function hasSameName(one: Uint8Array, other: Uint8Array): boolean {
  return sameBytes(checkedCertificate(one).subject, checkedCertificate(other).subject);
}

/** Whether another key of the same CA has signed it. */
function isSignedBy(der: Uint8Array, other: Uint8Array): boolean {
  return hasSameName(der, other) && !hasSameKey(der, other) && isTrusted(der, other);
}

function hasSuccessor(root: Uint8Array, other: Uint8Array): boolean {
  return hasSameName(root, other) && checkedCertificate(other).notAfter > checkedCertificate(root).notAfter;
}

/**
 * RFC 5280 section 4.2.1.9: a certificate above others that may not issue any verifies nothing. It has been read by
 * parseCertificate before.
 * @throws IdentityError where it is no CA.
 */
export function checkCA(der: Uint8Array): void {
  const constraints = checkedCertificate(der).extension(BASIC_CONSTRAINTS);
  if (constraints !== undefined) {
    const fields = new DERReader(constraints.value).enter(Tag.SEQUENCE);
    if (fields.tag === Tag.BOOLEAN && fields.readBoolean()) {
      return;
    }
  }
  throw new IdentityError(
    "the server gave a certificate as its CA's that is no CA: basicConstraints with cA TRUE are missing (RFC 5280 section 4.2.1.9)",
  );
}

/** Certificates that lie one after the other. */
function split(chain: Uint8Array): Uint8Array[] {
  const reader = new DERReader(chain);
  const certificates: Uint8Array[] = [];
  while (!reader.done) {
    certificates.push(reader.readElement(Tag.SEQUENCE));
  }
  return certificates;
}

/**
 * Whether the server, whose chain the association keeps (its own certificate last), leads to these anchors, by way of
 * what it gave itself where need be: RFC 9148 section 9.1.
 */
export function leadsTo(
  serverChain: Uint8Array,
  certificates: readonly Uint8Array[],
  anchors: readonly Uint8Array[],
): boolean {
  return isTrusted(joinBytes(...split(serverChain).reverse(), ...certificates), joinBytes(...anchors));
}

/** Whether the server's certificate, the last of the chain, names it a registration authority: RFC 9148 section 9.2. */
export function isRegistrationAuthority(serverChain: Uint8Array): boolean {
  const usage = parseCertificate(split(serverChain).at(-1)!).extension(EXTENDED_KEY_USAGE);
  if (usage === undefined) {
    return false;
  }
  const purposes = new DERReader(usage.value).enter(Tag.SEQUENCE);
  while (!purposes.done) {
    if (sameBytes(purposes.readOID(), CMC_RA)) {
      return true;
    }
  }
  return false;
}
