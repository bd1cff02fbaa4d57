/**
 * Stale answers (RFC 8767): what is past its time, where nobody upstream can be reached and every seal still stands.
 *
 * The seal is what makes it true enough to say: whoever holds the key that DNS gave this name is at these addresses at
 * this moment, proven by IKE and not by memory. So nothing is negotiated for a stale answer, no group gets less than it
 * demands, and a name that goes in clear is never answered so. A key that DNS withdrew while it could be reached is
 * gone from memory as well; one that was withdrawn since may still be answered with, for no longer than the cache
 * remembers, than its signatures are in force, and than the peer keeps proving it: the seal itself, which does not ask
 * DNS again, goes on as it would have. A bogus or contradictory answer is an answer: only silence is bridged.
 */
import type { IpAddress } from '../address.ts';
import type { Name } from '../dns/name.ts';
import { EDE, RCODE, TYPE } from '../dns/types.ts';
import type { Resolution } from '../dnssec/types.ts';
import { type CaptureAnswer, passed } from './answers.ts';
import { actionAfterFailure, wantsKey } from './decision.ts';
import type { GatewayRule } from './gateways.ts';
import type { PolicyGroup } from './groups.ts';
import type { Guards } from './guards.ts';
import type { Lookup, RememberingLookup } from './interfaces.ts';
import type { AddressStory, Story } from './journal.ts';
import { addressesOf, contradictionIn, keysForAddress, readKeys } from './keys.ts';
import { namesOf, textOf } from './names.ts';
import type { Peers } from './peers.ts';

/** So long silence is no more than slowness (RFC 8767 section 5: the client response timer). */
const SLOW_MILLIS = 1_800;

export type StaleContext = {
  lookup: RememberingLookup;
  peers: Peers;
  guards: Guards;
  gateways: readonly GatewayRule[];
  groupOf: (names: string[], address: IpAddress) => PolicyGroup;
  sleep: (millis: number, signal: AbortSignal) => Promise<void>;
};

type Question = { name: Name; type: number };
type Remembered = { asked: Resolution; addresses: Resolution; keys: Resolution };

/**
 * The stale answer, once it is certain that `pending`, the look-ups for it, brought nothing or take too long.
 *
 * Undefined at once when nothing stale is at hand, and whenever the answer has to be found in the ordinary way.
 */
export function staleInstead(
  question: Question,
  story: Story,
  pending: readonly Promise<Resolution>[],
  context: StaleContext,
): Promise<CaptureAnswer | undefined> | undefined {
  if (remembered(question, context.lookup) === undefined) return undefined;
  return afterSilence(pending, context, story.signal).then(silent => {
    // Looked at anew: what came in the meantime counts.
    const known = silent ? remembered(question, context.lookup) : undefined;
    return known && bySeals(question, story, known, context);
  });
}

/**
 * Addresses and keys, something of it past its time, and neither contradicting the other. Who asks for a family that the
 * name has no addresses of is answered by the seals of the other one: apps ask for both, and give up when one fails.
 */
function remembered({ name, type }: Question, lookup: RememberingLookup): Remembered | undefined {
  const asked = lookup.remembered(name, type);
  if (asked?.verdict !== 'secure') return undefined;
  const other = type === TYPE.A ? TYPE.AAAA : TYPE.A;
  const addresses = asked.outcome === 'nodata' ? lookup.remembered(name, other) : asked;
  if (addresses?.outcome !== 'positive' || addresses.verdict !== 'secure') return undefined;
  const known = lookup.remembered(name, TYPE.IPSECKEY);
  const keys = known?.canonicalName.equals(addresses.canonicalName)
    ? known
    : lookup.remembered(addresses.canonicalName, TYPE.IPSECKEY);
  if (keys === undefined || ![asked, addresses, keys].some(({ stale }) => stale)) return undefined;
  return contradictionIn(addresses, keys) === undefined ? { asked, addresses, keys } : undefined;
}

/** Whether it is silence that we meet, and not an answer or an objection. */
async function afterSilence(
  pending: readonly Promise<Resolution>[],
  { sleep }: StaleContext,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const over = new AbortController();
  const slow = sleep(SLOW_MILLIS, signal ? AbortSignal.any([over.signal, signal]) : over.signal);
  const settled = await Promise.race([Promise.all(pending), slow]);
  over.abort();
  if (settled === undefined) return signal?.aborted !== true;
  const failures = settled.filter(({ outcome, verdict }) => outcome === 'failure' || verdict === 'bogus');
  return failures.length > 0 && failures.every(isSilence);
}

/** Nobody was reached, or said anything that could be judged; whatever else went wrong is not for us to gloss over. */
function isSilence({ outcome, verdict, ede, transient }: Resolution): boolean {
  if (outcome !== 'failure' || verdict !== 'indeterminate') return false;
  return transient === true || ede?.code === EDE.NETWORK_ERROR || ede?.code === EDE.NO_REACHABLE_AUTHORITY;
}

async function bySeals(
  { name }: Question,
  story: Story,
  { asked, addresses, keys }: Remembered,
  { lookup, peers, guards, gateways, groupOf }: StaleContext,
): Promise<CaptureAnswer | undefined> {
  const finding = readKeys(keys);
  const names = namesOf(name, addresses);
  const owner = { asked: name, canonical: addresses.canonicalName };
  const sealed: AddressStory[] = [];
  for (const address of addressesOf(addresses, addresses.question.type)) {
    const group = groupOf(names, address);
    if (!wantsKey(group)) return undefined;
    const { ways } = await keysForAddress(finding, address, owner, onlyRemembered(lookup), gateways);
    const peer = peers.find(
      address,
      ways.flatMap(way => way.keys),
    );
    if (peer === undefined) return undefined;
    if (actionAfterFailure(group) === 'refuse' && guards.hold(address, story.name) !== undefined)
      return undefined;
    peers.answered(peer, story.name, group);
    const { fingerprint, seal } = peer;
    sealed.push({
      address,
      answered: true,
      group,
      assurance: 'authenticated',
      fingerprint,
      ...(seal.via && { via: seal.via }),
    });
  }
  if (sealed.length === 0) return undefined;
  const ede = [asked, addresses, keys].find(({ stale }) => stale)?.ede;
  story.canonicalName = textOf(addresses.canonicalName);
  story.group = sealed[0]!.group;
  story.addresses = asked === addresses ? sealed : [];
  story.dnsMillis = story.elapsed();
  story.step('stale', `${ede?.text}; each address is sealed`);
  return {
    ...passed(asked),
    authenticated: false,
    ...(ede && { ede: [ede] }),
    ttlCapSeconds: STALE_TTL_SECONDS,
  };
}

/** RFC 8767 section 4, for the addresses too where it is the key whose time is over. */
const STALE_TTL_SECONDS = 30;

function onlyRemembered(lookup: RememberingLookup): Lookup {
  return { lookup: async (name, type) => lookup.remembered(name, type) ?? unknown(name, type) };
}

function unknown(name: Name, type: number): Resolution {
  return {
    question: { name, type },
    rcode: RCODE.SERVFAIL,
    verdict: 'indeterminate',
    ede: { code: EDE.NETWORK_ERROR, text: 'nobody answers upstream' },
    answer: [],
    authority: [],
    canonicalName: name,
    outcome: 'failure',
    ttlSeconds: 0,
  };
}
