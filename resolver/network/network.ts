/**
 * The network that this host is on: whom it names to ask, what it lets through, and what we do about it.
 *
 * The rim round `path.ts`: timers, probes, the portal check, and the words. Nothing waits for it: questions are asked
 * over UDP from the first moment, validated as ever, and a probe that finds a better way changes whom they go to.
 */
import { isIP } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { SocketAddress } from '../address.ts';
import { Name } from '../dns/name.ts';
import { EDE, RCODE, TYPE } from '../dns/types.ts';
import { UpstreamError } from '../upstream/error.ts';
import { formatUpstreamServer, NETWORK, type UpstreamServer } from '../upstream/server.ts';
import { NetworkChanges } from './changes.ts';
import { diagnose, type PlainAnswer, type Symptom } from './diagnosis.ts';
import type { Exchange, LinkEvent, NetworkOptions } from './interfaces.ts';
import { Path, type PathEffect, type PathEvent, type PathState, type Report } from './path.ts';
import { checkPortal } from './portal.ts';
import { leadsHere, type PortalAnswer, PortalMode } from './portal-mode.ts';
import { type Findings, passes, probe } from './probe.ts';
import { doingText, type NetworkStatus, networkStatus } from './status.ts';
import { askUnprotected, lookUpUnprotected } from './unprotected.ts';

/** A network that names more is probed at these. */
const MAX_SERVERS = 4;
/** Addresses and routes come one after the other; probed when they have all come. Milliseconds. */
const SETTLED_MILLIS = 500;
const MINUTE_MILLIS = 60_000;
/** More changes of the network than this in a minute are looked at only every so often. */
const CHANGES_PER_MINUTE = 20;
const CALMER_MILLIS = 30_000;
/** So many failures in a row, with no answer between, cast doubt on the path. */
const FAILURES_OF_DOUBT = 4;
/** Of these the network itself is the cause, and asking finds out nothing new. A resolver that fails may be back at any moment. */
const HOPELESS: ReadonlySet<Symptom> = new Set([
  'drops-edns',
  'rejects-edns',
  'strips-edns',
  'strips-signatures',
  'refuses-dnssec',
  'truncates',
  'tcp-filtered',
  'loses-large',
]);
const CONTROL = Name.parseText('a.root-servers.net.');

type Answer = { rcode: number; ede?: readonly { code: number; text: string }[] };

/** The road warrior's eyes. */
export class Network {
  readonly #options: NetworkOptions;
  readonly #path = new Path();
  readonly #portal: PortalMode;
  readonly #changes: NetworkChanges;
  #named: readonly SocketAddress[];
  #timer: NodeJS.Timeout | undefined;
  #settling: NodeJS.Timeout | undefined;
  /** Since the last look around the way into the world has become another. */
  #moved = false;
  #work = new AbortController();
  #closed = false;
  #failures = 0;
  #recentChanges: number[] = [];
  #probedAt: number | undefined;
  #probeMillis: number | undefined;
  #findings: readonly Findings[] = [];
  readonly #counters = { changes: 0, probes: 0, portalChecks: 0, closed: 0 };

  /** `named`: the resolvers that the network names at the start. `addresses`: those of this host. */
  constructor(
    options: NetworkOptions,
    start: { named: readonly SocketAddress[]; addresses: readonly Uint8Array[] },
  ) {
    this.#options = options;
    this.#named = start.named;
    this.#changes = new NetworkChanges(start.addresses);
    this.#portal = new PortalMode({
      setting: options.portal,
      unprotected: options,
      mayBeClear: options.mayBeClear,
      now: options.now,
    });
  }

  /** Servers are in use when this returns; the probe goes on in the background. */
  start(): void {
    this.#changed('start', true);
  }

  close(): void {
    this.#closed = true;
    this.#work.abort();
    clearTimeout(this.#timer);
    clearTimeout(this.#settling);
  }

  /** The network names other resolvers now. */
  names(servers: readonly SocketAddress[]): void {
    this.#named = servers;
    if (!this.#options.choices.includes(NETWORK)) return;
    this.#moved = true;
    this.#changed('the network names other resolvers');
  }

  /** Something happened to a link, an address or a route; whether this may be another network. */
  linkEvent(event: LinkEvent): boolean {
    const why = this.#changes.observe(event);
    if (why === undefined) return false;
    // Addresses and links come and go with every container; names mean the same as before.
    if (event.kind === 'defaultRoute' || event.kind === 'overflow') this.#moved = true;
    // Not put off by what comes after it: there may always be more.
    if (this.#settling === undefined) {
      this.#settling = setTimeout(() => {
        this.#settling = undefined;
        this.#changed(why);
      }, this.#settlingMillis());
      this.#settling.unref();
    }
    return true;
  }

  /** Asks by `exchange` unless it is known that nothing that can be validated would come back: then says so at once. */
  guard(exchange: Exchange): Exchange {
    return async (question, signal) => {
      const { state } = this.#path;
      const hopeless =
        state.state === 'portal' || (state.state === 'closed' && HOPELESS.has(state.diagnosis.symptom));
      if (hopeless && this.#needsTrust(question.name)) {
        this.#counters.closed++;
        throw new UpstreamError('network', this.explanation()!);
      }
      const message = await exchange(question, signal);
      if (state.state === 'closed') this.#handle({ kind: 'doubted' });
      return message;
    };
  }

  /**
   * Answers by `handler`, but for the names that a portal's check asks while there is one; what fails says what the
   * network has to do with it.
   */
  around<Q extends { name: Name; type: number }, A extends Answer>(
    handler: (question: Q, signal: AbortSignal) => Promise<A>,
  ): (question: Q, signal: AbortSignal) => Promise<A | PortalAnswer> {
    return async (question, signal) => {
      const behindPortal = this.#path.state.state === 'portal';
      const unprotected = behindPortal && (await this.#portal.answer(question, this.#plainServers()));
      return unprotected || this.#explained(await handler(question, signal));
    };
  }

  #explained<A extends Answer>(answer: A): A {
    if (answer.rcode !== RCODE.SERVFAIL) {
      this.#failures = 0;
      return answer;
    }
    // What policy refuses it refuses in every network.
    if (answer.ede?.some(({ code }) => code === EDE.BLOCKED)) return answer;
    if (++this.#failures % FAILURES_OF_DOUBT === 0) this.#handle({ kind: 'doubted' });
    const text = this.explanation();
    if (text === undefined || answer.ede?.some(ede => ede.text.includes(text))) return answer;
    return { ...answer, ede: [...(answer.ede ?? []), { code: EDE.NETWORK_ERROR, text }] };
  }

  /** What is wrong with the network, and what to do; undefined when nothing is. */
  explanation(): string | undefined {
    const { state } = this.#path;
    if (state.state === 'unknown') return undefined;
    if (state.state === 'portal') return `captive portal: log in at ${state.login}`;
    const { symptom, text } = state.diagnosis;
    if (state.state === 'carries') return symptom === 'tcp-filtered' ? `this network: ${text}` : undefined;
    if (symptom === 'wrong-clock' || symptom === 'no-answer') return `this network: ${text}`;
    return `this network: ${text}; another network, or an upstream over tls:// or https://, may help`;
  }

  /** Lets a host be answered without protection for a while, because the user says so. Throws RangeError. */
  allow(host: string | undefined, millis: number): string {
    const { state } = this.#path;
    if (state.state !== 'portal')
      throw new RangeError('there is no captive portal, so nothing is to be allowed');
    const name = host ?? state.login;
    if (isIP(name))
      throw new RangeError(`the portal is at the address ${name}: no name is needed to reach it`);
    this.#portal.allow(Name.parseText(`${name.replace(/\.$/, '')}.`), millis);
    this.#options.log('warn', 'portalAllowed', { name, millis });
    return name;
  }

  status(): NetworkStatus {
    return networkStatus({
      path: this.#path,
      findings: this.#findings,
      portal: this.#portal,
      now: this.#options.now(),
      probedAt: this.#probedAt,
      probeMillis: this.#probeMillis,
    });
  }

  counters(): Record<string, number> {
    return { ...this.#counters, portalAnswers: this.#portal.answered };
  }

  /** A host whose links come and go all the time (containers) is not for ever looking around. */
  #settlingMillis(): number {
    const now = this.#options.now();
    this.#recentChanges = this.#recentChanges.filter(at => at > now - MINUTE_MILLIS);
    return this.#recentChanges.length < CHANGES_PER_MINUTE ? SETTLED_MILLIS : CALMER_MILLIS;
  }

  #changed(why: string, first: boolean = false): void {
    if (this.#closed) return;
    this.#counters.changes++;
    this.#recentChanges.push(this.#options.now());
    this.#work.abort();
    this.#work = new AbortController();
    const moved = this.#moved;
    this.#moved = false;
    if (moved) {
      this.#portal.end();
      this.#options.forgetUnproven();
    }
    const servers = this.#servers();
    this.#options.log('info', 'networkChanged', { why, servers: servers.map(formatUpstreamServer) });
    if (this.#options.probing) {
      this.#handle(moved || first ? { kind: 'changed', servers } : { kind: 'stirred' });
    } else {
      this.#options.use(servers);
      this.#options.forgetFailures();
    }
  }

  /** Those to ask, as configured and as the network names them now. */
  #servers(): UpstreamServer[] {
    const named = this.#named.slice(0, MAX_SERVERS).map(plain);
    const all = this.#options.choices.flatMap(choice => (choice === NETWORK ? named : [choice]));
    return [...new Map(all.map(server => [formatUpstreamServer(server), server])).values()];
  }

  /** Whom to ask for the way to a portal: the plain servers that are configured, else those of the network. */
  #plainServers(): SocketAddress[] {
    const configured = this.#servers().flatMap(server => ('address' in server ? [server.address] : []));
    return configured.length > 0 ? configured : this.#named.slice(0, MAX_SERVERS);
  }

  /** Whether an answer for the name would have to be validated. */
  #needsTrust(name: Name): boolean {
    const depth = (zones: readonly Name[]) =>
      Math.max(-1, ...zones.filter(zone => name.isSubdomainOf(zone)).map(({ labelCount }) => labelCount));
    return depth(this.#options.anchors.map(anchor => anchor.name)) > depth(this.#options.apart);
  }

  #handle(event: PathEvent): void {
    if (this.#closed) return;
    for (const effect of this.#path.handle(event, this.#options.now())) this.#perform(effect);
    this.#setTimer();
  }

  #setTimer(): void {
    clearTimeout(this.#timer);
    const deadline = this.#path.deadline();
    if (deadline === undefined) return;
    this.#timer = setTimeout(
      () => this.#handle({ kind: 'tick' }),
      Math.max(0, Math.ceil(deadline.at - this.#options.now())),
    );
    this.#timer.unref();
  }

  #perform(effect: PathEffect): void {
    if (effect.do === 'use') this.#options.use(effect.servers);
    else if (effect.do === 'forgetFailures') this.#options.forgetFailures();
    else if (effect.do === 'probe') void this.#probe(effect.round, this.#work.signal);
    else if (effect.do === 'checkPortal') void this.#checkPortal(effect.round, this.#work.signal);
    else this.#tell(effect.before);
  }

  async #probe(round: number, signal: AbortSignal): Promise<void> {
    this.#counters.probes++;
    const { now } = this.#options;
    const startedAt = now();
    const results = await Promise.all(this.#servers().map(server => this.#probeServer(server, signal)));
    if (signal.aborted) return;
    this.#probedAt = now();
    this.#probeMillis = this.#probedAt - startedAt;
    this.#findings = results.flatMap(({ findings }) => findings);
    this.#handle({ kind: 'probed', round, reports: results.flatMap(({ reports }) => reports) });
  }

  /** One server: a plain one over UDP and TCP at once, with a question without EDNS beside. */
  async #probeServer(
    server: UpstreamServer,
    signal: AbortSignal,
  ): Promise<{ findings: Findings[]; reports: Report[] }> {
    const setting = { ...this.#options, sleep };
    if (server.transport !== 'udp') {
      const findings = await probe(server, setting, signal);
      return { findings: [findings], reports: [reportOf(findings, undefined, undefined)] };
    }
    const settled = new AbortController();
    const plainAnswer = this.#control(server.address, AbortSignal.any([signal, settled.signal]));
    const overTcp = probe({ ...server, transport: 'tcp' }, setting, signal);
    const overUdp = await probe(server, setting, signal);
    if (passes(overUdp)) settled.abort();
    const tcp = await overTcp;
    settled.abort();
    const reports = [reportOf(overUdp, tcp, await plainAnswer), reportOf(tcp, undefined, undefined)];
    return { findings: [overUdp, tcp], reports };
  }

  async #control(server: SocketAddress, signal: AbortSignal): Promise<PlainAnswer> {
    const message = await askUnprotected(server, CONTROL, TYPE.A, this.#options, signal);
    return message === undefined ? 'none' : message.truncated ? 'truncated' : 'answer';
  }

  async #checkPortal(round: number, signal: AbortSignal): Promise<void> {
    const { check } = this.#options.portal;
    if (check === undefined) {
      // After what is being handled now, as a check that asks would be.
      await undefined;
      return this.#handle({ kind: 'portalChecked', round, finding: { kind: 'unknown' } });
    }
    this.#counters.portalChecks++;
    const lookUp = async (host: string, over: AbortSignal) => {
      const name = Name.parseText(`${host}.`);
      // The network says where: not at this host's own services, and not where policy wants a seal.
      const mayAsk = (address: string) => !leadsHere(address) && this.#options.mayBeClear(name, address);
      const of = async (type: number) =>
        (await lookUpUnprotected(this.#plainServers(), name, type, this.#options, over)).filter(mayAsk);
      const found = await of(TYPE.A);
      return found.length > 0 ? found : of(TYPE.AAAA);
    };
    const finding = await checkPortal(check, lookUp, signal);
    if (!signal.aborted) this.#handle({ kind: 'portalChecked', round, finding });
  }

  #tell(before: PathState): void {
    const { state, using } = this.#path;
    if (before.state !== state.state && [before.state, state.state].includes('portal'))
      this.#options.forgetUnproven();
    if (before.state === 'portal' && state.state !== 'portal') this.#portal.end();
    if (state.state === 'unknown') return;
    const { symptom, text } = state.diagnosis;
    const level = state.state === 'carries' && symptom === 'none' ? 'info' : 'warn';
    const login = state.state === 'portal' ? { login: state.login } : {};
    const detail = { state: state.state, symptom, text, ...login, doing: doingText(state, using) };
    this.#options.log(level, 'network', detail);
  }
}

const plain = (address: SocketAddress): UpstreamServer => ({ transport: 'udp', address });

/** A timer that keeps nobody alive. */
async function sleep(millis: number, signal: AbortSignal): Promise<void> {
  await delay(millis, undefined, { signal, ref: false }).catch(() => {});
}

function reportOf(
  findings: Findings,
  tcp: Findings | undefined,
  plainAnswer: PlainAnswer | undefined,
): Report {
  const { server, checks } = findings;
  return {
    server,
    diagnosis: diagnose(findings, tcp, plainAnswer),
    passed: checks.filter(({ passed }) => passed).length,
    checks: checks.length,
    keys: checks.some(({ kind, passed }) => kind === 'keys' && passed),
  };
}
