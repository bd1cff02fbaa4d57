/** One server over TCP, or over TLS: nobody off the path can forge there, so there is no more to it than asking. */
import { EDNS_OPTION } from '../dns/edns.ts';
import { UpstreamError } from './error.ts';
import {
  type Link,
  type LinkContext,
  type LinkDescription,
  type LinkQuestion,
  parseCounted,
  type Reply,
} from './link.ts';
import { composeQuery, questionEnd } from './query.ts';
import { type Dial, type StreamAsking, Streams } from './stream.ts';

export type StreamForm = { padded: boolean; counter: 'tcp' | 'tls' };

export class StreamLink implements Link {
  readonly #context: LinkContext;
  readonly #streams: Streams;
  readonly #form: StreamForm;

  constructor(dial: Dial, context: LinkContext, form: StreamForm) {
    this.#context = context;
    this.#form = form;
    this.#streams = new Streams({
      dial,
      random: context.random,
      now: context.now,
      counters: context.counters,
    });
  }

  ask({ name, type }: LinkQuestion, reply: Reply): () => void {
    const { counters } = this.#context;
    counters[this.#form.counter]++;
    let over = false;
    let asking: StreamAsking | undefined;
    asking = this.#streams.ask({
      query: composeQuery(name, type, { id: 0, keepalive: true, padded: this.#form.padded }),
      end: questionEnd(name),
      answered: octets => {
        if (over) return;
        over = true;
        const message = parseCounted(octets, counters);
        if (message === undefined)
          return reply(new UpstreamError('malformed', 'its answer is not a DNS message'));
        if (message.truncated) return reply(new UpstreamError('malformed', 'truncated even over TCP'));
        const keepalive = message.edns?.options.find(({ code }) => code === EDNS_OPTION.KEEPALIVE)?.data;
        if (keepalive?.length === 2) asking?.keepFor(((keepalive[0]! << 8) | keepalive[1]!) * 100);
        reply(message);
      },
      lost: error => {
        if (over) return;
        over = true;
        reply(error);
      },
    });
    return () => {
      over = true;
      asking.giveUp();
    };
  }

  close(): void {
    this.#streams.close();
  }

  describe(): LinkDescription {
    return { connections: this.#streams.open };
  }
}
