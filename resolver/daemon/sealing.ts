/** Sealing: the kernel and the IKE engine, between which the negotiator stands; or why there is neither. */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Engine } from '../../ike/engine.ts';
import { IkeSockets } from '../../ike/sockets.ts';
import type { Identity } from '../../ike/types.ts';
import { XfrmDataPlane } from '../../kernel/dataplane.ts';
import { type Events, type KernelEvent, openEvents } from '../../kernel/events.ts';
import { isOurIndex, isOurReqid } from '../../kernel/marks.ts';
import { probeKernel } from '../../kernel/probe.ts';
import type { Routes } from '../../kernel/route.ts';
import { openUdp } from '../../kernel/sockets.ts';
import { KernelError, Xfrm } from '../../kernel/xfrm.ts';
import type { IpAddress } from '../address.ts';
import type { Capture } from '../capture/capture.ts';
import type { RunningDaemon } from '../commands/up.ts';
import type { Configuration } from '../config.ts';
import type { LoadedIdentity } from '../identity/identity.ts';
import type { Logger } from '../log.ts';
import { IkeNegotiator, incapableNegotiator, isByGateway, type SealingPlane } from '../negotiator.ts';
import { noEsp } from '../startup-checks.ts';
import { StartupError } from '../startup-error.ts';
import type { StrangerLookup } from '../strangers.ts';
import { guarded } from './guarded.ts';

/** How long a stop waits for the peers to answer our Deletes. */
const STOP_MILLIS = 1_000;
/** More than the capture ever keeps peers, so that it is the capture that says no. */
const MAX_IKE_SAS = 50_000;

export type Sealing = {
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

/**
 * Opens the kernel, takes over or removes what an earlier run left, installs the standing exemptions and opens the IKE
 * sockets; each step's way back goes to `undo`. Throws StartupError where the configuration demands what cannot be had.
 */
export function openSealing(options: {
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

/** The address that packets to it leave from, as routing says. */
export function sourceBy(routes: Routes): (remote: IpAddress) => IpAddress | undefined {
  return remote => {
    const route = routes.to(remote.bytes);
    return route.kind === 'unicast' ? { family: remote.family, bytes: route.source } : undefined;
  };
}

/** Our name; without one the engine goes by the address it speaks from. */
function ourIdentity({ name }: LoadedIdentity): Identity | undefined {
  return name === undefined ? undefined : { type: 'fqdn', data: new TextEncoder().encode(name) };
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
