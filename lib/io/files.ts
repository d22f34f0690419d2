/** Reading and writing files with the package's errors: ERR_IO for what the system refuses, naming the path. */
import { randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, link, mkdir, open, rename, rm, stat, unlink } from 'node:fs/promises'
import path from 'node:path'
import { DidrError, fail } from '../errors.js'

/** The system refuses reads and writes of 2 GiB and more at once. */
const maxBytesAtOnce = 2 ** 30

/** @param what `read`, `written`, ... @throws {DidrError} `error` itself if it is one, else ERR_IO with it as the cause */
export function failIO(what: string, file: string, error: unknown): never {
  if (error instanceof DidrError) throw error
  const reason = error instanceof Error ? error.message : String(error)
  return fail('ERR_IO', `${file}: could not be ${what}: ${reason}`, { cause: error })
}

/** Makes a folder and those it is in; one that is there already stays. @throws {DidrError} (as a rejection) ERR_IO */
export async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true })
  } catch (error) {
    failIO('made', folder, error)
  }
}

/** A regular file opened for reading at positions. */
export class InputFile {
  readonly path: string
  readonly bytes: number
  readonly #handle: FileHandle

  private constructor(file: string, handle: FileHandle, bytes: number) {
    this.path = file
    this.#handle = handle
    this.bytes = bytes
  }

  static async open(file: string): Promise<InputFile> {
    let handle: FileHandle | undefined
    try {
      // Asked before it is opened: opening a pipe would wait for somebody to write.
      if (!(await stat(file)).isFile())
        fail('ERR_IO', `${file}: could not be read: it is not a regular file`)
      handle = await open(file, 'r')
      return new InputFile(file, handle, (await handle.stat()).size)
    } catch (error) {
      await handle?.close()
      return failIO('read', file, error)
    }
  }

  /** Fills `target` with the bytes from `position` on. @throws {DidrError} ERR_FORMAT if the file ends before */
  async read(target: Uint8Array<ArrayBuffer>, position: number): Promise<void> {
    let done = 0
    while (done < target.length) {
      const length = Math.min(target.length - done, maxBytesAtOnce)
      let bytesRead = 0
      try {
        ;({ bytesRead } = await this.#handle.read(target, done, length, position + done))
      } catch (error) {
        failIO('read', this.path, error)
      }
      if (bytesRead === 0)
        fail('ERR_FORMAT', `${this.path}: truncated: it ends at byte ${position + done}`)
      done += bytesRead
    }
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }
}

/**
 * Writes a file so that at any moment, a crash of the machine included, `file` is either as before or complete: the bytes
 * go to a temporary file beside it, which is flushed to the disk and then takes its name.
 * @param produce writes the contents in order
 */
export async function writeAtomically(
  file: string,
  produce: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const temporary = temporaryName(file)
  let handle: FileHandle
  try {
    handle = await open(temporary, 'wx')
  } catch (error) {
    return failIO('written', file, error)
  }
  try {
    try {
      await produce(async (bytes) => {
        for (let done = 0; done < bytes.length; ) {
          const length = Math.min(bytes.length - done, maxBytesAtOnce)
          done += (await handle.write(bytes, done, length)).bytesWritten
        }
      })
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
  } catch (error) {
    await unlink(temporary).catch(() => {})
    return failIO('written', file, error)
  }
  await flushFolder(file)
}

/**
 * Gives a file that nothing writes to any more a second name, in place of what may have that name, so that at any moment
 * `name` is either as before or the whole file: a hard link, or a copy on file systems without links.
 * @throws {DidrError} (as a rejection) ERR_IO
 */
export async function linkAtomically(file: string, name: string): Promise<void> {
  const temporary = temporaryName(name)
  try {
    await link(file, temporary)
  } catch {
    await writeAtomically(name, async (write) => {
      for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 22 }))
        await write(chunk)
    })
    return
  }
  try {
    await rename(temporary, name)
    // Of two names of one file rename() changes nothing (POSIX): `name` may be of this file already.
    await rm(temporary, { force: true })
  } catch (error) {
    await unlink(temporary).catch(() => {})
    return failIO('written', name, error)
  }
  await flushFolder(name)
}

/** A name beside `file` that no other process uses. */
function temporaryName(file: string): string {
  const unique = `${process.pid}-${randomBytes(6).toString('hex')}`
  return path.join(path.dirname(file), `.${path.basename(file)}.${unique}.tmp`)
}

/** Makes the rename itself last. Windows has no such call on folders, and needs none. */
async function flushFolder(file: string): Promise<void> {
  if (process.platform === 'win32') return
  try {
    const handle = await open(path.dirname(file), 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch (error) {
    failIO('written', file, error)
  }
}
