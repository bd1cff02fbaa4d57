/** The right way for each kind of server. */
import { DatagramLink } from './datagram-link.ts';
import { dialTcp, TlsDialler } from './dial.ts';
import { HttpsLink } from './https-link.ts';
import { addressesWith, type Link, type LinkContext } from './link.ts';
import type { UpstreamServer } from './server.ts';
import { StreamLink } from './stream-link.ts';

/** Opens nothing yet: sockets come with the first question. */
export function openLink(server: UpstreamServer, context: LinkContext): Link {
  switch (server.transport) {
    case 'udp':
      return new DatagramLink(server.address, context);
    case 'tcp':
      return new StreamLink(dialTcp(context.sockets, server.address), context, {
        padded: false,
        counter: 'tcp',
      });
    case 'tls': {
      const addresses = addressesWith(context, server);
      const dialler = new TlsDialler(server, context.sockets, addresses, context.authorities);
      return new StreamLink(dialler.dial, context, { padded: true, counter: 'tls' });
    }
    case 'https':
      return new HttpsLink(server, context);
  }
}
