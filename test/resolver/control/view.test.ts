/** What the control socket of a whole daemon tells, where it takes more than one part to know. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { runDaemon } from '../running-daemon.ts';
import { fakeServer } from '../upstream/fake-server.ts';

test('explain asks nobody for a special name, and says so', async t => {
  const asked: (string | undefined)[] = [];
  const server = await fakeServer(({ query }) => asked.push(query.questions?.[0]?.name));
  t.after(() => server.close());
  const { client } = await runDaemon(t, server, { probe: 'none' });
  for (const name of ['localhost', 'a.localhost', 'x.onion', '1.10.in-addr.arpa']) {
    await assert.rejects(client.explain(name, 'A'), (error: Error) =>
      error.message.includes(`${name} is a special name`),
    );
  }
  // The keys of the trust anchor are asked for at the start.
  assert.deepEqual(
    asked.filter(name => name?.toLowerCase() !== 'signed.example'),
    [],
  );
});
