/** The decision which way questions go: every transition, with a clock of its own. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Symptom } from '../../../resolver/network/diagnosis.ts';
import { choose, Path, type PathEffect, type Report } from '../../../resolver/network/path.ts';
import {
  formatUpstreamServer,
  parseUpstreamServer,
  type UpstreamServer,
} from '../../../resolver/upstream/server.ts';

const server = (text: string): UpstreamServer => parseUpstreamServer(text)!;
const UDP = server('192.0.2.1');
const UDP2 = server('192.0.2.2');
const TCP = server('tcp://192.0.2.1');
const TCP2 = server('tcp://192.0.2.2');
const TLS = server('tls://192.0.2.9#dns.example');

/** A report in which so many of five checks passed; the keys are the first. */
function report(of: UpstreamServer, passed: number, symptom?: Symptom): Report {
  const said = symptom ?? (passed === 5 ? 'none' : 'strips-signatures');
  return { server: of, diagnosis: { symptom: said, text: said }, passed, checks: 5, keys: passed > 0 };
}

const good = [report(UDP, 5), report(TCP, 5)];
const bad = [report(UDP, 0, 'drops-edns'), report(TCP, 0, 'no-answer')];
const partial = [report(UDP, 3, 'strips-proofs'), report(TCP, 3, 'strips-proofs')];
const PORTAL = { kind: 'portal', login: 'login.hotel.example' } as const;
const SECOND = 1000;

/** A path with a clock; `does` collects what it wants done, as short texts. */
class Played {
  readonly path = new Path();
  now = 0;
  round = 0;

  changed(...servers: UpstreamServer[]): string[] {
    return this.told(this.path.handle({ kind: 'changed', servers }, this.now));
  }

  probed(reports: Report[], round = this.round): string[] {
    return this.told(this.path.handle({ kind: 'probed', round, reports }, this.now));
  }

  portal(
    finding: Parameters<Path['handle']>[0] & { kind: 'portalChecked' } extends { finding: infer F }
      ? F
      : never,
  ): string[] {
    return this.told(this.path.handle({ kind: 'portalChecked', round: this.round, finding }, this.now));
  }

  tick(): string[] {
    return this.told(this.path.handle({ kind: 'tick' }, this.now));
  }

  stir(): string[] {
    return this.told(this.path.handle({ kind: 'stirred' }, this.now));
  }

  doubt(): string[] {
    return this.told(this.path.handle({ kind: 'doubted' }, this.now));
  }

  told(effects: PathEffect[]): string[] {
    return effects.map(effect => {
      if (effect.do === 'probe' || effect.do === 'checkPortal') this.round = effect.round;
      if (effect.do === 'use') return `use ${effect.servers.map(formatUpstreamServer).join(' ')}`;
      return effect.do === 'tell' ? `tell ${effect.before.state} > ${this.path.state.state}` : effect.do;
    });
  }

  /** How many seconds until the next probe, which then begins. */
  next(): number {
    const wait = this.path.deadline()!.at - this.now;
    this.now += wait;
    assert.deepEqual(this.tick(), ['probe']);
    return wait / SECOND;
  }

  /** After so many probes that find the same. */
  waits(reports: Report[], times: number): number[] {
    return Array.from({ length: times }, () => {
      this.probed(reports);
      return this.next();
    });
  }

  /** Into the portal's mode. */
  static inPortal(): Played {
    const played = new Played();
    played.changed(UDP);
    played.probed(bad);
    played.portal(PORTAL);
    return played;
  }
}

test('from the start questions go over UDP, and the probe runs beside', () => {
  const played = new Played();
  assert.deepEqual(played.changed(UDP, UDP2), ['use 192.0.2.1:53 192.0.2.2:53', 'forgetFailures', 'probe']);
  assert.equal(played.path.state.state, 'unknown');
  assert.equal(played.path.deadline(), undefined);
});

test('a probe that passes: carries, and nothing more is due', () => {
  const played = new Played();
  played.changed(UDP);
  assert.deepEqual(played.probed(good), ['use 192.0.2.1:53', 'tell unknown > carries']);
  assert.equal(played.path.deadline(), undefined);
  assert.deepEqual(played.probed(good), [], 'once only');
});

test('the order: UDP, TCP alone, TLS and HTTPS, UDP without TCP, whatever gives most; else nothing', () => {
  const chosen = (...reports: Report[]) => {
    const best = choose(reports);
    return (
      best && `${best.servers.map(formatUpstreamServer).join(' ')} ${best.whole} ${best.diagnosis.symptom}`
    );
  };
  const [tls, tcp, second] = [report(TLS, 5), report(TCP, 5), report(UDP2, 5)];
  const noTcp = report(UDP, 5, 'tcp-filtered');
  assert.equal(chosen(report(UDP, 5), tcp, second, tls), '192.0.2.1:53 192.0.2.2:53 true none');
  assert.equal(
    chosen(report(UDP, 2), tcp, second, tls),
    '192.0.2.2:53 true none',
    'a server that passes over UDP',
  );
  assert.equal(chosen(report(UDP, 1, 'loses-large'), tcp, tls), 'tcp://192.0.2.1:53 true loses-large');
  assert.equal(
    chosen(report(UDP, 0, 'drops-edns'), report(TCP, 0), tls),
    'tls://192.0.2.9#dns.example true drops-edns',
  );
  assert.equal(
    chosen(noTcp, report(TCP, 0, 'no-answer'), tls),
    'tls://192.0.2.9#dns.example true tcp-filtered',
  );
  assert.equal(chosen(noTcp, report(TCP, 0, 'no-answer')), '192.0.2.1:53 true tcp-filtered');
  assert.equal(chosen(report(UDP, 2), report(TCP, 3)), 'tcp://192.0.2.1:53 false strips-signatures');
  assert.equal(chosen(report(UDP, 3), report(TCP, 3)), '192.0.2.1:53 false strips-signatures');
  assert.equal(chosen(...bad), undefined);
  assert.equal(chosen(), undefined);
});

test('nothing comes through: closed, with the reason of a server that answers; a portal is looked for', () => {
  const played = new Played();
  played.changed(UDP, UDP2);
  const silent = [report(UDP2, 0, 'no-answer'), ...bad];
  assert.deepEqual(played.probed(silent), [
    'use 192.0.2.1:53 192.0.2.2:53',
    'forgetFailures',
    'tell unknown > closed',
    'checkPortal',
  ]);
  const { state } = played.path;
  assert.equal(state.state === 'closed' && state.diagnosis.symptom, 'drops-edns');
  assert.deepEqual(played.portal({ kind: 'open' }), []);
  assert.equal(played.path.state.state, 'closed');
});

test('no resolver at all: closed, said so', () => {
  const played = new Played();
  played.changed();
  played.probed([]);
  const { state } = played.path;
  assert.equal(state.state === 'closed' && state.diagnosis.text, 'the network names no resolver');
});

test('some comes through: impaired, on the way that gives most; a portal is looked for', () => {
  const played = new Played();
  played.changed(UDP);
  assert.deepEqual(played.probed(partial).slice(-2), ['tell unknown > impaired', 'checkPortal']);
  assert.deepEqual(played.path.using, [UDP]);
});

test('what failed is probed again after 5 s, 10 s, 20 s, then every 30 s', () => {
  const played = new Played();
  played.changed(UDP);
  const waits = Array.from({ length: 5 }, () => {
    played.probed(bad);
    played.portal({ kind: 'unknown' });
    const { at } = played.path.deadline()!;
    const wait = at - played.now;
    played.now = at - 1;
    assert.deepEqual(played.tick(), []);
    played.now = at;
    assert.deepEqual(played.tick(), ['probe']);
    return wait / SECOND;
  });
  assert.deepEqual(waits, [5, 10, 20, 30, 30]);
  assert.deepEqual(played.probed(good), ['use 192.0.2.1:53', 'forgetFailures', 'tell closed > carries']);
});

test('where something works it is probed again later and later, up to every five minutes', () => {
  const played = new Played();
  played.changed(UDP);
  const waits = Array.from({ length: 9 }, () => {
    played.probed(partial);
    played.portal({ kind: 'open' });
    const wait = played.path.deadline()!.at - played.now;
    played.now += wait;
    played.tick();
    return wait / SECOND;
  });
  assert.deepEqual(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
});

test('while probe or portal check is under way no other begins', () => {
  const played = new Played();
  played.changed(UDP);
  played.probed(bad);
  assert.equal(played.path.deadline(), undefined);
  played.now += 60 * SECOND;
  assert.deepEqual(played.tick(), []);
  assert.deepEqual(played.doubt(), []);
  played.portal({ kind: 'unknown' });
  assert.deepEqual(played.tick(), ['probe']);
});

test('a path with TCP filtered is used, and looked at again later and later, up to every ten minutes', () => {
  const played = new Played();
  played.changed(UDP);
  const noTcp = [report(UDP, 5, 'tcp-filtered'), report(TCP, 0, 'no-answer')];
  assert.deepEqual(played.waits(noTcp, 9), [5, 10, 20, 40, 80, 160, 320, 600, 600]);
  assert.equal(played.path.state.state, 'carries');
});

test('a server that fails one probe goes on being asked; after the second it is left, and comes back when it passes', () => {
  const played = new Played();
  played.changed(UDP, UDP2);
  const one = [...good, report(UDP2, 0), report(TCP2, 0)];
  assert.deepEqual(played.probed(one), ['use 192.0.2.1:53 192.0.2.2:53', 'tell unknown > carries']);
  assert.equal(played.next(), 5);
  assert.deepEqual(played.probed(one), ['use 192.0.2.1:53']);
  assert.equal(played.next(), 10);
  assert.deepEqual(played.probed([...good, report(UDP2, 5), report(TCP2, 5)]), [
    'use 192.0.2.1:53 192.0.2.2:53',
  ]);
  assert.equal(played.path.deadline(), undefined, 'nobody is missing');
});

test('a server that is missing is probed again after 5 s, 10 s, and so on up to every minute, and soon when another is', () => {
  const played = new Played();
  played.changed(UDP, UDP2);
  const one = [...good, report(UDP2, 0), report(TCP2, 0)];
  assert.deepEqual(played.waits(one, 6), [5, 10, 20, 40, 60, 60]);
  const other = [report(UDP, 0), report(TCP, 0), report(UDP2, 5), report(TCP2, 5)];
  assert.deepEqual(played.waits(other, 2), [5, 10]);
});

test('where only a less liked kind passes, the better one is probed again up to every five minutes', () => {
  const played = new Played();
  played.changed(UDP, TLS);
  const overTls = [report(UDP, 0), report(TCP, 0), report(TLS, 5)];
  assert.deepEqual(played.waits(overTls, 8), [5, 10, 20, 40, 80, 160, 300, 300]);
  assert.deepEqual(played.path.using, [TLS]);
  assert.deepEqual(played.probed([...good, report(TLS, 0)])[0], 'use 192.0.2.1:53');
  assert.equal(played.path.deadline(), undefined, 'TLS is not needed');
});

test('a silent server is never left: the upstream asks it last, and knows first when it is back', () => {
  const played = new Played();
  played.changed(UDP, UDP2);
  const silent = [...good, report(UDP2, 0, 'no-answer'), report(TCP2, 0, 'no-answer')];
  assert.deepEqual(played.waits(silent, 3), [5, 10, 20]);
  assert.deepEqual(played.path.using, [UDP, UDP2]);
});

test('where a server is missing, doubt has it looked for after five seconds', () => {
  const played = new Played();
  played.changed(UDP, UDP2);
  const one = [...good, report(UDP2, 0), report(TCP2, 0)];
  played.waits(one, 3);
  played.probed(one);
  played.now += 5 * SECOND - 1;
  assert.deepEqual(played.doubt(), []);
  played.now += 1;
  assert.deepEqual(played.doubt(), ['probe']);
});

test('a container that comes or goes has the network looked at, and changes nothing before something is found', () => {
  const overTls = new Played();
  overTls.changed(UDP, TLS);
  overTls.probed([report(UDP, 0), report(TCP, 0), report(TLS, 5)]);
  const tls = 'use tls://192.0.2.9#dns.example';
  assert.deepEqual(overTls.stir(), [tls, 'forgetFailures', 'probe']);
  const before = overTls.round;
  assert.deepEqual(overTls.stir(), [tls, 'forgetFailures', 'probe'], 'again, by what is there now');
  assert.deepEqual(overTls.probed(good, before), [], 'what came before counts no more');
  const portal = Played.inPortal();
  portal.stir();
  assert.equal(portal.path.state.state, 'portal');
  portal.probed(bad);
  assert.deepEqual(portal.portal(PORTAL), []);
  assert.equal(portal.path.state.state, 'portal');
});

test('who lies is left at once', () => {
  const played = new Played();
  played.changed(UDP, UDP2);
  const lies = report(UDP2, 3, 'rewrites');
  assert.deepEqual(played.probed([...good, lies]), ['use 192.0.2.1:53', 'tell unknown > carries']);
});

test('a portal: entered with failures forgotten, probed again after 3 s, 6 s, 12 s, 20 s', () => {
  const played = new Played();
  played.changed(UDP);
  played.probed(bad);
  assert.deepEqual(played.portal(PORTAL), ['forgetFailures', 'tell closed > portal']);
  const waits = Array.from({ length: 5 }, () => {
    const { at } = played.path.deadline()!;
    const wait = at - played.now;
    played.now = at;
    assert.deepEqual(played.tick(), ['probe']);
    assert.deepEqual(played.probed(bad), ['checkPortal'], 'the mode stands until the check has spoken');
    assert.deepEqual(played.portal(PORTAL), []);
    return wait / SECOND;
  });
  assert.deepEqual(waits, [3, 6, 12, 20, 20]);
  const { state } = played.path;
  assert.equal(state.state === 'portal' && state.since, 0);
  assert.equal(
    state.state === 'portal' && state.until,
    played.now + 300 * SECOND,
    'renewed by what was seen',
  );
});

test('the portal is left by itself when a probe passes', () => {
  const played = Played.inPortal();
  played.now = played.path.deadline()!.at;
  played.tick();
  assert.deepEqual(played.probed(good), ['use 192.0.2.1:53', 'forgetFailures', 'tell portal > carries']);
});

test('the portal is left when its page is no portal any more, though nothing validates yet', () => {
  const played = Played.inPortal();
  played.now += 3 * SECOND;
  played.tick();
  played.probed(partial);
  assert.deepEqual(played.portal({ kind: 'open' }), ['forgetFailures', 'tell portal > impaired']);
});

test('without new evidence the mode of the portal ends after five minutes, and not before', () => {
  const played = Played.inPortal();
  while (played.now < 299 * SECOND) {
    played.now = Math.min(played.path.deadline()!.at, 299 * SECOND);
    if (played.tick().includes('probe')) {
      played.probed(bad);
      played.portal({ kind: 'unknown' });
    }
    assert.equal(played.path.state.state, 'portal', `at ${played.now}`);
  }
  played.now = 300 * SECOND;
  assert.ok(played.tick().includes('tell portal > closed'));
});

test('a check that never ends does not keep the mode of the portal alive', () => {
  const played = Played.inPortal();
  played.now = 3 * SECOND;
  played.tick();
  played.probed(bad);
  assert.deepEqual(played.path.deadline(), { at: 300 * SECOND, why: 'the portal mode ends' });
  played.now = 300 * SECOND;
  assert.ok(played.tick().includes('tell portal > closed'));
});

test('another login host is told', () => {
  const played = Played.inPortal();
  played.now = 3 * SECOND;
  played.tick();
  played.probed(bad);
  assert.deepEqual(played.portal({ kind: 'portal', login: 'other.example' }), [
    'forgetFailures',
    'tell portal > portal',
  ]);
});

test('another network: everything begins anew, at once, and what was on its way counts no more', () => {
  const played = Played.inPortal();
  const old = played.round;
  assert.deepEqual(played.changed(UDP2), [
    'use 192.0.2.2:53',
    'forgetFailures',
    'tell portal > unknown',
    'probe',
  ]);
  assert.deepEqual(played.probed(bad, old), []);
  assert.equal(played.path.state.state, 'unknown');
  assert.deepEqual(played.path.handle({ kind: 'portalChecked', round: old, finding: PORTAL }, 0), []);
});

test('doubt in a good path: probed again, but at first not within 30 s, and later and later when it was wrong', () => {
  const played = new Played();
  played.changed(UDP);
  assert.deepEqual(played.doubt(), [], 'the probe is under way');
  played.probed(good);
  const waits: number[] = [];
  for (let i = 0; i < 7; i++) {
    let wait = 0;
    while (!played.doubt().includes('probe')) {
      played.now += SECOND;
      wait++;
    }
    waits.push(wait);
    assert.deepEqual(played.probed(good), [], 'no need to tell anybody');
  }
  assert.deepEqual(waits, [30, 60, 120, 240, 480, 600, 600]);
  played.now += 600 * SECOND;
  played.doubt();
  assert.ok(played.probed(bad).includes('tell carries > closed'));
});

test('an answer that comes although the path was closed has it probed at once', () => {
  const played = new Played();
  played.changed(UDP);
  played.probed(bad);
  played.portal({ kind: 'unknown' });
  played.now += 1 * SECOND;
  assert.deepEqual(played.doubt(), ['probe']);
});

test('whatever happens: one probe at a time, deadlines ahead or due, the portal only after evidence', () => {
  const event = fc.oneof(
    fc.constantFrom('changed', 'good', 'bad', 'partial', 'portal', 'open', 'unknown', 'tick', 'doubt'),
    fc.integer({ min: 1, max: 400 }),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), events => {
      const played = new Played();
      let probing = 0;
      let evidenceAt = Number.NEGATIVE_INFINITY;
      for (const one of events) {
        let did: string[] = [];
        if (typeof one === 'number') played.now += one * SECOND;
        else if (one === 'changed') did = played.changed(UDP);
        else if (one === 'tick') did = played.tick();
        else if (one === 'doubt') did = played.doubt();
        else if (one === 'good' || one === 'bad' || one === 'partial')
          did = played.probed({ good, bad, partial }[one]);
        else did = played.portal(one === 'portal' ? PORTAL : { kind: one as 'open' });
        if (one === 'changed') probing = 0;
        if (did.length > 0 && ['good', 'bad', 'partial'].includes(String(one))) probing--;
        probing += did.filter(text => text === 'probe').length;
        assert.ok(probing === 0 || probing === 1, `${probing} probes`);
        if (one === 'portal') evidenceAt = played.now;
        if (one === 'tick' && played.path.state.state === 'portal')
          assert.ok(played.now < evidenceAt + 300 * SECOND);
      }
    }),
  );
});
