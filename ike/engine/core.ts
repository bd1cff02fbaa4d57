import { suiteName } from '../crypto/algorithms.ts';
import { fingerprint } from '../crypto/public-key.ts';
import type {
  ChildSa,
  Effect,
  Endpoint,
  FailureReason,
  Identity,
  IkeSaInfo,
  IpAddress,
  PublicKey,
} from '../types.ts';
import { addNonEspMarker } from '../wire/header.ts';
import { addressKey, endpointText, identityKey, identityText } from './addresses.ts';
import type { Config } from './config.ts';
import { Cookies } from './cookies.ts';
import { type CounterName, Counters, PerSource, RateLimit } from './counters.ts';
import { Deadlines } from './deadlines.ts';
import { type Attempt, type IkeSa, ownSpi } from './sa.ts';

/**
 * What all handlers share: the tables of SAs with their limits, the effects of the current call, and the few acts that
 * must keep the two in step (opening, announcing, ending an SA). No protocol in here.
 */
export class Core {
  readonly config: Config;
  readonly counters = new Counters();
  readonly deadlines = new Deadlines<IkeSa>();
  readonly cookies: Cookies;
  readonly errorReplies: RateLimit;
  now = 0;
  effects: Effect[] = [];

  readonly sas = new Map<number, IkeSa>();
  /** By the SPI that we chose. */
  readonly bySpi = new Map<bigint, IkeSa>();
  /** Responder: by the initiator's endpoint and SPI, to know a repeated IKE_SA_INIT request. */
  readonly byInit = new Map<string, IkeSa>();
  readonly attempts = new Map<number, Attempt>();
  readonly lookups = new Map<number, IkeSa>();
  /** Child SAs that the caller is installing, by their id. */
  readonly installing = new Map<number, IkeSa>();
  halfOpen = 0;
  readonly #byAddress = new Map<string, Set<IkeSa>>();
  readonly #byIdentity = new Map<string, Set<IkeSa>>();
  /** By the fingerprint of the key that the peer proved. */
  readonly #byRemoteKey = new Map<string, Set<IkeSa>>();
  readonly #sasOf = new PerSource();
  readonly #halfOpenOf = new PerSource();
  readonly #childSpis = new Set<number>();
  #lastId = 0;

  constructor(config: Config) {
    this.config = config;
    this.cookies = new Cookies(config.random);
    this.errorReplies = new RateLimit(config.limits.errorRepliesPerSecond);
  }

  newId(): number {
    return ++this.#lastId;
  }

  newIkeSpi(): bigint {
    for (;;) {
      const bytes = this.config.random(8);
      const spi = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0);
      if (spi !== 0n && !this.bySpi.has(spi)) return spi;
    }
  }

  /** 1 to 255 are reserved (RFC 4303 §2.1). Freed when its Child SA goes. */
  newChildSpi(): number {
    for (;;) {
      const bytes = this.config.random(4);
      const spi = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0);
      if (spi <= 255 || this.#childSpis.has(spi)) continue;
      this.#childSpis.add(spi);
      return spi;
    }
  }

  freeChildSpi(spi: number | undefined): void {
    if (spi !== undefined) this.#childSpis.delete(spi);
  }

  // --- effects

  emit(effect: Effect): void {
    this.effects.push(effect);
  }

  count(name: CounterName): void {
    this.counters.add(name);
  }

  log(level: 'debug' | 'info' | 'warn', event: string, detail: Record<string, unknown>): void {
    this.emit({ kind: 'log', level, event, detail });
  }

  /** What was dropped, why, from where. */
  drop(name: CounterName, remote: Endpoint, why?: string): void {
    this.count(name);
    this.log('debug', name, { remote: endpointText(remote), ...(why === undefined ? {} : { why }) });
  }

  send(message: Uint8Array, local: Endpoint, remote: Endpoint): void {
    const data = local.port === this.config.ports.natt ? addNonEspMarker(message) : message;
    this.count('sent');
    this.emit({ kind: 'send', data, local, remote });
  }

  // --- IKE SAs

  open(sa: IkeSa): void {
    this.sas.set(sa.id, sa);
    this.bySpi.set(ownSpi(sa), sa);
    addTo(this.#byAddress, addressKey(sa.remote.address), sa);
    this.#sasOf.add(sa.remote.address, 1);
    if (!sa.halfOpen) return;
    this.halfOpen++;
    this.#halfOpenOf.add(sa.remote.address, 1);
  }

  /** Every SA with this address, in any state. */
  toAddress(address: IpAddress): IkeSa[] {
    return [...(this.#byAddress.get(addressKey(address)) ?? [])];
  }

  /** The announced SAs whose peer proved this identity. */
  ofIdentity(identity: Identity): IkeSa[] {
    return [...(this.#byIdentity.get(identityKey(identity)) ?? [])];
  }

  /** Whether the peer of an announced SA has proved this key. */
  hasProven(key: PublicKey): boolean {
    return this.#byRemoteKey.has(fingerprint(key));
  }

  halfOpenOf(address: IpAddress): number {
    return this.#halfOpenOf.of(address);
  }

  ikeSasOf(address: IpAddress): number {
    return this.#sasOf.of(address);
  }

  leaveHalfOpen(sa: IkeSa): void {
    if (!sa.halfOpen) return;
    sa.halfOpen = false;
    this.halfOpen--;
    this.#halfOpenOf.add(sa.remote.address, -1);
  }

  /** The peer is authenticated and our side is complete: tell, and forget what only the handshake needed. */
  announce(sa: IkeSa, child: ChildSa | undefined): void {
    sa.establishedAt = this.now;
    sa.announced = true;
    this.#index(sa);
    this.leaveHalfOpen(sa);
    this.forgetHandshake(sa);
    this.count('established');
    const ikeSa = info(sa);
    this.emit({
      kind: 'established',
      ikeSa,
      ...(child ? { child } : {}),
      ...(sa.requestId === undefined ? {} : { requestId: sa.requestId }),
    });
    this.log('info', 'established', {
      id: sa.id,
      remote: endpointText(sa.remote),
      identity: identityText(ikeSa.remoteIdentity),
      suite: ikeSa.suite,
    });
  }

  /** The attempt ends here without success. Its SA is not touched. */
  fail(attempt: Attempt, reason: FailureReason): void {
    if (!this.attempts.delete(attempt.requestId)) return;
    this.count('failed');
    this.emit({ kind: 'failed', requestId: attempt.requestId, reason });
  }

  /** Take its Child SAs out of the kernel and tell that the SA is gone; the SA itself may still linger. */
  retire(sa: IkeSa, why: string): void {
    for (const child of sa.children) this.removeChild(child, why);
    sa.children = [];
    if (sa.pending) {
      this.removeChild(sa.pending.child, why);
      delete sa.pending;
    }
    this.forgetHandshake(sa);
    if (!sa.announced) return;
    sa.announced = false;
    this.#unindex(sa);
    this.count('closed');
    this.emit({ kind: 'closed', ikeSa: info(sa), why });
  }

  removeChild(child: ChildSa, why: string): void {
    this.freeChildSpi(child.inbound.spi);
    this.installing.delete(child.id);
    this.emit({ kind: 'removeChildSa', child, why });
  }

  forgetHandshake(sa: IkeSa): void {
    const { handshake } = sa;
    if (handshake?.role === 'responder') {
      if (this.byInit.get(handshake.initKey) === sa) this.byInit.delete(handshake.initKey);
      if (handshake.auth) this.lookups.delete(handshake.auth.lookup);
    }
    if (handshake?.role === 'initiator') {
      this.freeChildSpi(handshake.childSpi);
      if (handshake.otherName) this.lookups.delete(handshake.otherName.lookup);
    }
    delete sa.handshake;
  }

  /** A new IKE SA in the place of an old one (RFC 7296 §2.8): the caller goes on seeing one SA with one id. */
  takeOver(old: IkeSa, fresh: IkeSa): void {
    old.children = [];
    old.announced = false;
    this.#unindex(old);
    old.id = this.newId();
    // A request of ours that is out on the old one goes on: without its answer no DELETE could follow it.
    for (const why of ['keepalive', 'childless', 'rekeyed']) this.deadlines.clear(old, why);
    this.sas.set(old.id, old);
    this.open(fresh);
    if (fresh.nat.us) this.deadlines.set(fresh, 'keepalive', this.now + this.config.limits.keepaliveMillis);
    this.#index(fresh);
  }

  #index(sa: IkeSa): void {
    if (sa.remoteIdentity) addTo(this.#byIdentity, identityKey(sa.remoteIdentity), sa);
    if (sa.remoteKey) addTo(this.#byRemoteKey, fingerprint(sa.remoteKey), sa);
  }

  #unindex(sa: IkeSa): void {
    if (sa.remoteIdentity) takeFrom(this.#byIdentity, identityKey(sa.remoteIdentity), sa);
    if (sa.remoteKey) takeFrom(this.#byRemoteKey, fingerprint(sa.remoteKey), sa);
  }

  /** Nothing of this SA remains. */
  free(sa: IkeSa, why: string): void {
    this.retire(sa, why);
    this.leaveHalfOpen(sa);
    this.deadlines.clearAll(sa);
    if (this.bySpi.delete(ownSpi(sa))) this.#sasOf.add(sa.remote.address, -1);
    takeFrom(this.#byAddress, addressKey(sa.remote.address), sa);
    if (this.sas.get(sa.id) === sa) this.sas.delete(sa.id);
    sa.window = { nextOut: 0, nextIn: 0, queue: [] };
    delete sa.secure;
  }
}

/** A snapshot for the caller; later changes of the SA do not show in it. */
export function info(sa: IkeSa): IkeSaInfo {
  return {
    id: sa.id,
    spiInitiator: sa.spiInitiator,
    spiResponder: sa.spiResponder,
    local: sa.local,
    remote: sa.remote,
    initiator: sa.role === 'initiator',
    localIdentity: sa.localIdentity,
    remoteIdentity: sa.remoteIdentity ?? { type: 'null', data: new Uint8Array() },
    ...(sa.remoteKey ? { remoteKey: sa.remoteKey } : {}),
    suite: sa.secure ? suiteName(sa.secure.suite) : '',
    natDetected: sa.nat.us || sa.nat.peer,
    establishedAtMillis: sa.establishedAt ?? 0,
    ...(sa.requestId === undefined ? {} : { requestId: sa.requestId }),
    timings: { ...sa.timings },
  };
}

function addTo(index: Map<string, Set<IkeSa>>, key: string, sa: IkeSa): void {
  const set = index.get(key);
  if (set) set.add(sa);
  else index.set(key, new Set([sa]));
}

function takeFrom(index: Map<string, Set<IkeSa>>, key: string, sa: IkeSa): void {
  const set = index.get(key);
  set?.delete(sa);
  if (set?.size === 0) index.delete(key);
}
