/**
 * Asks the configured servers: the fastest first, the next after silence or refusal, a second one where the first is slow.
 *
 * Answers are not judged here beyond being answers: validation is `resolver/dnssec`'s.
 */
import { randomBytes } from 'node:crypto';
import type { Message } from '../dns/message.ts';
import type { Name } from '../dns/name.ts';
import { RCODE, rcodeToText, TYPE } from '../dns/types.ts';
import type { Exchange, UpstreamQuestion } from '../dnssec/types.ts';
import type { Bootstrap } from './bootstrap.ts';
import { AnsweredBy } from './answered-by.ts';
import type { Authorities } from './dial.ts';
import { UpstreamError } from './error.ts';
import type { Link, LinkContext, LinkDescription } from './link.ts';
import { openLink } from './open-link.ts';
import { Race, type RaceTimes } from './race.ts';
import { RandomSource } from './random.ts';
import { formatUpstreamServer, type UpstreamServer } from './server.ts';
import { byHealth, HedgeBudget, ServerHealth, takeProbe } from './server-health.ts';
import { plainSockets, type UpstreamSockets } from './sockets.ts';
import { type Asker, TURN_LIMITS, type Turn, type TurnLimits, Turns, zoneOf } from './turns.ts';

export type UpstreamConfig = {
  servers: readonly UpstreamServer[];
  /** Zones with resolvers of their own: the longest that holds the name counts, and nobody else is asked for it. */
  forward?: readonly { zone: Name; servers: readonly UpstreamServer[] }[];
  /** Looks up the addresses of encrypted servers that are configured by name alone. */
  bootstrap?: Bootstrap;
  /** PEM; what encrypted servers have to be vouched for by instead of the system's authorities. */
  authorities?: Authorities;
  sockets?: UpstreamSockets;
  random?: (octets: number) => Uint8Array;
  /** Milliseconds, monotonic. */
  now?: () => number;
  times?: RaceTimes;
  turns?: TurnLimits;
};

/** What `status` tells of one server. */
export type ServerStatus = LinkDescription & {
  /** As the configuration writes it. */
  server: string;
  transport: UpstreamServer['transport'];
  /** The forward zone it serves. */
  zone?: string;
  healthy: boolean;
  /** Why it is not. */
  why?: string;
  /** Smoothed, and what 95 of 100 answers came within. */
  rttMillis?: number;
  slowMillis?: number;
};

/** Patience with one server before the next is asked as well, by round; and with all of them together. Milliseconds. */
const TIMES: RaceTimes = { rounds: [400, 400, 800, 1600], total: 5000 };
/** The way to a server that is asked on its own is kept so long for the next such question. */
const ASIDE_MILLIS = 5000;

/** A server, and the way to it. */
type Asked = {
  readonly server: UpstreamServer;
  readonly text: string;
  readonly health: ServerHealth;
  readonly link: Link;
};

/** Servers that can stand for each other. */
type Group = { readonly zone: Name | undefined; servers: readonly Asked[] };

/** A question that is asked or waits for its turn. */
class Question implements Asker {
  readonly group: Group;
  race: Race<Asked, Message> | undefined;
  turn: Turn | undefined;
  over = false;
  readonly #start: (question: Question) => Race<Asked, Message>;
  readonly #finish: (outcome: Message | UpstreamError) => void;
  readonly #noPlace: (why: 'crowded' | 'slow') => UpstreamError;

  constructor(
    group: Group,
    start: (question: Question) => Race<Asked, Message>,
    finish: (outcome: Message | UpstreamError) => void,
    noPlace: (why: 'crowded' | 'slow') => UpstreamError,
  ) {
    this.group = group;
    this.#start = start;
    this.#finish = finish;
    this.#noPlace = noPlace;
  }

  begin(turn: Turn): void {
    this.turn = turn;
    this.race = this.#start(this);
    this.race.start();
  }

  get askedTwice(): boolean {
    return this.race?.askedTwice === true;
  }

  evict(why: 'crowded' | 'slow'): void {
    this.stop(this.#noPlace(why));
  }

  stop(error: UpstreamError): void {
    if (this.race === undefined) this.finish(error);
    else this.race.stop(error);
  }

  finish(outcome: Message | UpstreamError): void {
    if (this.over) return;
    this.over = true;
    this.#finish(outcome);
  }
}

/** The upstream servers together. */
export class Upstream {
  readonly #context: LinkContext;
  readonly #times: RaceTimes;
  readonly #turns: Turns;
  readonly #hedges = new HedgeBudget();
  readonly #everywhere: Group;
  readonly #forward = new Map<string, Group>();
  readonly #aside = new Map<string, { asked: Asked; users: number; end: NodeJS.Timeout | undefined }>();
  readonly #probes = new Set<() => void>();
  readonly #answeredBy = new AnsweredBy<Asked>();
  #closed = false;
  readonly #counters = {
    questions: 0,
    answers: 0,
    failures: 0,
    udp: 0,
    tcp: 0,
    tls: 0,
    https: 0,
    connections: 0,
    truncated: 0,
    foreign: 0,
    late: 0,
    flooded: 0,
    malformed: 0,
    folded: 0,
    forgedCookies: 0,
    missingCookies: 0,
    badCookies: 0,
    silent: 0,
    hedges: 0,
    probes: 0,
    rejected: 0,
    overloaded: 0,
    evicted: 0,
  };

  constructor(config: UpstreamConfig) {
    const now = config.now ?? (() => performance.now());
    this.#context = {
      sockets: config.sockets ?? plainSockets,
      random: new RandomSource(config.random ?? randomBytes),
      now,
      counters: this.#counters,
      bootstrap: config.bootstrap ?? nobodyKnows,
      authorities: config.authorities,
    };
    this.#times = config.times ?? TIMES;
    this.#turns = new Turns(config.turns ?? TURN_LIMITS, now);
    this.#everywhere = { zone: undefined, servers: this.#openAll(config.servers, []) };
    for (const { zone, servers } of config.forward ?? []) {
      this.#forward.set(zone.key, { zone, servers: this.#openAll(servers, []) });
    }
  }

  /**
   * Asks one question of class IN with RD, CD and DO; at most 5 s from the moment it is its turn.
   *
   * Resolves to an answer that says something of the name: NOERROR, NXDOMAIN or YXDOMAIN. After any other, as after
   * silence, the next server is asked, and when none is left the promise rejects with UpstreamError. Bound, so that
   * it can be handed on as a value.
   */
  readonly exchange: Exchange = (question, signal) =>
    new Promise((resolve, reject) => {
      this.#counters.questions++;
      if (this.#closed || signal?.aborted) {
        this.#counters.failures++;
        return reject(aborted());
      }
      const onAbort = () => asking.stop(aborted());
      const finish = (outcome: Message | UpstreamError) => {
        signal?.removeEventListener('abort', onAbort);
        if (asking.turn !== undefined) this.#turns.end(asking.turn);
        if (outcome instanceof UpstreamError) {
          this.#counters.failures++;
          reject(outcome);
        } else {
          this.#counters.answers++;
          resolve(outcome);
        }
      };
      const asking = new Question(
        this.#groupFor(question),
        begun => this.#race(question, begun),
        finish,
        this.#noPlace,
      );
      signal?.addEventListener('abort', onAbort, { once: true });
      const turn = this.#turns.take(zoneOf(question.name), asking);
      // Where it waits, giving up has to take it out of the queue; where it is over already, out of its place.
      asking.turn = turn;
      if (asking.over) this.#turns.end(turn);
    });

  /**
   * From now on these are asked for all that no forward zone holds. Those that stay keep their connections and times and
   * are forgiven their failures, which were perhaps the network's; what is in flight to the others is asked anew.
   */
  setServers(servers: readonly UpstreamServer[]): void {
    const before = this.#everywhere.servers;
    const after = this.#openAll(servers, before);
    this.#everywhere.servers = after;
    for (const { servers: all } of this.#groups()) for (const { health } of all) health.forgive();
    if (after.length === before.length && after.every(asked => before.includes(asked))) return;
    this.#answeredBy.clear();
    const ordered = byHealth(after, this.#context.now());
    for (const { group, race } of this.#questions()) {
      if (group === this.#everywhere) race?.replace(ordered);
    }
    for (const asked of before) if (!after.includes(asked)) asked.link.close();
  }

  /**
   * Asks one server over its transport alone, whether it is among those configured or not: for probing.
   *
   * Resolves to whatever it answers: any RCODE, also truncated (`message.truncated`; `udp` is not followed by TCP
   * here). Rejects with UpstreamError `timeout`, `network`, `malformed` or `aborted`.
   */
  ask(
    server: UpstreamServer,
    { name, type }: UpstreamQuestion,
    { timeoutMillis, signal }: { timeoutMillis: number; signal?: AbortSignal },
  ): Promise<Message> {
    return new Promise((resolve, reject) => {
      if (this.#closed || signal?.aborted) return reject(aborted());
      const { link, release } = this.#linkTo(server);
      let over = false;
      let giveUp = () => {};
      const finish = (outcome: Message | UpstreamError) => {
        if (over) return;
        over = true;
        clearTimeout(end);
        this.#probes.delete(onAbort);
        signal?.removeEventListener('abort', onAbort);
        giveUp();
        release();
        if (outcome instanceof UpstreamError) reject(outcome);
        else resolve(outcome);
      };
      const onAbort = () => finish(aborted());
      const end = setTimeout(() => finish(new UpstreamError('timeout', 'no answer in time')), timeoutMillis);
      this.#probes.add(onAbort);
      signal?.addEventListener('abort', onAbort, { once: true });
      giveUp = link.ask({ name, type, again: false, alone: true }, finish);
      if (over) giveUp();
    });
  }

  /** Rejects all that is in flight with `aborted`, closes all sockets. */
  close(): void {
    this.#closed = true;
    for (const question of this.#questions()) question.stop(aborted());
    for (const stop of [...this.#probes]) stop();
    for (const { servers } of this.#groups()) for (const { link } of servers) link.close();
    for (const { asked, end } of this.#aside.values()) {
      clearTimeout(end);
      asked.link.close();
    }
    this.#aside.clear();
  }

  counters(): Record<string, number> {
    return { ...this.#counters, inFlight: this.#turns.inFlight, waiting: this.#turns.waiting };
  }

  /** Whether both questions go to the same servers. */
  readonly sameServers = (one: UpstreamQuestion, other: UpstreamQuestion): boolean =>
    this.#groupFor(one) === this.#groupFor(other);

  /** What is known about each server, for `status`: first those for everything, then those of forward zones. */
  servers(): ServerStatus[] {
    const now = this.#context.now();
    return this.#groups().flatMap(({ zone, servers }) =>
      servers.map(({ server, text, health, link }) => {
        const why = health.rejectsEdns ? 'rejects EDNS' : health.backOffUntil > now ? health.why : undefined;
        const { smoothedMillis, slowMillis } = health;
        return {
          server: text,
          transport: server.transport,
          ...(zone !== undefined && { zone: zone.toText() }),
          healthy: why === undefined,
          ...(why !== undefined && { why }),
          ...(smoothedMillis !== undefined && { rttMillis: smoothedMillis }),
          ...(slowMillis !== undefined && { slowMillis }),
          ...link.describe(),
        };
      }),
    );
  }

  #questions(): Question[] {
    return this.#turns.all().map(({ asker }) => asker as Question);
  }

  #groups(): Group[] {
    return [this.#everywhere, ...this.#forward.values()];
  }

  #openAll(servers: readonly UpstreamServer[], known: readonly Asked[]): Asked[] {
    const byText = new Map(servers.map(server => [formatUpstreamServer(server), server]));
    return [...byText].map(
      ([text, server]) => known.find(asked => asked.text === text) ?? this.#open(text, server),
    );
  }

  #open(text: string, server: UpstreamServer): Asked {
    return { server, text, health: new ServerHealth(), link: openLink(server, this.#context) };
  }

  /** Who is asked. DS belongs to the zone above the cut (RFC 4035 section 3.1.4.1), so to its servers. */
  #groupFor({ name, type }: UpstreamQuestion): Group {
    if (this.#forward.size === 0) return this.#everywhere;
    for (let labels = name.labelCount - (type === TYPE.DS ? 1 : 0); labels >= 0; labels--) {
      const found = this.#forward.get(name.suffix(labels).key);
      if (found !== undefined) return found;
    }
    return this.#everywhere;
  }

  #race(question: UpstreamQuestion, asking: Question): Race<Asked, Message> {
    const now = this.#context.now();
    const servers = byHealth(asking.group.servers, now);
    if (servers.length > 1) {
      this.#hedges.earn();
      if ((question.attempt ?? 0) > 0) putLast(servers, this.#answeredBy.whoAnswered(question));
      const probed = takeProbe(servers, servers[0]!, now);
      if (probed !== undefined) this.#probe(probed, question);
    }
    return new Race({
      servers,
      times: this.#times,
      now: this.#context.now,
      hedges: this.#hedges,
      ask: (asked, again, reply) => this.#askServer(asked, question, again, reply),
      onSilent: () => this.#counters.silent++,
      onHedge: () => this.#counters.hedges++,
      done: (outcome, by) => {
        if (by !== undefined && servers.length > 1) this.#answeredBy.note(question, by);
        asking.finish(outcome);
      },
    });
  }

  /** Asks for the sake of asking: only what it tells about the server's health is of interest. */
  #probe(asked: Asked, question: UpstreamQuestion): void {
    this.#counters.probes++;
    const stop = () => {
      clearTimeout(end);
      this.#probes.delete(stop);
      giveUp();
    };
    const end = setTimeout(stop, this.#times.total);
    let giveUp = () => {};
    this.#probes.add(stop);
    giveUp = this.#askServer(asked, question, false, stop);
  }

  /** One server's answer: usable, or an UpstreamError that says why not. */
  #askServer(
    asked: Asked,
    { name, type }: UpstreamQuestion,
    again: boolean,
    reply: (outcome: Message | UpstreamError) => void,
  ): () => void {
    const { now } = this.#context;
    const sentAt = now();
    return asked.link.ask({ name, type, again, alone: false }, outcome => {
      if (outcome instanceof UpstreamError) return reply(outcome);
      asked.health.answered(now() - sentAt, now());
      reply(this.#usable(asked.health, outcome));
    });
  }

  #usable(health: ServerHealth, message: Message): Message | UpstreamError {
    const { rcode } = message;
    // What an OPT provokes in a server or middlebox that does not know it (RFC 6891 section 7). Asking again without
    // EDNS would bring an answer, but one that nobody can validate.
    const rejectsEdns = rcode === RCODE.FORMERR || rcode === RCODE.NOTIMP || rcode === RCODE.BADVERS;
    if (rejectsEdns || message.edns !== undefined) health.rejectsEdns = rejectsEdns;
    if (rejectsEdns) {
      this.#counters.rejected++;
      const text = `rejects EDNS, without which there is no DNSSEC (${rcodeToText(rcode)})`;
      return new UpstreamError('no-edns', text);
    }
    if (rcode === RCODE.NOERROR || rcode === RCODE.NXDOMAIN || rcode === RCODE.YXDOMAIN) return message;
    this.#counters.rejected++;
    const code = rcode === RCODE.REFUSED ? 'refused' : 'servfail';
    return new UpstreamError(code, `answers ${rcodeToText(rcode)}`);
  }

  readonly #noPlace = (why: 'crowded' | 'slow'): UpstreamError => {
    if (why === 'crowded') {
      this.#counters.overloaded++;
      return new UpstreamError('overload', 'too many questions are waiting for the upstream servers');
    }
    this.#counters.evicted++;
    return new UpstreamError(
      'overload',
      'given up for the sake of others: no server answered it soon enough',
    );
  };

  /** The way to a server that may be none of those configured. */
  #linkTo(server: UpstreamServer): { link: Link; release: () => void } {
    const text = formatUpstreamServer(server);
    for (const { servers } of this.#groups()) {
      const known = servers.find(asked => asked.text === text);
      if (known !== undefined) return { link: known.link, release: () => {} };
    }
    let entry = this.#aside.get(text);
    if (entry === undefined) {
      entry = { asked: this.#open(text, server), users: 0, end: undefined };
      this.#aside.set(text, entry);
    }
    const { asked } = entry;
    const kept = entry;
    kept.users++;
    clearTimeout(kept.end);
    const release = () => {
      if (--kept.users > 0 || this.#closed) return;
      kept.end = setTimeout(() => {
        this.#aside.delete(text);
        asked.link.close();
      }, ASIDE_MILLIS);
      kept.end.unref();
    };
    return { link: asked.link, release };
  }
}

function putLast(servers: Asked[], last: Asked | undefined): void {
  const at = last === undefined ? -1 : servers.indexOf(last);
  if (at >= 0) servers.push(...servers.splice(at, 1));
}

function aborted(): UpstreamError {
  return new UpstreamError('aborted', 'nobody waits any more');
}

const nobodyKnows: Bootstrap = async name => {
  throw new UpstreamError('network', `no address of ${name} is configured`);
};
