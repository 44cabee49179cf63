/**
 * One enrolment, from the key to the certificate that is kept: what is asked for, what is kept while the server takes
 * its time, and what a certificate must be to be taken. RFC 7030 sections 4.2 and 4.4, RFC 9148 sections 4.7 and 4.8.
 *
 *     const enrolment = new Enrolment("sren", { store, identities, identity, … });
 *     const { certificates } = await est.simpleReenroll(enrolment.begin());
 *     enrolment.keep(certificates, time);
 *
 * In storage each step is one write: the new key; the request ("pending"); the certificate with the switch to the new
 * key; the old key erased; the request erased. A wake that is cut off goes on, the next time, where this one was.
 */

import { joinBytes, sameBytes } from "../bytes.js";
import type { PayloadSource } from "../coap/client.js";
import type { AssociationReport } from "../dtls/socket.js";
import { TorporError } from "../errors.js";
import type { ServerKeyResponse } from "../est/client.js";
import { type CsrAttribute, readCsrAttributes } from "../est/csrattrs.js";
import { planRequest, type RequestPlan, requestAttributes } from "../est/request.js";
import type { KeyValueStore } from "../io.js";
import { checkedCertificate } from "../pki/certificate.js";
import { certificateRequest, type KeyId, keyExists, publicKey, sha256 } from "../pki/key.js";
import { distinguishedName } from "../pki/name.js";
import { type Identity, IdentityError, type IdentityStore } from "./identity.js";
import { deletePending, readPending, readWishes, writePending } from "./life.js";
import { checkCA } from "./trust.js";

/** Whether a renewal is for a new key, which is the default, or for the same one again. */
export type KeyPolicy = "fresh" | "same";

export interface EnrolmentContext {
  readonly store: KeyValueStore;
  readonly identities: IdentityStore;
  /** The one that the connection is made with: its subject is asked for. */
  readonly identity: Identity;
  /** What the server wishes; undefined where it was not asked at this wake: what it wished last. */
  readonly attributes: readonly CsrAttribute[] | undefined;
  readonly association: AssociationReport;
  readonly options: {
    readonly keyPolicy?: KeyPolicy | undefined;
    readonly keyBits?: 256 | 384 | undefined;
    readonly subject?: "requested" | "any" | undefined;
  };
}

/** Bytes of an uncompressed point on P-256, and on P-384. */
const POINT_BYTES = { 256: 65, 384: 97 } as const;

export class Enrolment implements PayloadSource {
  readonly #operation: "sen" | "sren" | "skg" | "skc";
  readonly #context: EnrolmentContext;
  readonly #plan: RequestPlan;
  /** The key that the request is for. */
  #key: KeyId = 0;
  /** Whether that key goes where the enrolment fails. */
  #isNewKey = false;

  /** @throws FormatError, LimitError: the server's wishes cannot be read. */
  constructor(operation: "sen" | "sren" | "skg" | "skc", context: EnrolmentContext) {
    this.#operation = operation;
    this.#context = context;
    const { identity, attributes, association, store } = context;
    const wishes = attributes ?? readCsrAttributes(readWishes(store) ?? new Uint8Array());
    this.#plan = planRequest(wishes, identity.certificates[0]!, operation === "sren" ? "renewal" : "enrolment");
    association.notes.push(...this.#plan.notes);
  }

  /**
   * The request: PKCS #10, or where it must carry tls-unique, what makes it for each connection.
   * @throws KeyError where there is no key or none can be made; what the store throws.
   */
  begin(): Uint8Array | PayloadSource {
    const operation = this.#operation;
    const { identity, store } = this.#context;
    const isProven = this.#plan.proof !== undefined;
    if (operation === "skg" || operation === "skc" || this.keepsKey) {
      // The server ignores the key and the signature of a request for a key of its own (RFC 9148 section 4.8).
      this.#key = identity.key;
      return isProven ? this : this.payload();
    }
    const wishes = sha256(joinBytes(this.#plan.subject, ...this.#plan.extensions));
    const pending = readPending(store);
    if (pending !== undefined && pending.operation === operation && this.isUsable(pending.key)) {
      this.#key = pending.key;
      this.#isNewKey = true;
      // RFC 9148 section 4.7: after 5.03 the same request again; one that is linked to the connection is made anew.
      if (!isProven && pending.request.length > 0 && sameBytes(pending.wishes, wishes.subarray(0, 8))) {
        return pending.request;
      }
    } else {
      if (pending !== undefined) {
        deletePending(store);
      }
      this.#key = this.#context.identities.prepareKey(this.bits);
      this.#isNewKey = true;
    }
    const request = isProven ? new Uint8Array() : this.payload();
    writePending(store, { operation, key: this.#key, wishes, request });
    return isProven ? this : request;
  }

  /** The request for the connection that is open now; for `CoAPClient`. */
  payload(): Uint8Array {
    const plan = this.#plan;
    const unique = plan.proof === undefined ? undefined : this.#context.association.unique;
    if (plan.proof !== undefined && unique === undefined) {
      throw new TorporError("the server wishes a proof of possession, and this connection has no channel binding");
    }
    return certificateRequest(this.#key, plan.subject, requestAttributes(plan, unique));
  }

  private get bits(): 256 | 384 {
    return this.#plan.keyBits ?? this.#context.options.keyBits ?? 256;
  }

  /** Whether the renewal is for the key that the device has: it is told so, and that key is of the kind that is wished. */
  private get keepsKey(): boolean {
    const { options, identity } = this.#context;
    if (this.#operation !== "sren" || options.keyPolicy !== "same") {
      return false;
    }
    const bits = this.#plan.keyBits;
    return bits === undefined || publicKey(identity.key).length === POINT_BYTES[bits];
  }

  private isUsable(key: KeyId): boolean {
    const { identities } = this.#context;
    return key !== identities.keyInUse && keyExists(key) && publicKey(key).length === POINT_BYTES[this.bits];
  }

  /**
   * Makes what was issued the device's identity.
   * @param time seconds since 1970; 0 where it is not known
   * @throws IdentityError where it is for another key, another subject, has expired, or comes with a CA that is none;
   * and what `IdentityStore.commit` throws. Nothing has changed then.
   */
  keep(certificates: readonly Uint8Array[], time: number): void {
    this.commit(this.#key, certificates, time);
    this.#isNewKey = false;
    deletePending(this.#context.store);
  }

  /** The same for skg and skc: takes in the server's key, and wipes it where it came. */
  keepServerKey({ certificates, privateKey }: ServerKeyResponse, time: number): void {
    const { identities, store } = this.#context;
    deletePending(store);
    try {
      this.#key = identities.takeKey(privateKey);
    } finally {
      privateKey.fill(0);
    }
    this.#isNewKey = true;
    this.commit(this.#key, certificates, time);
    this.#isNewKey = false;
  }

  private commit(key: KeyId, certificates: readonly Uint8Array[], time: number): void {
    const point = publicKey(key);
    const own = certificates.find((der) => sameBytes(checkedCertificate(der).publicKey, point));
    if (own === undefined) {
      throw new IdentityError(
        this.#isServerMade
          ? "the private key that the server made does not belong to the certificate it issued: refused"
          : "the server issued no certificate for this device's key: refused",
      );
    }
    const others = certificates.filter((der) => der !== own);
    others.forEach(checkCA);
    if (this.#context.options.subject !== "any") {
      checkSubject(own, this.#plan.subject);
    }
    this.#context.identities.commit(key, [own, ...others], time);
  }

  get #isServerMade(): boolean {
    return this.#operation === "skg" || this.#operation === "skc";
  }

  /** The enrolment has failed: its key stays for another try of the same request, or is erased. */
  end(how: "try again" | "give up"): void {
    if (!this.#isNewKey || (how === "try again" && !this.#isServerMade)) {
      return;
    }
    const { identities, store } = this.#context;
    identities.abandon(this.#key);
    try {
      deletePending(store);
    } catch {
      // The next enrolment finds no key for it, and makes another.
    }
  }
}

/** The names are the same, whatever string types the CA has written them in. */
function checkSubject(certificate: Uint8Array, requested: Uint8Array): void {
  const { subject } = checkedCertificate(certificate);
  if (!sameBytes(subject, requested) && distinguishedName(subject) !== distinguishedName(requested)) {
    throw new IdentityError(
      `the issued certificate is for "${distinguishedName(subject)}", not for "${distinguishedName(requested)}" as ` +
        "requested: refused",
    );
  }
}
