/** Files in the state directory: written whole or not at all, and read only when nobody else can have written them. */
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';

/**
 * Writes the file in one step, mode 0600: whatever happens meanwhile, the old content stands or the new one does.
 *
 * The directory is made when it is not there, mode 0700. Throws the system's error.
 */
export function writeStateFile(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const unfinished = `${path}.new`;
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
  const file = openSync(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600);
  try {
    fchmodSync(file, 0o600);
    writeFileSync(file, content);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(unfinished, path);
}

/**
 * The content; undefined when there is no such file.
 *
 * Throws, with a reason in words, for what is no file of ours: a link, another owner's, one that others may write, one
 * longer than `maxBytes`.
 */
export function readStateFile(path: string, maxBytes: number): Buffer | undefined {
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new Error(code === 'ELOOP' ? 'it is a symbolic link' : message);
  }
  try {
    const { mode, size, uid } = fstatSync(file);
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw new Error('it is no regular file');
    if (uid !== process.getuid?.()) throw new Error('it belongs to somebody else');
    if ((mode & 0o022) !== 0) throw new Error(`its mode ${(mode & 0o777).toString(8)} lets others write it`);
    if (size > maxBytes) throw new Error(`it is longer than ${maxBytes} octets`);
    return readFileSync(file);
  } finally {
    closeSync(file);
  }
}
