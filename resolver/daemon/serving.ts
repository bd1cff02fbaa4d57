/** Serving: the doors that questions come in by, and what the control socket shows. */
import { openUdp } from '../../kernel/sockets.ts';
import { formatSocketAddress } from '../address.ts';
import type { Capture } from '../capture/capture.ts';
import type { Configuration } from '../config.ts';
import { DaemonView } from '../control/view.ts';
import type { LoadedIdentity } from '../identity/identity.ts';
import type { Logger } from '../log.ts';
import { cannotListen } from '../startup-checks.ts';
import { Certificate } from '../stub/certificate.ts';
import { Stub } from '../stub/stub.ts';
import type { Resolving } from './resolving.ts';
import type { Sealing } from './sealing.ts';
import type { Surroundings } from './surroundings.ts';

/** The stub, not yet listening; throws StartupError when the certificate of its doors with TLS cannot be used. */
export function openStub(
  configuration: Configuration,
  log: Logger,
  handler: ConstructorParameters<typeof Stub>[0]['handler'],
): Stub {
  return new Stub({
    listen: configuration.listen,
    ...(configuration.secure && { secure: secureDoors(configuration.secure, log) }),
    access: configuration.access,
    openUdp,
    handler,
    notSpecial: [
      ...configuration.trustAnchors.map(({ name }) => name),
      ...configuration.negativeTrustAnchors,
      ...configuration.forward.map(({ zone }) => zone),
    ],
    onError: (error, question) => {
      log.error({ event: 'internalError', err: error, name: question.name.toText() }, 'answering failed');
    },
  });
}

/** Throws StartupError that names the door which cannot be opened, and who has it. */
export async function startStub(stub: Stub, configuration: Configuration): Promise<void> {
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

/** Every door, as the user would write it. */
export function listensAt(stub: Stub): string[] {
  const { tls, https } = stub.secureAddresses();
  return [
    ...stub.addresses().map(formatSocketAddress),
    ...tls.map(at => `tls://${formatSocketAddress(at)}`),
    ...https.map(at => `https://${formatSocketAddress(at)}/dns-query`),
  ];
}

/** What `status`, `explain` and their kin show of the running parts. */
export function viewOf(parts: {
  version: string;
  identity: LoadedIdentity;
  stub: Stub;
  capture: Capture;
  resolving: Resolving;
  surroundings: Surroundings;
  sealing: Sealing;
}): DaemonView {
  const { version, identity, stub, capture, resolving, surroundings, sealing } = parts;
  return new DaemonView({
    version,
    listen: () => listensAt(stub),
    isSpecial: (name, type) => stub.specialAnswer(name, type) !== undefined,
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

function prefixed(prefix: string, counters: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(counters).map(([name, count]) => [`${prefix}.${name}`, count]));
}
