/** Questions in, judged answers out: upstream, validation and caches, and what is told about their state at the start. */
import type { SocketAddress } from '../address.ts';
import { CachedResolver } from '../cache/answers.ts';
import { RrsetCache } from '../cache/rrsets.ts';
import { type Configuration, serversAtStart } from '../config.ts';
import { parseRrsig } from '../dns/dnssec-rdata.ts';
import { EDE, TYPE } from '../dns/types.ts';
import { type TrustAnchor, zonesWithoutUsableAnchor } from '../dnssec/anchors.ts';
import { ValidatingResolver } from '../dnssec/resolver.ts';
import type { Exchange } from '../dnssec/types.ts';
import type { Logger } from '../log.ts';
import { clockBeforeSignatures } from '../startup-checks.ts';
import { TrustAnchors } from '../trust-anchors.ts';
import { bootstrapThrough } from '../upstream/bootstrap.ts';
import type { UpstreamSockets } from '../upstream/sockets.ts';
import { Upstream } from '../upstream/upstream.ts';

/** How long one of the network's resolvers may take to say where an encrypted one is. */
const BOOTSTRAP_MILLIS = 1_000;

export type Resolving = ReturnType<typeof openResolving>;

/** Nothing is asked before somebody looks something up; `networkServers` say where encrypted upstreams are. */
export function openResolving(
  configuration: Configuration,
  log: Logger,
  sockets: UpstreamSockets,
  networkServers: () => readonly SocketAddress[],
) {
  type Observer = (question: Parameters<Exchange>[0], message: Awaited<ReturnType<Exchange>>) => void;
  let observer: Observer = () => {};
  const upstream: Upstream = new Upstream({
    servers: serversAtStart(configuration),
    forward: configuration.forward,
    authorities: configuration.upstreamAuthorities?.pem,
    sockets,
    bootstrap: bootstrapThrough(
      networkServers,
      (address, question) =>
        upstream.ask({ transport: 'udp', address }, question, { timeoutMillis: BOOTSTRAP_MILLIS }),
      () => performance.now(),
    ),
  });
  const now = () => configuration.validationTime ?? Math.floor(Date.now() / 1000);
  const { maxBytes, maxStaleSeconds } = configuration.cache;
  // RRsets packed, the denials among them, and a quarter for whole answers as they are handed out.
  const rrsets = new RrsetCache({ maxBytes: (maxBytes * 5) / 8, maxDenialBytes: maxBytes / 8 });
  let exchange: Exchange = upstream.exchange;
  let trustChanged: () => void = () => {};
  const trustAnchors = new TrustAnchors({
    configured: configuration.trustAnchors,
    // By another time than now nothing is to be learnt for good.
    managed: configuration.trustAnchorsManaged && configuration.validationTime === undefined,
    state: configuration.state,
    exchange: (question, signal) => exchange(question, signal),
    now,
    later: (seconds, callback) => {
      const timer = setTimeout(callback, 1000 * seconds);
      return () => clearTimeout(timer);
    },
    changed: anchors => {
      validator.setAnchors(anchors);
      cache.flushAll();
      trustChanged();
    },
    log,
  });
  const validator = new ValidatingResolver({
    exchange: async (question, signal) => {
      const message = await exchange(question, signal);
      observer(question, message);
      return message;
    },
    anchors: trustAnchors.current(),
    negativeAnchors: configuration.negativeTrustAnchors,
    now,
    kept: rrsets,
    sameServers: upstream.sameServers,
  });
  const cache = new CachedResolver(validator, { maxBytes: maxBytes / 4, maxStaleSeconds });
  return {
    now,
    upstream,
    anchors: configuration.trustAnchors,
    trustAnchors,
    /** Tells that something else is trusted than before. */
    onTrustChanged: (callback: () => void) => {
      trustChanged = callback;
    },
    rrsets,
    validator,
    cache,
    forgetFailures: () => {
      validator.flushFailures();
      cache.flushFailures();
    },
    forgetUnproven: () => {
      validator.flushUnproven();
      cache.flushUnproven();
    },
    observe: (given: Observer) => {
      observer = given;
    },
    /** From now on questions pass what is put before the upstream. */
    through: (gate: (inner: Exchange) => Exchange) => {
      exchange = gate(upstream.exchange);
    },
  };
}

/** Zones that were to be signed and count as insecure all the same; said once, because only a person can mend it. */
export function tellOfUselessAnchors(anchors: readonly TrustAnchor[], log: Logger): void {
  for (const name of zonesWithoutUsableAnchor(anchors)) {
    const zone = name.toText();
    log.warn(
      { event: 'anchorUnusable', zone },
      `the trust anchors of ${zone} are of no algorithm or digest known here: the zone counts as insecure`,
    );
  }
}

/** A clock before every signature makes everything bogus; said once, because only a person can mend it. */
export async function tellOfWrongClock(
  { cache, anchors, now }: Pick<Resolving, 'cache' | 'anchors' | 'now'>,
  log: Logger,
): Promise<void> {
  const zone = anchors[0]?.name;
  if (!zone) return;
  const resolution = await cache.lookup(zone, TYPE.DNSKEY);
  if (resolution.ede?.code !== EDE.SIGNATURE_NOT_YET_VALID) return;
  const signatures = resolution.answer.flatMap(rrset => rrset.signatures.map(parseRrsig));
  const inceptions = signatures.flatMap(signature => (signature ? [signature.inception] : []));
  const { message } = clockBeforeSignatures(now(), Math.min(...inceptions));
  log.error({ event: 'clockBeforeSignatures' }, message);
}
