// What goes wrong on the way to an upstream server, and when. Pure: the same seed brings the same weather.

/** Each spell has one kind; in `mixed` any of the others but `down` may strike a message. */
export const KINDS = [
  'calm',
  'loss',
  'slow',
  'servfail',
  'truncated',
  'wrongId',
  'spoofed',
  'duplicates',
  'garbage',
  'reset',
  'stripped',
  'tampered',
  'mixed',
  'down',
] as const;
export type Kind = (typeof KINDS)[number];

/** How many of the messages a kind strikes. */
const SHARE: Record<Kind, number> = {
  calm: 0,
  loss: 0.3,
  slow: 0.5,
  servfail: 0.3,
  truncated: 0.3,
  wrongId: 1,
  spoofed: 1,
  duplicates: 1,
  garbage: 0.3,
  reset: 0.5,
  stripped: 1,
  tampered: 0.5,
  mixed: 0.2,
  down: 1,
};

export type Spell = { kind: Kind; seconds: number };

/** The order of spells of one server: all kinds in an order of its own, calm after every second one, being down twice as long. */
export function forecast(seed: number, spellSeconds: number): Spell[] {
  const random = generator(seed);
  const bad = KINDS.filter(kind => kind !== 'calm')
    .map(kind => ({ kind, place: random() }))
    .sort((a, b) => a.place - b.place);
  return bad.flatMap(({ kind }, i): Spell[] => {
    const spell = { kind, seconds: kind === 'down' ? 2 * spellSeconds : spellSeconds };
    return i % 2 === 1 ? [spell, { kind: 'calm', seconds: spellSeconds }] : [spell];
  });
}

/** The weather after so many seconds; the forecast begins anew when it is over. */
export function kindAt(spells: Spell[], seconds: number): Kind {
  const whole = spells.reduce((sum, spell) => sum + spell.seconds, 0);
  let left = seconds % whole;
  for (const spell of spells) {
    if (left < spell.seconds) return spell.kind;
    left -= spell.seconds;
  }
  return 'calm';
}

/** What strikes this message; `calm`: nothing. */
export function strike(kind: Kind, random: () => number): Kind {
  if (random() >= SHARE[kind]) return 'calm';
  if (kind !== 'mixed') return kind;
  const others = KINDS.filter(other => other !== 'calm' && other !== 'mixed' && other !== 'down');
  return others[Math.floor(random() * others.length)]!;
}

/** Mulberry32: numbers from 0 up to 1. */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
