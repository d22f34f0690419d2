import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { evaluation, io, memory, models, normal, rewards, type Tensor } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { tinyNano, tinyNanoConfig, tinyPrompts } from '../models/tiny-nano.js'

const clipOf = (seed: number) =>
  models.clip({ widths: [4, 8], groups: 2, dim: 6, captions: tinyNanoConfig.captions }, { seed })

describe('judge', () => {
  it('gives the same prompts and noise to everybody, whatever the batches', async () => {
    const before = memory().tensors
    const teacher = tinyNano()
    const generator = models.loraGenerator(teacher, { rank: 2, tInit: 1 })
    const features = clipOf(5)
    const subject = evaluation.generatorSubject('new', generator, teacher)
    const draw = { teacher, features, prompts: tinyPrompts, count: 7, seed: 3 }
    const matching = clipOf(6)
    const own = [rewards.colourfulness(), matching.reward()]
    const whole = await evaluation.judge(subject, { ...draw, rewards: own, batchSize: 7 })
    const seen = await evaluation.featuresOfSubject(subject, draw)
    const split = await evaluation.judge(subject, {
      ...draw,
      ...{ rewards: own, batchSize: 7, references: { itself: seen } },
    })
    expect(split.rewards).toEqual(whole.rewards)
    expect(whole.images).toBe(7)
    // Two images of each prompt, from different noise.
    expect(whole.diversity.withinPrompt?.euclidean).toBeGreaterThan(0)
    expect(split.references.itself?.frechet).toBeCloseTo(0, 6)
    expect(split.references.itself).toMatchObject({ images: 7, precision: 1, recall: 1 })
    // The teacher in one step without guidance is what a new generator is.
    const same = await evaluation.judge(
      evaluation.teacherSubject(teacher, { steps: 1, guidance: 1 }),
      { ...draw, rewards: own, batchSize: 7 },
    )
    for (const name of ['colourfulness', 'clip'])
      expect(same.rewards[name]?.mean).toBeCloseTo(whole.rewards[name]?.mean as number, 5)
    expect(same.calls).toBe(1)
    const table = evaluation.judgementTable([split, { ...split, name: 'again' }], split)
    expect(table.split('\n').at(-1)).toMatch(/^\| again \| 1 \| .* \| none \|$/)
    for (const x of [generator, teacher, features, matching]) x.dispose()
    expect(memory().tensors).toBe(before)
  })

  it('refuses counts that are none, and no prompts', async () => {
    using teacher = tinyNano()
    using generator = models.loraGenerator(teacher, { rank: 2 })
    using features = clipOf(5)
    const subject = evaluation.generatorSubject('new', generator, teacher)
    const draw = { teacher, features, prompts: tinyPrompts, count: 4 }
    await expect(evaluation.judge(subject, { ...draw, count: 1 })).rejects.toThrow('options.count')
    await expect(evaluation.judge(subject, { ...draw, perPrompt: 0 })).rejects.toThrow('perPrompt')
    await expect(evaluation.judge(subject, { ...draw, prompts: [] })).rejects.toThrow('prompts')
  })
})

describe('references', () => {
  it('are the same after they were saved, to bfloat16', async () => {
    const file = path.join(await temporaryFolder(), 'references.safetensors')
    using x = normal([5, 3], { seed: 1 })
    const values = Float64Array.from(await x.data())
    await evaluation.saveReferences(file, { a: { rows: 5, columns: 3, values } }, { a: 'drawn' })
    const { a } = await evaluation.loadReferences(file, 3)
    expect([a?.rows, a?.columns]).toEqual([5, 3])
    for (const [i, value] of values.entries())
      expect(Math.abs((a?.values[i] as number) - value)).toBeLessThanOrEqual(
        2 ** -8 * Math.abs(value),
      )
    expect((await io.inspectSafetensors(file)).metadata.a).toBe('drawn')
    await expect(evaluation.loadReferences(file, 4)).rejects.toMatchObject({ code: 'ERR_FORMAT' })
    using other = normal([2, 3], { seed: 1 })
    await io.saveSafetensors(file, { a: other as Tensor })
    await expect(evaluation.loadReferences(file, 3)).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringContaining('expected didr features'),
    })
  })
})
