/** Text for people: aligned columns, colours on a terminal only, nothing from the network that could move a cursor. */

const STYLES = { bold: '1', dim: '2', red: '31', green: '32', yellow: '33' } as const;
export type Style = keyof typeof STYLES;

/** Colours only where a person looks: a terminal, and NO_COLOR (https://no-color.org) is not set. */
const colours = process.stdout.isTTY === true && !process.env.NO_COLOR;

export function paint(text: string, style: Style | undefined): string {
  return colours && style && text !== '' ? `\x1b[${STYLES[style]}m${text}\x1b[0m` : text;
}

/** Names and reasons come from the network: control characters are replaced. */
export function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, '\ufffd');
}

export type Cell = string | { text: string; style: Style };

/** Rows with columns as wide as their widest cell, two spaces apart; the first row is the heading. */
export function table(rows: Cell[][]): string {
  const width = (column: number) => Math.max(...rows.map(row => textOf(row[column] ?? '').length));
  const lines = rows.map((row, index) =>
    row
      .map((cell, column) => {
        const text = textOf(cell);
        const padding = column === row.length - 1 ? '' : ' '.repeat(width(column) - text.length + 2);
        return (
          paint(text, index === 0 ? 'bold' : typeof cell === 'string' ? undefined : cell.style) + padding
        );
      })
      .join(''),
  );
  return lines.map(line => `${line.trimEnd()}\n`).join('');
}

const textOf = (cell: Cell) => plain(typeof cell === 'string' ? cell : cell.text);

export function print(text: string): void {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, undefined, 2));
}

/** `950 ms`, `2.5 s`, `4 min`, `3 h 12 min`, `2 d 5 h`. */
export function span(millis: number): string {
  if (millis < 1000) return `${Math.round(millis)} ms`;
  const seconds = Math.round(millis / 1000);
  if (seconds < 60) return millis < 10_000 ? `${Math.round(millis / 100) / 10} s` : `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${hours / 24} d`;
}

/** `512 B`, `1.5 kB`, `20 MB`. */
export function size(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 10 ? Math.round(value) : Math.round(value * 10) / 10} ${units[unit]}`;
}
