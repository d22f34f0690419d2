/** Keeps two processes from training in one folder. */
import { readFileSync } from 'node:fs'
import { open, readFile, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fail } from '../errors.js'
import { failIO } from '../io/files.js'

interface Holder {
  pid: number
  host: string
  /** When the process started, by the system's own count; null where there is none. Numbers of processes are used again. */
  started: string | null
}

/**
 * A file `lock` that holds the number of a process and the name of its host. That of a process which has ended on this
 * host, killed perhaps, is taken over.
 */
export class FolderLock {
  readonly #file: string
  readonly #text: string

  private constructor(file: string, text: string) {
    this.#file = file
    this.#text = text
  }

  /**
   * @throws {DidrError} (as a rejection) ERR_CONFIG if a process that runs, or one of another host, has the folder, naming
   *   the file to remove if that is wrong; ERR_IO
   */
  static async acquire(folder: string): Promise<FolderLock> {
    const file = path.join(folder, 'lock')
    const self: Holder = {
      pid: process.pid,
      host: os.hostname(),
      started: processState(process.pid)?.started ?? null,
    }
    const text = `${JSON.stringify(self)}\n`
    while (!(await created(file, text))) {
      const held = await textOf(file)
      if (held === undefined) continue
      const holder = parsed(held)
      if (holder !== undefined) {
        const { pid, host } = holder
        if (host !== self.host)
          fail(
            'ERR_CONFIG',
            `${folder}: in use by process ${pid} of the host ${host}; if it has ended, remove ${file}`,
          )
        if (isRunning(holder))
          fail(
            'ERR_CONFIG',
            `${folder}: in use by process ${pid}${pid === process.pid ? ', this one' : ''}; if that is no training, remove ${file}`,
          )
      }
      await removeStale(file, held)
    }
    return new FolderLock(file, text)
  }

  /** Never fails: a lock that cannot be removed can be taken over when the process has ended. */
  async release(): Promise<void> {
    const held = await readFile(this.#file, 'utf8').catch(() => undefined)
    // Somebody may have removed it by hand, and another process have come.
    if (held === this.#text) await rm(this.#file, { force: true }).catch(() => {})
  }
}

/** Whether a lock that says this is of a process that runs, or of one of another host, which cannot be asked. */
export function isHeld(text: string): boolean {
  const holder = parsed(text)
  return holder !== undefined && (holder.host !== os.hostname() || isRunning(holder))
}

/** Whether the file could be made; false if it is there. */
async function created(file: string, text: string): Promise<boolean> {
  try {
    const handle = await open(file, 'wx')
    try {
      await handle.writeFile(text)
    } catch (error) {
      await rm(file, { force: true })
      throw error
    } finally {
      await handle.close()
    }
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    return failIO('written', file, error)
  }
}

/**
 * What a lock says, undefined if it is gone. One that says nothing yet is given a second: a process writes it at once
 * after making it, unless it is killed just there.
 */
async function textOf(file: string): Promise<string | undefined> {
  for (let tries = 0; ; tries++) {
    let text: string
    try {
      text = await readFile(file, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      return failIO('read', file, error)
    }
    if (parsed(text) !== undefined || tries === 20) return text
    await setTimeout(50)
  }
}

function parsed(text: string): Holder | undefined {
  try {
    const { pid, host, started } = JSON.parse(text)
    const sound =
      Number.isInteger(pid) &&
      pid > 0 &&
      typeof host === 'string' &&
      (started === null || typeof started === 'string')
    return sound ? { pid, host, started } : undefined
  } catch {
    return undefined
  }
}

/**
 * Removes a stale lock if it is still the one that was read. Of several processes that find it stale only the one that
 * could make a second file does so: otherwise a slow one would remove the new lock of a fast one.
 */
async function removeStale(file: string, text: string): Promise<void> {
  const guard = `${file}.takeover`
  for (let tries = 0; !(await created(guard, '')); tries++) {
    if (tries === 20)
      fail(
        'ERR_CONFIG',
        `${file}: being taken over by another process; if none is, remove ${guard}`,
      )
    await setTimeout(50)
  }
  try {
    const held = await readFile(file, 'utf8').catch(() => undefined)
    if (held === text) await rm(file)
  } catch (error) {
    failIO('removed', file, error)
  } finally {
    await rm(guard, { force: true })
  }
}

function isRunning({ pid, started }: Holder): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    // EPERM: it is there and somebody else's.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
  const state = processState(pid)
  if (state === undefined) return true
  return !state.ended && (started === null || state.started === started)
}

/**
 * What Linux tells of a process in /proc/<pid>/stat (proc_pid_stat(5)): when it started, in ticks since boot, and whether
 * it has ended and only waits for its parent to ask. Undefined on other systems.
 */
function processState(pid: number): { started: string; ended: boolean } | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  } catch {
    return undefined
  }
  // The second field, a name in parentheses, may hold spaces and parentheses; the state is the third.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const [state, started] = [fields[0], fields[22 - 3]]
  return started === undefined ? undefined : { started, ended: state === 'Z' || state === 'X' }
}
