/** X.509 certificates for tests (RFC 5280), as little DER as they need: an authority, and servers that it vouches for. */
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';

export type Certificate = {
  /** PEM. */
  certificate: string;
  key: string;
  /** Base64 of the SHA-256 of the SPKI, as pins write it (RFC 7858 section 4.2). */
  pin: string;
};

export type Authority = { pem: string; issue(names: string[], validDays?: [number, number]): Certificate };

const der = (tag: number, ...parts: Uint8Array[]): Buffer => {
  const content = Buffer.concat(parts);
  const { length } = content;
  if (length < 128) return Buffer.concat([Buffer.from([tag, length]), content]);
  if (length < 256) return Buffer.concat([Buffer.from([tag, 0x81, length]), content]);
  return Buffer.concat([Buffer.from([tag, 0x82, length >> 8, length & 0xff]), content]);
};
const sequence = (...parts: Uint8Array[]) => der(0x30, ...parts);
const oid = (...octets: number[]) => der(0x06, Buffer.from(octets));
const octetString = (content: Uint8Array) => der(0x04, content);
const bitString = (content: Uint8Array) => der(0x03, Buffer.from([0]), content);

const ECDSA_SHA256 = sequence(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02));

const commonName = (text: string) =>
  sequence(der(0x31, sequence(oid(0x55, 0x04, 0x03), der(0x0c, Buffer.from(text)))));

const time = (days: number) => {
  const iso = new Date(Date.now() + days * 86_400_000).toISOString();
  return der(0x18, Buffer.from(`${iso.replace(/[-:T]/g, '').slice(0, 14)}Z`));
};

function compose(options: {
  issuer: string;
  subject: string;
  key: KeyObject;
  signer: KeyObject;
  days: [number, number];
  extensions: Buffer[];
}): string {
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))), // v3
    der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    ECDSA_SHA256,
    commonName(options.issuer),
    sequence(...options.days.map(time)),
    commonName(options.subject),
    options.key.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...options.extensions)),
  );
  const whole = sequence(body, ECDSA_SHA256, bitString(sign('sha256', body, options.signer)));
  const lines = whole.toString('base64').replace(/.{64}(?=.)/g, '$&\n');
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
}

/** A new authority with a name of its own. */
export function makeAuthority(name: string = `test authority ${randomBytes(4).toString('hex')}`): Authority {
  const own = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const isAuthority = sequence(
    oid(0x55, 0x1d, 0x13),
    der(0x01, Buffer.from([0xff])),
    octetString(sequence(der(0x01, Buffer.from([0xff])))),
  );
  const pem = compose({
    issuer: name,
    subject: name,
    key: own.publicKey,
    signer: own.privateKey,
    days: [-1, 10],
    extensions: [isAuthority],
  });
  return {
    pem,
    issue(names, days = [-1, 10]) {
      const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      const alternative = sequence(
        oid(0x55, 0x1d, 0x11),
        octetString(sequence(...names.map(text => der(0x82, Buffer.from(text))))),
      );
      const spki = pair.publicKey.export({ type: 'spki', format: 'der' });
      return {
        certificate: compose({
          issuer: name,
          subject: names[0] ?? 'nobody',
          key: pair.publicKey,
          signer: own.privateKey,
          days,
          extensions: [alternative],
        }),
        key: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
        pin: createHash('sha256').update(spki).digest('base64'),
      };
    },
  };
}
