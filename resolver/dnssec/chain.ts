/**
 * The chain of trust: which zones are secure, by which keys, from the trust anchors down (RFC 4035 §5).
 *
 * DS and DNSKEY are asked through the same exchange as everything else and kept until their TTL or signature ends.
 */
import { type Dnskey, parseDnskey, parseDs, parseRrsig } from '../dns/dnssec-rdata.ts';
import type { ExtendedError } from '../dns/edns.ts';
import type { Message, ResourceRecord } from '../dns/message.ts';
import type { Name } from '../dns/name.ts';
import { groupRrsets, type Rrset } from '../dns/rrset.ts';
import { EDE, RCODE, rcodeToText, TYPE, typeToText } from '../dns/types.ts';
import { dsMatches, isSupportedAlgorithm, isSupportedDigest, isTooShort, SHA1_DIGEST } from './algorithms.ts';
import type { TrustAnchor } from './anchors.ts';
import { Denial, type DsDenial, isProof, negativeTtl } from './denial.ts';
import { type Kept, Keeper } from './keeper.ts';
import { type KeptAnswers, NOTHING_KEPT } from './kept.ts';
import { recallCut } from './recall.ts';
import { isUsableKey, verifyRrset } from './signature.ts';
import { type Exchange, wasNotAsked } from './types.ts';
import { recordCount, type Work } from './work.ts';

/**
 * What is known of a zone, or of the zone that a name lies in. `zone` is the apex, for `insecure` and `bogus` the
 * highest one known to be so.
 */
export type Trust =
  | { status: 'secure'; zone: Name; keys: readonly Dnskey[] }
  | { status: 'insecure'; zone: Name; ede?: ExtendedError }
  | { status: 'bogus'; zone: Name; ede: ExtendedError };

/** What the parent zone says of a cut at a name. `ds` holds DS RDATA. */
type CutStatus =
  | { kind: 'ds'; ds: Uint8Array[] }
  | { kind: DsDenial }
  | { kind: 'insecure'; trust: Trust & { status: 'insecure' } }
  | { kind: 'bogus'; ede: ExtendedError };

/** Unsigned or broken zones are asked about again soon: mistakes get mended, attackers go away (RFC 9520 §3.2). */
const BOGUS_TTL_SECONDS = 5;
/** Even where parents publish longer TTLs: a zone that turns to DNSSEC is seen within the hour. */
const MAX_TTL_SECONDS = 3600;
/** While keys are bogus; everything below hangs on them, and two servers may have a bad moment at the same time. */
const ATTEMPTS = 4;
const MAX_KEPT = 10_000;
/** Keys and DS together; those of ten thousand honest zones. */
const MAX_KEPT_OCTETS = 8 << 20;
const MAX_REPLIES = 200;
/** Of one zone; more DS than this, or keys in more bytes, serve nobody but an attacker. */
const MAX_DS = 16;
const MAX_DNSKEY_BYTES = 16_384;

export class ChainOfTrust {
  readonly #exchange: Exchange;
  readonly #anchors = new Map<string, { name: Name; records: { type: number; rdata: Uint8Array }[] }>();
  readonly #negative = new Map<string, Name>();
  readonly #now: () => number;
  readonly #answers: KeptAnswers;
  readonly #kept: Keeper;
  readonly #replies: Keeper;
  #era = 0;

  constructor(
    exchange: Exchange,
    anchors: readonly TrustAnchor[],
    negativeAnchors: readonly Name[],
    now: () => number,
    answers: KeptAnswers = NOTHING_KEPT,
  ) {
    this.#exchange = exchange;
    this.#now = now;
    this.#answers = answers;
    this.#kept = new Keeper(now, MAX_KEPT, MAX_TTL_SECONDS, MAX_KEPT_OCTETS);
    this.#replies = new Keeper(now, MAX_REPLIES, BOGUS_TTL_SECONDS);
    this.setAnchors(anchors, negativeAnchors);
  }

  /** Other anchors, negative ones when given; all trust that came of the old ones is forgotten. */
  setAnchors(anchors: readonly TrustAnchor[], negativeAnchors?: readonly Name[]): void {
    this.#anchors.clear();
    for (const { name, type, records } of anchors) {
      const anchor = this.#anchors.get(name.key) ?? { name, records: [] };
      anchor.records.push(...records.map(rdata => ({ type, rdata })));
      this.#anchors.set(name.key, anchor);
    }
    if (negativeAnchors !== undefined) {
      this.#negative.clear();
      for (const name of negativeAnchors) this.#negative.set(name.key, name);
    }
    this.flushAll();
  }

  /** Rises when something is forgotten: what was begun before is not to be kept. */
  get era(): number {
    return this.#era;
  }

  /** Forgets what is known of the zones above `name` and of a cut at it. */
  flush(name: Name): void {
    this.#era++;
    for (let labels = name.labelCount; labels >= 0; labels--) {
      const { key } = name.suffix(labels);
      for (const kind of ['anchor', 'cut', 'keys']) this.#kept.delete(`${kind} ${key}`);
      for (const type of [TYPE.DS, TYPE.DNSKEY]) this.#replies.delete(`${type} ${key}`);
    }
  }

  flushAll(): void {
    this.#era++;
    this.#kept.clear();
    this.#replies.clear();
  }

  /**
   * The trust in `signer`, which some RRSIG names as its zone.
   *
   * Goes up: its DS names by its own signature the zone above, so that nothing between the two is asked.
   * Throws WorkExceeded.
   */
  async ofSigner(signer: Name, work: Work): Promise<Trust> {
    const start = this.#startAbove(signer);
    if (start.status !== undefined) return start;
    if (start.anchor.equals(signer)) return this.#primed(signer, work);
    // Its keys will be needed if its DS is good: both are on their way at once.
    this.#reply(signer, TYPE.DNSKEY, work).catch(() => undefined);
    const cut = await this.#cutByOwnSignature(signer, start.anchor, work);
    if (cut !== undefined) return this.#below(signer, cut, work);
    const trust = await this.ofName(signer, work);
    return trust.status !== 'secure' || trust.zone.equals(signer) ? trust : notZone(signer);
  }

  /**
   * The trust in the zone that holds `name` (the child's side of a cut at `name`).
   *
   * Goes down from the anchor, label by label, and stops at the first unsigned delegation. For names without any
   * signature that could show the way. Throws WorkExceeded.
   */
  async ofName(name: Name, work: Work): Promise<Trust> {
    const start = this.#startAbove(name);
    if (start.status !== undefined) return start;
    let trust = await this.#primed(start.anchor, work);
    for (let labels = start.anchor.labelCount + 1; labels <= name.labelCount; labels++) {
      if (trust.status !== 'secure') return trust;
      const next = name.suffix(labels);
      const cut = await this.#cutBelow(next, trust, work);
      if (cut.kind === 'nothing') return trust;
      if (cut.kind !== 'notCut') trust = await this.#below(next, cut, work);
    }
    return trust;
  }

  /** Whether a signature by `signer` may speak for `name`: no anchor, positive or negative, lies between them. */
  mayJudge(signer: Name, name: Name): boolean {
    const anchor = this.#closestAnchor(name);
    return name.isSubdomainOf(signer) && (anchor === undefined || signer.isSubdomainOf(anchor));
  }

  #startAbove(name: Name): (Trust & { status: 'insecure' }) | { status: undefined; anchor: Name } {
    const anchor = this.#closestAnchor(name);
    if (anchor !== undefined && this.#anchors.has(anchor.key) && !this.#negative.has(anchor.key)) {
      return { status: undefined, anchor };
    }
    return { status: 'insecure', zone: anchor ?? name };
  }

  /** By the keys alone, without a name made for each label: it is looked for several times with every answer. */
  #closestAnchor({ key: whole }: Name): Name | undefined {
    for (let key = whole; ; key = key.slice(1 + key.charCodeAt(0))) {
      const anchor = this.#negative.get(key) ?? this.#anchors.get(key)?.name;
      if (anchor !== undefined || key.length === 1) return anchor;
    }
  }

  /** The anchor's zone with its keys (RFC 4035 §5: "authenticate the apex DNSKEY RRset using the configured…"). */
  #primed(zone: Name, work: Work): Promise<Trust> {
    return this.#kept.get(`anchor ${zone.key}`, async () => {
      const { records } = this.#anchors.get(zone.key)!;
      const ds = records.filter(({ type }) => type === TYPE.DS).map(({ rdata }) => rdata);
      const keys = records.filter(({ type }) => type === TYPE.DNSKEY).map(({ rdata }) => rdata);
      return this.#zoneKeys(zone, ds, keys, work);
    });
  }

  async #below(zone: Name, cut: CutStatus, work: Work): Promise<Trust> {
    if (cut.kind === 'insecure') return cut.trust;
    if (cut.kind === 'bogus') return { status: 'bogus', zone, ede: cut.ede };
    if (cut.kind === 'noDs') return { status: 'insecure', zone };
    if (cut.kind !== 'ds') return notZone(zone);
    return this.#kept.get(`keys ${zone.key}`, () => this.#zoneKeys(zone, cut.ds, [], work));
  }

  /** RFC 4035 §5.2: a key that a DS or anchor vouches for signs the DNSKEY RRset; then all its zone keys count. */
  async #zoneKeys(
    zone: Name,
    dsRdatas: readonly Uint8Array[],
    anchorKeys: readonly Uint8Array[],
    work: Work,
  ): Promise<Kept<Trust>> {
    const ds = dsRdatas.map(parseDs).filter(record => record !== undefined);
    const direct = anchorKeys.map(parseDnskey).filter(record => record !== undefined);
    const supported = ds.filter(r => isSupportedAlgorithm(r.algorithm) && isSupportedDigest(r.digestType));
    // RFC 4509 §3: a DS by SHA-1 counts only where there is no better one, be that right or wrong.
    const better = supported.filter(r => r.digestType !== SHA1_DIGEST);
    const knownDs = (better.length > 0 ? better : supported).slice(0, MAX_DS);
    // Also one that is revoked or no zone key: it vouches for nothing, and that is no reason to believe everyone.
    const knownKeys = direct.filter(key => isSupportedAlgorithm(key.algorithm));
    if (knownDs.length === 0 && knownKeys.length === 0) {
      const digestOnly = ds.some(r => isSupportedAlgorithm(r.algorithm));
      const code = digestOnly ? EDE.UNSUPPORTED_DS_DIGEST : EDE.UNSUPPORTED_DNSKEY_ALGORITHM;
      const text = `no supported ${digestOnly ? 'DS digest' : 'algorithm'} for ${zone.toText()}`;
      return { value: { status: 'insecure', zone, ede: { code, text } }, ttlSeconds: MAX_TTL_SECONDS };
    }
    return this.#retried(
      zone,
      TYPE.DNSKEY,
      work,
      async message => {
        const rrset = find(message, zone, TYPE.DNSKEY);
        if (rrset === undefined) return bogusZone(zone, EDE.DNSKEY_MISSING, `no DNSKEY for ${zone.toText()}`);
        const all = rrset.rdatas.map(parseDnskey).filter(key => key !== undefined);
        if (all.reduce((sum, key) => sum + key.rdata.length, 0) > MAX_DNSKEY_BYTES) {
          return bogusZone(zone, EDE.DNSSEC_BOGUS, `too many or too long DNSKEYs of ${zone.toText()}`);
        }
        const keys = all.filter(isUsableKey);
        const byDs = knownDs.flatMap(record => {
          const same = keys.filter(key => key.keyTag === record.keyTag && key.algorithm === record.algorithm);
          return same.slice(0, work.limits.keysPerTag).filter(key => dsMatches(record, zone, key));
        });
        const byKey = keys.filter(key =>
          knownKeys.some(anchor => Buffer.compare(anchor.rdata, key.rdata) === 0),
        );
        const vouched = [...new Set([...byDs, ...byKey])];
        if (vouched.length === 0) return bogusZone(zone, ...whyNoKey(zone, all, keys.length));
        const result = await verifyRrset(rrset, zone, vouched, this.#now(), work);
        if (result.status === 'bogus') return bogusZone(zone, result.ede.code, result.ede.text);
        // Any good signature suffices (RFC 6840 §5.11), so that a zone is as strong as its shortest key.
        const short = keys.find(isTooShort);
        if (short !== undefined) {
          const text = `${zone.toText()} has RSA key ${short.keyTag} of less than 1,024 bits`;
          const ede = { code: EDE.UNSUPPORTED_DNSKEY_ALGORITHM, text };
          return { value: { status: 'insecure', zone, ede }, ttlSeconds: result.ttlSeconds };
        }
        const octets = octetsOf(keys.map(key => key.rdata));
        return { value: { status: 'secure', zone, keys }, ttlSeconds: result.ttlSeconds, octets };
      },
      ede => ({ status: 'bogus', zone, ede }),
    );
  }

  /** The cut at `name` as its parent zone tells it, the parent found by the signer of the answer; undefined when unsigned. */
  async #cutByOwnSignature(name: Name, anchor: Name, work: Work): Promise<CutStatus | undefined> {
    const known = await this.#kept.peek<CutStatus>(`cut ${name.key}`)?.catch(() => undefined);
    if (known !== undefined) return known.value;
    const message = await this.#reply(name, TYPE.DS, work);
    if (!('questions' in message)) return undefined;
    const parent = signerAbove(message, name, anchor);
    if (parent === undefined) return undefined;
    const trust = await this.ofSigner(parent, work);
    if (trust.status === 'bogus') return undefined; // the way down says where it breaks
    if (trust.status === 'insecure') return { kind: 'insecure', trust };
    return this.#cutBelow(name, trust, work);
  }

  /** The cut at `name` as `parent`, the secure zone right above, tells it. */
  #cutBelow(name: Name, parent: Trust & { status: 'secure' }, work: Work): Promise<CutStatus> {
    return this.#kept.get<CutStatus>(`cut ${name.key}`, async () => {
      const known = await recallCut(this.#answers, parent.zone, name, work.limits);
      if (known !== undefined) return { value: { kind: known.kind }, ttlSeconds: known.ttlSeconds };
      return this.#retried<CutStatus>(
        name,
        TYPE.DS,
        work,
        reply => this.#judgeCut(reply, name, parent, work),
        ede => ({ kind: 'bogus', ede }),
      );
    });
  }

  /** The unjudged answer, for a moment, so that questions in parallel and the ways up and down ask once. */
  #reply(name: Name, type: number, work: Work): Promise<Message | ExtendedError> {
    return this.#replies.get(`${type} ${name.key}`, async () => ({
      value: await this.#ask(name, type, 0, work),
      ttlSeconds: BOGUS_TTL_SECONDS,
    }));
  }

  async #judgeCut(
    message: Message,
    name: Name,
    parent: Trust & { status: 'secure' },
    work: Work,
  ): Promise<Kept<CutStatus>> {
    const answer = rrsetsOf(message.answer, [TYPE.DS, TYPE.DNAME, TYPE.CNAME]);
    const dname = answer.find(rrset => rrset.type === TYPE.DNAME && name.isBelow(rrset.name));
    for (const type of [TYPE.DS, TYPE.DNAME, TYPE.CNAME] as const) {
      const here = answer.find(rrset => rrset.type === type && rrset.name.equals(name));
      const rrset = type === TYPE.DNAME ? dname : here;
      if (rrset === undefined) continue;
      const result = await verifyRrset(rrset, parent.zone, parent.keys, this.#now(), work);
      if (result.status === 'bogus') {
        return { value: { kind: 'bogus', ede: result.ede }, ttlSeconds: BOGUS_TTL_SECONDS };
      }
      // A name with a CNAME, or below a DNAME, or one that a wildcard stands for, is no zone cut.
      const isCut = type === TYPE.DS && result.closestEncloser === undefined;
      return {
        value: isCut ? { kind: 'ds', ds: rrset.rdatas } : { kind: 'notCut' },
        ttlSeconds: result.ttlSeconds,
        octets: isCut ? octetsOf(rrset.rdatas) : 0,
      };
    }
    const era = this.#era;
    const authority = groupRrsets(message.authority);
    const denial = await Denial.collect(authority, parent, this.#now(), work);
    const status = await denial.ofDs(name);
    if (typeof status !== 'string') {
      return { value: { kind: 'bogus', ede: status.ede }, ttlSeconds: BOGUS_TTL_SECONDS };
    }
    if (era === this.#era) this.#answers.keepDenials(parent.zone, denial.rrsets);
    return { value: { kind: status }, ttlSeconds: Math.max(negativeTtl(denial.rrsets), BOGUS_TTL_SECONDS) };
  }

  /** Asks and judges; what is bogus or unanswered is asked again, of another server when there is one. */
  async #retried<T extends Trust | CutStatus>(
    name: Name,
    type: number,
    work: Work,
    judge: (message: Message) => Promise<Kept<T>>,
    failed: (ede: ExtendedError) => T,
  ): Promise<Kept<T>> {
    let result: Kept<T> | undefined;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const message = await (attempt === 0
        ? this.#reply(name, type, work)
        : this.#ask(name, type, attempt, work));
      if (!('questions' in message)) {
        result = { value: failed(message), ttlSeconds: BOGUS_TTL_SECONDS };
        if (attempt > 0) break; // each silence takes seconds
      } else if (message.rcode !== RCODE.NOERROR && message.rcode !== RCODE.NXDOMAIN) {
        const text = `${rcodeToText(message.rcode)} for ${typeToText(type)} of ${name.toText()}`;
        const code = type === TYPE.DNSKEY ? EDE.DNSKEY_MISSING : EDE.NO_REACHABLE_AUTHORITY;
        result = { value: failed({ code, text }), ttlSeconds: BOGUS_TTL_SECONDS };
      } else {
        result = await judge(message);
        if (!isBogus(result.value) || !work.allowsRetry) break;
      }
    }
    return result!;
  }

  async #ask(name: Name, type: number, attempt: number, work: Work): Promise<Message | ExtendedError> {
    work.chainQuestion();
    try {
      const message = await this.#exchange(attempt === 0 ? { name, type } : { name, type, attempt });
      // It may be kept for a while: what nobody reads is not.
      if (recordCount(message) <= work.limits.records) return { ...message, additional: [] };
      return {
        code: EDE.DNSSEC_BOGUS,
        text: `more than ${work.limits.records} records of the chain of trust`,
      };
    } catch (error) {
      // A second opinion that could not be asked for leaves the first as it is.
      if (attempt === 0 && wasNotAsked(error)) throw error;
      return { code: EDE.NETWORK_ERROR, text: error instanceof Error ? error.message : String(error) };
    }
  }
}

function octetsOf(rdatas: readonly Uint8Array[]): number {
  return rdatas.reduce((sum, rdata) => sum + rdata.length, 0);
}

function notZone(signer: Name): Trust & { status: 'bogus' } {
  const text = `${signer.toText()} signs but is no zone of its own`;
  return { status: 'bogus', zone: signer, ede: { code: EDE.DNSSEC_BOGUS, text } };
}

function bogusZone(zone: Name, code: number, text: string): Kept<Trust> {
  return { value: { status: 'bogus', zone, ede: { code, text } }, ttlSeconds: BOGUS_TTL_SECONDS };
}

function isBogus(value: Trust | CutStatus): boolean {
  return 'kind' in value ? value.kind === 'bogus' : value.status === 'bogus';
}

function whyNoKey(zone: Name, all: readonly Dnskey[], usable: number): [number, string] {
  if (usable === 0 && all.length > 0 && all.every(key => (key.flags & 0x0100) === 0)) {
    return [EDE.NO_ZONE_KEY_BIT, `no DNSKEY of ${zone.toText()} has the zone key flag`];
  }
  return [EDE.DNSKEY_MISSING, `no DNSKEY of ${zone.toText()} matches its DS or trust anchor`];
}

/** What else a message holds is not worth the sorting: there may be a thousand records. */
function rrsetsOf(records: readonly ResourceRecord[], types: readonly number[]): Rrset[] {
  return groupRrsets(records.filter(({ type }) => type === TYPE.RRSIG || types.includes(type)));
}

function find({ answer }: Message, name: Name, type: number): Rrset | undefined {
  return rrsetsOf(answer, [type]).find(rrset => rrset.type === type && rrset.name.equals(name));
}

/** The zone above `name` that signed its DS, or the denial of it, at or below `anchor`. */
function signerAbove(message: Message, name: Name, anchor: Name): Name | undefined {
  const answer = rrsetsOf(message.answer, [TYPE.DS]).filter(
    rrset => rrset.type === TYPE.DS && rrset.name.equals(name),
  );
  const proofs = groupRrsets(message.authority).filter(rrset => isProof(rrset) && rrset.type !== TYPE.SOA);
  for (const rrset of answer.length > 0 ? answer : proofs) {
    for (const rdata of rrset.signatures) {
      const signer = parseRrsig(rdata)?.signer;
      if (signer !== undefined && name.isBelow(signer) && signer.isSubdomainOf(anchor)) return signer;
    }
  }
  return undefined;
}
