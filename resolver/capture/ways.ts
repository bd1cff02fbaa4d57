/**
 * Sealing one address by the ways to its keys: with the address itself, or with a gateway that may speak for it.
 *
 * A key that is proven already needs no way. Otherwise they are tried one after the other, as the precedence of the
 * records says, until one is sealed or patience ends; then the negotiation goes on, and the next question finds what
 * became of it, or tries the next way.
 */
import { formatIpAddress, type IpAddress } from '../address.ts';
import type { Name } from '../dns/name.ts';
import type { Lookup, Negotiation } from './interfaces.ts';
import type { Story } from './journal.ts';
import { fingerprintOf, ownersOf, type Way } from './keys.ts';
import type { Peers, ProvenPeer, Sealing } from './peers.ts';

export type Job = {
  address: IpAddress;
  asked: Name;
  canonical: Name;
  /** Without a seal the address is not answered. */
  strict: boolean;
  /** A negotiation with the address itself whose IKE_SA_INIT is out already; it is used or cancelled. */
  speculation: Negotiation | undefined;
  story: Story;
};

export type Patience = {
  patienceMillis: number;
  /** Monotonic milliseconds. */
  now: () => number;
  sleep: (millis: number, signal: AbortSignal) => Promise<void>;
};

/** At least one way. Pending when patience ended before the negotiation did. */
export async function sealByWays(
  ways: Way[],
  job: Job,
  peers: Peers,
  lookup: Lookup,
  patience: Patience,
): Promise<Sealing> {
  const { address, asked, canonical, strict, story } = job;
  const known = peers.find(
    address,
    ways.flatMap(way => way.keys),
  );
  let speculation = job.speculation;
  if (known || ways[0]!.via) {
    speculation?.cancel();
    speculation = undefined;
  }
  if (known) return { state: 'sealed', peer: known };
  // Another key stands at this address, or is being proved there: whose address is it?
  const other = peers.knowsOther(
    address,
    ways.flatMap(way => way.keys),
  );
  const owners = other ? await ownersOf(address, lookup) : [];
  let since = Number.POSITIVE_INFINITY;
  let settled: Sealing | undefined;
  for (const { keys, via } of ways) {
    const sealing = peers.seal(address, { keys, asked, canonical, owners }, strict, { via, speculation });
    speculation = undefined;
    settled = sealing;
    if (sealing.state === 'pending') {
      since = Math.min(since, sealing.startedAt);
      settled = await hold(sealing, since, story, patience);
      if (settled.state === 'sealed') tellNegotiation(story, settled.peer);
    }
    if (settled.state !== 'failed') break;
  }
  return settled!;
}

/** Waits for a negotiation, no longer than patience counted from the beginning of the first. */
async function hold(
  pending: Sealing & { state: 'pending' },
  since: number,
  story: Story,
  { patienceMillis, now, sleep }: Patience,
): Promise<Sealing> {
  const left = since + patienceMillis - now();
  if (left <= 0) return pending;
  story.step('hold', 'waiting for the negotiation');
  story.held = true;
  const timer = new AbortController();
  const signals = story.signal ? [timer.signal, story.signal] : [timer.signal];
  const late = sleep(left, AbortSignal.any(signals)).then((): Sealing => pending);
  const settled = await Promise.race([pending.outcome, late]);
  timer.abort();
  return settled;
}

function tellNegotiation(story: Story, peer: ProvenPeer): void {
  const { times, via } = peer.seal;
  const gateway = via && `to the gateway ${formatIpAddress(via)}`;
  if (times.initSentAt !== undefined) story.step('IKE_SA_INIT sent', gateway, times.initSentAt);
  if (times.initAnsweredAt !== undefined)
    story.step('IKE_SA_INIT answered', peer.seal.suite, times.initAnsweredAt);
  if (times.authSentAt !== undefined) story.step('IKE_AUTH sent', undefined, times.authSentAt);
  if (times.authAnsweredAt !== undefined) {
    story.step('IKE_AUTH answered', `proved ${fingerprintOf(peer.seal.key)}`, times.authAnsweredAt);
  }
  if (times.installedAt !== undefined) {
    story.step('SAs and policies in the kernel', peer.seal.mode, times.installedAt);
    story.kernelMillis = Math.max(story.kernelMillis ?? 0, times.kernelMillis ?? 0);
  }
}
