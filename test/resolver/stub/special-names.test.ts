import assert from 'node:assert/strict';
import test from 'node:test';
import { Name } from '../../../resolver/dns/name.ts';
import { RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { specialAnswer } from '../../../resolver/stub/special-names.ts';

const ask = (text: string, type: number = TYPE.A) => specialAnswer(Name.parseText(text), type);
const data = (text: string, type: number) =>
  ask(text, type)!.answer.flatMap(({ rdatas }) => rdatas.map(rdata => [...rdata]));

test('localhost and what is below it are the loopback addresses (RFC 6761 6.3)', () => {
  for (const name of ['localhost', 'LocalHost', 'app.localhost', 'a.b.localhost']) {
    assert.deepEqual(data(name, TYPE.A), [[127, 0, 0, 1]]);
    assert.deepEqual(data(name, TYPE.AAAA), [[...Array(15).fill(0), 1]]);
    const mx = ask(name, 15)!;
    assert.equal(mx.rcode, RCODE.NOERROR);
    assert.equal(mx.answer.length, 0);
    assert.equal(mx.authority[0]!.type, TYPE.SOA);
    assert.ok(mx.authority[0]!.name.equals(Name.parseText('localhost')));
  }
  assert.ok(ask('WWW.LOCALHOST')!.answer[0]!.name.equals(Name.parseText('www.localhost')));
});

test('names that do not exist, with the SOA of their zone', () => {
  const cases: [name: string, zone: string][] = [
    ['invalid', 'invalid'],
    ['www.invalid', 'invalid'],
    ['test', 'test'],
    ['a.b.test', 'test'],
    ['duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion', 'onion'],
    ['use-application-dns.net', 'use-application-dns.net'],
    ['1.2.3.0.in-addr.arpa', '0.in-addr.arpa'],
    ['anything.alt', 'alt'],
    ['1.2.3.10.in-addr.arpa', '10.in-addr.arpa'],
    ['1.0.16.172.in-addr.arpa', '16.172.in-addr.arpa'],
    ['1.0.31.172.in-addr.arpa', '31.172.in-addr.arpa'],
    ['1.1.168.192.in-addr.arpa', '168.192.in-addr.arpa'],
    ['1.1.254.169.in-addr.arpa', '254.169.in-addr.arpa'],
    ['1.1.127.100.in-addr.arpa', '127.100.in-addr.arpa'],
    ['9.2.0.192.in-addr.arpa', '2.0.192.in-addr.arpa'],
    [`1.${'0.'.repeat(29)}d.f.ip6.arpa`, 'd.f.ip6.arpa'],
    [`1.${'0.'.repeat(28)}8.e.f.ip6.arpa`, '8.e.f.ip6.arpa'],
  ];
  for (const [name, zone] of cases) {
    const answer = ask(name)!;
    assert.equal(answer.rcode, RCODE.NXDOMAIN, name);
    assert.equal(answer.authenticated, false);
    assert.ok(answer.authority[0]!.name.equals(Name.parseText(zone)));
    const { rdatas } = answer.authority[0]!;
    assert.equal(rdatas.length, 1);
    // MNAME, RNAME and five numbers, nothing after them.
    const mname = Name.readUncompressed(rdatas[0]!, 0, rdatas[0]!.length);
    const rname = Name.readUncompressed(rdatas[0]!, mname.end, rdatas[0]!.length);
    assert.equal(rdatas[0]!.length - rname.end, 20);
  }
});

test('reverse names of loopback', () => {
  const localhost = [...Name.parseText('localhost').wire];
  assert.deepEqual(data('1.0.0.127.in-addr.arpa', TYPE.PTR), [localhost]);
  assert.deepEqual(data(`1.${'0.'.repeat(31)}ip6.arpa`, TYPE.PTR), [localhost]);
  assert.equal(ask('2.0.0.127.in-addr.arpa', TYPE.PTR)!.answer.length, 0);
  assert.equal(ask('127.in-addr.arpa', TYPE.SOA)!.answer[0]!.type, TYPE.SOA);
});

test('resolver.arpa exists and is empty (RFC 9462 6.4)', () => {
  const answer = ask('_dns.resolver.arpa', TYPE.SVCB)!;
  assert.equal(answer.rcode, RCODE.NOERROR);
  assert.equal(answer.answer.length, 0);
  assert.ok(answer.authority[0]!.name.equals(Name.parseText('resolver.arpa')));
});

test('everything else is not special: home.arpa, look-alikes', () => {
  for (const name of [
    '.',
    'printer.home.arpa',
    'nottest',
    'localhost.example.com',
    'invalid.com',
    'net',
    'application-dns.net',
    'arpa',
    'x.use-application-dns.org',
    '128.in-addr.arpa',
    'test\\.',
  ]) {
    assert.equal(ask(name), undefined, name);
  }
});

test('the empty zones of private addresses have an apex; their neighbours are asked for as ever (RFC 6303 section 3)', () => {
  const apex = ask('10.in-addr.arpa')!;
  assert.deepEqual([apex.rcode, apex.answer.length], [RCODE.NOERROR, 0]);
  assert.equal(ask('10.in-addr.arpa', TYPE.SOA)!.answer.length, 1);
  const others = ['1.1.15.172', '1.1.32.172', '1.1.63.100', '1.1.128.100', '1.1.1.11', '1.1.169.192'];
  for (const text of others) assert.equal(ask(`${text}.in-addr.arpa`, TYPE.PTR), undefined, text);
  for (const text of ['c.f.ip6.arpa', '7.e.f.ip6.arpa', 'in-addr.arpa', 'home.arpa'])
    assert.equal(ask(text, TYPE.PTR), undefined, text);
});
