import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { memory, models, rewards, uniform } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { tinyNanoConfig, writeTinyNano } from '../models/tiny-nano.js'

const images = uniform([3, 3, 8, 8], { seed: 1 })

async function scoresOf(reward: rewards.Reward, texts?: string[]): Promise<number[]> {
  const condition = texts && { features: images, lengths: [], texts }
  using scores = await rewards.scoreNumbers(reward, images, condition)
  return [...(await scores.data())]
}

async function moduleFile(name: string, source: string): Promise<string> {
  const file = path.join(await temporaryFolder(), name)
  await writeFile(file, source)
  return file
}

describe('rewards by name', () => {
  it('are summed up with their weights', async () => {
    const loaded = await rewards.named([
      { reward: 'colourfulness', weight: 2 },
      { reward: 'sharpness', weight: -0.5, mean: 0.1 },
    ])
    const [a, b] = [
      await scoresOf(rewards.colourfulness()),
      await scoresOf(rewards.sharpness()),
    ] as const
    const got = await scoresOf((loaded as rewards.LoadedReward).reward)
    for (const [i, score] of got.entries())
      expect(score).toBeCloseTo(2 * (a[i] as number) - 0.5 * ((b[i] as number) - 0.1), 5)
    await loaded?.release()
    expect(await rewards.named([])).toBeUndefined()
  })

  it('clip is the model in the file, and is released', async () => {
    const { clip } = await writeTinyNano(await temporaryFolder())
    const before = memory().tensors
    const loaded = (await rewards.named([{ reward: 'clip' }], { clip })) as rewards.LoadedReward
    using model = await models.loadClip(clip)
    expect(loaded.reward.differentiable).toBe(true)
    const prompts = ['red heart', 'circle', 'blue']
    expect(await scoresOf(loaded.reward, prompts)).toEqual(await scoresOf(model.reward(), prompts))
    await loaded.release()
    model.dispose()
    expect(memory().tensors).toBe(before)
    expect(tinyNanoConfig.captions.vocabulary).toContain('red')
  })

  it.each([
    ['bright.mjs', 'export default (images) => images.mean([1, 2, 3])', true],
    [
      'bright.ts',
      "import type { Tensor } from 'didr'\nexport default (images: Tensor<'float32'>) => images.mean([1, 2, 3])",
      true,
    ],
    [
      'bright.mts',
      "export default async () => ({ name: 'own', differentiable: true, score: (x: any) => x.mean([1, 2, 3]) })",
      true,
    ],
    [
      'bright.js',
      'export default { name: "own", differentiable: false, score: (x) => x.mean([1, 2, 3]) }',
      false,
    ],
  ])('a module: %s', async (name, source, differentiable) => {
    const { reward, release } = await rewards.loadReward(await moduleFile(name, source))
    expect(reward.differentiable).toBe(differentiable)
    using means = images.mean([1, 2, 3])
    expect(await scoresOf(reward)).toEqual([...(await means.data())])
    await release()
  })

  it.each([
    ['hps', /expected clip, colourfulness, sharpness, or the path of a module .* got "hps"/],
    ['none.onnx', /onnxruntime-node could not be loaded/],
    ['./no-such-module.ts', /no-such-module\.ts could not be loaded/],
  ])('refuses %s', async (reward, message) => {
    await expect(rewards.named([{ reward }])).rejects.toThrow(message)
  })

  it.each([
    ['syntax.mjs', 'export default (', /could not be loaded/],
    ['empty.ts', 'export const x = 1', /the default export of .*: expected a reward/],
    ['object.mjs', 'export default { name: "a" }', /differentiable: expected a boolean/],
    ['factory.mjs', 'export default () => 3', /resolves to: expected a reward, got 3/],
  ])('refuses the module %s', async (name, source, message) => {
    const reward = await moduleFile(name, source)
    await expect(rewards.named([{ reward }])).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringMatching(message),
    })
  })

  it('refuses fields that are none, by their path, and releases what it has loaded', async () => {
    const { clip } = await writeTinyNano(await temporaryFolder())
    const before = memory().tensors
    const parts = [{ reward: 'clip' }, { reward: 'colourfulness', wieght: 2 }]
    await expect(rewards.named(parts as rewards.NamedPart[], { clip })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('parts[1].wieght: unknown option'),
    })
    expect(memory().tensors).toBe(before)
    await expect(rewards.named('clip' as never)).rejects.toThrow('parts: expected an array')
  })
})
