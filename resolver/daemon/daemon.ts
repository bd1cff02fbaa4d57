/**
 * The daemon: opens the parts in the order that keeps the promises, and closes them in order.
 *
 * Start: keys ▸ what the kernel can do ▸ leftovers of an earlier run ▸ standing exemptions ▸ IKE sockets ▸ control
 * socket ▸ listeners. Only then does the first answer leave. Stop: listeners ▸ control socket ▸ Deletes to the peers ▸
 * everything of ours out of the kernel.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { openLinkEvents } from '../../kernel/links.ts';
import { Routes } from '../../kernel/route.ts';
import { restoreAnswers, writeAnswers } from '../answers-file.ts';
import { Capture } from '../capture/capture.ts';
import { PolicyGroups } from '../capture/groups.ts';
import { Liveness } from '../capture/liveness.ts';
import type { RunningDaemon } from '../commands/up.ts';
import type { Configuration } from '../config.ts';
import { ControlServer } from '../control/server.ts';
import { decisionLog } from '../decision-log.ts';
import { loadIdentity } from '../identity/identity.ts';
import type { Logger } from '../log.ts';
import { StrangerLookup } from '../strangers.ts';
import { guarded } from './guarded.ts';
import { openResolving, tellOfUselessAnchors, tellOfWrongClock } from './resolving.ts';
import { openSealing, sourceBy } from './sealing.ts';
import { listensAt, openStub, startStub, viewOf } from './serving.ts';
import { namedNow, openSurroundings } from './surroundings.ts';
import { upstreamSockets } from './upstream-sockets.ts';

/** How often guards are looked at that may have had their time. */
const SWEEP_MILLIS = 60_000;
/** How often it is looked whether peers still answer. */
const LIVENESS_MILLIS = 5_000;

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
  const resolving = openResolving(configuration, log, sockets, () => namedNow(configuration));
  undo.push(() => resolving.upstream.close());
  const surroundings = openSurroundings({
    configuration,
    upstream: resolving.upstream,
    groups,
    forgetFailures: () => {
      resolving.forgetFailures();
      capture.revoke();
    },
    forgetUnproven: () => {
      resolving.forgetUnproven();
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

  const stub = openStub(
    configuration,
    log,
    surroundings.network.around((question, signal) => capture.answer(question, signal)),
  );
  const view = viewOf({ version, identity, stub, capture, resolving, surroundings, sealing });
  const control = new ControlServer({ path: configuration.control, backend: view, log });
  await control.start();
  undo.push(() => control.close());
  await startStub(stub, configuration);
  undo.push(() => stub.close());

  const { cache, trustAnchors } = resolving;
  const answersFile = {
    configuration,
    cache,
    anchors: () => trustAnchors.current(),
    named: () => namedNow(configuration),
    log,
  };
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
