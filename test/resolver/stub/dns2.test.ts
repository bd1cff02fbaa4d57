/** dns2, which shares no code with us, as a client of the stub and as a server to the upstream. */
import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import test from 'node:test';
import dns2 from 'dns2';
import { openUdp } from '../../../kernel/sockets.ts';
import { parseCidr } from '../../../resolver/address.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { groupRrsets } from '../../../resolver/dns/rrset.ts';
import { RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { Stub } from '../../../resolver/stub/stub.ts';
import { Upstream } from '../../../resolver/upstream/upstream.ts';

const { Packet } = dns2;

test('a dns2 client asks through the stub what a dns2 server answers', async t => {
  const server = dns2.createServer({
    udp: true,
    tcp: true,
    handle: (request, send) => {
      const response = Packet.createResponseFromRequest(request);
      const [question] = request.questions;
      for (let i = 1; i <= 3; i++) {
        const record = {
          name: question!.name,
          type: Packet.TYPE.A,
          class: Packet.CLASS.IN,
          ttl: 300,
          address: `192.0.2.${i}`,
        };
        response.answers.push(record as (typeof response.answers)[number]);
      }
      send(response);
    },
  });
  const { udp } = (await server.listen({
    udp: { port: 0, address: '127.0.0.1' },
    tcp: { port: 0, address: '127.0.0.1' },
  })) as {
    udp: AddressInfo;
  };
  t.after(() => server.close());
  const upstream = new Upstream({
    servers: [{ transport: 'udp', address: { address: '127.0.0.1', port: udp.port } }],
  });
  t.after(() => upstream.close());
  const stub = new Stub({
    openUdp,
    listen: [{ address: '127.0.0.1', port: 0 }],
    access: [parseCidr('127.0.0.0/8')!],
    handler: async question => {
      const message = await upstream.exchange(question);
      return {
        rcode: message.rcode,
        authenticated: false,
        answer: groupRrsets(message.answer),
        authority: [],
      };
    },
  });
  await stub.start();
  t.after(() => stub.close());
  const { port } = stub.addresses()[0]!;
  for (const client of [
    dns2.UDPClient({ dns: '127.0.0.1', port }),
    dns2.TCPClient({ dns: '127.0.0.1', port }),
  ]) {
    const response = await client('www.example.com', 'A');
    assert.deepEqual(
      response.answers.map(({ address }) => address),
      ['192.0.2.1', '192.0.2.2', '192.0.2.3'],
    );
    assert.equal(response.header.ra, 1);
  }
  assert.equal(
    (await upstream.exchange({ name: Name.parseText('x.example'), type: TYPE.A })).rcode,
    RCODE.NOERROR,
  );
});
