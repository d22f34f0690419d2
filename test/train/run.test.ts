import { existsSync } from 'node:fs'
import { appendFile, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import {
  DidrError,
  io,
  memory,
  normal,
  ones,
  optim,
  Parameter,
  type Tensor,
  tensor,
  tidy,
  train,
} from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { eventFiles, readEvents, shownScalars } from './event-files.js'
import { withFailures } from './file-system.js'

const { TrainingRun } = train
const config = { steps: 10, checkpointEvery: 4, keepCheckpoints: 2, previewEvery: 0, lr: 0.1 }

/** A vector that is trained to noise which changes each step. */
function vector() {
  const x = new Parameter('x', ones([3]))
  const optimizer = new optim.AdamW([x], { lr: 0.1 })
  const part: train.Checkpointed = {
    state: () => ({ tensors: { x: x.value }, settings: { note: 'mine' } }),
    load: ({ tensors }) => void x.value.copyFrom(tensors.x as typeof x.value),
  }
  const body = (step: number) => {
    const gradient = tidy(() => x.value.sub(normal([3], { seed: 1, offset: step })))
    const gradNorm = optimizer.step({ gradients: [gradient] })
    gradient.dispose()
    return { loss: 1 / (step + 1), gradNorm }
  }
  return { x, parts: { vector: part, optimizer }, body }
}

async function lines(folder: string): Promise<{ step: number; loss: number }[]> {
  const text = await readFile(path.join(folder, 'metrics.jsonl'), 'utf8')
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
}

/** A checkpoint's tensors and what it says. */
async function contents(folder: string, name: string) {
  const file = path.join(folder, 'checkpoints', name)
  const { tensors, metadata } = await io.loadSafetensors(file)
  const values: Record<string, number[]> = {}
  for (const [key, held] of Object.entries(tensors)) {
    values[key] = [...(await held.data())]
    held.dispose()
  }
  return { values, said: JSON.parse(metadata.didr as string) }
}

const open = (folder: string, parts: object, more: object = {}) =>
  TrainingRun.open(folder, {
    kind: 'test',
    config,
    parts: parts as Record<string, train.Checkpointed>,
    ...more,
  })

describe('a run', () => {
  it('leaves its configuration, a line for each step and the last checkpoints', async () => {
    const folder = await temporaryFolder()
    const { parts, body, x } = vector()
    const seen: number[] = []
    const run = await open(folder, parts, {
      onProgress: ({ step, secondsLeft }: train.Progress) => {
        seen.push(step)
        expect(secondsLeft).toBeGreaterThanOrEqual(0)
      },
    })
    expect(await run.train(body)).toBe(true)
    expect(JSON.parse(await readFile(path.join(folder, 'config.json'), 'utf8'))).toEqual(config)
    expect((await readdir(path.join(folder, 'checkpoints'))).sort()).toEqual([
      'step-000008.safetensors',
      'step-000010.safetensors',
    ])
    expect((await lines(folder)).map(({ step, loss }) => [step, loss])).toEqual(
      Array.from({ length: 10 }, (_, i) => [i + 1, 1 / (i + 1)]),
    )
    expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    const file = path.join(folder, 'checkpoints/step-000010.safetensors')
    const { tensors, metadata } = await io.loadSafetensors(file)
    expect([...(await (tensors['vector.x'] as Tensor).data())]).toEqual([...(await x.value.data())])
    expect(JSON.parse(metadata.didr as string)).toMatchObject({
      checkpoint: 'test',
      step: 10,
      settings: { vector: { note: 'mine' } },
    })
  })

  it('goes on after a failure as if it had not been', async () => {
    const whole = vector()
    await (await open(await temporaryFolder(), whole.parts)).train(whole.body)
    const expected = [...(await whole.x.value.data())]
    for (const failing of [0, 1, 4, 6, 9]) {
      const folder = await temporaryFolder()
      const broken = vector()
      const first = await open(folder, broken.parts)
      const failure = first.train((step) => {
        if (step === failing) throw new Error('power cut')
        return broken.body(step)
      })
      await expect(failure).rejects.toThrow('power cut')
      // What a process that was killed in the middle of a write leaves.
      await appendFile(path.join(folder, 'metrics.jsonl'), '{"step": 99, "lo')
      await writeFile(path.join(folder, 'checkpoints/.step-000004.safetensors.1-ab.tmp'), 'half')
      const again = vector()
      const resumed = await open(folder, again.parts, { resume: true })
      expect(resumed.step).toBe(Math.floor(failing / 4) * 4)
      expect(await resumed.train(again.body)).toBe(true)
      expect([...(await again.x.value.data())], `failed in ${failing}`).toEqual(expected)
      expect((await lines(folder)).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
      expect(await readdir(path.join(folder, 'checkpoints'))).toHaveLength(2)
    }
  })

  it('stops with a checkpoint when its signal is aborted, and goes on from there', async () => {
    const whole = vector()
    await (await open(await temporaryFolder(), whole.parts)).train(whole.body)
    for (const at of [0, 5, 7, 9]) {
      const folder = await temporaryFolder()
      const controller = new AbortController()
      const stopped = vector()
      const run = await open(folder, stopped.parts, { signal: controller.signal })
      const finished = await run.train((step) => {
        if (step === at) controller.abort()
        return stopped.body(step)
      })
      expect([finished, run.step]).toEqual([at === 9, at + 1])
      const again = vector()
      const resumed = await open(folder, again.parts, { resume: true })
      expect(resumed.step).toBe(at + 1)
      expect(await resumed.train(again.body)).toBe(true)
      expect([...(await again.x.value.data())]).toEqual([...(await whole.x.value.data())])
    }
  })

  it('is refused where there is one, unless it is resumed with its configuration', async () => {
    const folder = await temporaryFolder()
    const { parts, body } = vector()
    await (await open(folder, parts)).train(body)
    await expect(open(folder, parts)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: `${folder}: there is a run already; resume it (--resume) or choose another folder`,
    })
    await expect(
      open(folder, parts, { resume: true, config: { ...config, lr: 0.2 } }),
    ).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('config.lr: differs from that of the run'),
    })
    // More steps are allowed: the run is done and goes on.
    const longer = await open(folder, parts, { resume: true, config: { ...config, steps: 12 } })
    expect(await longer.train(body)).toBe(true)
    expect((await lines(folder)).at(-1)?.step).toBe(12)
  })

  it('refuses checkpoints of something else, and files that are none', async () => {
    const folder = await temporaryFolder()
    const { parts, body } = vector()
    await (await open(folder, parts)).train(body)
    await expect(open(folder, parts, { resume: true, kind: 'other' })).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringContaining('expected a checkpoint of other, got "test"'),
    })
    const { optimizer } = parts
    await expect(open(folder, { optimizer }, { resume: true })).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringContaining('vector.x: of no part here'),
    })
    const file = path.join(folder, 'checkpoints/step-000010.safetensors')
    await writeFile(file, 'garbage')
    const before = memory().tensors
    await expect(open(folder, parts, { resume: true })).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringContaining(file),
    })
    expect(memory().tensors).toBe(before)
  })

  it('ends at a number that is not finite, its last checkpoint intact', async () => {
    const folder = await temporaryFolder()
    const { parts, body } = vector()
    const run = await open(folder, parts)
    const failing = run.train((step) => ({
      ...body(step),
      loss: step === 5 ? Number.NaN : 1,
    }))
    await expect(failing).rejects.toMatchObject({
      code: 'ERR_NONFINITE',
      message:
        'loss: expected a finite number, got NaN (at step 6; the last checkpoint is of step 4)',
    })
    expect(await readdir(path.join(folder, 'checkpoints'))).toEqual(['step-000004.safetensors'])
  })

  it('draws pictures when it is to', async () => {
    const folder = await temporaryFolder()
    const { parts, body } = vector()
    const run = await open(folder, parts, { config: { ...config, previewEvery: 3 } })
    const files: string[] = []
    const preview = async (file: string) => void files.push(path.relative(folder, file))
    await run.train(body, { preview })
    expect(files).toEqual(
      ['000003', '000006', '000009', '000010'].map((step) => `samples/step-${step}.png`),
    )
  })

  it('leaves no tensors behind but its parts', async () => {
    const folder = await temporaryFolder()
    const { parts, body } = vector()
    const run = await open(folder, parts)
    body(0).gradNorm.dispose()
    const before = memory().tensors
    await run.train(body)
    expect(memory().tensors).toBe(before)
  })

  it.each([
    ['steps', 0],
    ['checkpointEvery', 0.5],
    ['keepCheckpoints', 0],
    ['previewEvery', -1],
  ])('refuses %s = %s', async (field, value) => {
    const folder = await temporaryFolder()
    await expect(open(folder, {}, { config: { ...config, [field]: value } })).rejects.toThrow(
      `config.${field}: expected an integer`,
    )
  })

  it('says when its folder cannot be made', async () => {
    const folder = await temporaryFolder()
    await writeFile(path.join(folder, 'file'), '')
    await expect(open(path.join(folder, 'file'), {})).rejects.toMatchObject({ code: 'ERR_IO' })
  })
})

describe('the line of progress', () => {
  const progress = {
    steps: 2000,
    metrics: { loss: 0.123456 },
    rate: 3.21,
    secondsLeft: 3725.4,
  }

  it('is rewritten on a terminal and written anew elsewhere', () => {
    for (const [isTTY, expected] of [
      [true, '\r\x1b[Kstep 1000/2000 (50%)  loss 0.1235  3.2/s  1:02:05 left'],
      [false, 'step 1000/2000 (50%)  loss 0.1235  3.2/s  1:02:05 left\n'],
    ] as const) {
      const written: string[] = []
      const stream = { isTTY, write: (text: string) => written.push(text) > 0 }
      const show = train.progressLine(stream as unknown as NodeJS.WriteStream)
      show({ ...progress, step: 1000 })
      // Too soon after the first.
      show({ ...progress, step: 1001 })
      expect(written).toEqual([expected])
      show({ ...progress, step: 2000, rate: 0.0512, secondsLeft: 0 })
      expect(written).toHaveLength(2)
      expect(written[1]).toContain('step 2000/2000 (100%)  loss 0.1235  0.051/s  0:00 left')
      expect(written[1]).toMatch(/\n$/)
    }
  })

  it('shows the metrics that are asked for, in that order, once they have been seen', () => {
    const written: string[] = []
    const stream = { isTTY: false, write: (text: string) => written.push(text) > 0 }
    const show = train.progressLine(stream as unknown as NodeJS.WriteStream, {
      metrics: ['reward', 'loss', 'none'],
    })
    const one = { ...progress, steps: 1, step: 1, secondsLeft: 0 }
    show({ ...one, metrics: { loss: 1, gradNorm: 2 } })
    show({ ...one, metrics: { loss: 2, gradNorm: 2, reward: 3 } })
    expect(written.map((line) => line.split('  ').slice(1, -2))).toEqual([
      ['loss 1'],
      ['reward 3', 'loss 1.05'],
    ])
    for (const wrong of [{ metric: [] }, { metrics: 'loss' }])
      expect(() =>
        train.progressLine(stream as unknown as NodeJS.WriteStream, wrong as object),
      ).toThrow('options.metric')
  })
})

describe('metrics', () => {
  it('of all kinds go where they belong', async () => {
    const folder = await temporaryFolder()
    const before = memory().tensors
    const shown: unknown[] = []
    const run = await open(
      folder,
      {},
      {
        config: { ...config, steps: 2 },
        onProgress: ({ metrics }: train.Progress) => shown.push(metrics),
      },
    )
    await run.train((step) => ({
      loss: tensor([0.5]),
      reward: step === 0 ? undefined : 0.25,
      rewardParts: step === 0 ? {} : { aesthetic: 1, 'a/b': -2 },
      noOps: step === 0 ? [] : ['reward', 'kl'],
      ['__proto__']: 3,
    }))
    expect(memory().tensors).toBe(before)
    const first = { loss: 0.5, ['__proto__']: 3 }
    const second = {
      ...{ loss: 0.5, reward: 0.25, 'rewardParts/aesthetic': 1, 'rewardParts/a/b': -2 },
      ['__proto__']: 3,
    }
    expect(shown.map((metrics) => Object.entries(metrics as object))).toEqual(
      [first, second].map((metrics) => Object.entries(metrics)),
    )
    const text = await readFile(path.join(folder, 'metrics.jsonl'), 'utf8')
    const [one, two] = text
      .trimEnd()
      .split('\n')
      .map((line) => Object.entries(JSON.parse(line)))
    const seconds = ['seconds', expect.any(Number)]
    expect(one).toEqual([['step', 1], seconds, ...Object.entries(first)])
    expect(two).toEqual([
      ['step', 2],
      seconds,
      ...Object.entries(second),
      ['noOps', ['reward', 'kl']],
    ])
    const scalars = await shownScalars(folder)
    expect(Object.keys(scalars).sort()).toEqual(['seconds', ...Object.keys(second)].sort())
    expect(scalars['rewardParts/aesthetic']).toEqual([[2, 1]])
    expect(scalars.loss).toEqual([1, 2].map((step) => [step, 0.5]))
  })

  it.each([
    [{ step: 1 }, 'ERR_CONFIG', 'metrics.step: the run writes that itself'],
    [{ seconds: [] }, 'ERR_CONFIG', 'metrics.seconds: the run writes that itself'],
    [{ 'a/b': 1, a: { b: 2 } }, 'ERR_CONFIG', 'metrics: two have the name "a/b"'],
    [{ 'a/b': [], a: { b: 2 }, 'a/c': 1 }, 'ERR_OK', ''],
    [{ a: 'text' }, 'ERR_CONFIG', 'metrics.a: expected a number, got "text"'],
    [{ a: null }, 'ERR_CONFIG', 'metrics.a: expected a number, got null'],
    [{ a: true }, 'ERR_CONFIG', 'metrics.a: expected a number, got true'],
    [{ a: [1, 2] }, 'ERR_CONFIG', 'metrics.a: expected strings, got [1, 2]'],
    [{ a: { b: undefined } }, 'ERR_CONFIG', 'metrics.a/b: expected a number, got undefined'],
    [{ a: { b: { c: 1 } } }, 'ERR_CONFIG', 'metrics.a/b: expected a number, got an object'],
    [{ a: { b: Number.POSITIVE_INFINITY } }, 'ERR_NONFINITE', 'a/b: expected a finite number'],
  ])('%j: %s', async (metrics, code, message) => {
    const run = await open(await temporaryFolder(), {})
    const before = memory().tensors
    const all = { ...metrics, late: tensor([1]) } as train.Metrics
    const result = await run.train((step) => (step === 0 ? all : {})).catch((error) => error)
    if (code === 'ERR_OK') expect(result).toBe(true)
    else {
      expect(result).toMatchObject({ code, message: expect.stringContaining(message) })
      expect(result.message).toMatch(/ \(at step 1; there is no checkpoint yet\)$/)
    }
    expect(memory().tensors).toBe(before)
  })
})

describe('for TensorBoard', () => {
  it('a run writes its numbers and samples, those of repeated steps once', async () => {
    const folder = await temporaryFolder()
    const options = { config: { ...config, previewEvery: 5 } }
    const png = await sharp({ create: { width: 3, height: 2, channels: 3, background: 'red' } })
      .png()
      .toBuffer()
    const preview = (file: string) => writeFile(file, png)
    const broken = vector()
    const run = await open(folder, broken.parts, options)
    const failure = run.train(
      (step) => {
        if (step === 7) throw new Error('power cut')
        return broken.body(step)
      },
      { preview },
    )
    await expect(failure).rejects.toThrow('power cut')
    const again = vector()
    const resumed = await open(folder, again.parts, { ...options, resume: true })
    await resumed.train(again.body, { preview })
    // Nothing to do: no file.
    await (await open(folder, vector().parts, { ...options, resume: true })).train(again.body)

    const files = await eventFiles(folder)
    expect(files).toHaveLength(2)
    const events = await Promise.all(files.map(readEvents))
    expect(events.map((all) => all.find(({ status }) => status === 1)?.step)).toEqual([1, 5])
    const pictures = events.map((all) =>
      all.flatMap(({ step, images = {} }) =>
        Object.entries(images).map(([tag, i]) => [step, tag, i]),
      ),
    )
    const picture = { width: 3, height: 2, colorspace: 3, encoded: png }
    expect(pictures).toEqual([
      [[5, 'samples', picture]],
      [
        [5, 'samples', picture],
        [10, 'samples', picture],
      ],
    ])
    const shown = await shownScalars(folder)
    expect(Object.keys(shown).sort()).toEqual(['gradNorm', 'loss', 'seconds'])
    const written = await lines(folder)
    expect(shown.loss).toEqual(written.map(({ step, loss }) => [step, Math.fround(loss)]))
  })

  it('a preview that is no PNG is refused by name', async () => {
    const run = await open(await temporaryFolder(), {}, { config: { ...config, previewEvery: 2 } })
    const training = run.train(() => ({}), { preview: (file) => writeFile(file, 'text') })
    await expect(training).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringMatching(/samples: expected a PNG file.*\(at step 2; there is no/),
    })
  })
})

describe('a step that fails', () => {
  it('tells its number and the last checkpoint, and keeps the error and its code', async () => {
    for (const [failing, expected] of [
      [0, 'w: expected 1, got 2 (at step 1; there is no checkpoint yet)'],
      [8, 'w: expected 1, got 2 (at step 9; the last checkpoint is of step 8)'],
    ] as const) {
      const { parts, body } = vector()
      const folder = await temporaryFolder()
      const cause = new DidrError('ERR_RANGE', 'w: expected 1, got 2')
      const run = await open(folder, parts)
      const training = run.train(async (step) => {
        if (step === failing) throw cause
        return body(step)
      })
      const error = await training.catch((reason) => reason)
      expect(error).toBeInstanceOf(DidrError)
      expect(error).toMatchObject({ code: 'ERR_RANGE', message: expected, cause })
    }
  })

  it("of an error that is not the package's passes it on", async () => {
    const run = await open(await temporaryFolder(), {})
    const bug = new TypeError('a bug')
    const training = run.train(() => {
      throw bug
    })
    expect(await training.catch((reason) => reason)).toBe(bug)
  })

  it.each([
    ['metrics.jsonl', 'appendFile', 'metrics.jsonl', 3, 'the last checkpoint is of step 2'],
    ['a checkpoint', 'open', 'step-000004.safetensors', 4, 'the last checkpoint is of step 2'],
    ["a checkpoint's name", 'rename', 'step-000004.safetensors', 4, 'step 2'],
    ['the best one', 'link', 'step-000004.safetensors', 4, 'step 4'],
  ])('because the disk is full for %s says so, and goes on once there is room', async (...args) => {
    const [, call, file, step, saved] = args
    const short = { ...config, steps: 6, checkpointEvery: 2, keepCheckpoints: 1 }
    const options = { config: short, best: { metric: 'loss', mode: 'min' }, resume: true }
    const whole = vector()
    const expected = await temporaryFolder()
    await (await open(expected, whole.parts, options)).train(whole.body)

    const folder = await temporaryFolder()
    const first = vector()
    const run = await open(folder, first.parts, options)
    let full = false
    const { outcome } = await withFailures(
      (made) => {
        // A full disk has no room for what comes after, either.
        full ||= run.step === step && made.name === call && made.paths.includes(file)
        const needsRoom = ['appendFile', 'link', 'open', 'rename'].includes(made.name)
        return full && needsRoom ? 'ENOSPC' : undefined
      },
      () => run.train(first.body),
    )
    expect(outcome).toMatchObject({
      status: 'rejected',
      reason: {
        code: 'ERR_IO',
        message: expect.stringContaining(`(at step ${step}; `),
      },
    })
    const { message } = (outcome as PromiseRejectedResult).reason
    expect(message).toContain('ENOSPC')
    expect(message).toContain(saved)
    expect(message).toContain(call === 'link' ? 'best.safetensors' : file)

    const again = vector()
    const resumed = await open(folder, again.parts, options)
    expect(resumed.step).toBe(saved.endsWith('2') ? 2 : 4)
    expect(await resumed.train(again.body)).toBe(true)
    for (const name of ['step-000006.safetensors', 'best.safetensors'])
      expect(await contents(folder, name)).toEqual(await contents(expected, name))
    expect(await readdir(path.join(folder, 'checkpoints'))).toHaveLength(2)
  })

  it('because metrics.jsonl is on a full disk is an ERR_IO that names it', async () => {
    const folder = await temporaryFolder()
    const { parts, body } = vector()
    const run = await open(folder, parts)
    // A device on which every write fails with ENOSPC; a folder fails, too, where there is none.
    const file = path.join(folder, 'metrics.jsonl')
    if (existsSync('/dev/full')) await symlink('/dev/full', file)
    else await mkdir(file)
    await expect(run.train(body)).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringMatching(/metrics\.jsonl: could not be written: .* \(at step 1; /),
    })
  })
})
