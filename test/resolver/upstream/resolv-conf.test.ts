import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { canonicalAddress, parseResolvConf } from '../../../resolver/upstream/resolv-conf.ts';

const ourselves = { listen: [{ address: '127.0.0.1', port: 53 }] };

test('nameserver lines are read as resolv.conf(5) says, everything else is left alone', () => {
  const text = [
    '# made by hand',
    '; so is this',
    'search example.com',
    'options edns0 trust-ad',
    'nameserver 192.0.2.1',
    'nameserver\t2001:DB8:0:0::1  # the other',
    'nameserver fe80::1%eth0',
    ' nameserver 192.0.2.9',
    'nameservers 192.0.2.9',
    'nameserver',
    'nameserver ns.example.com',
    'nameserver 192.0.2.1',
    'nameserver 192.0.2.2\r',
  ].join('\n');
  assert.deepEqual(parseResolvConf(text, ourselves), [
    { address: '192.0.2.1', port: 53 },
    { address: '2001:db8::1', port: 53 },
    { address: 'fe80::1%eth0', port: 53 },
    { address: '192.0.2.2', port: 53 },
  ]);
});

test('never ourselves', () => {
  const own = 'nameserver 127.0.0.1\nnameserver 0.0.0.0\nnameserver ::ffff:127.0.0.1\nnameserver 127.0.0.53';
  assert.deepEqual(parseResolvConf(own, ourselves), [{ address: '127.0.0.53', port: 53 }]);
  const everywhere = { listen: [{ address: '0.0.0.0', port: 53 }], interfaceAddresses: ['192.0.2.5'] };
  assert.deepEqual(parseResolvConf(`${own}\nnameserver 192.0.2.5\nnameserver 192.0.2.6`, everywhere), [
    { address: '192.0.2.6', port: 53 },
  ]);
  const six = { listen: [{ address: '::', port: 53 }], interfaceAddresses: ['2001:db8::5'] };
  assert.deepEqual(parseResolvConf('nameserver ::1\nnameserver ::\nnameserver 2001:db8:0::5', six), []);
  // On another port we are not the one that resolv.conf means.
  const elsewhere = { listen: [{ address: '127.0.0.1', port: 5300 }] };
  assert.equal(parseResolvConf('nameserver 127.0.0.1', elsewhere).length, 1);
});

test('bounded, whatever the text', () => {
  const endless = Array.from(
    { length: 100_000 },
    (_, i) => `nameserver 10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`,
  );
  assert.equal(parseResolvConf(endless.join('\n'), ourselves).length, 8);
  fc.assert(fc.property(fc.string(), text => parseResolvConf(`nameserver ${text}`, ourselves).length <= 8));
});

test('one spelling for each address', () => {
  fc.assert(
    fc.property(fc.ipV6(), address => {
      const once = canonicalAddress(address);
      assert.equal(canonicalAddress(once), once);
      assert.equal(canonicalAddress(address.toUpperCase()), once);
    }),
  );
});
