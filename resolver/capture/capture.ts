/**
 * The capture: no address leaves before the way to it is what its policy group demands.
 *
 * The way of an address question (A, AAAA):
 *   question ─▶ addresses ∥ IPSECKEY ─▶ verdicts ─▶ group ─▶ negotiate each address ─▶ answer
 *                     └── unvalidated answers show an address and a key ──▶ IKE_SA_INIT goes out early
 * Other questions pass with their verdict, after the doors are closed through which an address could slip past
 * (`side-doors.ts`). What cannot be kept private, or cannot be validated, is SERVFAIL with an Extended DNS Error that says
 * why (RFC 8914).
 */
import { formatIpAddress, type IpAddress } from '../address.ts';
import type { Name } from '../dns/name.ts';
import { EDE, TYPE } from '../dns/types.ts';
import type { Resolution } from '../dnssec/types.ts';
import {
  type CaptureAnswer,
  type CaptureQuestion,
  describe,
  keepOnly,
  passed,
  refuse,
  refusedResolution,
  SEALED_TTL_SECONDS,
  withLease,
} from './answers.ts';
import { actionAfterFailure, actionFor, wantsKey } from './decision.ts';
import type { GatewayRule } from './gateways.ts';
import { type PolicyGroup, type PolicyGroups, strictest } from './groups.ts';
import { Guards } from './guards.ts';
import type {
  Blocks,
  LocalAddresses,
  Lookup,
  RememberingLookup,
  NegotiationFailure,
  Negotiator,
} from './interfaces.ts';
import { type AddressStory, Journal, Story } from './journal.ts';
import {
  addressesOf,
  contradictionIn,
  isGroupAddress,
  isHostLocal,
  type KeyFinding,
  keysForAddress,
  readKeys,
} from './keys.ts';
import { type Ground, giveWay, jointly, type Lease, leaseOf, SEAL_SECONDS } from './lease.ts';
import { namesOf, textOf } from './names.ts';
import { Peers } from './peers.ts';
import { answerOther, type SideDoors } from './side-doors.ts';
import { Speculations } from './speculation.ts';
import { type StaleContext, staleInstead } from './stale.ts';
import { sealByWays } from './ways.ts';

/** More addresses than this in one RRset are not negotiated, and so not answered where privacy is asked for. */
const MAX_ADDRESSES = 8;

export type CaptureOptions = {
  lookup: RememberingLookup;
  groups: PolicyGroups;
  negotiator: Negotiator;
  blocks: Blocks;
  local: LocalAddresses;
  /** Gateways that need no word of the reverse zone. */
  gateways?: readonly GatewayRule[];
  patienceMillis: number;
  /** Monotonic milliseconds. */
  now: () => number;
  unixNow: () => number;
  /** Resolves after so many milliseconds unless aborted; never rejects. */
  sleep: (millis: number, signal: AbortSignal) => Promise<void>;
  /** Called once for every address question that was decided. */
  decided?: (story: Story) => void;
};

/** What is known about the key, and for how long. */
type LeasedFinding = KeyFinding & { lease: Lease | undefined };

export class Capture {
  readonly peers: Peers;
  readonly guards: Guards;
  readonly journal = new Journal();
  readonly speculations: Speculations;
  readonly #options: CaptureOptions;
  readonly #staleContext: StaleContext;
  readonly #sideDoors: SideDoors;
  /** What every answer rests on. */
  #ground: Ground = { stands: true };

  constructor(options: CaptureOptions) {
    this.#options = options;
    this.peers = new Peers(options);
    this.guards = new Guards(options);
    this.speculations = new Speculations(options);
    const { lookup, sleep, gateways = [] } = options;
    const groupOf = (names: string[], address: IpAddress) => this.#groupOf(names, address);
    this.#staleContext = { lookup, sleep, gateways, groupOf, peers: this.peers, guards: this.guards };
    this.#sideDoors = { lookup, groupOf, capture: (question, signal) => this.capture(question, signal) };
  }

  /** Answers a question of class IN. Never rejects for anything that came from the network. */
  async answer(question: CaptureQuestion, signal?: AbortSignal): Promise<CaptureAnswer> {
    // As it was when the question came: what changes meanwhile may have been looked at before.
    const ground = this.#ground;
    const answer = await this.#answer(question, signal);
    if (answer.lease === undefined) return answer;
    return { ...answer, lease: { ...answer.lease, grounds: [ground, ...answer.lease.grounds] } };
  }

  /** Something changed on which answers rest: what was answered before must not be answered again from bytes. */
  revoke(): void {
    this.#ground = giveWay(this.#ground);
  }

  async #answer(question: CaptureQuestion, signal?: AbortSignal): Promise<CaptureAnswer> {
    switch (question.type) {
      case TYPE.A:
      case TYPE.AAAA:
        return (await this.capture(question, signal)).answer;
      default:
        return answerOther(question, this.#sideDoors, signal);
    }
  }

  /** Lifts the guards that have had their time. To be called now and then. */
  sweep(): void {
    this.guards.sweep(address => this.peers.knows(address));
  }

  /** The whole way of an address question, with its story. */
  async capture(
    question: CaptureQuestion,
    signal?: AbortSignal,
  ): Promise<{ answer: CaptureAnswer; story: Story }> {
    const { now, unixNow } = this.#options;
    const story = new Story(textOf(question.name), question.type, now, { unixNow: unixNow(), signal });
    const answer = await this.#captureAddresses(question, story);
    story.rcode = answer.rcode;
    story.ede = answer.ede ?? [];
    story.finish();
    // Nobody was answered: there is nothing to tell.
    if (signal?.aborted) return { answer, story };
    this.journal.keep(story);
    this.#options.decided?.(story);
    return { answer, story };
  }

  async #captureAddresses(question: CaptureQuestion, story: Story): Promise<CaptureAnswer> {
    const { lookup, groups } = this.#options;
    const nameGroup = groups.groupOf(story.name, undefined);
    story.step('question', nameGroup);
    if (groups.groupOfName(story.name)?.group === 'block') {
      story.group = 'block';
      return refuse(EDE.BLOCKED, `${question.name.toText()} is in the policy group block`);
    }
    const speculation = this.speculations.open(question.name, question.type, address =>
      this.#mayNegotiate(story.name, address),
    );
    try {
      const { signal } = story;
      const addressResolution = lookup.lookup(question.name, question.type, signal);
      const keyResolution = lookup.lookup(question.name, TYPE.IPSECKEY, signal);
      const pending = [addressResolution, keyResolution];
      const stale = await staleInstead(question, story, pending, this.#staleContext);
      if (stale !== undefined) return stale;
      const addresses = await addressResolution;
      story.step('addresses', describe(addresses));
      story.canonicalName = addresses.canonicalName.equals(question.name)
        ? story.name
        : textOf(addresses.canonicalName);
      if (addresses.outcome === 'failure' || addresses.verdict === 'bogus') {
        story.dnsMillis = story.elapsed();
        story.group = nameGroup;
        return refusedResolution(addresses);
      }
      const found = addressesOf(addresses, question.type);
      if (found.length === 0) {
        story.dnsMillis = story.elapsed();
        story.group = nameGroup;
        return withLease(passed(addresses), leaseOf(addresses));
      }
      return await this.#decide(question, story, addresses, found, keyResolution, speculation);
    } finally {
      speculation.close();
    }
  }

  async #decide(
    question: CaptureQuestion,
    story: Story,
    addresses: Resolution,
    found: IpAddress[],
    keyResolution: Promise<Resolution>,
    speculation: ReturnType<Speculations['open']>,
  ): Promise<CaptureAnswer> {
    const names = namesOf(question.name, addresses);
    const groupOf = found.map(address => this.#groupOf(names, address));
    story.group = strictest(...(groupOf as [PolicyGroup, ...PolicyGroup[]]));
    if (groupOf.includes('block')) {
      story.dnsMillis = story.elapsed();
      story.addresses = found.map((address, i) => blocked(address, groupOf[i]!, 'policy group block'));
      return refuse(EDE.BLOCKED, `an address of ${question.name.toText()} is in the policy group block`);
    }
    const here = found.map(address => this.#staysHere(address));
    const asking = found.some((_, i) => !here[i] && wantsKey(groupOf[i]!));
    const finding: LeasedFinding = asking
      ? await this.#keys(question.name, addresses, keyResolution, story.signal)
      : {
          state: 'absent' as const,
          records: [],
          why: 'its group asks for no key',
          lease: leaseOf(addresses),
        };
    if (asking) story.step('key', finding.why);
    // Where there is a key the other family will be negotiated for as well. Elsewhere it would be one more question and
    // one more signature to check for every name, and clients that want it ask for it in the same breath.
    if (finding.state === 'published') {
      const other = question.type === TYPE.A ? TYPE.AAAA : TYPE.A;
      void this.#options.lookup.lookup(question.name, other, story.signal);
    }
    story.dnsMillis = story.elapsed();

    const grounds: Ground[] = [];
    const verdicts = await Promise.all(
      found.map((address, index) =>
        this.#sealAddress({
          address,
          index,
          here: here[index]!,
          group: groupOf[index]!,
          asked: question.name,
          canonical: addresses.canonicalName,
          finding,
          speculation: speculation.take(address),
          story,
          grounds,
        }),
      ),
    );
    story.addresses = verdicts;
    if (story.held) story.ikeMillis = story.elapsed() - story.dnsMillis - (story.kernelMillis ?? 0);
    const answer = this.#release(question, story, addresses, verdicts, here);
    // What failed, or was refused, is looked at with every question. So is a key: it may be sealed, or not, at any time.
    if (verdicts.some(({ answered, failure }) => !answered || failure !== undefined)) return answer;
    const brief = here.includes(true) || finding.state === 'published';
    const lease = jointly([
      leaseOf(addresses),
      finding.lease,
      ...(brief ? [{ grounds, seconds: SEAL_SECONDS }] : []),
    ]);
    return withLease(answer, lease);
  }

  /** What becomes of one address: sealed, clear or refused, and why. */
  async #sealAddress(job: {
    address: IpAddress;
    index: number;
    /** It is this host itself. */
    here: boolean;
    group: PolicyGroup;
    asked: Name;
    canonical: Name;
    finding: KeyFinding;
    speculation: ReturnType<Negotiator['begin']> | undefined;
    story: Story;
    /** What a sealed address rests on is added here. */
    grounds: Ground[];
  }): Promise<AddressStory> {
    const { address, group, finding, story } = job;
    const clear = (why: string): AddressStory => {
      this.guards.release(address, story.name);
      return { address, answered: true, group, assurance: 'clear', why };
    };
    const drop = (): void => job.speculation?.cancel();
    if (job.here) {
      drop();
      return clear('it is this host itself');
    }
    if (isGroupAddress(address)) {
      drop();
      const why = 'a multicast or broadcast address has no peer to negotiate with';
      return group === 'private' ? blocked(address, group, why) : clear(why);
    }
    const action = actionFor(group, finding.state);
    if (action !== 'negotiate') {
      drop();
      return action === 'clear'
        ? clear(finding.why)
        : { ...blocked(address, group, finding.why), code: finding.code };
    }
    const strict = actionAfterFailure(group) === 'refuse';
    const onFailure = ({ code: failure, text }: NegotiationFailure): AddressStory =>
      // Where nobody tried, a good key may stand behind it: never clear.
      strict || failure === 'busy' || finding.truncated
        ? { ...blocked(address, group, text), failure }
        : { ...clear(text), failure };
    if (job.index >= MAX_ADDRESSES) {
      drop();
      return onFailure({
        code: 'busy',
        text: `only ${MAX_ADDRESSES} addresses of one answer are negotiated`,
      });
    }
    const lookup: Lookup = {
      lookup: (name, type) => this.#options.lookup.lookup(name, type, story.signal),
    };
    const { gateways } = this.#options;
    const { ways, refused, unknown } = await keysForAddress(finding, address, job, lookup, gateways);
    // A look-up on which a key hangs failed: what would be clear without it must not be.
    const failed = (failure: NegotiationFailure): AddressStory =>
      unknown ? { ...blocked(address, group, unknown.why), code: unknown.code } : onFailure(failure);
    if (ways.length === 0) {
      drop();
      return failed({ code: 'not-proven', text: refused[0] ?? finding.why });
    }
    const settled = await sealByWays(ways, { ...job, strict }, this.peers, lookup, this.#options);
    if (settled.state === 'pending') {
      const why = `the negotiation with ${formatIpAddress(address)} takes longer than ${this.#options.patienceMillis} ms`;
      return failed({ code: 'no-answer', text: why });
    }
    if (settled.state === 'failed') return failed(settled.failure);
    const unguarded = strict ? this.guards.hold(address, story.name) : undefined;
    if (unguarded !== undefined) return blocked(address, group, `it cannot be guarded: ${unguarded}`);
    const { peer } = settled;
    this.peers.answered(peer, story.name, group);
    job.grounds.push(peer.ground);
    return {
      address,
      answered: true,
      group,
      assurance: 'authenticated',
      fingerprint: peer.fingerprint,
      ...(peer.seal.via && { via: peer.seal.via }),
    };
  }

  /** Builds the answer out of what became of each address. */
  #release(
    question: CaptureQuestion,
    story: Story,
    addresses: Resolution,
    verdicts: AddressStory[],
    here: boolean[],
  ): CaptureAnswer {
    const sealed = verdicts.filter(v => v.answered && v.assurance !== 'clear');
    // Where some addresses are sealed, those that failed in a group that wanted them sealed are left out.
    const whole = question.dnssecOk || sealed.length === 0;
    const left = verdicts.map((v, i) => {
      const failed = v.assurance === 'clear' && wantsKey(v.group) && v.why !== undefined && !here[i];
      return !whole && failed ? { ...v, answered: false } : v;
    });
    const refusedOnes = left.filter(v => !v.answered);
    const hardRefused = verdicts.filter(v => !v.answered);
    story.addresses = left;
    if (refusedOnes.length === left.length || (question.dnssecOk && hardRefused.length > 0)) {
      story.addresses = left.map(v => ({ ...v, answered: false }));
      const first = hardRefused[0]!;
      return refuse(
        first.code ?? EDE.BLOCKED,
        `${question.name.toText()} at ${formatIpAddress(first.address)}: ${first.why}; see: holdfast explain ${story.name}`,
      );
    }
    story.step('answer', `${left.length - refusedOnes.length} address(es)`);
    const cap = sealed.length > 0 ? { ttlCapSeconds: SEALED_TTL_SECONDS } : {};
    if (refusedOnes.length === 0) return { ...passed(addresses), ...cap };
    const kept = left.filter(v => v.answered).map(v => v.address);
    return {
      ...passed(addresses),
      ...cap,
      authenticated: false,
      answer: addresses.answer.map(rrset => (rrset.type === question.type ? keepOnly(rrset, kept) : rrset)),
    };
  }

  async #keys(
    asked: Name,
    addresses: Resolution,
    keyResolution: Promise<Resolution>,
    signal: AbortSignal | undefined,
  ): Promise<LeasedFinding> {
    // Nobody vouches for the addresses, so no key counts, and there is nothing to wait for.
    if (addresses.verdict === 'insecure') {
      const why = `nobody vouches for the addresses of ${asked.toText()}`;
      return { state: 'unsigned', records: [], why, lease: leaseOf(addresses) };
    }
    const first = await keyResolution;
    // Both questions followed the same CNAMEs, unless the zone changed between them: then ask at the new end.
    let resolution = first.canonicalName.equals(addresses.canonicalName)
      ? first
      : await this.#options.lookup.lookup(addresses.canonicalName, TYPE.IPSECKEY, signal);
    // The zone may have been signed, or the name made, since its key was asked for last.
    if (contradictionIn(addresses, resolution) !== undefined) {
      resolution = await this.#options.lookup.reconsidered(addresses.canonicalName, TYPE.IPSECKEY, signal);
    }
    if (addresses.verdict !== 'secure') {
      return {
        state: 'unknown',
        records: [],
        why: 'its addresses could not be judged',
        code: addresses.ede?.code,
        lease: undefined,
      };
    }
    const finding = { ...readKeys(resolution), lease: leaseOf(resolution) };
    const contradiction = contradictionIn(addresses, resolution);
    if (contradiction === undefined) return finding;
    return { ...finding, state: 'unknown', records: [], why: contradiction, code: EDE.DNSSEC_BOGUS };
  }

  /** The strictest group that any name of the chain, or the address itself, puts this address in. */
  #groupOf(names: string[], address: IpAddress): PolicyGroup {
    const { groups } = this.#options;
    const explicit = names.filter(name => groups.groupOfName(name) !== undefined);
    const considered = explicit.length > 0 ? explicit : names.slice(0, 1);
    const each = considered.map(name => groups.groupOf(name, address));
    return strictest(...(each as [PolicyGroup, ...PolicyGroup[]]));
  }

  /** Whether a key could lead to a negotiation with this address that does not run or stand already. */
  #mayNegotiate(name: string, address: IpAddress): boolean {
    return (
      wantsKey(this.#options.groups.groupOf(name, address)) &&
      !this.#staysHere(address) &&
      !this.peers.knows(address)
    );
  }

  #staysHere(address: IpAddress): boolean {
    return isHostLocal(address) || this.#options.local.isOurs(address);
  }
}

function blocked(address: IpAddress, group: PolicyGroup, why: string): AddressStory {
  return { address, answered: false, group, assurance: 'blocked', why };
}
