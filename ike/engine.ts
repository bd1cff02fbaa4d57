import { addressText, endpointText } from './engine/addresses.ts';
import { completeConfig, type EngineConfig } from './engine/config.ts';
import { Core, info } from './engine/core.ts';
import { createdChildInstalled } from './engine/create-child.ts';
import { receive } from './engine/dispatch.ts';
import { authenticate, initiate } from './engine/initiator.ts';
import * as initiatorAuth from './engine/initiator-auth.ts';
import { close, probe } from './engine/informational.ts';
import * as responderAuth from './engine/responder-auth.ts';
import type { ExpectedPeer, IkeSa } from './engine/sa.ts';
import { expire } from './engine/timers.ts';
import type { Effect, Endpoint, Hosts, IkeSaInfo, IpAddress } from './types.ts';
import { ExchangeType } from './wire/numbers.ts';

export type { EngineConfig } from './engine/config.ts';
export type { Found } from './engine/responder-auth.ts';
export type { ExpectedPeer } from './engine/sa.ts';

/**
 * IKEv2 for host-to-host Child SAs, both roles (RFC 7296, 7383, 7427, 8420), without any IO.
 *
 * Every method takes the time (monotonic milliseconds) and returns what is to be done, in order. Nothing waits inside,
 * so nothing interleaves; randomness is injected, so a handshake replays exactly. A message is verified completely
 * before it changes anything. Whatever comes from the network is counted, never thrown.
 */
export class Engine {
  #core: Core;

  constructor(config: EngineConfig) {
    this.#core = new Core(completeConfig(config));
  }

  /**
   * Begin with this host: IKE_SA_INIT goes out at once, IKE_AUTH waits for authenticate().
   *
   * `protects`: the host is a gateway, and the Child SA carries the traffic of these two, in tunnel mode: the host
   * behind it, and the address of ours that packets to that host leave from. Both of one family.
   * Ends in exactly one `established` or `failed` with this requestId. Throws RangeError for a requestId in use.
   */
  initiate(
    request: { requestId: number; local: IpAddress; remote: IpAddress; protects?: Hosts },
    now: number,
  ): Effect[] {
    return this.#run(now, core => initiate(core, request));
  }

  /** Whom to expect; before or after IKE_SA_INIT is answered. Ignored for a request that has ended. */
  authenticate(requestId: number, peer: ExpectedPeer, now: number): Effect[] {
    return this.#run(now, core => authenticate(core, requestId, peer));
  }

  cancel(requestId: number, now: number): Effect[] {
    return this.#run(now, core => initiatorAuth.cancel(core, requestId));
  }

  /** A UDP payload as it came, with its non-ESP marker on port 4500. The bytes may be reused afterwards. */
  receive(datagram: { data: Uint8Array; local: Endpoint; remote: Endpoint }, now: number): Effect[] {
    const { local, remote } = datagram;
    return this.#runGuarded(
      now,
      () => ({ remote: endpointText(remote) }),
      core => receive(core, datagram.data, { local, remote }),
    );
  }

  /** Do what is due. Call it at nextDeadline(); calling it more often harms nothing. */
  tick(now: number): Effect[] {
    return this.#runGuarded(now, () => ({ during: 'tick' }), expire);
  }

  nextDeadline(): { at: number; why: string } | undefined {
    return this.#core.deadlines.next();
  }

  /** The answer to a lookupKeys effect; ignored when the peer is gone by now. */
  keysFound(lookup: number, found: responderAuth.Found, now: number): Effect[] {
    return this.#runGuarded(
      now,
      () => ({ lookup }),
      core => {
        const sa = core.lookups.get(lookup);
        core.lookups.delete(lookup);
        if (!sa?.handshake) return;
        if (sa.handshake.role === 'responder') responderAuth.keysFound(core, sa, sa.handshake, found);
        else initiatorAuth.otherNameFound(core, sa, sa.handshake, 'keys' in found ? found.keys : []);
      },
    );
  }

  /** The answer to an installChildSa effect: undefined, or why the kernel would not have it. */
  childInstalled(childId: number, error: string | undefined, now: number): Effect[] {
    return this.#runGuarded(
      now,
      () => ({ childId }),
      core => {
        const sa = core.installing.get(childId);
        core.installing.delete(childId);
        if (sa?.pending?.child.id !== childId) return;
        if (sa.pending.exchangeType === ExchangeType.CREATE_CHILD_SA) createdChildInstalled(core, sa, error);
        else if (sa.role === 'initiator') initiatorAuth.authChildInstalled(core, sa, error);
        else responderAuth.authChildInstalled(core, sa, error);
      },
    );
  }

  /** Is this peer still there? No answer closes its IKE SA ("no answer from the peer"). */
  probe(ikeSaId: number, now: number): Effect[] {
    return this.#run(now, core => {
      const sa = core.sas.get(ikeSaId);
      if (sa) probe(core, sa);
    });
  }

  /** Remove its Child SAs, tell `closed`, send DELETE. */
  close(ikeSaId: number, now: number): Effect[] {
    return this.#run(now, core => {
      const sa = core.sas.get(ikeSaId);
      if (sa) close(core, sa, 'closed by us');
    });
  }

  /** Cancel every request and close every SA. Keep receiving and ticking while nextDeadline() is there, if you can. */
  closeAll(now: number): Effect[] {
    return this.#run(now, core => {
      for (const requestId of [...core.attempts.keys()]) initiatorAuth.cancel(core, requestId);
      for (const sa of [...core.sas.values()]) {
        if (sa.announced || sa.pending || sa.state === 'rekeyed') close(core, sa, 'shutting down');
        else if (sa.state !== 'deleting' && sa.state !== 'cancelling') core.free(sa, 'shutting down');
      }
    });
  }

  /** The established ones. */
  ikeSas(): IkeSaInfo[] {
    return [...this.#core.sas.values()].filter(sa => sa.announced).map(info);
  }

  /** Counts since the start, and how much is being kept right now. */
  counters(): Record<string, number> {
    const { counters, sas, attempts, lookups, installing, halfOpen } = this.#core;
    return {
      ...counters.values(),
      nowIkeSas: sas.size,
      nowHalfOpen: halfOpen,
      nowRequests: attempts.size,
      nowLookups: lookups.size,
      nowInstalling: installing.size,
    };
  }

  /** For a log line or a status page: every SA with its state, none of its keys. */
  describe(): { id: number; role: string; state: string; remote: string; children: number; age: number }[] {
    const { sas, now } = this.#core;
    return [...sas.values()].map((sa: IkeSa) => ({
      id: sa.id,
      role: sa.role,
      state: sa.state,
      remote: addressText(sa.remote.address),
      children: sa.children.length,
      age: now - sa.createdAt,
    }));
  }

  /** What throws where a peer had a hand in it is our fault; the daemon goes on, with the effects of everything before. */
  #runGuarded(now: number, about: () => Record<string, unknown>, act: (core: Core) => void): Effect[] {
    return this.#run(now, core => {
      try {
        act(core);
      } catch (error) {
        core.count('internalErrors');
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        core.log('warn', 'internalError', { ...about(), text });
      }
    });
  }

  #run(now: number, act: (core: Core) => void): Effect[] {
    const core = this.#core;
    core.now = now;
    core.effects = [];
    act(core);
    return core.effects;
  }
}
