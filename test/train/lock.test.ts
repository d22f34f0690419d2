import { spawn } from 'node:child_process'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { train } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { runProgram } from '../fixtures/run-program.js'

const config = { steps: 3, checkpointEvery: 1, keepCheckpoints: 1, previewEvery: 0 }
const open = (folder: string) =>
  train.TrainingRun.open(folder, { kind: 'test', config, parts: {}, resume: true })
const lockOf = (folder: string) => path.join(folder, 'lock')
const isThere = async (folder: string) => (await readdir(folder)).includes('lock')

/** The number of a process that has ended. */
async function endedProcess(): Promise<number> {
  const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' })
  await new Promise((resolve) => child.on('close', resolve))
  return child.pid as number
}

describe('the lock of a folder', () => {
  it('is there while a run is open, and says whose it is', async () => {
    const folder = await temporaryFolder()
    const run = await open(folder)
    expect(JSON.parse(await readFile(lockOf(folder), 'utf8'))).toMatchObject({
      pid: process.pid,
      host: os.hostname(),
    })
    await expect(open(folder)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: `${folder}: in use by process ${process.pid}, this one; if that is no training, remove ${lockOf(folder)}`,
    })
    expect(await run.train(() => ({ loss: 1 }))).toBe(true)
    expect(await isThere(folder)).toBe(false)
  })

  it('goes when training fails, when opening fails and when a run is closed', async () => {
    const folder = await temporaryFolder()
    const failing = (await open(folder)).train(() => {
      throw new TypeError('a bug')
    })
    await expect(failing).rejects.toThrow(new TypeError('a bug'))
    expect(await isThere(folder)).toBe(false)
    {
      await using run = await open(folder)
      expect(run.step).toBe(0)
      expect(await isThere(folder)).toBe(true)
    }
    expect(await isThere(folder)).toBe(false)
    const other = train.TrainingRun.open(folder, { kind: 'test', config, parts: {} })
    await expect(other).rejects.toThrow('there is a run already')
    expect(await isThere(folder)).toBe(false)
  })

  it('is not given back to a run that has ended: the folder may have changed', async () => {
    const folder = await temporaryFolder()
    const run = await open(folder)
    await run.train(() => ({ loss: 1 }))
    const closed = { code: 'ERR_CONFIG', message: expect.stringContaining('the run is closed') }
    await expect(run.train(() => ({ loss: 1 }))).rejects.toMatchObject(closed)
    await expect(run.save()).rejects.toMatchObject(closed)
    await run.close()
    await using again = await open(folder)
    expect(again.step).toBe(3)
    expect(await isThere(folder)).toBe(true)
  })

  it('is taken over from a process that has ended', async () => {
    const folder = await temporaryFolder()
    const holder = { pid: await endedProcess(), host: os.hostname(), started: null }
    await writeFile(lockOf(folder), JSON.stringify(holder))
    await using run = await open(folder)
    expect(run.step).toBe(0)
    expect(JSON.parse(await readFile(lockOf(folder), 'utf8')).pid).toBe(process.pid)
  })

  it('of a number that another process has now is refused, or seen through', async () => {
    const folder = await temporaryFolder()
    const holder = { pid: process.ppid, host: os.hostname(), started: null as string | null }
    await writeFile(lockOf(folder), JSON.stringify(holder))
    await expect(open(folder)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: `${folder}: in use by process ${process.ppid}; if that is no training, remove ${lockOf(folder)}`,
    })
    await rm(lockOf(folder))
    await (await open(folder)).close()
    // Linux tells when a process started; a restarted container has the same numbers and host again.
    for (const pid of [process.ppid, process.pid]) {
      await writeFile(lockOf(folder), JSON.stringify({ ...holder, pid, started: '1' }))
      const opened = await open(folder).then(
        (run) => run.close(),
        () => 'refused',
      )
      expect(opened).toBe(process.platform === 'linux' ? undefined : 'refused')
      await rm(lockOf(folder), { force: true })
    }
  })

  it('of another host is refused', async () => {
    const folder = await temporaryFolder()
    const holder = { pid: await endedProcess(), host: 'elsewhere.invalid', started: '1' }
    await writeFile(lockOf(folder), JSON.stringify(holder))
    await expect(open(folder)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: `${folder}: in use by process ${holder.pid} of the host elsewhere.invalid; if it has ended, remove ${lockOf(folder)}`,
    })
    expect(JSON.parse(await readFile(lockOf(folder), 'utf8'))).toEqual(holder)
  })

  it.each(['', '{"pid": 12', 'null', '{"pid": -1, "host": "a", "started": null}'])(
    'that says %j is of a process that was killed while it wrote it',
    async (text) => {
      const folder = await temporaryFolder()
      await writeFile(lockOf(folder), text)
      await using run = await open(folder)
      expect(run.step).toBe(0)
    },
  )

  it('that is being written is waited for', async () => {
    const folder = await temporaryFolder()
    await writeFile(lockOf(folder), '')
    const opening = open(folder)
    opening.catch(() => {})
    await setTimeout(120)
    const text = JSON.stringify({ pid: process.ppid, host: os.hostname(), started: null })
    await writeFile(lockOf(folder), text)
    await expect(opening).rejects.toThrow(`in use by process ${process.ppid}`)
    expect(await readFile(lockOf(folder), 'utf8')).toBe(text)
  })

  it('is taken over by one of many', async () => {
    const dead = JSON.stringify({ pid: await endedProcess(), host: os.hostname(), started: null })
    for (let round = 0; round < 6; round++) {
      const folder = await temporaryFolder()
      await writeFile(lockOf(folder), dead)
      const opened = await Promise.allSettled(Array.from({ length: 12 }, () => open(folder)))
      const got = opened.filter(({ status }) => status === 'fulfilled')
      expect(got).toHaveLength(1)
      for (const { reason } of opened.filter((one) => one.status === 'rejected'))
        expect(reason.message).toContain(`in use by process ${process.pid}, this one`)
      expect(await readdir(folder)).not.toContain('lock.takeover')
    }
  })

  it('says what to remove where a process was killed while it took the lock over', async () => {
    const folder = await temporaryFolder()
    const dead = JSON.stringify({ pid: await endedProcess(), host: os.hostname(), started: null })
    await writeFile(lockOf(folder), dead)
    await writeFile(`${lockOf(folder)}.takeover`, '')
    await expect(open(folder)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining(`if none is, remove ${lockOf(folder)}.takeover`),
    })
    await rm(`${lockOf(folder)}.takeover`)
    await using run = await open(folder)
    expect(run.step).toBe(0)
  })

  it('that is a folder is an error of the file system', async () => {
    const folder = await temporaryFolder()
    await mkdir(lockOf(folder))
    await expect(open(folder)).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringContaining(lockOf(folder)),
    })
  })

  it('keeps a second process out until the first one ends or is killed', async () => {
    const folder = await temporaryFolder()
    const program = fileURLToPath(new URL('../fixtures/programs/train.mjs', import.meta.url))
    const child = spawn(process.execPath, [program, folder, '100000', '5'], { stdio: 'ignore' })
    const ended = new Promise((resolve) => child.on('close', (_, signal) => resolve(signal)))
    while (!(await readdir(folder)).includes('metrics.jsonl')) await setTimeout(5)
    const { code, stderr } = await runProgram('train.mjs', { args: [folder, '6', '0'] })
    expect(code).not.toBe(0)
    expect(stderr).toContain(`in use by process ${child.pid}; if that is no training, remove`)
    child.kill('SIGKILL')
    expect(await ended).toBe('SIGKILL')
    expect(await isThere(folder)).toBe(true)
    const more = await runProgram('train.mjs', { args: [folder, '6', '0'] })
    expect(more.stderr).toBe('')
    expect(more.code).toBe(0)
    expect(await isThere(folder)).toBe(false)
  })
})
