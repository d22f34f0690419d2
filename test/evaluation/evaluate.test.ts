import { describe, expect, it } from 'vitest'
import {
  type ErrorCode,
  evaluation,
  memory,
  models,
  rewards,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import { expectRejection } from '../expectations.js'
import { generator } from '../reference.js'
import { featuresFrom, gaussianRows } from './points.js'
import { place, type Scene, scenes } from './scenes.js'

const captions = { vocabulary: ['red', 'disc'], dim: 4 }
const judge = models.clip({ widths: [4, 8], groups: 2, dim: 5, captions }, { seed: 2 })
const aligned = models.clip({ widths: [4], groups: 2, dim: 5, captions }, { seed: 3 })
const encoder = models.captionEncoder(captions)
const extract: evaluation.FeatureExtractor = (images) => judge.features(images)

const images = scenes(12, 1)
const texts = images.map((_, i) => ['red', 'disc', 'red disc'][i % 3] as string)
const batchesOf = (all: readonly Scene[], size: number): evaluation.ImageBatch[] =>
  Array.from({ length: Math.ceil(all.length / size) }, (_, i) => ({
    images: place(all.slice(i * size, (i + 1) * size)),
    condition: encoder.forward(texts.slice(i * size, (i + 1) * size)),
  }))
const real = await evaluation.featuresOf(extract, [place(scenes(20, 2))])
const same = await evaluation.featuresOf(extract, [place(images)])
const scored = [aligned.reward(), rewards.colourfulness(), rewards.sharpness()]
const options = { features: extract, references: { real, same }, rewards: scored }

describe('a report', () => {
  it('is of its parts', async () => {
    const report = await evaluation.evaluateImages({ ...options, batches: batchesOf(images, 12) })
    expect(report.images).toBe(12)
    expect(Object.keys(report.rewards)).toEqual(['clip', 'colourfulness', 'sharpness'])
    const all = place(images)
    for (const reward of scored) {
      const scores = await (await rewards.scoreNumbers(reward, all, encoder.forward(texts))).data()
      const mean = scores.reduce((a, b) => a + b, 0) / 12
      const variance = scores.reduce((sum, score) => sum + (score - mean) ** 2, 0) / 11
      expect(report.rewards[reward.name]?.mean).toBeCloseTo(mean, 6)
      expect(report.rewards[reward.name]?.std).toBeCloseTo(Math.sqrt(variance), 6)
      expect(report.rewards[reward.name]?.std).toBeGreaterThan(0)
    }
    expect(report.references.real).toEqual({
      images: 20,
      frechet: evaluation.frechetDistance(same, real),
      ...evaluation.precisionRecall(same, real),
    })
    expect(report.references.real?.frechet).toBeGreaterThan(1e-4)
    expect(report.references.same).toMatchObject({ images: 12, precision: 1, recall: 1 })
    expect(report.references.same?.frechet).toBeLessThan(1e-12)
    expect(report.diversity).toEqual(evaluation.diversity(same, texts))
    expect(report.statistics).toEqual(await evaluation.imageStatistics([all]))
  })

  it('is plain, and the same again and in other batches', async () => {
    const run = (size: number) =>
      evaluation.evaluateImages({ ...options, batches: batchesOf(images, size) })
    const report = await run(12)
    expect(JSON.parse(JSON.stringify(report))).toEqual(report)
    expect(await run(12)).toEqual(report)
    const apart = await run(5)
    expect(apart.statistics.saturation).toBeCloseTo(report.statistics.saturation, 12)
    expect(apart.references.real?.frechet).toBeCloseTo(report.references.real?.frechet as number, 5)
    expect(apart.rewards.clip?.mean).toBeCloseTo(report.rewards.clip?.mean as number, 5)
  })

  it('passes the number of neighbours on', async () => {
    const { references } = await evaluation.evaluateImages({
      batches: batchesOf(images, 12),
      features: extract,
      references: { real },
      neighbours: 1,
    })
    expect(references.real).toMatchObject(evaluation.precisionRecall(same, real, { neighbours: 1 }))
    expect(references.real).not.toMatchObject(evaluation.precisionRecall(same, real))
  })

  it('of two images, without rewards, references and prompts', async () => {
    const report = await evaluation.evaluateImages({
      batches: [{ images: place(images.slice(0, 2)) }],
      features: extract,
    })
    expect(report).toMatchObject({ images: 2, rewards: {}, references: {} })
    expect(report.diversity).not.toHaveProperty('withinPrompt')
    expect(evaluation.alarmStatistics(report)).not.toHaveProperty('promptDiversity')
  })

  it('has no diversity within prompts unless every batch says its prompts', async () => {
    const [first, ...others] = batchesOf(images, 6)
    const { diversity } = await evaluation.evaluateImages({
      features: extract,
      batches: [{ images: first?.images as Tensor<'float32'> }, ...others],
    })
    expect(diversity).toEqual({ all: evaluation.diversity(same).all })
  })

  it('takes rewards that are black boxes, and gives each its conditions', async () => {
    const seen: (readonly string[] | undefined)[] = []
    const count = rewards.blackBox('words', async (_, condition) => {
      const { texts } = condition as models.Captions
      seen.push(texts)
      return (texts ?? []).map((text) => text.split(' ').length)
    })
    const report = await evaluation.evaluateImages({
      batches: batchesOf(images, 7),
      features: extract,
      rewards: [count],
    })
    expect(seen).toEqual([texts.slice(0, 7), texts.slice(7)])
    expect(report.rewards.words?.mean).toBeCloseTo(4 / 3, 12)
    expect(report.rewards.words?.std).toBeCloseTo(Math.sqrt((12 * 2) / 9 / 11), 12)
  })

  it('leaves nothing behind and the images alive', async () => {
    const batches = batchesOf(images, 5)
    const before = memory().tensors
    await evaluation.evaluateImages({ ...options, batches })
    expect(memory().tensors).toBe(before)
    expect(batches.map((batch) => batch.images.disposed)).toEqual([false, false, false])
  })
})

it('alarms on a collapse to one image per prompt, from two reports', async () => {
  const report = (all: readonly Scene[]) =>
    evaluation.evaluateImages({ batches: batchesOf(all, 6), features: extract })
  const base = evaluation.alarmStatistics(await report(images))
  expect(base.promptDiversity).toBeGreaterThan(0)
  expect(evaluation.alarmsOf(base, base)).toEqual([])
  const collapsed = await report(images.map((_, i) => images[i % 3] as Scene))
  const alarms = evaluation.alarmsOf(evaluation.alarmStatistics(collapsed), base)
  expect(alarms).toContainEqual(
    expect.objectContaining({ statistic: 'promptDiversity', limit: 1 / 1.5 }),
  )
  expect(collapsed.diversity.withinPrompt?.euclidean).toBeLessThan(1e-5)
})

describe('what is refused', () => {
  const batches = batchesOf(images, 12)
  const good = { batches, features: extract }
  const bad = zeros([2, 3, 8, 8]).sub(1) as Tensor<'float32'>
  it.each<[unknown, ErrorCode, RegExp]>([
    [undefined, 'ERR_CONFIG', /^options: expected an object, got undefined/],
    [{ ...good, reward: [] }, 'ERR_CONFIG', /^options.reward: unknown option/],
    [{ ...good, batches: place }, 'ERR_CONFIG', /^options.batches: expected an array of batches/],
    [{ ...good, batches: [] }, 'ERR_RANGE', /^options.batches: expected two images or more, got 0/],
    [
      { ...good, batches: [{ images: zeros([1, 3, 8, 8]) }] },
      'ERR_RANGE',
      /^options.batches: expected two images or more, got 1/,
    ],
    [
      { ...good, batches: [{ image: bad }] },
      'ERR_CONFIG',
      /^options.batches\[0\].image: unknown option/,
    ],
    [{ ...good, batches: [{ images: bad }] }, 'ERR_RANGE', /^images: expected pixels from 0 to 1/],
    [
      { ...good, batches: [{ images: zeros([2, 3, 8]) }] },
      'ERR_SHAPE',
      /^images: expected \[batch, 3, height, width\]/,
    ],
    [
      { ...good, batches: [{ images: zeros([2, 3, 8, 8]), condition: encoder.forward(['red']) }] },
      'ERR_SHAPE',
      /^options.batches\[0\].condition.texts: expected 2, one per image, got 1/,
    ],
    [{ ...good, features: judge }, 'ERR_CONFIG', /^extract: expected a function, got a Clip/],
    [{ ...good, rewards: {} }, 'ERR_CONFIG', /^options.rewards: expected an array of rewards/],
    [{ ...good, rewards: ['clip'] }, 'ERR_CONFIG', /^options.rewards\[0\]: expected a reward/],
    [
      { ...good, rewards: [rewards.sharpness(), rewards.sharpness()] },
      'ERR_CONFIG',
      /^options.rewards\[1\].name: expected another than "sharpness"/,
    ],
    [{ ...good, references: null }, 'ERR_CONFIG', /^options.references: expected features by name/],
    [{ ...good, references: { real: null } }, 'ERR_CONFIG', /real/],
    [
      { ...good, references: { real: featuresFrom(gaussianRows(generator(1), 9, 3)) } },
      'ERR_SHAPE',
      /^options.references.real: expected 8 columns/,
    ],
    [
      { ...good, references: { real: featuresFrom(gaussianRows(generator(1), 3, 8)) } },
      'ERR_RANGE',
      /^options.references.real.rows: expected an integer from 4 on, got 3/,
    ],
    [{ ...good, neighbours: 1.5 }, 'ERR_RANGE', /^options.neighbours: expected an integer from 1/],
    [
      { ...good, references: { real }, neighbours: 12 },
      'ERR_RANGE',
      /^options.neighbours: expected an integer from 1 to 11, got 12/,
    ],
  ])('case %#', async (wrong, code, message) => {
    const call = () => evaluation.evaluateImages(wrong as evaluation.EvaluateOptions)
    await expectRejection(call, code, message)
  })
})
