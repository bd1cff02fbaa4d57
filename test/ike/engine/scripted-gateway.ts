import { Encr, Group, type IkeSuite, Prf } from '../../../ike/crypto/algorithms.ts';
import { chooseSigner, ourHashAlgorithms, signAuth, signedOctets } from '../../../ike/crypto/auth.ts';
import { deriveShared, generateKeyShare } from '../../../ike/crypto/key-exchange.ts';
import { deriveIkeKeys, type IkeKeys, skeyseed } from '../../../ike/crypto/prf.ts';
import { Opener, openMessage, Sealer, sealMessage } from '../../../ike/crypto/seal.ts';
import { offerChild, offerIke, spiBytes } from '../../../ike/engine/proposals.ts';
import type { LocalKey } from '../../../ike/types.ts';
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
import type { TrafficSelector } from '../../../ike/wire/traffic-selectors.ts';
import { type Datagram, fqdn, type Host, ip, seeded } from './pair.ts';

/**
 * A responder that answers with whatever traffic selectors and mode the test wants, as our own engine, which is never a
 * gateway, does not. It answers one IKE SA of one host, without a network between.
 */
export class ScriptedGateway {
  readonly random = seeded('gateway');
  readonly suite: IkeSuite = {
    encr: Encr.AES_GCM_16,
    keyBits: 256,
    prf: Prf.HMAC_SHA2_256,
    integ: 0,
    group: Group.CURVE25519,
  };
  readonly address = ip('10.9.0.90');
  readonly of: Host;
  readonly key: LocalKey;
  readonly spiResponder = 0x1112_1314_1516_1718n;
  spiInitiator = 0n;
  sealer!: Sealer;
  opener!: Opener;
  #ni = new Uint8Array();
  #nr = this.random(32);
  #initResponse = new Uint8Array();
  #keys!: IkeKeys;

  constructor(of: Host, key: LocalKey) {
    this.of = of;
    this.key = key;
  }

  /** HDR, SAi1, KEi, Ni -->  <-- HDR, SAr1, KEr, Nr */
  answerInit(): this {
    const { data } = this.#take();
    const { header, payloads } = parseMessage(data);
    const share = generateKeyShare(Group.CURVE25519, this.random);
    const proposal = { encr: [[20, 256]] as [number, number][], integ: [], prf: [5], groups: [31] };
    this.spiInitiator = header.spiInitiator;
    this.#ni = new Uint8Array(findPayload(payloads, 'NONCE')!.data);
    this.#initResponse = new Uint8Array(
      composeMessage({ ...header, spiResponder: this.spiResponder, fromInitiator: false, response: true }, [
        { kind: 'SA', proposals: offerIke([proposal], Group.CURVE25519) },
        { kind: 'KE', group: Group.CURVE25519, data: share.publicValue },
        { kind: 'NONCE', data: this.#nr },
        signatureHashAlgorithms(ourHashAlgorithms),
      ]),
    );
    const shared = deriveShared(share, findPayload(payloads, 'KE')!.data);
    const { suite, spiInitiator, spiResponder } = this;
    const [ni, nr] = [this.#ni, this.#nr];
    const seed = skeyseed(suite.prf, ni, nr, shared);
    this.#keys = deriveIkeKeys(suite, seed, { ni, nr, spiInitiator, spiResponder });
    this.sealer = new Sealer(suite, this.#keys.responder, this.random);
    this.opener = new Opener(suite, this.#keys.initiator);
    this.#give(this.#initResponse);
    return this;
  }

  /** The IKE_AUTH request as it is. */
  readAuth(): Payload[] {
    return this.#read(this.#take().data);
  }

  /** <--  HDR, SK {IDr, AUTH, [N(USE_TRANSPORT_MODE),] SAr2, TSi, TSr} */
  answerAuth(answer: { tsi: TrafficSelector[]; tsr: TrafficSelector[]; transport?: boolean }): void {
    const idr = identityPayload('IDr', fqdn('bank.example'));
    const octets = signedOctets({
      realMessage: this.#initResponse,
      nonce: this.#ni,
      prfId: this.suite.prf,
      skP: this.#keys.responder.skP,
      idBody: idr.body,
    });
    const payloads: Payload[] = [
      idr,
      signAuth(chooseSigner([this.key], ourHashAlgorithms)!, octets),
      ...(answer.transport ? [notify(NotifyType.USE_TRANSPORT_MODE)] : []),
      ...this.childPayloads(0xaaaa_0001, answer.tsi, answer.tsr),
    ];
    this.#give(this.#seal(ExchangeType.IKE_AUTH, payloads, 1, true));
  }

  childPayloads(spi: number, tsi: TrafficSelector[], tsr: TrafficSelector[]): Payload[] {
    const proposal = { encr: [[20, 256]] as [number, number][], integ: [], esn: [0] };
    return [
      { kind: 'SA', proposals: offerChild([proposal], spiBytes(spi)) },
      { kind: 'TSi', selectors: tsi },
      { kind: 'TSr', selectors: tsr },
    ];
  }

  /** A request of its own, and the answer to it. */
  request(exchangeType: number, payloads: Payload[], messageId: number): Payload[] {
    this.#give(this.#seal(exchangeType, payloads, messageId, false));
    return this.#read(this.#take().data);
  }

  #take(): Datagram {
    const [datagram] = this.of.network.queue.splice(0);
    return datagram!;
  }

  #give(data: Uint8Array): void {
    const { engine, address, network } = this.of;
    const path = { local: { address, port: 500 }, remote: { address: this.address, port: 500 } };
    this.of.run(engine.receive({ data, ...path }, network.now));
  }

  #seal(exchangeType: number, payloads: Payload[], messageId: number, response: boolean): Uint8Array {
    const { spiInitiator, spiResponder } = this;
    const header = { spiInitiator, spiResponder, exchangeType, fromInitiator: false, response, messageId };
    return sealMessage(header, payloads, this.sealer);
  }

  #read(data: Uint8Array): Payload[] {
    const opened = openMessage(parseMessage(data), this.opener);
    return parsePayloads(opened!.firstPayload, opened!.plaintext);
  }
}
