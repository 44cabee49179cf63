/**
 * The functions of the C core for one association, one method each: a method that does nothing but return the call is
 * the C function itself for the Moddable SDK's compiler; any other makes a function at each call.
 *
 *     class Engine extends EngineNatives { … this.nativeTrust(certificate) … }
 *
 * Each gives a length, a state or a negative error (dtls.h); Engine turns errors into typed ones.
 */

import type { KeyId } from "../pki/key.js";

export class EngineNatives extends Native("xs_torpor_dtls_destructor") {
  protected nativeCreate(): number {
    return native("xs_torpor_dtls_create").call(this);
  }

  protected nativeTrust(certificate: Uint8Array): number {
    return native("xs_torpor_dtls_trust").call(this, certificate);
  }

  protected nativeIdentity(key: KeyId, certificate: Uint8Array): number {
    return native("xs_torpor_dtls_identity").call(this, key, certificate);
  }

  protected nativeServerName(name: string): number {
    return native("xs_torpor_dtls_server_name").call(this, name);
  }

  protected nativeServerAddress(address: Uint8Array): number {
    return native("xs_torpor_dtls_server_address").call(this, address);
  }

  protected nativeMtu(bytes: number): number {
    return native("xs_torpor_dtls_mtu").call(this, bytes);
  }

  protected nativeTimers(first: number, patience: number): number {
    return native("xs_torpor_dtls_timers").call(this, first, patience);
  }

  protected nativeKeepChain(): number {
    return native("xs_torpor_dtls_keep_chain").call(this);
  }

  protected nativeChain(chain: Uint8Array): number {
    return native("xs_torpor_dtls_chain").call(this, chain);
  }

  protected nativeOfferTickets(): number {
    return native("xs_torpor_dtls_offer_tickets").call(this);
  }

  protected nativeOfferConnectionId(length: number): number {
    return native("xs_torpor_dtls_offer_connection_id").call(this, length);
  }

  protected nativeRestore(now: number, unixTime: number, context: Uint8Array): number {
    return native("xs_torpor_dtls_restore").call(this, now, unixTime, context);
  }

  protected nativeVersions(lowest: number, highest: number): number {
    return native("xs_torpor_dtls_versions").call(this, lowest, highest);
  }

  protected nativeGroups(groups: Uint8Array): number {
    return native("xs_torpor_dtls_groups").call(this, groups);
  }

  protected nativeResumeByPSKAlone(): number {
    return native("xs_torpor_dtls_resume_by_psk_alone").call(this);
  }

  protected nativeStart(now: number, unixTime: number, session: Uint8Array | undefined): number {
    return native("xs_torpor_dtls_start").call(this, now, unixTime, session);
  }

  protected nativeReceive(now: number, datagram: ArrayBuffer | Uint8Array): number {
    return native("xs_torpor_dtls_receive").call(this, now, datagram);
  }

  protected nativeElapse(now: number): number {
    return native("xs_torpor_dtls_elapse").call(this, now);
  }

  protected nativeDeadline(): number {
    return native("xs_torpor_dtls_deadline").call(this);
  }

  protected nativePending(): number {
    return native("xs_torpor_dtls_pending").call(this);
  }

  protected nativeTake(buffer: Uint8Array): number {
    return native("xs_torpor_dtls_take").call(this, buffer);
  }

  protected nativeRead(buffer: Uint8Array): number {
    return native("xs_torpor_dtls_read").call(this, buffer);
  }

  protected nativeReadable(): number {
    return native("xs_torpor_dtls_readable").call(this);
  }

  protected nativeWrite(message: Uint8Array): number {
    return native("xs_torpor_dtls_write").call(this, message);
  }

  protected nativeClose(): number {
    return native("xs_torpor_dtls_close").call(this);
  }

  protected nativeFree(): number {
    return native("xs_torpor_dtls_free").call(this);
  }

  protected nativeState(): number {
    return native("xs_torpor_dtls_state").call(this);
  }

  protected nativeFailureDetail(): number {
    return native("xs_torpor_dtls_failure_detail").call(this);
  }

  protected nativeFailureKind(): number {
    return native("xs_torpor_dtls_failure_kind").call(this);
  }

  protected nativeVersion(): number {
    return native("xs_torpor_dtls_version").call(this);
  }

  protected nativeGroup(): number {
    return native("xs_torpor_dtls_group").call(this);
  }

  protected nativeTickets(): number {
    return native("xs_torpor_dtls_tickets").call(this);
  }

  protected nativeCipherSuite(): number {
    return native("xs_torpor_dtls_cipher_suite").call(this);
  }

  protected nativeResumed(): number {
    return native("xs_torpor_dtls_resumed").call(this);
  }

  protected nativeTimeChecked(): number {
    return native("xs_torpor_dtls_time_checked").call(this);
  }

  protected nativeSessionKind(): number {
    return native("xs_torpor_dtls_session_kind").call(this);
  }

  protected nativeSessionLifetime(): number {
    return native("xs_torpor_dtls_session_lifetime").call(this);
  }

  protected nativeSession(session: Uint8Array): number {
    return native("xs_torpor_dtls_session").call(this, session);
  }

  protected nativeHasConnectionId(): number {
    return native("xs_torpor_dtls_has_connection_id").call(this);
  }

  protected nativeContext(context: Uint8Array): number {
    return native("xs_torpor_dtls_context").call(this, context);
  }

  protected nativeDropTicket(): number {
    return native("xs_torpor_dtls_drop_ticket").call(this);
  }

  protected nativeOverhead(): number {
    return native("xs_torpor_dtls_overhead").call(this);
  }

  protected nativeHighest(): number {
    return native("xs_torpor_dtls_highest").call(this);
  }

  protected nativeUnique(unique: Uint8Array): number {
    return native("xs_torpor_dtls_unique").call(this, unique);
  }
}
