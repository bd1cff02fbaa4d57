/**
 * The log: one line per decision, JSON for machines, one readable line for people on a terminal.
 *
 * Every line carries a stable `event` name; tools should match that and never the message. Secrets never reach a line:
 * a KeyObject is written as its kind, and what hides under the names in SECRET_PATHS is replaced.
 */
import { KeyObject } from 'node:crypto';
import { type DestinationStream, destination, type Logger, pino } from 'pino';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const SECRETS = [
  'key',
  'cipherKey',
  'integrityKey',
  'privateKey',
  'secret',
  'shared',
  'salt',
  'skD',
  'skP',
  'pem',
];
const SECRET_PATHS = SECRETS.flatMap(name => [name, `*.${name}`, `*.*.${name}`, `*.*.*.${name}`]);

/** A logger to standard error; `auto` writes text when that is a terminal. */
export function createLogger(
  options: { level: LogLevel; format: 'auto' | 'json' | 'text' },
  output: NodeJS.WritableStream & { isTTY?: boolean } = process.stderr,
): Logger {
  const text = options.format === 'text' || (options.format === 'auto' && output.isTTY === true);
  const stream: DestinationStream = text ? new TextLines(output) : jsonStream(output);
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: label => ({ level: label }), log: withoutKeyObjects },
      redact: { paths: SECRET_PATHS, censor: redact },
    },
    stream,
  );
}

/** Standard error is written at once, so that the last lines before an exit are not lost. */
function jsonStream(output: NodeJS.WritableStream): DestinationStream {
  return output === process.stderr ? destination({ dest: 2, sync: true }) : output;
}

/** Key material is hidden; a fingerprint or other text under the same name is not key material. */
function redact(value: unknown): unknown {
  return typeof value === 'string' && value.startsWith('SHA256:') ? value : '[secret]';
}

/** KeyObjects serialise to `{}` by themselves; written as their kind they at least say what stood there. */
function withoutKeyObjects(fields: Record<string, unknown>): Record<string, unknown> {
  return clean(fields, 0) as Record<string, unknown>;
}

function clean(value: unknown, depth: number): unknown {
  if (value instanceof KeyObject) return `[${value.type} key]`;
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Uint8Array) return `[${value.length} bytes]`;
  if (depth > 4 || typeof value !== 'object' || value === null || value instanceof Error) return value;
  if (Array.isArray(value)) return value.map(item => clean(item, depth + 1));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, clean(item, depth + 1)]));
}

/** Turns pino's JSON into `12:34:56.789 info  event message field=value …`. */
class TextLines implements DestinationStream {
  readonly #output: NodeJS.WritableStream & { isTTY?: boolean };

  constructor(output: NodeJS.WritableStream & { isTTY?: boolean }) {
    this.#output = output;
  }

  write(json: string): void {
    this.#output.write(`${formatLine(JSON.parse(json), this.#output.isTTY === true)}\n`);
  }
}

const COLOURS: Record<string, string> = {
  warn: '\x1b[33m',
  error: '\x1b[31m',
  fatal: '\x1b[31m',
  debug: '\x1b[2m',
};

function formatLine(line: Record<string, unknown>, colours: boolean): string {
  const { level, time, event, msg, err, ...fields } = line;
  const colour = colours ? COLOURS[String(level)] : undefined;
  const pairs = Object.entries(fields).map(([key, value]) => `${key}=${formatField(value)}`);
  const error = err as { message?: string; stack?: string } | undefined;
  const words = [
    String(time).slice(11, 23),
    String(level).padEnd(5),
    event === undefined ? '' : String(event),
    msg === undefined ? '' : singleLine(String(msg)),
    ...pairs,
    error ? `err=${formatField(error.message)}` : '',
  ].filter(word => word !== '');
  const text = words.join(' ');
  return colour ? `${colour}${text}\x1b[0m` : text;
}

function formatField(value: unknown): string {
  if (typeof value === 'string') return /^[\x21-\x7e]+$/.test(value) ? value : JSON.stringify(value);
  return JSON.stringify(value) ?? 'undefined';
}

/** Names come from the network: control characters must not reach the terminal. */
function singleLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, ' ');
}
