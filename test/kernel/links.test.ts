/** rtnetlink events of a network namespace in which links and addresses come and go, and hostile bytes. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type LinkEvent, openLinkEvents, parseLinkEvent } from '../../kernel/links.ts';
import { parseMessages } from '../../kernel/netlink.ts';
import { inOwnNamespace, ip } from './namespace.ts';

if (inOwnNamespace(import.meta.url)) {
  test('links, addresses and default routes are told as they come and go; other routes are not', async t => {
    const events: LinkEvent[] = [];
    const links = openLinkEvents(event => events.push(event));
    t.after(() => links.close());
    /** Acts, then waits until an event of the kind wanted was told. */
    const after = async (wanted: (event: LinkEvent) => boolean, ...words: string[]): Promise<LinkEvent> => {
      events.length = 0;
      ip(...words);
      for (;;) {
        const found = events.find(wanted);
        if (found) return found;
        await new Promise(resolve => setImmediate(resolve));
      }
    };
    const isLink = (event: LinkEvent) => event.kind === 'link';
    await after(isLink, 'link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'two');
    const down = await after(isLink, 'link', 'set', 'one', 'up');
    assert.equal(down.kind === 'link' && down.running, false, 'without carrier while the other end is down');
    const up = await after(event => event.kind === 'link' && event.running, 'link', 'set', 'two', 'up');
    assert.equal(up.kind, 'link');
    const isAddress = (event: LinkEvent) => event.kind === 'address' && event.address.length === 4;
    const come = await after(isAddress, 'address', 'add', '192.0.2.7/24', 'dev', 'one');
    assert.deepEqual(come.kind === 'address' && [...come.address, come.present], [192, 0, 2, 7, true]);
    const isRoute = (event: LinkEvent) => event.kind === 'defaultRoute';
    ip('route', 'add', '198.51.100.0/24', 'via', '192.0.2.1');
    const route = await after(isRoute, 'route', 'add', 'default', 'via', '192.0.2.1');
    assert.deepEqual(route.kind === 'defaultRoute' && [...route.gateway!, route.present], [
      192,
      0,
      2,
      1,
      true,
    ]);
    assert.equal(events.filter(isRoute).length, 1, 'the other route was not told');
    const left = await after(isRoute, 'route', 'del', 'default');
    assert.equal(left.kind === 'defaultRoute' && left.present, false);
    const gone = await after(isAddress, 'address', 'del', '192.0.2.7/24', 'dev', 'one');
    assert.equal(gone.kind === 'address' && gone.present, false);
    const six = await after(
      event => event.kind === 'address' && event.address.length === 16 && event.address[0] === 0x20,
      'address',
      'add',
      '2001:db8::7/64',
      'dev',
      'one',
      'nodad',
    );
    assert.equal(six.kind === 'address' && six.present, true);
    const removed = await after(isLink, 'link', 'del', 'one');
    assert.equal(removed.kind === 'link' && removed.running, false);
    assert.equal(links.dropped, 0);
  });

  test('whatever bytes come, they are an event, nothing, or counted', () => {
    const types = fc.constantFrom(16, 17, 20, 21, 24, 25, 26);
    fc.assert(
      fc.property(types, fc.uint8Array({ maxLength: 80 }), (type, payload) => {
        const event = parseLinkEvent({ type, flags: 0, sequence: 0, portId: 0, payload });
        assert.ok(event === undefined || event === 'unreadable' || typeof event.kind === 'string');
      }),
    );
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), bytes => void parseMessages(bytes)));
  });
}
