// Netlink and XFRM codecs: what is composed is parsed back, and no bytes make a parser throw or read beyond its message.
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { parseEvent } from '../../kernel/events.ts';
import {
  composeBody,
  composeMessage,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLMSG_DONE,
  NLMSG_ERROR,
  parseAttributes,
  parseError,
  parseMessages,
} from '../../kernel/netlink.ts';
import { composePolicy, composeSa, parsePolicy, parseSa } from '../../kernel/xfrm-messages.ts';
import { bytes, policy, sa } from './arbitraries.ts';

const XFRM_TYPES = Array.from({ length: 30 }, (_, i) => 16 + i);
const asMessage = (payload: Uint8Array, type = 16, flags = 0) => ({
  type,
  flags,
  sequence: 1,
  portId: 0,
  payload,
});

test('messages and attributes come back as they were composed', () => {
  const attribute = fc.record({
    type: fc.integer({ min: 1, max: 0x3fff }),
    value: fc.uint8Array({ maxLength: 90 }),
  });
  const attributes = fc.uniqueArray(attribute, { maxLength: 6, selector: ({ type }) => type });
  const message = fc.record({
    type: fc.integer({ min: 16, max: 0xffff }),
    structure: fc.uint8Array({ maxLength: 50 }),
    attributes,
  });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 5 }), list => {
      const composed = list.map((each, i) =>
        composeMessage(each.type, i, 7 + i, composeBody(each.structure, each.attributes)),
      );
      const { messages, malformed } = parseMessages(Buffer.concat(composed));
      assert.equal(malformed, 0);
      assert.equal(messages.length, list.length);
      for (const [i, { type, flags, sequence, payload }] of messages.entries()) {
        const { structure, attributes, type: wanted } = list[i]!;
        assert.deepEqual([type, flags, sequence], [wanted, i, 7 + i]);
        assert.deepEqual(Uint8Array.from(payload.subarray(0, structure.length)), structure);
        const found = parseAttributes(payload, structure.length);
        assert.deepEqual(
          [...(found ?? [])].map(([type, value]) => [type, Uint8Array.from(value)]),
          attributes.map(({ type, value }) => [type, value]),
        );
      }
    }),
  );
});

test('an SA comes back as it was composed, without its keys', () => {
  fc.assert(
    fc.property(sa, given => {
      const read = parseSa(asMessage(composeSa(given)));
      assert.ok(read);
      const { cipher, ...rest } = given;
      for (const [name, value] of Object.entries(rest))
        assert.deepEqual(read[name as keyof typeof read], value, name);
      assert.equal(read.algorithm, cipher.kind === 'aead' ? 'rfc4106(gcm(aes))' : 'cbc(aes)');
      assert.equal(read.protocol, 50);
      assert.equal(read.larval, false);
    }),
  );
});

test('a policy comes back as it was composed', () => {
  fc.assert(
    fc.property(policy, given => {
      const read = parsePolicy(asMessage(composePolicy(given)));
      assert.ok(read);
      const { template, ...rest } = given;
      const { templates, addedSeconds, usedSeconds, ...found } = read;
      assert.deepEqual(found, rest);
      assert.deepEqual(templates, template ? [template] : []);
      assert.deepEqual([addedSeconds, usedSeconds], [0, 0]);
    }),
  );
});

test('no bytes make a parser throw', () => {
  const types = fc.constantFrom(NLMSG_ERROR, NLMSG_DONE, ...XFRM_TYPES);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), types, fc.nat(0xffff), (payload, type, flags) => {
      const message = asMessage(payload, type, flags);
      parseMessages(payload);
      parseAttributes(payload, 0);
      parseError(message);
      parseEvent(message);
      parseSa(message);
      parsePolicy(message);
    }),
    { numRuns: 2000 },
  );
});

test('real messages, cut or with octets changed, are read or refused, never thrown over', () => {
  const whole = fc.oneof(sa.map(composeSa), policy.map(composePolicy));
  const change = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 });
  fc.assert(
    fc.property(whole, fc.nat(), change, fc.constantFrom(...XFRM_TYPES), (body, cut, changes, type) => {
      const hostile = Uint8Array.from(body.subarray(0, cut % (body.length + 1)));
      for (const [at, value] of changes) if (hostile.length > 0) hostile[at % hostile.length] = value;
      const message = asMessage(hostile, type);
      parseSa(message);
      parsePolicy(message);
      parseEvent(message);
    }),
    { numRuns: 2000 },
  );
});

test('a message whose length lies is counted, and what came before it is kept', () => {
  const good = composeMessage(16, 0, 1, bytes8());
  for (const length of [0, 15, 25, 0xffffffff]) {
    const bad = composeMessage(16, 0, 2, bytes8());
    new DataView(bad.buffer).setUint32(0, length, true);
    const { messages, malformed } = parseMessages(Buffer.concat([good, bad]));
    assert.deepEqual([messages.length, malformed], [1, 1], String(length));
  }
  assert.deepEqual(parseMessages(Uint8Array.of(1, 2, 3)), { messages: [], malformed: 1 });
});

test('an attribute whose length lies spoils its message', () => {
  const body = composeBody(new Uint8Array(4), [{ type: 5, value: bytes8() }]);
  assert.equal(parseAttributes(body, 4)?.get(5)?.length, 8);
  for (const length of [0, 3, 13, 0xffff]) {
    new DataView(body.buffer).setUint16(4, length, true);
    assert.equal(parseAttributes(body, 4), undefined, String(length));
  }
});

// struct nlmsgerr with EXT_ACK, written by hand after linux/netlink.h: -EINVAL, the request's header, NLMSGERR_ATTR_MSG.
test('the kernel’s own words are read from capped and from whole errors', () => {
  const text = Buffer.from('Invalid policy direction\0');
  const words = composeBody(new Uint8Array(0), [{ type: 1, value: text }]);
  const error = Buffer.alloc(4);
  error.writeInt32LE(-22);
  const request = composeMessage(19, 0, 1, bytes8());
  const capped = Buffer.concat([error, request.subarray(0, 16), words]);
  const whole = Buffer.concat([error, request, words]);
  const read = { errno: 22, extack: 'Invalid policy direction' };
  assert.deepEqual(parseError(asMessage(capped, NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS)), read);
  assert.deepEqual(parseError(asMessage(whole, NLMSG_ERROR, NLM_F_ACK_TLVS)), read);
  assert.deepEqual(parseError(asMessage(capped, NLMSG_ERROR, NLM_F_CAPPED)), { errno: 22 });
  assert.equal(parseError(asMessage(new Uint8Array(3), NLMSG_ERROR)), undefined);
});

function bytes8(): Uint8Array {
  return fc.sample(bytes(8), 1)[0]!;
}
