import { readdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { io, memory, normal, type Parameter, type Tensor, train } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { type TinyFiles, tinyPrompts, writeTinyNano } from '../models/tiny-nano.js'
import { networks, writeFolder } from '../models/z-image-folder.js'

interface Setup {
  folder: string
  files: TinyFiles
  prompts: string
  /** A run of few steps on the tiny models. */
  config: train.Partly<train.AlignConfig>
  out: (name: string) => string
}

async function setup(): Promise<Setup> {
  const folder = await temporaryFolder()
  const files = await writeTinyNano(folder)
  const prompts = path.join(folder, 'prompts.txt')
  await writeFile(prompts, `${tinyPrompts.join('\n\n')}\n`)
  const { teacher, generator, clip } = files
  const config = {
    ...{ teacher, generator, clip, prompts, steps: 6, batchSize: 4 },
    ...{ checkpointEvery: 2, previewEvery: 0 },
    lora: { generator: { rank: 2 }, assistant: { rank: 2 } },
    optimizer: { generator: { lr: 0.02, warmup: 0 }, assistant: { lr: 0.02 } },
  } satisfies train.Partly<train.AlignConfig>
  return { folder, files, prompts, config, out: (name) => path.join(folder, 'runs', name) }
}

async function metricsOf(run: string): Promise<Record<string, number>[]> {
  const text = await readFile(path.join(run, 'metrics.jsonl'), 'utf8')
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
}

async function weightsOf(run: string): Promise<string> {
  return (await readFile(path.join(run, 'generator.safetensors'))).toString('base64')
}

describe('align', () => {
  it('logs every metric, draws previews, and leaves the teacher and no tensor behind', async () => {
    const { config, files, out } = await setup()
    const before = memory().tensors
    const teacher = await readFile(files.teacher)
    expect(await train.align({ ...config, previewEvery: 3 }, { out: out('a') })).toBe(true)
    expect(memory().tensors).toBe(before)
    expect(await readFile(files.teacher)).toEqual(teacher)
    expect((await readdir(path.join(out('a'), 'samples'))).sort()).toEqual([
      'step-000003.png',
      'step-000006.png',
    ])
    const lines = await metricsOf(out('a'))
    expect(lines.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6])
    for (const line of lines)
      for (const name of [
        ...['reward', 'rewardStd', 'rewardPart/clip', 'rewardPart/colourfulness', 'klToTarget'],
        ...['klToReference', 'assistantLoss', 'drsNorm', 'gradNorm', 'assistantGradNorm'],
      ])
        expect(line[name], name).toBeTypeOf('number')
    // The reward is the weighted sum of its parts.
    for (const line of lines)
      expect(line.reward).toBeCloseTo(
        0.5 * (line['rewardPart/clip'] as number) + (line['rewardPart/colourfulness'] as number),
        5,
      )
    const { tensors } = await io.inspectSafetensors(path.join(out('a'), 'generator.safetensors'))
    expect(Object.keys(tensors).every((name) => name.includes('.lora_'))).toBe(true)
  })

  it.each([
    ['diff-instruct, from the teacher', { ...train.distillation, generator: 'teacher' }],
    ['didr, drp', { drs: { estimator: 'drp', particles: 2 } }],
    ['diff-instruct*', { objective: 'diff-instruct*', weighting: 'x0' }],
    ['reward', { objective: 'reward', rewards: [{ reward: 'sharpness', normalize: 'running' }] }],
  ] as [string, train.Partly<train.AlignConfig>][])(
    'stopped and resumed ends with the same bits: %s',
    async (_, change) => {
      const { config, out } = await setup()
      const given = { ...config, ...change, steps: 5 }
      expect(await train.align(given, { out: out('whole') })).toBe(true)
      const controller = new AbortController()
      const stopped = await train.align(given, {
        out: out('parts'),
        signal: controller.signal,
        onProgress: ({ step }) => {
          if (step === 3) controller.abort()
        },
      })
      expect(stopped).toBe(false)
      expect(await train.align(given, { out: out('parts'), resume: true })).toBe(true)
      expect(await weightsOf(out('parts'))).toBe(await weightsOf(out('whole')))
      const timeless = (lines: Record<string, number>[]) =>
        lines.map(({ seconds, ...line }) => line)
      expect(timeless(await metricsOf(out('parts')))).toEqual(
        timeless(await metricsOf(out('whole'))),
      )
    },
  )

  it('takes a folder of Z-Image as the teacher, and another as the base of the generator', async () => {
    const folder = await temporaryFolder()
    const at = (name: string) => path.join(folder, name)
    const before = memory().tensors
    for (const name of ['Z-Image', 'Z-Image-Turbo']) {
      const own = networks()
      if (name !== 'Z-Image') {
        const { value } = own.transformer.parameters().at(-1) as Parameter
        using other = normal(value.shape, { seed: 4, dtype: 'bfloat16' })
        value.copyFrom(other as typeof value)
      }
      await writeFolder(at(name), own)
      for (const network of Object.values(own)) network.dispose()
    }
    const [red, heart, empty] = [1, 2, 3].map((seed) => normal([seed + 1, 6], { seed }) as Tensor)
    await io.saveSafetensors(
      at('captions.safetensors'),
      { 'prompt.0': red as Tensor, 'prompt.1': heart as Tensor, empty: empty as Tensor },
      { metadata: { prompts: '["red", "heart"]' } },
    )
    for (const x of [red, heart, empty]) x?.dispose()
    const config = {
      ...{ teacher: at('Z-Image'), generator: 'teacher', steps: 2, batchSize: 2, previewEvery: 2 },
      zImage: { embeddings: at('captions.safetensors'), size: 16 },
      lora: { generator: { rank: 2 }, assistant: { rank: 2 } },
      rewards: [{ reward: 'colourfulness' }],
    } satisfies train.Partly<train.AlignConfig>
    for (const base of ['', at('Z-Image-Turbo')]) {
      const out = at(`run${path.basename(base)}`)
      const given = { ...config, zImage: { ...config.zImage, base } }
      expect(await train.align(given, { out })).toBe(true)
      for (const line of await metricsOf(out)) expect(line.klToTarget).toBeGreaterThan(0)
      expect(await readdir(path.join(out, 'samples'))).toEqual(['step-000002.png'])
      // Another run starts from the additions of this one.
      const more = { ...given, generator: path.join(out, 'generator.safetensors') }
      expect(await train.align(more, { out: `${out}-more` })).toBe(true)
    }
    expect(await weightsOf(at('run'))).not.toBe(await weightsOf(at('runZ-Image-Turbo')))
    expect(memory().tensors).toBe(before)
    const without = { ...config, zImage: { size: 16 } }
    await expect(train.align(without, { out: at('a') })).rejects.toThrow(
      'config.zImage.embeddings: needed where the teacher is a folder',
    )
    const ragged = { ...config, zImage: { ...config.zImage, size: 18 } }
    await expect(train.align(ragged, { out: at('a') })).rejects.toThrow('a multiple of 4')
    expect(memory().tensors).toBe(before)
  })

  it('a reward that fails midway names the step and leaves the last checkpoint', async () => {
    const { config, folder, out } = await setup()
    const reward = path.join(folder, 'moody.mjs')
    await writeFile(
      reward,
      `let calls = 0
       export default { name: 'moody', differentiable: false, score: (x) => {
         if (++calls > 9) throw new Error('not in the mood')
         return x.mean([1, 2, 3]) } }`,
    )
    const given = {
      ...config,
      rewards: [{ reward }],
      drs: { estimator: 'particles', steps: 2, particles: 2 },
    } satisfies train.Partly<train.AlignConfig>
    await expect(train.align(given, { out: out('a') })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringMatching(
        /moody.*not in the mood.*\(at step 5; the last checkpoint is of step 4\)/s,
      ),
    })
    const checkpoints = await readdir(path.join(out('a'), 'checkpoints'))
    expect(checkpoints).toContain('step-000004.safetensors')
    expect(await metricsOf(out('a'))).toHaveLength(4)
  })

  it.each([
    [{ stepss: 3 }, /config\.stepss: unknown option/],
    [{ optimizer: { generator: { lrr: 1 } } }, /config\.optimizer\.generator\.lrr: unknown field/],
    [{ beta: 0 }, /config\.beta: expected a number above 0, got 0/],
    [{ steps: 0.5 }, /config\.steps: expected an integer/],
    [{ drs: { estimator: 'exact' } }, /config\.drs\.estimator: exact is the closed form/],
    [{ drs: { estimator: 'tweedie', particles: 3 } }, /config\.drs\.particles: tweedie has no/],
    [{ objective: 'dpo' }, /config\.objective: expected one of didr/],
    [{ rewards: [] }, /config\.reward: the objective didr needs one/],
    [{ rewards: [{ reward: 'hps' }] }, /parts\[0\]\.reward: expected clip/],
    [{ times: { kind: 'uniform', range: [0.9, 0.1] } }, /config\.times\.range/],
    [{ prompts: 'no-such-file.txt' }, /no-such-file\.txt: could not be read/],
    [{ teacher: 'no-such-file.safetensors' }, /no-such-file\.safetensors: could not be read/],
  ])('refuses %j', async (change, message) => {
    const { config, out } = await setup()
    const before = memory().tensors
    const given = { ...config, ...change } as train.Partly<train.AlignConfig>
    await expect(train.align(given, { out: out('a') })).rejects.toThrow(message)
    expect(memory().tensors).toBe(before)
  })

  it('refuses a file without prompts', async () => {
    const { config, prompts, out } = await setup()
    await writeFile(prompts, '\n \n')
    await expect(train.align(config, { out: out('a') })).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringContaining('expected prompts, one a line'),
    })
  })
})
