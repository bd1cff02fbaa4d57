import { type ChildSuite, Encr, Group, type IkeSuite, Prf } from '../../../ike/crypto/algorithms.ts';
import { chooseSigner, ourHashAlgorithms, signAuth, signedOctets } from '../../../ike/crypto/auth.ts';
import { deriveShared, generateKeyShare } from '../../../ike/crypto/key-exchange.ts';
import { deriveIkeKeys, type IkeKeys, skeyseed, skeyseedRekey } from '../../../ike/crypto/prf.ts';
import { Opener, openMessage, Sealer, sealMessage } from '../../../ike/crypto/seal.ts';
import type { Endpoint, LocalKey } from '../../../ike/types.ts';
import { identityPayload } from '../../../ike/wire/identity.ts';
import { notify, signatureHashAlgorithms } from '../../../ike/wire/notify.ts';
import { ExchangeType, NotifyType } from '../../../ike/wire/numbers.ts';
import {
  composeMessage,
  findPayload,
  type Payload,
  parseMessage,
  parsePayloads,
} from '../../../ike/wire/payloads.ts';
import { hostSelector } from '../../../ike/wire/traffic-selectors.ts';
import { offerChild, offerIke } from '../../../ike/engine/proposals.ts';
import { fqdn, type Host, ip, keys, seeded } from './pair.ts';

/**
 * An initiator that says exactly what the test wants, authenticated or not: what our own engine never says.
 * It talks to one host directly; there is no network between.
 */
export class ScriptedPeer {
  readonly random = seeded('scripted');
  readonly suite: IkeSuite = {
    encr: Encr.AES_GCM_16,
    keyBits: 256,
    prf: Prf.HMAC_SHA2_256,
    integ: 0,
    group: Group.CURVE25519,
  };
  readonly to: Host;
  local: Endpoint = { address: ip('10.9.0.66'), port: 500 };
  spiInitiator = 0x0102030405060708n;
  spiResponder = 0n;
  messageId = 0;
  ni = this.random(32);
  nr: Uint8Array = new Uint8Array();
  share = generateKeyShare(Group.CURVE25519, this.random);
  ikeKeys!: IkeKeys;
  sealer!: Sealer;
  opener!: Opener;
  initRequest = new Uint8Array();

  constructor(to: Host) {
    this.to = to;
  }

  /** Deliver bytes; what the host sends back at once. */
  exchange(data: Uint8Array, from: Endpoint = this.local): Uint8Array[] {
    const { network, engine, address } = this.to;
    const before = network.sent.length;
    const local = { address, port: from.port === 4500 ? 4500 : 500 };
    this.to.run(engine.receive({ data, local, remote: from }, network.now));
    network.queue = [];
    return network.sent.slice(before).map(datagram => datagram.data);
  }

  composeInit(payloads: Payload[] = this.initPayloads()): Uint8Array {
    const header = {
      spiInitiator: this.spiInitiator,
      spiResponder: 0n,
      exchangeType: ExchangeType.IKE_SA_INIT,
      fromInitiator: true,
      response: false,
      messageId: 0,
    };
    return composeMessage(header, payloads);
  }

  initPayloads(): Payload[] {
    const proposal = { encr: [[20, 256]] as [number, number][], integ: [], prf: [5], groups: [31] };
    return [
      { kind: 'SA', proposals: offerIke([proposal], Group.CURVE25519) },
      { kind: 'KE', group: Group.CURVE25519, data: this.share.publicValue },
      { kind: 'NONCE', data: this.ni },
      notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED),
      signatureHashAlgorithms(ourHashAlgorithms),
    ];
  }

  /** HDR, SAi1, KEi, Ni -->  <-- HDR, SAr1, KEr, Nr */
  init(): this {
    this.initRequest = new Uint8Array(this.composeInit());
    const [answer] = this.exchange(this.initRequest);
    const message = parseMessage(answer!);
    this.spiResponder = message.header.spiResponder;
    this.nr = findPayload(message.payloads, 'NONCE')!.data;
    const shared = deriveShared(this.share, findPayload(message.payloads, 'KE')!.data);
    const { ni, nr, spiInitiator, spiResponder, suite } = this;
    this.ikeKeys = deriveIkeKeys(suite, skeyseed(suite.prf, ni, nr, shared), {
      ni,
      nr,
      spiInitiator,
      spiResponder,
    });
    this.sealer = new Sealer(suite, this.ikeKeys.initiator, this.random);
    this.opener = new Opener(suite, this.ikeKeys.responder);
    this.messageId = 1;
    return this;
  }

  authPayloads(key: LocalKey = keys.ed25519, spi = 0x1234_5678): Payload[] {
    const idi = identityPayload('IDi', fqdn('alice.example'));
    const octets = signedOctets({
      realMessage: this.initRequest,
      nonce: this.nr,
      prfId: this.suite.prf,
      skP: this.ikeKeys.initiator.skP,
      idBody: idi.body,
    });
    return [idi, signAuth(chooseSigner([key], ourHashAlgorithms)!, octets), ...this.childPayloads(spi)];
  }

  childPayloads(spi: number, suite: Partial<ChildSuite> & { integ?: number } = {}): Payload[] {
    const spiBytes = new Uint8Array(4);
    new DataView(spiBytes.buffer).setUint32(0, spi);
    const proposal = { encr: [[suite.encr ?? 20, 256]] as [number, number][], integ: [], esn: [0] };
    return [
      { kind: 'SA', proposals: offerChild([proposal], spiBytes) },
      { kind: 'TSi', selectors: [hostSelector(this.local.address.bytes)] },
      { kind: 'TSr', selectors: [hostSelector(this.to.address.bytes)] },
    ];
  }

  /** Both exchanges of a proper handshake. */
  establish(): this {
    this.init();
    this.request(ExchangeType.IKE_AUTH, this.authPayloads());
    return this;
  }

  compose(
    exchangeType: number,
    payloads: Payload[],
    messageId = this.messageId,
    response = false,
  ): Uint8Array {
    const { spiInitiator, spiResponder } = this;
    const header = { spiInitiator, spiResponder, exchangeType, fromInitiator: true, response, messageId };
    return sealMessage(header, payloads, this.sealer);
  }

  /** Send the next request; its answer's payloads, or undefined when there is none. */
  request(exchangeType: number, payloads: Payload[]): Payload[] | undefined {
    const [answer] = this.exchange(this.compose(exchangeType, payloads));
    this.messageId++;
    return answer && this.read(answer);
  }

  /** HDR, SK {SA, Ni, KEi} -->  <-- HDR, SK {SA, Nr, KEr}: who goes on in the new IKE SA; undefined when refused. */
  rekeyIke(spiInitiator: bigint): ScriptedPeer | undefined {
    const { random, suite } = this;
    const share = generateKeyShare(Group.CURVE25519, random);
    const ni = random(32);
    const spi = new Uint8Array(8);
    new DataView(spi.buffer).setBigUint64(0, spiInitiator);
    const proposal = { encr: [[20, 256]] as [number, number][], integ: [], prf: [5], groups: [31] };
    const answer = this.request(ExchangeType.CREATE_CHILD_SA, [
      { kind: 'SA', proposals: offerIke([proposal], Group.CURVE25519, spi) },
      { kind: 'NONCE', data: ni },
      { kind: 'KE', group: Group.CURVE25519, data: share.publicValue },
    ])!;
    const theirs = findPayload(answer, 'SA')?.proposals[0]?.spi;
    if (!theirs) return undefined;
    const spiResponder = new DataView(theirs.buffer, theirs.byteOffset).getBigUint64(0);
    const nr = findPayload(answer, 'NONCE')!.data;
    const shared = deriveShared(share, findPayload(answer, 'KE')!.data);
    const seed = skeyseedRekey(suite.prf, this.ikeKeys.skD, shared, ni, nr);
    const ikeKeys = deriveIkeKeys(suite, seed, { ni, nr, spiInitiator, spiResponder });
    const sealer = new Sealer(suite, ikeKeys.initiator, random);
    const opener = new Opener(suite, ikeKeys.responder);
    const fresh = new ScriptedPeer(this.to);
    return Object.assign(fresh, { random, spiInitiator, spiResponder, ikeKeys, sealer, opener });
  }

  read(answer: Uint8Array): Payload[] {
    const opened = openMessage(parseMessage(answer), this.opener);
    return parsePayloads(opened!.firstPayload, opened!.plaintext);
  }
}
