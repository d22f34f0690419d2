/** Processes that are killed or interrupted in the middle of pretraining, and resumed. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { cp, readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { temporaryFolder, writeShapes } from '../data/shapes.js'
import { type Outcome, runCommand } from '../fixtures/run-program.js'
import { configFile, tinyAutoencoder } from './tiny.js'

const command = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../dist/cli/main.js')

interface Moment {
  signal: NodeJS.Signals
  /** Asked over and over until it is true. */
  when: () => boolean
  /** How long after that, in milliseconds. */
  after?: number
}

/** Starts `didr` and sends it signals, one after another. */
async function runAndSignal(
  args: string[],
  moments: readonly Moment[],
): Promise<Pick<Outcome, 'code' | 'signal'>> {
  const child = spawn(process.execPath, [command, ...args], { stdio: 'ignore' })
  const ended = new Promise<Pick<Outcome, 'code' | 'signal'>>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal }))
  })
  for (const { signal, when, after = 0 } of moments) {
    while (!when() && child.exitCode === null) await setTimeout(1)
    await setTimeout(after)
    child.kill(signal)
  }
  return ended
}

/** Steps that a run has logged. */
function logged(run: string): number {
  const file = path.join(run, 'metrics.jsonl')
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').length - 1 : 0
}

async function hashOf(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex')
}

async function steps(run: string): Promise<number[]> {
  const text = await readFile(path.join(run, 'metrics.jsonl'), 'utf8')
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).step)
}

describe('pretraining', () => {
  it('that is killed at any moment and resumed gives the same bits', async () => {
    const folder = await temporaryFolder()
    await writeShapes(folder)
    const long = { steps: 50, checkpointEvery: 3 }
    const config = await configFile(folder, { ...tinyAutoencoder, data: folder, ...long })
    const args = (run: string) => ['pretrain', 'autoencoder', '--config', config, '--out', run]

    const whole = path.join(folder, 'whole')
    expect(await runCommand(args(whole))).toMatchObject({ code: 0 })
    const expected = await hashOf(path.join(whole, 'autoencoder.safetensors'))

    // Killed when the configuration is there and no step is, then at moments that fall anywhere in a step, a log or a
    // checkpoint, each time a little further.
    const run = path.join(folder, 'run')
    const resume = [...args(run), '--resume']
    let kills = 0
    for (const after of [0, 0, 3, 11, 6, 1]) {
      const reached = logged(run)
      const when = () =>
        kills === 0 ? existsSync(path.join(run, 'config.json')) : logged(run) > reached
      const { code, signal } = await runAndSignal(resume, [{ signal: 'SIGKILL', when, after }])
      expect([0, null]).toContain(code)
      // On a busy machine this process may look too late, when the run is over.
      if (signal === null) break
      kills++
    }
    expect(kills).toBeGreaterThan(0)
    expect(await runCommand(resume)).toMatchObject({ code: 0 })
    expect(await hashOf(path.join(run, 'autoencoder.safetensors'))).toBe(expected)
    expect(await steps(run)).toEqual(Array.from({ length: long.steps }, (_, i) => i + 1))
    // Nothing of the writes that were cut off is left.
    const names = [...(await readdir(run)), ...(await readdir(path.join(run, 'checkpoints')))]
    expect(names.filter((name) => name.endsWith('.tmp'))).toEqual([])
  })

  it('that Ctrl-C stops saves and exits with 130, and goes on from there', async () => {
    const folder = await temporaryFolder()
    await writeShapes(folder)
    const config = await configFile(folder, {
      ...tinyAutoencoder,
      data: folder,
      steps: 100_000,
      checkpointEvery: 100_000,
    })
    const run = path.join(folder, 'run')
    const args = ['pretrain', 'autoencoder', '--config', config, '--out', run]
    const begun = () => logged(run) > 0
    expect(await runAndSignal(args, [{ signal: 'SIGINT', when: begun }])).toEqual({
      code: 130,
      signal: null,
    })
    const [checkpoint] = await readdir(path.join(run, 'checkpoints'))
    const done = Number(/\d+/.exec(checkpoint as string)?.[0])
    expect(await steps(run)).toEqual(Array.from({ length: done }, (_, i) => i + 1))
    // Its configuration is in the folder.
    const copy = path.join(folder, 'copy')
    await cp(run, copy, { recursive: true })
    const resumed = ['pretrain', 'autoencoder', '--out', copy, '--resume']
    const more = await runCommand([...resumed, '--steps', String(done + 2)])
    expect(more).toMatchObject({
      code: 0,
      stdout: `${path.join(copy, 'autoencoder.safetensors')}\n`,
    })
    expect(await steps(copy)).toHaveLength(done + 2)
    // A second one does not wait for the step or the checkpoint.
    const other = path.join(folder, 'other')
    const twice = await runAndSignal(
      ['pretrain', 'autoencoder', '--config', config, '--out', other],
      [
        { signal: 'SIGINT', when: () => logged(other) > 0 },
        { signal: 'SIGINT', when: () => true, after: 1 },
      ],
    )
    expect(twice).toEqual({ code: 130, signal: null })
  })
})

describe('didr pretrain', () => {
  it('says what is missing or wrong, with code 2', async () => {
    const folder = await temporaryFolder()
    for (const [args, message] of [
      [['vae'], 'expected one of autoencoder, teacher, clip; got "vae"'],
      [['clip', '--out', folder], 'config.data: expected the path of a folder'],
      [['clip', '--out', folder, '--steps', 'many'], '--steps: expected a number, got "many"'],
      [['clip', '--out', folder, '--size', '3'], "pretrain: Unknown option '--size'"],
    ] as const) {
      const { code, stdout, stderr } = await runCommand(['pretrain', ...args])
      expect([code, stdout], stderr).toEqual([2, ''])
      expect(stderr).toContain(message)
    }
    const { code, stdout } = await runCommand(['pretrain', '--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^Usage: didr pretrain <model>/)
  })
})

describe('didr sample', () => {
  it('says what is missing or wrong', async () => {
    for (const [args, message, expected] of [
      [[], 'sample: --prompt is needed', 2],
      [['--prompt', 'b'], 'sample: --out is needed', 2],
      [['--teacher', '/none', '--prompt', 'b', '--out', 'c.png'], '/none: could not be read', 1],
    ] as const) {
      const { code, stderr } = await runCommand(['sample', ...args])
      expect([code, stderr.includes(message)], stderr).toEqual([expected, true])
    }
    expect((await runCommand(['sample', '--help'])).stdout).toMatch(/^Usage: didr sample/)
  })
})
