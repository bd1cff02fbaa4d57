import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import type { IpAddress } from '../types.ts';

/**
 * Stateless cookies (RFC 7296 §2.6): version ‖ HMAC(secret, Ni ‖ IPi ‖ SPIi), the secret changed every minute under
 * load, the one before it still good. Nothing is remembered about who got one.
 */
export class Cookies {
  #random: (bytes: number) => Uint8Array;
  #current: Secret | undefined;
  #previous: Secret | undefined;

  constructor(random: (bytes: number) => Uint8Array) {
    this.#random = random;
  }

  make(about: CookieSubject, now: number): Uint8Array {
    this.#rotate(now);
    if (!this.#current) {
      this.#current = { version: 1, key: createSecretKey(this.#random(32)), since: now };
    }
    return compute(this.#current, about);
  }

  check(cookie: Uint8Array, about: CookieSubject, now: number): boolean {
    this.#rotate(now);
    return [this.#current, this.#previous].some(secret => {
      if (secret?.version !== cookie[0] || !secret) return false;
      const expected = compute(secret, about);
      return expected.length === cookie.length && timingSafeEqual(expected, cookie);
    });
  }

  #rotate(now: number): void {
    const current = this.#current;
    if (!current || now - current.since < rotationMillis) return;
    this.#previous = now - current.since < 2 * rotationMillis ? current : undefined;
    this.#current = {
      version: (current.version + 1) & 0xff,
      key: createSecretKey(this.#random(32)),
      since: now,
    };
  }
}

export type CookieSubject = { nonce: Uint8Array; address: IpAddress; spiInitiator: bigint };

type Secret = { version: number; key: KeyObject; since: number };

const rotationMillis = 60_000;

function compute(secret: Secret, { nonce, address, spiInitiator }: CookieSubject): Uint8Array {
  const spi = Buffer.alloc(8);
  spi.writeBigUInt64BE(spiInitiator);
  const mac = createHmac('sha256', secret.key)
    .update(Uint8Array.of(nonce.length >> 8, nonce.length))
    .update(nonce)
    .update(address.bytes)
    .update(spi)
    .digest();
  return Buffer.concat([Uint8Array.of(secret.version), mac]);
}
