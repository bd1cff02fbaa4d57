/** One server over UDP with all that keeps forgers out, and over TCP where UDP does not do. */
import type { SocketAddress } from '../address.ts';
import { EDNS_OPTION } from '../dns/edns.ts';
import type { Message } from '../dns/message.ts';
import { RCODE } from '../dns/types.ts';
import { Cookies } from './cookies.ts';
import { dialTcp } from './dial.ts';
import { UpstreamError } from './error.ts';
import {
  type Link,
  type LinkContext,
  type LinkDescription,
  type LinkQuestion,
  parseCounted,
  type Reply,
} from './link.ts';
import { composeQuery, type Judgement, mixCase, questionEnd, restoreCase } from './query.ts';
import { StreamLink } from './stream-link.ts';
import { type UdpQuestion, UdpPorts } from './udp.ts';

/** So many questions in a row came back in another case, and only then in any: this server does not keep it. */
const FOLDS_AFTER = 3;

/** How a question is dressed. Plain is what every server understands. */
type Dress = { mixed: boolean; cookie: boolean };

export class DatagramLink implements Link {
  readonly #context: LinkContext;
  readonly #ports: UdpPorts;
  readonly #tcp: StreamLink;
  readonly #cookies: Cookies;
  /** It has kept the case of a question, or taken part in cookies: what leaves them out is not its answer. */
  #keepsCase = false;
  #folds = 0;
  /** It answers FORMERR where there is a cookie. */
  #refusesCookies = false;

  constructor(server: SocketAddress, context: LinkContext) {
    this.#context = context;
    this.#ports = new UdpPorts(server, context.sockets, context.random, context.counters);
    this.#tcp = new StreamLink(dialTcp(context.sockets, server), context, { padded: false, counter: 'tcp' });
    this.#cookies = new Cookies(octets => context.random.octets(octets));
  }

  ask(question: LinkQuestion, reply: Reply): () => void {
    const asking = new Asking(question, reply, this);
    // A server or middlebox that drops what it does not know looks dead: the second time it gets what all understand,
    // unless it has shown that it does know.
    const plain = question.again;
    asking.overUdp({
      mixed: this.#folds < FOLDS_AFTER && (!plain || this.#keepsCase),
      cookie: !this.#refusesCookies && (!plain || this.#cookies.known),
    });
    return () => asking.giveUp();
  }

  close(): void {
    this.#ports.close();
    this.#tcp.close();
  }

  describe(): LinkDescription {
    return {
      cookies: this.#cookies.known ? 'used' : 'not offered',
      mixedCase: this.#folds < FOLDS_AFTER ? 'used' : 'not kept',
      ...this.#tcp.describe(),
    };
  }

  // For Asking alone, which is one question on this link.

  get context(): LinkContext {
    return this.#context;
  }

  get ports(): UdpPorts {
    return this.#ports;
  }

  get tcp(): StreamLink {
    return this.#tcp;
  }

  get cookies(): Cookies {
    return this.#cookies;
  }

  keptCase(): void {
    this.#keepsCase = true;
    this.#folds = 0;
  }

  foldedCase(): void {
    this.#folds++;
  }

  refusedCookie(): void {
    this.#refusesCookies = true;
  }
}

/** One question, through its repetitions. */
class Asking {
  readonly #question: LinkQuestion;
  readonly #reply: Reply;
  readonly #link: DatagramLink;
  #stop: () => void = () => {};
  #over = false;
  /** What has been tried once is not tried again. */
  #badCookies = 0;
  #folded = false;

  constructor(question: LinkQuestion, reply: Reply, link: DatagramLink) {
    this.#question = question;
    this.#reply = reply;
    this.#link = link;
  }

  giveUp(): void {
    this.#over = true;
    this.#stop();
  }

  overUdp(dress: Dress): void {
    const { context, cookies, ports } = this.#link;
    const { name, type } = this.#question;
    context.counters.udp++;
    let port: ReturnType<UdpPorts['port']>;
    try {
      port = ports.port();
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      this.#finish(error);
      return;
    }
    const cookie = dress.cookie ? cookies.optionFor(port.local) : undefined;
    const query = composeQuery(name, type, { id: port.freeId(), cookie });
    if (dress.mixed) mixCase(query, name, () => context.random.uint32());
    const asked: UdpQuestion = {
      query,
      end: questionEnd(name),
      answered: (octets, judgement) => this.#answered(octets, judgement, dress, cookie),
      lost: why => (why === 'flooded' ? this.#overTcp() : this.#finish(why)),
    };
    this.#stop = () => port.giveUp(asked);
    port.ask(asked);
  }

  /** False for a forgery. */
  #answered(
    octets: Uint8Array,
    judgement: Exclude<Judgement, 'foreign'>,
    dress: Dress,
    cookie: Uint8Array | undefined,
  ): boolean {
    const { context, cookies } = this.#link;
    if (judgement === 'folded' && dress.mixed) return this.#folding(dress);
    if (judgement !== 'rejection') restoreCase(octets, this.#question.name);
    const message = parseCounted(octets, context.counters);
    // Garbled: TCP delivers what the server really said.
    if (message === undefined) return this.#elsewhere();
    if (cookie !== undefined && judgement !== 'rejection') {
      const received = message.edns?.options.find(({ code }) => code === EDNS_OPTION.COOKIE)?.data;
      const verdict = cookies.receive(cookie, received);
      if (verdict === 'forged') {
        context.counters.forgedCookies++;
        return false;
      }
      if (verdict === 'missing') {
        context.counters.missingCookies++;
        return this.#elsewhere(() => cookies.forget());
      }
    }
    if (message.rcode === RCODE.BADCOOKIE) {
      context.counters.badCookies++;
      // RFC 7873 section 5.3: once more with the cookie that came, then TCP.
      if (this.#badCookies++ === 0) this.overUdp(dress);
      else this.#overTcp();
      return true;
    }
    if (message.rcode === RCODE.FORMERR && cookie !== undefined && !cookies.known) {
      this.#withoutCookie(dress, message);
      return true;
    }
    if (dress.mixed && judgement !== 'rejection') this.#link.keptCase();
    if (this.#folded) this.#link.foldedCase();
    if (message.truncated) {
      context.counters.truncated++;
      if (!this.#question.alone) return this.#elsewhere();
    }
    this.#finish(message);
    return true;
  }

  /**
   * Another case than ours: a forger, or a server that does not keep it. Asked once more in the usual case; a forger
   * has to guess port and ID anew.
   */
  #folding(dress: Dress): boolean {
    this.#link.context.counters.folded++;
    if (this.#folded) return false;
    this.#folded = true;
    this.overUdp({ ...dress, mixed: false });
    return true;
  }

  /** FORMERR may mean EDNS or the cookie in it; what is left without the cookie is meant. */
  #withoutCookie(dress: Dress, refused: Message): void {
    this.#stop();
    const reply: Reply = outcome => {
      const message = outcome instanceof UpstreamError ? refused : outcome;
      if (message.rcode !== RCODE.FORMERR) this.#link.refusedCookie();
      this.#finish(message);
    };
    const plain = new Asking(this.#question, reply, this.#link);
    plain.overUdp({ ...dress, cookie: false });
    this.#stop = () => plain.giveUp();
  }

  /** Asks over TCP what UDP could not tell for sure; `confirmed` is called when TCP gave an answer. */
  #elsewhere(confirmed?: () => void): true {
    this.#overTcp(confirmed);
    return true;
  }

  #overTcp(confirmed?: () => void): void {
    if (this.#question.alone) {
      this.#finish(new UpstreamError('malformed', 'only forged or garbled answers came over UDP'));
      return;
    }
    this.#stop = this.#link.tcp.ask(this.#question, outcome => {
      if (!(outcome instanceof UpstreamError)) confirmed?.();
      this.#finish(outcome);
    });
  }

  #finish(outcome: Message | UpstreamError): void {
    if (this.#over) return;
    this.#over = true;
    this.#reply(outcome);
  }
}
