/** A small world for the capture: zones as plain data, peers that hold keys, a clock that only moves when told. */
import { type IpAddress, formatIpAddress, parseIpAddress } from '../../../resolver/address.ts';
import { CachedResolver } from '../../../resolver/cache/answers.ts';
import { Capture } from '../../../resolver/capture/capture.ts';
import { PolicyGroups, type GroupEntries, type PolicyGroup } from '../../../resolver/capture/groups.ts';
import type {
  Negotiation,
  NegotiationFailure,
  NegotiationOutcome,
  NegotiationPeer,
  PublicKey,
  RememberingLookup,
} from '../../../resolver/capture/interfaces.ts';
import { fingerprintOf } from '../../../resolver/capture/keys.ts';
import { composeIpseckey, type IpseckeyGateway } from '../../../resolver/dns/ipseckey.ts';
import { Name } from '../../../resolver/dns/name.ts';
import type { Rrset } from '../../../resolver/dns/rrset.ts';
import { EDE, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import type { Resolution, Verdict } from '../../../resolver/dnssec/types.ts';
import { rrsigRdata } from '../cache/rrsig.ts';

export type Zone = {
  a?: string[];
  aaaa?: string[];
  keys?: { key: PublicKey; gateway?: IpseckeyGateway; precedence?: number }[];
  cname?: string;
  verdict?: Verdict;
  keyVerdict?: Verdict | 'timeout';
  keyOutcome?: 'nxdomain';
  keyEde?: number;
  https?: Uint8Array[];
  /** Denials say how long they hold. */
  soa?: boolean;
};

/** A key that is nothing but its number: the world's negotiator compares bytes. */
export function keyNumber(number: number): PublicKey {
  return { algorithm: 4, data: new Uint8Array(32).fill(number) };
}

/** The time of day at which every world begins. */
const UNIX_SECONDS = 1_700_000_000;
const UNIX_MILLIS = 1000 * UNIX_SECONDS;

export class World {
  readonly zones = new Map<string, Zone>();
  /** Which keys the host at an address holds; an address that is not here never answers. */
  readonly holders = new Map<string, PublicKey[]>();
  readonly lookups: string[] = [];
  /** Every negotiation begun, with the keys it was to prove, and how it ended. */
  readonly negotiations: { address: string; via?: string; keys: string[]; asked?: string; ended?: string }[] =
    [];
  /** Children that stand in the kernel: id to address and fingerprint. */
  readonly children = new Map<number, { address: string; via?: string; fingerprint: string }>();
  readonly lookup: RememberingLookup;
  /** What upstream does: answers, says nothing and fails, or keeps everybody waiting. */
  upstream: 'answers' | 'silent' | 'slow' = 'answers';
  readonly capture: Capture;
  now = 1_000;
  failWith: NegotiationFailure | undefined;
  /** Asked by one of these names, every holder refuses whatever the key. */
  readonly strangeNames = new Set<string>();
  /** Addresses that nothing leaves to unsealed. */
  readonly blocked = new Set<string>();
  blocksRefused: string | undefined;
  /** The address that packets leave from. */
  source = parseIpAddress('198.51.100.1')!;
  readonly #sleepers: { at: number; wake: () => void }[] = [];
  #nextChild = 1;

  constructor(options: {
    default?: PolicyGroup;
    groups?: Partial<Record<PolicyGroup, GroupEntries>>;
    own?: string[];
    patienceMillis?: number;
    /** Through the cache as in the daemon, stale answers for a day; else every question is asked anew. */
    cached?: boolean;
  }) {
    const uncached = async (name: Name, type: number) => this.#ask(name, type);
    const clocks = { now: () => this.now, wallClock: () => UNIX_MILLIS + this.now };
    this.lookup = options.cached
      ? new CachedResolver({ lookup: uncached }, { ...clocks, maxStaleSeconds: 86_400 })
      : { lookup: uncached, reconsidered: uncached, remembered: () => undefined };
    this.capture = new Capture({
      lookup: this.lookup,
      groups: new PolicyGroups({
        default: options.default ?? 'private-or-clear',
        groups: options.groups ?? {},
      }),
      negotiator: {
        begin: (address, via) => this.#begin(address, via),
        close: childId => {
          if (this.children.delete(childId)) this.capture.peers.closed(childId);
        },
        stands: childId => this.children.has(childId),
      },
      blocks: {
        block: address => {
          if (this.blocksRefused) throw new Error(this.blocksRefused);
          this.blocked.add(formatIpAddress(address));
        },
        unblock: address => void this.blocked.delete(formatIpAddress(address)),
      },
      local: {
        isOurs: address => (options.own ?? []).includes(formatIpAddress(address)),
        sourceFor: ({ family }) => (family === 4 ? this.source : parseIpAddress('2001:db8::ffff')),
      },
      patienceMillis: options.patienceMillis ?? 2_000,
      now: () => this.now,
      unixNow: () => UNIX_MILLIS + this.now,
      sleep: (millis, signal) =>
        new Promise(resolve => {
          signal.addEventListener('abort', () => resolve(), { once: true });
          this.#sleepers.push({ at: this.now + millis, wake: resolve });
        }),
    });
  }

  /** Lets time pass and wakes whoever slept that long. */
  async pass(millis: number): Promise<void> {
    await settle();
    this.now += millis;
    for (const sleeper of this.#sleepers.splice(0)) {
      if (sleeper.at <= this.now) sleeper.wake();
      else this.#sleepers.push(sleeper);
    }
    await settle();
  }

  ask(name: string, type: number = TYPE.A, dnssecOk = false) {
    return this.capture.capture({ name: Name.parseText(name), type, dnssecOk, checkingDisabled: false });
  }

  #begin(address: IpAddress, via?: IpAddress): Negotiation {
    const text = formatIpAddress(address);
    const gateway = via && { via: formatIpAddress(via) };
    const record: (typeof this.negotiations)[number] = { address: text, ...gateway, keys: [] };
    this.negotiations.push(record);
    const local = this.source;
    let end: (outcome: NegotiationOutcome) => void = () => {};
    return {
      prove: (peer: NegotiationPeer) => {
        record.keys = peer.keys.map(fingerprintOf);
        record.asked = peer.asked.toText();
        return new Promise(resolve => {
          end = outcome => {
            record.ended = outcome.ok ? 'sealed' : outcome.failure.code;
            resolve(outcome);
          };
          const held = this.holders.get(gateway?.via ?? text);
          if (!held) return;
          if (this.failWith) return end({ ok: false, failure: this.failWith });
          if (this.strangeNames.has(peer.asked.toText())) {
            return end({
              ok: false,
              failure: { code: 'not-proven', text: 'the peer does not go by that name' },
            });
          }
          const key = peer.keys.find(candidate =>
            held.some(own => fingerprintOf(own) === fingerprintOf(candidate)),
          );
          if (!key)
            return end({ ok: false, failure: { code: 'not-proven', text: 'the peer holds another key' } });
          const childId = this.#nextChild++;
          this.children.set(childId, { address: text, ...gateway, fingerprint: fingerprintOf(key) });
          const seal = {
            childId,
            local,
            ...(via && { via }),
            key,
            mode: 'transport',
            suite: 'test',
            times: {},
          } as const;
          end({ ok: true, seal });
        });
      },
      cancel: () => {
        record.ended = 'cancelled';
        end({ ok: false, failure: { code: 'cancelled', text: 'cancelled' } });
      },
    };
  }

  #ask(name: Name, type: number): Resolution | Promise<Resolution> {
    if (this.upstream === 'answers') return this.#resolve(name, type);
    this.lookups.push(`${name.toText()} ${type}`);
    if (this.upstream === 'slow') return new Promise(() => {});
    return silence(name, type, name);
  }

  #resolve(name: Name, type: number): Resolution {
    this.lookups.push(`${name.toText()} ${type}`);
    const answer: Rrset[] = [];
    let at = name;
    let zone = this.zones.get(name.canonical().toText());
    let verdict: Verdict = zone?.verdict ?? 'secure';
    while (zone?.cname) {
      const target = Name.parseText(zone.cname);
      answer.push(rrset(at, TYPE.CNAME, [target.wire]));
      at = target;
      zone = this.zones.get(at.canonical().toText());
      verdict = weakest(verdict, zone?.verdict ?? 'secure');
    }
    if (type === TYPE.IPSECKEY && zone?.keyVerdict === 'timeout') {
      return silence(name, type, at);
    }
    if (type === TYPE.IPSECKEY && zone?.keyVerdict) verdict = zone.keyVerdict as Verdict;
    const before = answer.length;
    for (const each of type === TYPE.ANY ? [TYPE.A, TYPE.AAAA, TYPE.HTTPS, TYPE.IPSECKEY] : [type]) {
      const rdatas = zone ? rdatasOf(zone, each) : [];
      if (rdatas.length > 0) answer.push(rrset(at, each, rdatas));
    }
    const soa = new Uint8Array(22);
    new DataView(soa.buffer).setUint32(18, 300);
    return {
      ...empty(name, type, at),
      ...(zone?.soa && { authority: [rrset(Name.parseText('example.'), TYPE.SOA, [soa])] }),
      answer,
      verdict,
      outcome: answer.length > before ? 'positive' : 'nodata',
      ...(type === TYPE.IPSECKEY && zone?.keyOutcome && { outcome: zone.keyOutcome }),
      ...(type === TYPE.IPSECKEY && zone?.keyEde && { ede: { code: zone.keyEde, text: '' } }),
    };
  }
}

function rdatasOf(zone: Zone, type: number): Uint8Array[] {
  if (type === TYPE.A) return (zone.a ?? []).map(text => parseIpAddress(text)!.bytes);
  if (type === TYPE.AAAA) return (zone.aaaa ?? []).map(text => parseIpAddress(text)!.bytes);
  if (type === TYPE.HTTPS) return zone.https ?? [];
  if (type !== TYPE.IPSECKEY) return [];
  return (zone.keys ?? []).map(({ key, gateway, precedence }) =>
    composeIpseckey({
      precedence: precedence ?? 10,
      algorithm: key.algorithm,
      gateway: gateway ?? { kind: 'none' },
      publicKey: key.data,
    }),
  );
}

function rrset(name: Name, type: number, rdatas: Uint8Array[]): Rrset {
  return {
    name,
    type,
    class: 1,
    ttlSeconds: 300,
    rdatas,
    signatures: [rrsigRdata(type, UNIX_SECONDS - 86_400, UNIX_SECONDS + 5 * 86_400)],
  };
}

function silence(name: Name, type: number, canonicalName: Name): Resolution {
  return {
    ...empty(name, type, canonicalName),
    rcode: RCODE.SERVFAIL,
    outcome: 'failure',
    verdict: 'indeterminate',
    ede: { code: EDE.NETWORK_ERROR, text: 'no upstream server answered in time' },
  };
}

function empty(name: Name, type: number, canonicalName: Name): Resolution {
  return {
    question: { name, type },
    rcode: RCODE.NOERROR,
    verdict: 'secure',
    answer: [],
    authority: [],
    canonicalName,
    outcome: 'nodata',
    ttlSeconds: 300,
  };
}

function weakest(a: Verdict, b: Verdict): Verdict {
  const order: Verdict[] = ['bogus', 'indeterminate', 'insecure', 'secure'];
  return order[Math.min(order.indexOf(a), order.indexOf(b))]!;
}

/** Lets every promise that can go on go on. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

/** A question's answer, with its story. */
export type Outcome = Awaited<ReturnType<World['ask']>>;

/** What became of it: `refuse`, `sealed` or `clear`. */
export function outcomeOf({ answer, story }: Outcome): string {
  if (answer.rcode === RCODE.SERVFAIL) return 'refuse';
  return story.assurance() === 'authenticated' ? 'sealed' : 'clear';
}

export function addressesIn({ answer }: Outcome): string[] {
  return answer.answer
    .filter(rrset => rrset.type === TYPE.A || rrset.type === TYPE.AAAA)
    .flatMap(rrset =>
      rrset.rdatas.map(bytes => formatIpAddress({ family: bytes.length === 4 ? 4 : 6, bytes })),
    );
}
