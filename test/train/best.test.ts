/** The best checkpoint of a run: which one it is, and that no crash changes it. */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { readdir, readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { io, ones, Parameter, type Tensor, train } from '../../lib/index.js'
import { linkAtomically } from '../../lib/io/files.js'
import { temporaryFolder } from '../data/shapes.js'
import { runProgram } from '../fixtures/run-program.js'
import { withFailures } from './file-system.js'

const { TrainingRun } = train
const config = { steps: 12, checkpointEvery: 3, keepCheckpoints: 1, previewEvery: 0 }
const bestFile = (folder: string) => path.join(folder, 'checkpoints/best.safetensors')

/** A run whose one number is its step. */
async function open(folder: string, more: object = {}) {
  const x = new Parameter('x', ones([1]))
  const part: train.Checkpointed = {
    state: () => ({ tensors: { x: x.value }, settings: null }),
    load: ({ tensors }) => void x.value.copyFrom(tensors.x as typeof x.value),
  }
  const run = await TrainingRun.open(folder, {
    ...{ kind: 'test', config, parts: { part }, resume: true },
    ...more,
  } as train.TrainingRunOptions)
  const advance = () => {
    using next = x.value.add(1)
    x.value.copyFrom(next)
  }
  return { run, advance }
}

async function stepOf(file: string): Promise<{ step: number; best: object }> {
  const { metadata } = await io.inspectSafetensors(file)
  return JSON.parse(metadata.didr as string)
}

/** The definition: Σ s^(n - i) xᵢ / Σ s^(n - i) over the steps up to each one that have the metric. */
function averages(values: readonly (number | undefined)[], smoothing: number): number[] {
  return values.map((_, n) => {
    const seen = values.slice(0, n + 1).filter((value) => value !== undefined)
    const weights = seen.map((_, i) => smoothing ** (seen.length - 1 - i))
    const total = weights.reduce((sum, w) => sum + w, 0)
    return seen.reduce((sum, value, i) => sum + value * (weights[i] as number), 0) / total
  })
}

// Up, down and up again, with gaps.
const wave = Array.from({ length: 12 }, (_, i) =>
  i % 4 === 1 ? undefined : Math.sin(i * 0.9) - 0.05 * i,
)

describe('the best checkpoint', () => {
  it.each(
    (['max', 'min'] as const).flatMap((mode) =>
      [0, 0.5, 0.9, undefined].map((smoothing) => ({ mode, smoothing })),
    ),
  )('is the one with the best average: %j', async ({ mode, smoothing }) => {
    const folder = await temporaryFolder()
    const given = smoothing === undefined ? {} : { smoothing }
    const { run, advance } = await open(folder, { best: { metric: 'm', mode, ...given } })
    expect(run.best).toBeUndefined()
    await run.train((step) => {
      advance()
      return { m: wave[step] }
    })
    const average = averages(wave, smoothing ?? 0.9)
    const compared = [3, 6, 9, 12]
    const ordered = compared.toSorted(
      (a, b) =>
        ((average[b - 1] as number) - (average[a - 1] as number)) * (mode === 'max' ? 1 : -1),
    )
    const [expected] = ordered as [number]
    expect(run.best?.step).toBe(expected)
    expect(run.best?.value).toBeCloseTo(average[expected - 1] as number, 12)
    expect((await stepOf(bestFile(folder))).step).toBe(expected)
    expect((await readdir(path.dirname(bestFile(folder)))).sort()).toEqual([
      'best.safetensors',
      'step-000012.safetensors',
    ])
    // It is a whole checkpoint: `x` started at 1 and grew by 1 a step.
    const { tensors } = await io.loadSafetensors(bestFile(folder))
    expect([...(await (tensors['part.x'] as Tensor).data())]).toEqual([expected + 1])
    for (const held of Object.values(tensors)) held.dispose()
  })

  it('is the first of equal ones', async () => {
    const { run } = await open(await temporaryFolder(), { best: { metric: 'm', mode: 'max' } })
    await run.train(() => ({ m: 0.1 }))
    expect(run.best?.step).toBe(3)
    expect(run.best?.value).toBeCloseTo(0.1, 12)
  })

  it('may be of a number in a record', async () => {
    const { run } = await open(await temporaryFolder(), {
      best: { metric: 'parts/a', mode: 'min', smoothing: 0 },
    })
    await run.train((step) => ({ parts: { a: Math.abs(step - 5) } }))
    expect(run.best).toEqual({ step: 6, value: 0 })
  })

  it('of a metric that no step has is refused, the checkpoint kept', async () => {
    const folder = await temporaryFolder()
    const { run } = await open(folder, { best: { metric: 'rewrad', mode: 'max' } })
    await expect(run.train(() => ({ reward: 1, loss: 2 }))).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message:
        'options.best.metric: no step has had "rewrad"; this one has reward, loss (at step 3; the last checkpoint is of step 3)',
    })
    const { run: resumed } = await open(folder, { best: { metric: 'reward', mode: 'max' } })
    expect(resumed.step).toBe(3)
    expect(await resumed.train(() => ({ reward: 1 }))).toBe(true)
    expect(resumed.best).toEqual({ step: 6, value: 1 })
  })

  it('begins anew with other options, and goes on with the same', async () => {
    const folder = await temporaryFolder()
    const best = { metric: 'm', mode: 'max', smoothing: 0 }
    await (await open(folder, { best })).run.train((step) => ({ m: -step, n: step }))
    expect((await open(folder, { best })).run.best).toEqual({ step: 3, value: -2 })
    await rm(path.join(folder, 'lock'))
    const longer = { ...config, steps: 15 }
    const { run } = await open(folder, { best: { ...best, metric: 'n' }, config: longer })
    expect(run.best).toBeUndefined()
    await run.train((step) => ({ m: -step, n: step }))
    expect(run.best).toEqual({ step: 15, value: 14 })
  })

  it.each([
    [{ metric: '', mode: 'max' }, 'options.best.metric: expected a metric'],
    [{ mode: 'max' }, 'options.best.metric: expected a metric'],
    [{ metric: 'm' }, 'options.best.mode: expected one of max, min; got undefined'],
    [{ metric: 'm', mode: 'top' }, 'options.best.mode: expected one of max, min; got "top"'],
    [
      { metric: 'm', mode: 'max', smoothing: 1 },
      'options.best.smoothing: expected a number from 0',
    ],
    [{ metric: 'm', mode: 'max', smoothing: Number.NaN }, 'to below 1, got NaN'],
    [{ metric: 'm', mode: 'max', smooth: 0 }, 'options.best.smooth: unknown option'],
    [null, 'options.best: expected an object, got null'],
  ])('refuses %j', async (best, message) => {
    const folder = path.join(await temporaryFolder(), 'run')
    await expect(open(folder, { best })).rejects.toThrow(message)
    expect(existsSync(folder)).toBe(false)
  })
})

describe('a crash', () => {
  const best = { metric: 'm', mode: 'max', smoothing: 0.4 }
  const body = (advance: () => unknown) => (step: number) => {
    advance()
    // The sixth step's is the best; until then each checkpoint is better than the one before.
    return { m: -Math.abs(step - 5) }
  }

  const options = { best, config: { ...config, steps: 9, checkpointEvery: 2 } }
  const trainIn = async (folder: string) => {
    const { run, advance } = await open(folder, options)
    await run.train(body(advance))
  }
  const files = ['best.safetensors', 'step-000009.safetensors']
  const bytesIn = (folder: string) =>
    Promise.all(files.map((name) => readFile(path.join(folder, 'checkpoints', name), 'hex')))

  /** Trains until after so many changes of the file system nothing is done any more, as in a process that is gone. */
  async function trainAndCrash(folder: string, changes: number): Promise<boolean> {
    const { outcome } = await withFailures(
      ({ count }) => (count >= changes ? 'EIO' : undefined),
      () => trainIn(folder),
    )
    // It could not remove the lock, and this process goes on.
    await rm(path.join(folder, 'lock'), { force: true })
    // Those that come late may hit what nobody minds.
    if (outcome.status === 'fulfilled') return true
    expect(outcome.reason.code).toMatch(/EIO|ERR_IO/)
    return false
  }

  it('before any change of the file system leaves the best as it is without one', async () => {
    const whole = await temporaryFolder()
    const { calls } = await withFailures(
      () => undefined,
      () => trainIn(whole),
    )
    expect(calls).toBeGreaterThan(40)
    const expected = await bytesIn(whole)
    expect((await stepOf(bestFile(whole))).step).toBe(6)
    for (let changes = 0; changes < calls; changes++) {
      const folder = await temporaryFolder()
      await trainAndCrash(folder, changes)
      await trainIn(folder)
      expect(await bytesIn(folder), `crash after ${changes} changes`).toEqual(expected)
      expect((await readdir(path.join(folder, 'checkpoints'))).sort()).toEqual(files)
      expect(await readdir(folder)).not.toContain('lock')
    }
  })

  it('after a crash, again and again, does not, either', async () => {
    const whole = await temporaryFolder()
    await trainIn(whole)
    const expected = await bytesIn(whole)
    for (let changes = 24; changes < 40; changes += 4) {
      const folder = await temporaryFolder()
      let crashes = 0
      while (!(await trainAndCrash(folder, changes))) expect(++crashes).toBeLessThan(20)
      expect(crashes).toBeGreaterThan(0)
      expect(await bytesIn(folder), `crashes after ${changes} changes`).toEqual(expected)
    }
  })

  it('between the checkpoint and its second name is made good when it is resumed', async () => {
    const folder = await temporaryFolder()
    const first = await open(folder, { best })
    const { outcome } = await withFailures(
      ({ paths }) =>
        first.run.step === 6 && paths.includes('best.safetensors') ? 'EIO' : undefined,
      () => first.run.train((step) => ({ m: step })),
    )
    expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'ERR_IO' } })
    expect((await stepOf(bestFile(folder))).step).toBe(3)
    const again = await open(folder, { best })
    expect((await stepOf(bestFile(folder))).step).toBe(6)
    await again.run.close()
  })

  it('of the process itself, SIGKILL at any time, ends with the same files', async () => {
    const whole = path.join(await temporaryFolder(), 'whole')
    const { code, stdout, stderr } = await runProgram('train.mjs', { args: [whole, '40', '0'] })
    expect([code, stderr]).toEqual([0, ''])
    const folder = path.join(await temporaryFolder(), 'run')
    const program = fileURLToPath(new URL('../fixtures/programs/train.mjs', import.meta.url))
    const metrics = path.join(folder, 'metrics.jsonl')
    const logged = () =>
      existsSync(metrics) ? readFileSync(metrics, 'utf8').split('\n').length - 1 : 0
    let kills = 0
    for (const after of [0, 7, 3, 12]) {
      const child = spawn(process.execPath, [program, folder, '40', '2'], { stdio: 'ignore' })
      const ended = new Promise<NodeJS.Signals | null>((resolve) =>
        child.on('close', (_, signal) => resolve(signal)),
      )
      const reached = logged()
      while (logged() <= reached && child.exitCode === null) await setTimeout(1)
      await setTimeout(after)
      child.kill('SIGKILL')
      if ((await ended) === 'SIGKILL') kills++
      // Whatever is named so is whole.
      if (existsSync(bestFile(folder))) await stepOf(bestFile(folder))
    }
    expect(kills).toBeGreaterThan(0)
    const resumed = await runProgram('train.mjs', { args: [folder, '40', '0'] })
    expect([resumed.code, resumed.stderr]).toEqual([0, ''])
    expect(resumed.stdout).toBe(stdout)
    for (const name of ['best.safetensors', 'step-000040.safetensors']) {
      const file = path.join('checkpoints', name)
      const bytes = await readFile(path.join(folder, file))
      expect(bytes.equals(await readFile(path.join(whole, file))), name).toBe(true)
    }
    expect((await readdir(path.join(folder, 'checkpoints'))).sort()).toEqual([
      'best.safetensors',
      'step-000040.safetensors',
    ])
  })
})

describe('a second name', () => {
  it('is a copy where the file system has no links', async () => {
    const folder = await temporaryFolder()
    const { run } = await open(folder, { best: { metric: 'm', mode: 'max' } })
    const { outcome } = await withFailures(
      ({ name }) => (name === 'link' ? 'EPERM' : undefined),
      () => run.train((step) => ({ m: step })),
    )
    expect(outcome).toEqual({ status: 'fulfilled', value: true })
    const file = path.join(folder, 'checkpoints/step-000012.safetensors')
    expect((await readFile(bestFile(folder))).equals(await readFile(file))).toBe(true)
    expect(await readdir(path.dirname(file))).toHaveLength(2)
  })

  it('of a file that has it already changes nothing and leaves nothing', async () => {
    const folder = await temporaryFolder()
    const [a, b] = [path.join(folder, 'a'), path.join(folder, 'b')]
    await expect(linkAtomically(a, b)).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringContaining(b),
    })
    expect(await readdir(folder)).toEqual([])
    await io.saveSafetensors(a, {})
    for (let time = 0; time < 2; time++) {
      await linkAtomically(a, b)
      expect((await readdir(folder)).sort()).toEqual(['a', 'b'])
    }
    expect((await readFile(b)).equals(await readFile(a))).toBe(true)
  })
})
