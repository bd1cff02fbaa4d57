/** What the control socket tells about the running daemon, and what it can make it do. */
import { formatIpAddress, parseIpAddress } from '../address.ts';
import type { Capture } from '../capture/capture.ts';
import { strictest } from '../capture/groups.ts';
import { round, type Story } from '../capture/journal.ts';
import { textOf } from '../capture/names.ts';
import type { ProvenPeer } from '../capture/peers.ts';
import { Name } from '../dns/name.ts';
import { rcodeToText, TYPE, typeFromText, typeToText } from '../dns/types.ts';
import type { LoadedIdentity } from '../identity/identity.ts';
import type { CachedResolver } from '../cache/answers.ts';
import type { Network } from '../network/network.ts';
import type { NetworkStatus } from '../network/status.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { TrustAnchors } from '../trust-anchors.ts';
import { adviceFor } from './advice.ts';
import type {
  ControlBackend,
  Explanation,
  ForgetResult,
  ForgetTarget,
  PeerStatus,
  PortalAllowance,
  StatusReport,
} from './api.ts';

type Usage = { inBytes: number; outBytes: number; lastUsedSeconds?: number };

export type ViewOptions = {
  version: string;
  listen: () => string[];
  /** Whether the name is answered without asking anybody. */
  isSpecial: (name: Name, type: number) => boolean;
  identity: LoadedIdentity;
  dataplane: StatusReport['dataplane'];
  capture: Capture;
  cache: CachedResolver;
  trustAnchors: TrustAnchors;
  upstream: Upstream;
  network: Network;
  /** What the kernel counted for a pair of SAs. */
  usage: (childId: number) => Usage | undefined;
  counters: () => Record<string, number>;
};

export class DaemonView implements ControlBackend {
  readonly #options: ViewOptions;
  readonly #startedAt = new Date();

  constructor(options: ViewOptions) {
    this.#options = options;
  }

  status(): StatusReport {
    const { version, listen, identity, dataplane, capture, upstream, counters } = this.#options;
    const now = Date.now();
    const monotonic = performance.now();
    return {
      version,
      pid: process.pid,
      startedAt: this.#startedAt.toISOString(),
      listen: listen(),
      upstreams: upstream.servers().map(({ server, rttMillis, slowMillis, ...rest }) => ({
        address: server,
        ...rest,
        ...(rttMillis !== undefined && { rttMs: round(rttMillis)! }),
        ...(slowMillis !== undefined && { slowMs: round(slowMillis)! }),
      })),
      network: this.#options.network.status(),
      dataplane,
      identity: {
        ...(identity.name === undefined ? {} : { name: identity.name }),
        keys: identity.keys.map(({ kind, fingerprint }) => ({ algorithm: kind, fingerprint })),
      },
      trustAnchors: this.#options.trustAnchors.status(),
      peers: capture.peers.list().map(peer => this.#peer(peer)),
      failures: capture.peers.failures().map(({ address, via, fingerprint, name, failure, until }) => ({
        address: formatIpAddress(address),
        ...(name === undefined ? {} : { name }),
        ...(via === undefined ? {} : { via: formatIpAddress(via) }),
        keyFingerprint: fingerprint,
        reason: failure.text,
        until: new Date(now + until - monotonic).toISOString(),
      })),
      counters: counters(),
    };
  }

  /** How the name was answered when it was last asked for; it is asked for now when nobody did yet. */
  async explain(text: string, typeText: string): Promise<Explanation> {
    const type = typeFromText(typeText);
    if (type !== TYPE.A && type !== TYPE.AAAA) {
      throw new RangeError(`only A and AAAA are explained, not ${typeText}`);
    }
    const name = Name.parseText(text);
    const { capture, isSpecial } = this.#options;
    if (isSpecial(name, type)) {
      throw new RangeError(
        `${text} is a special name (RFC 6761): it is answered at once, and nobody is asked`,
      );
    }
    const known = capture.journal.find(textOf(name), type);
    if (known) return explanationOf(known);
    const { story } = await capture.capture({ name, type, dnssecOk: false, checkingDisabled: false });
    return explanationOf(story);
  }

  forget(target: ForgetTarget): ForgetResult {
    const { capture, cache } = this.#options;
    capture.revoke();
    if ('all' in target) {
      capture.journal.clear();
      return { ...capture.peers.forget({ all: true }), answers: cache.flushAll() };
    }
    if ('address' in target) {
      const address = parseIpAddress(target.address);
      if (!address) throw new RangeError(`${target.address} is not an address`);
      return { ...capture.peers.forget({ address }), answers: 0 };
    }
    const name = Name.parseText(target.name);
    const stories = capture.journal.forget(textOf(name));
    const addresses = stories.flatMap(story => story.addresses.map(({ address }) => address));
    return { ...capture.peers.forget({ name: textOf(name), addresses }), answers: cache.flush(name) };
  }

  allowPortal({ name, millis }: PortalAllowance): NetworkStatus {
    this.#options.network.allow(name, millis);
    return this.#options.network.status();
  }

  #peer(peer: ProvenPeer): PeerStatus {
    const usage = this.#options.usage(peer.seal.childId);
    const groups = [...peer.names.values()];
    return {
      address: formatIpAddress(peer.address),
      ...(peer.seal.via === undefined ? {} : { via: formatIpAddress(peer.seal.via) }),
      names: [...peer.names.keys()],
      group: groups.length > 0 ? strictest(groups[0]!, ...groups.slice(1)) : 'clear-or-private',
      assurance: 'authenticated',
      keyFingerprint: peer.fingerprint,
      since: new Date(peer.since).toISOString(),
      mode: peer.seal.mode,
      suite: peer.seal.suite,
      inBytes: usage?.inBytes ?? 0,
      outBytes: usage?.outBytes ?? 0,
      ...(usage?.lastUsedSeconds
        ? { idleSeconds: Math.max(0, Math.floor(Date.now() / 1000) - usage.lastUsedSeconds) }
        : {}),
    };
  }
}

function explanationOf(story: Story): Explanation {
  const advice = adviceFor(story);
  return {
    name: story.name,
    type: typeToText(story.type),
    askedAt: new Date(story.askedAt).toISOString(),
    ...(story.canonicalName === undefined ? {} : { canonicalName: story.canonicalName }),
    group: story.group ?? 'private-or-clear',
    assurance: story.assurance(),
    rcode: rcodeToText(story.rcode),
    ede: story.ede,
    addresses: story.addresses.map(({ address, answered, group, assurance, fingerprint, via, why }) => ({
      address: formatIpAddress(address),
      answered,
      group,
      assurance,
      ...(fingerprint === undefined ? {} : { keyFingerprint: fingerprint }),
      ...(via === undefined ? {} : { via: formatIpAddress(via) }),
      ...(why === undefined ? {} : { why }),
    })),
    answerMs: round(story.answerMillis) ?? 0,
    ...(story.dnsMillis === undefined ? {} : { dnsMs: round(story.dnsMillis)! }),
    ...(story.ikeMillis === undefined ? {} : { ikeMs: round(story.ikeMillis)! }),
    ...(story.kernelMillis === undefined ? {} : { kernelMs: round(story.kernelMillis)! }),
    steps: story.steps.map(({ at, what, detail }) => ({
      at: round(at)!,
      what,
      ...(detail === undefined ? {} : { detail }),
    })),
    ...(advice === undefined ? {} : { advice }),
  };
}
