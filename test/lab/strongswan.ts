// Configurations for strongSwan: raw public keys from files, transport mode, or tunnel mode for a host behind it.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type KeyKind, type KeyRing, keyKinds, writeKeys } from './keys.ts';

/** A connection of one strongSwan: who it is there, by which keys, and whom it expects, by which keys. */
export type Connection = {
  name: string;
  local: { id: string; keys: `${string}-${KeyKind}`[]; addresses?: string[] };
  remote: { id: string; keys: `${string}-${KeyKind}`[]; addresses?: string[] };
  /** The one host behind this strongSwan whose traffic the Child SAs carry. */
  protects?: string;
};

/** Names of the key files of a party, all kinds. */
export function everyKey(party: string): `${string}-${KeyKind}`[] {
  return keyKinds.map(kind => `${party}-${kind}` as const);
}

/**
 * Writes folder/strongswan.conf and folder/swanctl/, as `startStrongSwan` reads them.
 *
 * @param owned rings whose private keys this strongSwan has
 * @param known rings of which it has the public keys
 */
export function writeStrongSwan(
  folder: string,
  owned: Record<string, KeyRing>,
  known: Record<string, KeyRing>,
  connections: Connection[],
): void {
  const swanctl = join(folder, 'swanctl');
  mkdirSync(join(swanctl, 'private'), { recursive: true });
  mkdirSync(join(swanctl, 'pubkey'), { recursive: true });
  for (const [party, keys] of Object.entries({ ...owned, ...known })) {
    for (const { kind, publicKey } of Object.values(keys)) {
      writeFileSync(
        join(swanctl, 'pubkey', `${party}-${kind}.pub`),
        publicKey.export({ type: 'spki', format: 'pem' }),
      );
    }
  }
  for (const [party, keys] of Object.entries(owned)) writeKeys(join(swanctl, 'private'), party, keys);
  const text = connections.map(connectionText).join('\n');
  writeFileSync(join(swanctl, 'swanctl.conf'), `connections {\n${text}}\n`);
  writeFileSync(join(folder, 'strongswan.conf'), charonText(join(folder, 'charon.log')));
}

function connectionText({ name, local, remote, protects }: Connection): string {
  const keys = (names: string[]) => names.map(key => `${key}.pub`).join(', ');
  const addresses = (list: string[] | undefined) => (list ?? ['%any']).join(', ');
  return `  ${name} {
    version = 2
    local_addrs = ${addresses(local.addresses)}
    remote_addrs = ${addresses(remote.addresses)}
    proposals = aes128gcm16-prfsha256-x25519-ecp256, aes256gcm16-prfsha384-ecp384-modp2048, aes256-sha256-modp2048, default
    mobike = no
    local {
      auth = pubkey
      id = ${local.id}
      pubkeys = ${keys(local.keys)}
    }
    remote {
      auth = pubkey
      id = ${remote.id}
      pubkeys = ${keys(remote.keys)}
    }
    children {
      ${name} {
        ${protects ? `mode = tunnel\n        local_ts = ${protects}/32` : 'mode = transport'}
        esp_proposals = aes128gcm16-esn-noesn, aes256gcm16-esn-noesn, chacha20poly1305-noesn, aes256-sha256-noesn
      }
    }
  }
`;
}

/** Only the plugins that are needed: bypass-lan, for one, would install policies that let the whole lab net through. */
function charonText(log: string): string {
  return `charon {
  load = random nonce openssl aes sha1 sha2 hmac kdf pem pkcs1 pkcs8 pubkey x509 constraints kernel-netlink socket-default vici
  install_routes = no
  install_virtual_ip = no
  rsa_pss = yes
  threads = 8
  filelog {
    log {
      path = ${log}
      default = 1
      time_format = %H:%M:%S
      time_add_ms = yes
      flush_line = yes
    }
  }
}
`;
}
