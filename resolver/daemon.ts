/**
 * The daemon: wires the rooms together, starts them in the order that keeps the promises, and stops them in order.
 *
 * Start: keys ▸ what the kernel can do ▸ leftovers of an earlier run ▸ standing exemptions ▸ IKE sockets ▸ control
 * socket ▸ listeners. Only then does the first answer leave. Stop: listeners ▸ Deletes to the peers ▸ everything of ours
 * out of the kernel ▸ control socket.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Engine } from '../ike/engine.ts';
import { IkeSockets } from '../ike/sockets.ts';
import type { Identity } from '../ike/types.ts';
import { XfrmDataPlane } from '../kernel/dataplane.ts';
import { type Events, type KernelEvent, openEvents } from '../kernel/events.ts';
import { openLinkEvents } from '../kernel/links.ts';
import { probeKernel } from '../kernel/probe.ts';
import { Routes } from '../kernel/route.ts';
import { isOurIndex, isOurReqid } from '../kernel/marks.ts';
import { openUdp } from '../kernel/sockets.ts';
import { KernelError, Xfrm } from '../kernel/xfrm.ts';
import { formatSocketAddress, type IpAddress, type SocketAddress } from './address.ts';
import { restoreAnswers, writeAnswers } from './answers-file.ts';
import { Capture } from './capture/capture.ts';
import { PolicyGroups } from './capture/groups.ts';
import { Liveness } from './capture/liveness.ts';
import type { RunningDaemon } from './commands/up.ts';
import { type Configuration, serversAtStart } from './config.ts';
import { DaemonView } from './control/view.ts';
import { decisionLog } from './decision-log.ts';
import { ControlServer } from './control/server.ts';
import { parseRrsig } from './dns/dnssec-rdata.ts';
import { EDE, TYPE } from './dns/types.ts';
import { type TrustAnchor, zonesWithoutUsableAnchor } from './dnssec/anchors.ts';
import { ValidatingResolver } from './dnssec/resolver.ts';
import type { Exchange } from './dnssec/types.ts';
import { loadIdentity, type LoadedIdentity } from './identity/identity.ts';
import type { Logger } from './log.ts';
import { IkeNegotiator, incapableNegotiator, isByGateway, type SealingPlane } from './negotiator.ts';
import { cannotListen, clockBeforeSignatures, noEsp } from './startup-checks.ts';
import { StartupError } from './startup-error.ts';
import { StrangerLookup } from './strangers.ts';
import { TrustAnchors } from './trust-anchors.ts';
import { CachedResolver } from './cache/answers.ts';
import { RrsetCache } from './cache/rrsets.ts';
import { Certificate } from './stub/certificate.ts';
import { Stub } from './stub/stub.ts';
import { upstreamSockets } from './daemon/upstream-sockets.ts';
import { bootstrapThrough } from './upstream/bootstrap.ts';
import type { UpstreamSockets } from './upstream/sockets.ts';
import { namedNow, openSurroundings } from './surroundings.ts';
import { Upstream } from './upstream/upstream.ts';

/** How long one of the network's resolvers may take to say where an encrypted one is. */
const BOOTSTRAP_MILLIS = 1_000;
/** How long a stop waits for the peers to answer our Deletes. */
const STOP_MILLIS = 1_000;
/** How often guards are looked at that may have had their time. */
const SWEEP_MILLIS = 60_000;
/** How often it is looked whether peers still answer. */
const LIVENESS_MILLIS = 5_000;
/** More than the capture ever keeps peers, so that it is the capture that says no. */
const MAX_IKE_SAS = 50_000;

/** Starts everything; throws StartupError for what the user can mend, with nothing left behind. */
export async function startDaemon(
  configuration: Configuration,
  context: { log: Logger; version: string },
): Promise<RunningDaemon> {
  const undo: (() => unknown)[] = [];
  try {
    return await start(configuration, context, undo);
  } catch (error) {
    for (const back of undo.reverse()) await back();
    throw error;
  }
}

async function start(
  configuration: Configuration,
  { log, version }: { log: Logger; version: string },
  undo: (() => unknown)[],
): Promise<RunningDaemon> {
  const identity = loadIdentity(configuration.identity);
  if (identity.generated) {
    log.info({ event: 'keysGenerated' }, 'keys were made: publish them with `holdfast record`');
  }
  let fail: (error: Error) => void = () => {};
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failed.catch(() => {});

  const routes = new Routes();
  undo.push(() => routes.close());
  const groups = new PolicyGroups(configuration.policy);
  // The policies come later, and with them what there is to get past.
  let sealed = false;
  const sockets = upstreamSockets(() => sealed);
  const resolving = openResolver(configuration, log, sockets, () => namedNow(configuration));
  undo.push(() => resolving.upstream.close());
  const surroundings = openSurroundings({
    configuration,
    upstream: resolving.upstream,
    groups,
    forgetFailures: () => {
      resolving.forgetFailures();
      capture.revoke();
    },
    sockets,
    unixNow: resolving.now,
    log,
  });
  undo.push(() => surroundings.close());
  resolving.through(exchange => surroundings.network.guard(exchange));

  const strangers = new StrangerLookup(resolving.cache, groups);
  const sealing = openSealing({
    configuration,
    identity,
    log,
    routes,
    strangers,
    undo,
    captureOf: () => capture,
    fail,
  });
  sealed = sealing.dataplane.kind === 'xfrm';
  const capture: Capture = new Capture({
    lookup: resolving.cache,
    groups,
    negotiator: sealing.negotiator,
    blocks: sealing.blocks,
    local: { isOurs: address => routes.to(address.bytes).kind === 'local', sourceFor: sourceBy(routes) },
    gateways: configuration.policy.gateways,
    patienceMillis: configuration.patienceMillis,
    now: () => performance.now(),
    unixNow: () => Date.now(),
    sleep: (millis, signal) => delay(millis, undefined, { signal }).catch(() => {}),
    decided: decisionLog(log, () => performance.now()),
  });
  for (const bytes of sealing.blocked) capture.guards.adopt({ family: bytes.length === 4 ? 4 : 6, bytes });
  const liveness = new Liveness({
    list: () => capture.peers.list(),
    usage: childId => sealing.plane?.usage(childId),
    probe: sealing.probe,
  });
  const timers = [
    setInterval(
      guarded(fail, () => capture.sweep()),
      SWEEP_MILLIS,
    ),
    setInterval(
      guarded(fail, () => liveness.check()),
      LIVENESS_MILLIS,
    ),
  ];
  undo.push(() => timers.forEach(clearInterval));
  resolving.onTrustChanged(() => capture.revoke());
  resolving.observe((question, message) =>
    capture.speculations.observe(question.name, question.type, message),
  );

  const stub = new Stub({
    listen: configuration.listen,
    ...(configuration.secure && { secure: secureDoors(configuration.secure, log) }),
    access: configuration.access,
    openUdp,
    handler: surroundings.network.around((question, signal) => capture.answer(question, signal)),
    notSpecial: [
      ...resolving.anchors.map(({ name }) => name),
      ...configuration.negativeTrustAnchors,
      ...configuration.forward.map(({ zone }) => zone),
    ],
    onError: (error, question) => {
      log.error({ event: 'internalError', err: error, name: question.name.toText() }, 'answering failed');
    },
  });
  const view = new DaemonView({
    version,
    listen: () => listensAt(stub),
    identity,
    dataplane: sealing.dataplane,
    capture,
    cache: resolving.cache,
    trustAnchors: resolving.trustAnchors,
    upstream: resolving.upstream,
    network: surroundings.network,
    usage: childId => sealing.plane?.usage(childId),
    counters: () => ({
      ...prefixed('stub', stub.counters()),
      ...prefixed('cache', resolving.cache.counters()),
      ...prefixed('rrsets', resolving.rrsets.counters()),
      ...prefixed('validation', resolving.validator.counters()),
      ...prefixed('upstream', resolving.upstream.counters()),
      ...prefixed('network', surroundings.network.counters()),
      ...prefixed('ike', sealing.engine?.counters() ?? {}),
    }),
  });
  const control = new ControlServer({ path: configuration.control, backend: view, log });
  await control.start();
  undo.push(() => control.close());
  await startStub(stub, configuration);
  undo.push(() => stub.close());

  const { cache, trustAnchors } = resolving;
  const answersFile = { configuration, cache, anchors: () => trustAnchors.current(), log };
  if (configuration.cache.keepOnStop) void restoreAnswers(answersFile);
  trustAnchors.start();
  undo.push(() => trustAnchors.stop());
  tellOfUselessAnchors(resolving.anchors, log);
  const links = openLinkEvents(
    guarded(fail, event => {
      // Another route, another address of ours: what was sealed for the old one may leave in clear now.
      capture.revoke();
      surroundings.linkEvent(event);
    }),
  );
  undo.push(() => links.close());
  surroundings.network.start();
  void tellOfWrongClock(resolving, log);

  let stopping: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    timers.forEach(clearInterval);
    links.close();
    surroundings.close();
    await stub.close();
    await control.close();
    await sealing.stop();
    trustAnchors.stop();
    resolving.upstream.close();
    routes.close();
    if (configuration.cache.keepOnStop) writeAnswers(answersFile);
  };
  return {
    listen: listensAt(stub),
    dataplane: sealing.dataplane,
    failed,
    stop: () => {
      stopping ??= stop().catch(error => log.error({ event: 'stopFailed', err: error }, 'stopping failed'));
      return stopping;
    },
  };
}

/** Upstream, validation and cache: questions in, judged answers out. */
function openResolver(
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
    observe: (given: Observer) => {
      observer = given;
    },
    /** From now on questions pass what is put before the upstream. */
    through: (gate: (inner: Exchange) => Exchange) => {
      exchange = gate(upstream.exchange);
    },
  };
}

type Sealing = {
  negotiator: ConstructorParameters<typeof Capture>[0]['negotiator'];
  blocks: ConstructorParameters<typeof Capture>[0]['blocks'];
  /** Asks the peer of a pair of SAs whether it is there; without an answer its SAs go. */
  probe: (childId: number) => void;
  /** Addresses whose block an earlier run left. */
  blocked: Uint8Array[];
  dataplane: RunningDaemon['dataplane'];
  plane?: XfrmDataPlane;
  engine?: Engine;
  stop: () => Promise<void>;
};

/** The kernel and the IKE engine, or why there is neither. */
function openSealing(options: {
  configuration: Configuration;
  identity: LoadedIdentity;
  log: Logger;
  routes: Routes;
  strangers: StrangerLookup;
  undo: (() => unknown)[];
  captureOf: () => Capture;
  fail: (error: Error) => void;
}): Sealing {
  const { configuration, log, routes, strangers, undo, captureOf, fail } = options;
  const probe = probeKernel();
  const why = configuration.dataplane === 'none' ? 'the configuration says dataplane: none' : probe.why[0];
  if (configuration.dataplane === 'none' || !probe.esp4) {
    const reason = why ?? 'this kernel has no ESP';
    if (configuration.dataplane === 'xfrm') throw noEsp(reason);
    log.warn({ event: 'notSealing', why: reason }, 'nothing can be sealed here');
    return {
      negotiator: incapableNegotiator(`nothing can be sealed here: ${reason}`),
      blocks: { block: () => {}, unblock: () => {} },
      probe: () => {},
      blocked: [],
      dataplane: { kind: 'none', kernel: probe.release, why: reason },
      stop: async () => {},
    };
  }
  const { ike: port, nat } = configuration.ike.ports;
  const xfrm = Xfrm.open();
  undo.push(() => xfrm.close());
  const plane = new XfrmDataPlane(xfrm, { ikePorts: [port, nat] });
  const leftovers = plane.adoptLeftovers();
  if (leftovers.policies + leftovers.sas + leftovers.blocked.length > 0) {
    const { policies, sas, described, blocked } = leftovers;
    log.warn(
      { event: 'leftovers', policies, sas, described, blocked: blocked.length },
      'an earlier run left these',
    );
  }
  undo.push(() => plane.removeEverything());
  plane.installExemptions();

  const resync = (why: string): void => {
    captureOf().revoke();
    const { missing, exemptionsRestored, strays } = plane.resync();
    log.warn({ event: 'resync', why, missing: missing.length, exemptionsRestored, strays });
    for (const childId of missing) negotiator.close(childId, 'the kernel lost its SAs or policies');
  };
  const negotiator = new IkeNegotiator({
    plane: sealingPlane(plane),
    sourceFor: sourceBy(routes),
    lookUpStranger: (identity, remote) => strangers.lookUp(identity, remote),
    adopted: (remote, seal, name) =>
      captureOf().peers.adopt(remote, seal, name, strangers.groupOf(name, remote)),
    gone: childId => captureOf().peers.closed(childId),
    replaced: (before, after) => captureOf().peers.replaced(before, after),
    doubtful: error => {
      log.warn({ event: 'kernelRefused', err: error });
      setImmediate(guarded(fail, () => resync('the kernel refused')));
    },
    log: (level, event, detail) => log[level]({ event, ...detail }),
    now: () => performance.now(),
    later: (millis, callback) => void setTimeout(guarded(fail, callback), millis).unref(),
  });
  const engine = new Engine({
    identity: ourIdentity(options.identity),
    keys: options.identity.keys,
    limits: { ikeSas: MAX_IKE_SAS },
    random: count => new Uint8Array(randomBytes(count)),
    ports: { ike: port, natt: nat },
  });
  const ike = new IkeSockets({
    engine,
    open: socket => openUdp({ ...socket, maxDatagramOctets: 16_384 }),
    ports: { ike: port, natt: nat },
    now: () => performance.now(),
    perform: guarded(fail, effect => negotiator.perform(effect)),
  });
  negotiator.connect(ike);
  try {
    ike.start();
  } catch (error) {
    throw cannotOpenIke(error, [port, nat]);
  }
  undo.push(() => ike.close());
  const events: Events = openEvents(
    guarded(fail, event => onKernelEvent(event, { plane, negotiator, log, resync })),
    { own: [xfrm.portId] },
  );
  undo.push(() => events.close());
  const stop = async (): Promise<void> => {
    ike.act((running, now) => running.closeAll(now));
    for (let waited = 0; engine.nextDeadline() && waited < STOP_MILLIS; waited += 20) await delay(20);
    events.close();
    ike.close();
    for (const refusal of plane.removeEverything())
      log.warn({ event: 'kernelRefused', text: refusal.message });
    xfrm.close();
  };
  const blocks = {
    block: (remote: IpAddress) => plane.blocks.block(remote.bytes),
    unblock: (remote: IpAddress) => plane.blocks.unblock(remote.bytes),
  };
  return {
    negotiator,
    blocks,
    probe: childId => negotiator.probe(childId),
    blocked: leftovers.blocked,
    dataplane: { kind: 'xfrm', kernel: probe.release },
    plane,
    engine,
    stop,
  };
}

/** An error of ours in a callback from the event loop ends the daemon in order instead of tearing it down. */
function guarded<T extends unknown[]>(fail: (error: Error) => void, callback: (...args: T) => void) {
  return (...args: T): void => {
    try {
      callback(...args);
    } catch (error) {
      fail(error instanceof Error ? error : new Error(String(error)));
    }
  };
}

/** The address that packets to it leave from, as routing says. */
function sourceBy(routes: Routes): (remote: IpAddress) => IpAddress | undefined {
  return remote => {
    const route = routes.to(remote.bytes);
    return route.kind === 'unicast' ? { family: remote.family, bytes: route.source } : undefined;
  };
}

/** The engine's children as the data plane takes them. */
function sealingPlane(plane: XfrmDataPlane): SealingPlane {
  return {
    install: child =>
      plane.installPair({
        id: child.id,
        pair: { local: child.selectors.local.bytes, remote: child.selectors.remote.bytes },
        ...(isByGateway(child) && { outer: { local: child.local.bytes, remote: child.remote.bytes } }),
        mode: child.mode,
        inboundSa: child.inbound,
        outboundSa: child.outbound,
        esn: child.esn,
        ...(child.encapsulation ? { encapsulation: child.encapsulation } : {}),
      }),
    remove: childId => plane.removePair(childId),
    carry: childId => plane.carry(childId),
    stands: childId => plane.stands(childId),
  };
}

function onKernelEvent(
  event: KernelEvent,
  sealing: {
    plane: XfrmDataPlane;
    negotiator: IkeNegotiator;
    log: Logger;
    resync: (why: string) => void;
  },
): void {
  const { plane, negotiator, log, resync } = sealing;
  switch (event.kind) {
    case 'overflow':
      resync('kernel events were lost');
      return;
    case 'acquire':
      // A policy of ours without its SA: somebody removed it, and packets are being dropped.
      if (isOurReqid(event.reqid)) resync('a policy of ours met no SA');
      return;
    case 'flushed':
      resync(`somebody flushed all ${event.what}`);
      return;
    case 'policyChanged':
      if (isOurIndex(event.index)) resync('somebody changed a policy of ours');
      return;
    case 'saChanged': {
      const childId = plane.childOf(event);
      if (childId !== undefined) negotiator.close(childId, 'somebody changed its SA in the kernel');
      return;
    }
    case 'expire': {
      const childId = event.hard ? plane.childOf(event) : undefined;
      if (childId !== undefined) negotiator.close(childId, 'its SA expired');
      return;
    }
    case 'mapping':
      log.debug({ event: 'kernel.mapping', followed: plane.follow(event) });
      return;
    case 'policyExpire':
      log.debug({ event: `kernel.${event.kind}` });
  }
}

/** The doors with TLS; throws StartupError when their certificate cannot be used. */
function secureDoors(
  { tls, https, ...files }: NonNullable<Configuration['secure']>,
  log: Logger,
): NonNullable<ConstructorParameters<typeof Stub>[0]['secure']> {
  const certificate = new Certificate(
    files,
    () => performance.now(),
    error =>
      log.error({ event: 'certificateUnusable', err: error }, 'the certificate before it stays in use'),
  );
  return { tls, https, certificate: () => certificate.current() };
}

function listensAt(stub: Stub): string[] {
  const { tls, https } = stub.secureAddresses();
  return [
    ...stub.addresses().map(formatSocketAddress),
    ...tls.map(at => `tls://${formatSocketAddress(at)}`),
    ...https.map(at => `https://${formatSocketAddress(at)}/dns-query`),
  ];
}

async function startStub(stub: Stub, configuration: Configuration): Promise<void> {
  try {
    await stub.start();
  } catch (error) {
    const { address, port, syscall } = error as NodeJS.ErrnoException & { address?: string; port?: number };
    const { listen, secure } = configuration;
    const all = [...listen, ...(secure?.tls ?? []), ...(secure?.https ?? [])];
    const at = all.find(l => l.address === address && l.port === port) ?? listen[0]!;
    throw cannotListen(at, syscall === 'listen' ? 'tcp' : 'udp', error);
  }
}

/** Zones that were to be signed and count as insecure all the same; said once, because only a person can mend it. */
function tellOfUselessAnchors(anchors: readonly TrustAnchor[], log: Logger): void {
  for (const name of zonesWithoutUsableAnchor(anchors)) {
    const zone = name.toText();
    log.warn(
      { event: 'anchorUnusable', zone },
      `the trust anchors of ${zone} are of no algorithm or digest known here: the zone counts as insecure`,
    );
  }
}

/** A clock before every signature makes everything bogus; said once, because only a person can mend it. */
async function tellOfWrongClock(
  { cache, anchors, now }: Pick<ReturnType<typeof openResolver>, 'cache' | 'anchors' | 'now'>,
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

function cannotOpenIke(error: unknown, ports: number[]): unknown {
  if (!(error instanceof KernelError)) return error;
  const taken = error.code === 'EADDRINUSE';
  return new StartupError({
    what: `cannot open the IKE ports ${ports.join(' and ')}`,
    why: taken ? 'another IKE daemon has them' : error.message,
    next: taken ? 'stop it (strongSwan, libreswan), or start with --dataplane none' : 'start with sudo',
    cause: error,
  });
}

/** Our name; without one the engine goes by the address it speaks from. */
function ourIdentity({ name }: LoadedIdentity): Identity | undefined {
  return name === undefined ? undefined : { type: 'fqdn', data: new TextEncoder().encode(name) };
}

function prefixed(prefix: string, counters: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(counters).map(([name, count]) => [`${prefix}.${name}`, count]));
}
