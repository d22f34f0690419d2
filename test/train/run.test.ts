import { appendFile, readdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  io,
  memory,
  normal,
  ones,
  optim,
  Parameter,
  type Tensor,
  tidy,
  train,
} from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'

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
      message: 'loss: expected a finite number, got NaN',
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
})
