/** Where an encrypted server is, when only its name is known: as the network's plain resolvers say. */
import { formatIpAddress } from '../address.ts';
import type { Message } from '../dns/message.ts';
import { Name } from '../dns/name.ts';
import { RCODE, TYPE } from '../dns/types.ts';
import { UpstreamError } from './error.ts';

/**
 * Looks up the addresses of a server's name. Never through ourselves: that would be waiting for our own answer.
 *
 * What comes is believed without validation, since TLS proves whose address it is. Rejects with what to do about it.
 */
export type Bootstrap = (name: string) => Promise<string[]>;

/** Asks one of the network's resolvers, all of them known to `ask`. */
export type BootstrapAsk<Server> = (
  server: Server,
  question: { name: Name; type: number },
) => Promise<Message>;

/**
 * So long addresses are used before they are looked up again: connections are opened seldom. A portal's address, or that
 * of another network, must not be tried for longer when it is gone.
 */
const KEPT_MILLIS = 5_000;
const MAX_ADDRESSES = 8;

/** A bootstrap that asks the servers that `servers` names at the time, each until one knows an address. */
export function bootstrapThrough<Server>(
  servers: () => readonly Server[],
  ask: BootstrapAsk<Server>,
  now: () => number,
): Bootstrap {
  const kept = new Map<string, { until: number; addresses: Promise<string[]> }>();
  const find = async (text: string): Promise<string[]> => {
    const name = Name.parseText(text);
    const all = servers();
    for (const server of all) {
      const answers = await Promise.allSettled([TYPE.A, TYPE.AAAA].map(type => ask(server, { name, type })));
      const found = answers.flatMap(answer =>
        answer.status === 'fulfilled' ? addressesIn(answer.value) : [],
      );
      if (found.length > 0) return found.slice(0, MAX_ADDRESSES);
    }
    const why = all.length === 0 ? 'the network names no resolver' : 'the network’s resolvers know none';
    throw new UpstreamError('network', `no address of ${text}: ${why}; write one behind it with #`);
  };
  return name => {
    const known = kept.get(name);
    if (known !== undefined && known.until > now()) return known.addresses;
    const addresses = find(name);
    kept.set(name, { until: now() + KEPT_MILLIS, addresses });
    addresses.catch(() => kept.delete(name));
    return addresses;
  };
}

function addressesIn({ rcode, answer }: Message): string[] {
  if (rcode !== RCODE.NOERROR) return [];
  return answer.flatMap(({ type, rdata, malformed }) => {
    if (malformed || (type !== TYPE.A && type !== TYPE.AAAA)) return [];
    return [formatIpAddress({ family: type === TYPE.A ? 4 : 6, bytes: rdata })];
  });
}
