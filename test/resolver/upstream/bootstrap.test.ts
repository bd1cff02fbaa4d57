import assert from 'node:assert/strict';
import test from 'node:test';
import { parseMessage } from '../../../resolver/dns/message.ts';
import type { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { bootstrapThrough } from '../../../resolver/upstream/bootstrap.ts';
import { respond } from './fake-server.ts';

const A = (data: string) => ({ type: 'A', name: 'dns.example', ttl: 300, data });
const AAAA = (data: string) => ({ type: 'AAAA', name: 'dns.example', ttl: 300, data });

function answering(byServer: Record<string, { [type: number]: object[] } | undefined>) {
  const asked: string[] = [];
  const ask = async (server: string, { name, type }: { name: Name; type: number }) => {
    asked.push(`${server} ${type}`);
    const records = byServer[server];
    if (records === undefined) throw new Error('no answer');
    const question = { name: name.toText().replace(/\.$/, ''), type: type === TYPE.A ? 'A' : 'AAAA' };
    return parseMessage(
      respond({ id: 1, questions: [question] } as never, { answers: records[type] ?? [] } as never),
    );
  };
  return { asked, ask };
}

test('the first of the network’s resolvers that knows an address is believed, for a few seconds', async () => {
  let now = 0;
  const { asked, ask } = answering({
    one: undefined,
    two: {
      [TYPE.A]: [{ type: 'CNAME', name: 'dns.example', ttl: 1, data: 'x.example' }, A('192.0.2.1')],
      [TYPE.AAAA]: [AAAA('2001:db8::1')],
    },
    three: { [TYPE.A]: [A('192.0.2.3')] },
  });
  const bootstrap = bootstrapThrough(
    () => ['one', 'two', 'three'],
    ask,
    () => now,
  );
  assert.deepEqual(await Promise.all([bootstrap('dns.example'), bootstrap('dns.example')]), [
    ['192.0.2.1', '2001:db8::1'],
    ['192.0.2.1', '2001:db8::1'],
  ]);
  assert.deepEqual(asked, ['one 1', 'one 28', 'two 1', 'two 28']);
  await bootstrap('dns.example');
  assert.equal(asked.length, 4);
  now = 5_000;
  await bootstrap('dns.example');
  assert.equal(asked.length, 8);
});

test('when nobody knows, it says so and what to do, and asks anew the next time', async () => {
  const { asked, ask } = answering({ one: {} });
  const bootstrap = bootstrapThrough(
    () => ['one'],
    ask,
    () => 0,
  );
  for (let i = 1; i <= 2; i++) {
    await assert.rejects(
      bootstrap('dns.example'),
      /no address of dns\.example: .*know none; write one behind it with #/,
    );
    assert.equal(asked.length, 2 * i);
  }
  const alone = bootstrapThrough(
    () => [],
    ask,
    () => 0,
  );
  await assert.rejects(alone('dns.example'), /the network names no resolver/);
});
