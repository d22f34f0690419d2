/** Reading inside of one folder and nowhere else. */
import { constants, type Dirent } from 'node:fs'
import { type FileHandle, open, readdir, realpath, stat } from 'node:fs/promises'
import path from 'node:path'
import { fail } from '../errors.js'
import { failIO } from '../io/files.js'

/** What tells two states of a file apart, mostly. */
export interface FileState {
  bytes: number
  /** When it was last written, in ms since 1970. */
  changed: number
}

/**
 * A folder whose files are named by paths relative to it, with `/` on every system. What is not there, cannot be read, is
 * no regular file, or lies outside, by `..` or behind a symbolic link, is undefined in every answer: who asks is not told
 * which.
 */
export class ViewedFolder {
  /** Without symbolic links. */
  readonly root: string

  private constructor(root: string) {
    this.root = root
  }

  /** @throws {DidrError} (as a rejection) ERR_IO if there is no such folder */
  static async open(folder: string): Promise<ViewedFolder> {
    try {
      const root = await realpath(folder)
      if (!(await stat(root)).isDirectory()) fail('ERR_IO', `${folder}: expected a folder`)
      return new ViewedFolder(root)
    } catch (error) {
      return failIO('read', folder, error)
    }
  }

  /** The entries of a folder, none where there is none. Those of symbolic links are neither files nor folders. */
  async list(relative: string): Promise<Dirent[]> {
    const folder = await this.#resolve(relative)
    if (folder === undefined) return []
    return readdir(folder, { withFileTypes: true }).catch(() => [])
  }

  /** A regular file, opened for reading; whoever asks closes it. */
  async openFile(relative: string): Promise<(FileState & { handle: FileHandle }) | undefined> {
    const file = await this.#resolve(relative)
    if (file === undefined) return undefined
    // Not to wait for somebody to write into a pipe, nor to follow a link that has come in between.
    const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0)
    const handle = await open(file, flags).catch(() => undefined)
    if (handle === undefined) return undefined
    try {
      const state = await handle.stat()
      if (state.isFile()) return { handle, bytes: state.size, changed: state.mtimeMs }
    } catch {
      // As if it were not there.
    }
    await handle.close()
    return undefined
  }

  async stateOf(relative: string): Promise<FileState | undefined> {
    const opened = await this.openFile(relative)
    await opened?.handle.close()
    return opened
  }

  /** A file as text, if it has no more than `maxBytes`. */
  async readText(relative: string, maxBytes = 2 ** 26): Promise<string | undefined> {
    const opened = await this.openFile(relative)
    if (opened === undefined) return undefined
    try {
      return opened.bytes > maxBytes ? undefined : await opened.handle.readFile('utf8')
    } catch {
      return undefined
    } finally {
      await opened.handle.close()
    }
  }

  async #resolve(relative: string): Promise<string | undefined> {
    const segments = relative === '' ? [] : relative.split('/')
    if (!segments.every(isPlainName)) return undefined
    const found = await realpath(path.join(this.root, ...segments)).catch(() => undefined)
    if (found === undefined) return undefined
    const inside = path.relative(this.root, found)
    const leaves = inside === '..' || inside.startsWith(`..${path.sep}`) || path.isAbsolute(inside)
    return leaves ? undefined : found
  }
}

/** Whether it names an entry of a folder and nothing else, on this system: Windows has drives, streams and `\`, too. */
function isPlainName(segment: string): boolean {
  if (segment === '' || segment === '.' || segment === '..' || segment.includes('\0')) return false
  return !segment.includes(path.sep) && !(process.platform === 'win32' && segment.includes(':'))
}

/** A path from its parts, the first of which may be empty. */
export function joined(...parts: string[]): string {
  return parts.filter((part) => part !== '').join('/')
}
