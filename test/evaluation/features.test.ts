import { describe, expect, it } from 'vitest'
import {
  type ErrorCode,
  evaluation,
  memory,
  models,
  type Tensor,
  tensor,
  uniform,
  vjp,
  zeros,
} from '../../lib/index.js'
import { expectRejection } from '../expectations.js'
import { rowsOf } from './points.js'

type Images = Tensor<'float32'>

/** The mean of each channel: [B, 3]. */
const means: evaluation.FeatureExtractor = (images) => images.mean([2, 3])

/** Images of one value each. */
const flat = (values: number[]) =>
  tensor(Float32Array.from(values.flatMap((value) => new Array<number>(3 * 4).fill(value))), {
    shape: [values.length, 3, 2, 2],
  }) as Images

describe('features', () => {
  it('one row for each image, in the order of the batches', async () => {
    const batches = [flat([0.25, 0.5]), flat([]), flat([1])]
    const features = await evaluation.featuresOf(means, batches)
    expect(rowsOf(features)).toEqual([
      [0.25, 0.25, 0.25],
      [0.5, 0.5, 0.5],
      [1, 1, 1],
    ])
    expect(features.columns).toBe(3)
  })

  it('of a generator that disposes its batches', async () => {
    const before = memory().tensors
    async function* batches() {
      for (const value of [0, 0.5, 1]) {
        using images = flat([value, value])
        yield images
      }
    }
    const features = await evaluation.featuresOf(means, batches())
    expect(rowsOf(features).map(([x]) => x)).toEqual([0, 0, 0.5, 0.5, 1, 1])
    expect(memory().tensors).toBe(before)
  })

  it('are the same however images are batched', async () => {
    using judge = models.clip({ widths: [4, 8], groups: 2, captions: { vocabulary: [], dim: 2 } })
    const images = uniform([5, 3, 12, 8], { seed: 1 })
    const extract: evaluation.FeatureExtractor = (x) => judge.features(x)
    const together = await evaluation.featuresOf(extract, [images])
    const apart = await evaluation.featuresOf(
      extract,
      [0, 2, 4].map((first) =>
        images.slice([first, 0, 0, 0], [Math.min(2, 5 - first), -1, -1, -1]),
      ),
    )
    expect([apart.rows, apart.columns]).toEqual([5, 8])
    for (const [i, value] of apart.values.entries())
      expect(value).toBeCloseTo(together.values[i] as number, 5)
  })

  it('keep nothing for gradients, and nothing at all', async () => {
    const images = flat([0.5])
    const before = memory()
    await evaluation.featuresOf((x) => x.mul(2).mean([2, 3]), [images])
    expect(memory().tensors).toBe(before.tensors)
    const { value, pullback } = vjp(
      (x) => {
        // Started inside: what it computes is no part of the tape.
        void evaluation.featuresOf(means, [x])
        return x.sum()
      },
      [images],
    )
    const [gradient] = pullback(tensor(1, { shape: [] }) as typeof value)
    expect(new Set(await gradient.data())).toEqual(new Set([1]))
    expect(images.disposed).toBe(false)
  })

  it('of no images: no rows', async () => {
    expect((await evaluation.featuresOf(means, [])).rows).toBe(0)
    expect((await evaluation.featuresOf(means, [flat([])])).rows).toBe(0)
  })

  it('in bfloat16 are widened', async () => {
    const features = await evaluation.featuresOf(means, [flat([0.5]).cast('bfloat16')])
    expect(rowsOf(features)).toEqual([[0.5, 0.5, 0.5]])
  })
})

describe('what is refused', () => {
  const images = flat([0.5, 1])
  const extract = (f: (x: Images) => unknown) => f as evaluation.FeatureExtractor
  const dead = flat([1])
  dead.dispose()
  it.each<[unknown, unknown[], ErrorCode, RegExp]>([
    ['clip', [images], 'ERR_CONFIG', /^extract: expected a function, got "clip"/],
    [means, [zeros([2, 1, 4, 4])], 'ERR_SHAPE', /^images: expected \[batch, 3, height, width\]/],
    [means, [0.5], 'ERR_CONFIG', /^images: expected a tensor, got 0.5/],
    [means, [dead], 'ERR_DISPOSED', /^images: the tensor \[1, 3, 2, 2\] is disposed/],
    [
      extract((x) => x),
      [images],
      'ERR_SHAPE',
      /^features: expected \[2, columns\], got \[2, 3, 2, 2\]/,
    ],
    [
      extract((x) => x.mean([1, 2, 3])),
      [images],
      'ERR_SHAPE',
      /^features: expected \[2, columns\], got \[2\]/,
    ],
    [
      extract((x) => x.mean([2, 3]).slice([0, 0], [1, -1])),
      [images],
      'ERR_SHAPE',
      /^features: expected \[2, columns\], got \[1, 3\]/,
    ],
    [
      extract((x) => x.slice([0, 0, 0, 0], [-1, 1, 1, -1]).reshape([x.shape[0] as number, -1])),
      [images, zeros([1, 3, 2, 5])],
      'ERR_SHAPE',
      /^features: expected \[1, 2\], got \[1, 5\]/,
    ],
    [extract(() => undefined), [images], 'ERR_CONFIG', /^features: expected a tensor/],
    [extract(async () => images), [images], 'ERR_CONFIG', /^fn: expected a synchronous function/],
    [extract((x) => x.mean([2, 3]).cast('int32')), [images], 'ERR_DTYPE', /^features: expected /],
    [
      extract((x) => x.mean([2, 3]).sub(1).log()),
      [images],
      'ERR_NONFINITE',
      /^features.values: expected finite numbers, got NaN in row 0/,
    ],
  ])('case %#', async (extractor, batches, code, message) => {
    const call = () =>
      evaluation.featuresOf(extractor as evaluation.FeatureExtractor, batches as Images[])
    await expectRejection(call, code, message)
    expect(images.disposed).toBe(false)
  })
})
