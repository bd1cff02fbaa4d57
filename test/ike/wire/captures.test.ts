import assert from 'node:assert/strict';
import { createDecipheriv, createHmac } from 'node:crypto';
import {
  composeMessage,
  type Encrypted,
  findPayload,
  parseMessage,
  parsePayloads,
  type Payload,
} from '../../../ike/wire/payloads.ts';
import { type Capture, hex, toHex, vectorTest } from '../vectors.ts';

/**
 * Sessions of other implementations, recorded by the Wireshark project; most use ciphers that this engine never offers, so the
 * decryption here is the test's own. What this engine can do is opened by its own Opener in test/ike/crypto/seal.test.ts.
 */

vectorTest<Capture[]>(
  'every captured message is parsed, opened, and holds the known AUTH data',
  'wireshark/ikev2-decrypt.json',
  captures => {
    assert.equal(captures.length, 8);
    for (const { file, keys, expect_auth_data, messages } of captures) {
      let authSeen = false;
      for (const { hex: text, hdr } of messages) {
        const bytes = hex(text);
        const message = parseMessage(bytes);
        if (message.encrypted === undefined) {
          assert.equal(toHex(composeMessage(message.header, message.payloads)), text.toLowerCase(), file);
          continue;
        }
        const fromInitiator = (hdr.flags & 8) !== 0;
        const plaintext = decrypt(keys, fromInitiator, message.encrypted);
        const inner = parsePayloads(message.encrypted.firstPayload, plaintext);
        const auth = findPayload(inner, 'AUTH');
        if (auth !== undefined && toHex(auth.data) === expect_auth_data) authSeen = true;
        assertSensible(file, inner);
      }
      assert.ok(authSeen, `${file}: AUTH data`);
    }
  },
);

function assertSensible(file: string, payloads: Payload[]): void {
  for (const payload of payloads) {
    if (payload.kind === 'IDi' || payload.kind === 'IDr') assert.ok(payload.data.length > 0, file);
    if (payload.kind === 'TSi' || payload.kind === 'TSr') assert.ok(payload.selectors.length > 0, file);
    assert.notEqual(payload.kind, 'unknown', file);
  }
}

function decrypt(keys: Capture['keys'], fromInitiator: boolean, sealed: Encrypted): Uint8Array {
  const skE = hex(fromInitiator ? keys.sk_ei : keys.sk_er);
  const skA = hex(fromInitiator ? keys.sk_ai : keys.sk_ar);
  const { body, associatedData } = sealed;
  const aead = /-(CCM|GCM)-(\d+) with (\d+)/.exec(keys.encr);
  let padded: Uint8Array;
  if (aead !== null) {
    const tagBytes = Number(aead[3]);
    const keyBytes = Number(aead[2]) / 8;
    const nonce = Buffer.concat([skE.subarray(keyBytes), body.subarray(0, 8)]);
    const text = body.subarray(8, body.length - tagBytes);
    const name = `aes-${aead[2]}-${aead[1]!.toLowerCase()}` as 'aes-256-ccm';
    const decipher = createDecipheriv(name, skE.subarray(0, keyBytes), nonce, { authTagLength: tagBytes });
    decipher.setAuthTag(body.subarray(body.length - tagBytes));
    decipher.setAAD(associatedData, { plaintextLength: text.length });
    padded = decipher.update(text);
    decipher.final();
  } else {
    const [hash, icvBytes, checked] = keys.integ.startsWith('HMAC_SHA1_160')
      ? (['sha1', 20, true] as const)
      : keys.integ.startsWith('HMAC_SHA2_512')
        ? (['sha512', 32, true] as const)
        : keys.integ.startsWith('HMAC_SHA2_256')
          ? (['sha256', 16, true] as const)
          : (['sha1', 12, false] as const);
    const covered = Buffer.concat([associatedData, body.subarray(0, body.length - icvBytes)]);
    const icv = createHmac(hash, skA).update(covered).digest().subarray(0, icvBytes);
    if (checked) assert.equal(toHex(icv), toHex(body.subarray(body.length - icvBytes)));
    padded = decryptBlocks(keys.encr, skE, body.subarray(0, body.length - icvBytes));
  }
  return padded.subarray(0, padded.length - 1 - padded[padded.length - 1]!);
}

function decryptBlocks(encr: string, key: Uint8Array, body: Uint8Array): Uint8Array {
  if (encr.includes('CTR')) {
    const keyBytes = key.length - 4;
    const counter = Buffer.concat([key.subarray(keyBytes), body.subarray(0, 8), Buffer.from([0, 0, 0, 1])]);
    return createDecipheriv(`aes-${keyBytes * 8}-ctr`, key.subarray(0, keyBytes), counter).update(
      body.subarray(8),
    );
  }
  const [name, ivBytes] = encr.includes('3DES') ? ['des-ede3-cbc', 8] : ['aes-256-cbc', 16];
  const decipher = createDecipheriv(name as string, key, body.subarray(0, ivBytes as number));
  decipher.setAutoPadding(false);
  return Buffer.concat([decipher.update(body.subarray(ivBytes as number)), decipher.final()]);
}
