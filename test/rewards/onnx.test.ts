/**
 * ONNX models, with a stand-in for the runtime: its one model is Σ weights · pixels of each image, and it keeps what it
 * was asked.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { memory, normal, rewards, type Tensor, tensor, zeros } from '../../lib/index.js'
import { expectRejection } from '../expectations.js'
import { generator } from '../reference.js'

class RuntimeTensor {
  constructor(
    readonly type: string,
    readonly data: unknown,
    readonly dims: readonly number[],
  ) {}
}

interface Feeds {
  [input: string]: RuntimeTensor
}

let folder: string
let file: string
let inputNames: string[]
let outputNames: string[]
/** What the model answers instead of the sums. */
let answer: (() => RuntimeTensor) | undefined
let log: { created: string[]; feeds: Feeds[]; fetches: (readonly string[])[]; released: number }

const runtime = {
  Tensor: RuntimeTensor,
  InferenceSession: {
    async create(model: string) {
      log.created.push(model)
      if (model.endsWith('damaged.onnx')) throw new Error('protobuf parsing failed')
      return {
        inputNames,
        outputNames,
        async run(feeds: Feeds, fetches: readonly string[]) {
          log.feeds.push(feeds)
          log.fetches.push(fetches)
          const { data, dims } = feeds[fetches[0] === 'other' ? 'b' : 'a'] as RuntimeTensor
          const pixels = data as Float32Array
          const [batch = 0] = dims
          const size = pixels.length / batch
          const sums = Float32Array.from({ length: batch }, (_, i) =>
            pixels.slice(i * size, (i + 1) * size).reduce((sum, x) => sum + x, 0),
          )
          return {
            [fetches[0] as string]: answer?.() ?? new RuntimeTensor('float32', sums, [batch, 1]),
          }
        },
        async release() {
          log.released++
        },
      }
    },
  },
}

const open = (options: Partial<rewards.OnnxOptions> = {}) =>
  rewards.onnx({ file, importRuntime: async () => runtime, ...options })

const fed = (): RuntimeTensor => log.feeds.at(-1)?.a as RuntimeTensor

beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'didr-onnx-'))
  file = path.join(folder, 'sums.onnx')
  writeFileSync(file, 'read by nobody')
  writeFileSync(path.join(folder, 'damaged.onnx'), 'read by nobody')
})
afterAll(() => rmSync(folder, { recursive: true }))
beforeEach(() => {
  ;[inputNames, outputNames, answer] = [['a'], ['out'], undefined]
  log = { created: [], feeds: [], fetches: [], released: 0 }
})

describe('a model', () => {
  test('is fed the images as they are, and its output is the score', async () => {
    const images = normal([3, 2, 4, 5], { seed: 1 }) as Tensor<'float32'>
    const before = memory().tensors
    const reward = await open()
    expect([reward.name, reward.differentiable, log.created]).toEqual(['onnx', false, [file]])
    const scores = await rewards.scoreNumbers(reward, images)
    const pixels = await images.data()
    const { type, data, dims } = fed()
    expect([type, data, dims]).toEqual(['float32', pixels, [3, 2, 4, 5]])
    expect(log.fetches).toEqual([['out']])
    for (const [i, score] of (await scores.data()).entries())
      expect(score).toBeCloseTo(
        pixels.slice(40 * i, 40 * i + 40).reduce((a, b) => a + b),
        4,
      )
    scores.dispose()
    expect(memory().tensors).toBeLessThanOrEqual(before)
    // The images are still there.
    expect(await images.data()).toEqual(pixels)
    await reward.release()
    expect(log.released).toBe(1)
  })

  test('named among several, with inputs and outputs named', async () => {
    ;[inputNames, outputNames] = [
      ['a', 'b'],
      ['out', 'other'],
    ]
    const reward = await open({ name: 'mine', input: 'b', output: 'other' })
    using images = tensor([[[[1, 2]]]]) as Tensor<'float32'>
    using scores = await rewards.scoreNumbers(reward, images)
    expect(await scores.data()).toEqual(Float32Array.of(3))
    expect([Object.keys(log.feeds[0] as Feeds), log.fetches]).toEqual([['b'], [['other']]])
    expect(reward.name).toBe('mine')
  })

  test('as a CommonJS module', async () => {
    const reward = await open({ importRuntime: async () => ({ default: runtime }) })
    await reward.release()
  })

  test('gets bfloat16 images in float32', async () => {
    using images = tensor([[[[0.1, -3]]]], { dtype: 'bfloat16' }) as Tensor<'bfloat16'>
    using scores = await rewards.scoreNumbers(await open(), images)
    expect(fed().data).toEqual(await images.data())
    expect(scores.shape).toEqual([1])
  })

  test('gets normalised channels', async () => {
    const images = tensor([1, 2, 3, 4], { shape: [1, 2, 1, 2] }) as Tensor<'float32'>
    const feed = async (options: Partial<rewards.OnnxOptions>) => {
      ;(await rewards.scoreNumbers(await open(options), images)).dispose()
      return [...(fed().data as Float32Array)]
    }
    expect(await feed({ mean: [1, 2], std: [0.5, 4] })).toEqual([0, 2, 0.25, 0.5])
    expect(await feed({ mean: [1, 2] })).toEqual([0, 1, 1, 2])
    expect(await feed({ std: [0.5, 4] })).toEqual([2, 4, 0.75, 1])
  })
})

describe('resizing', () => {
  /** One pixel of a resampled row or column, from the definition: an average weighed by a triangle. */
  const resampled = (line: readonly number[], to: number, i: number) => {
    const step = line.length / to
    const reach = Math.max(1, step)
    let [total, weights] = [0, 0]
    for (const [j, value] of line.entries()) {
      const weight = Math.max(0, 1 - Math.abs(j + 0.5 - (i + 0.5) * step) / reach)
      total += weight * value
      weights += weight
    }
    return total / weights
  }
  const feed = async (x: readonly number[][], size: rewards.OnnxOptions['size'] & {}) => {
    using images = tensor([[x]]) as Tensor<'float32'>
    using _scores = await rewards.scoreNumbers(await open({ size }), images)
    return { dims: fed().dims, data: [...(fed().data as Float32Array)] }
  }

  test('known answers: the same size, an enlarged edge, a reduced slope', async () => {
    expect((await feed([[1, 2]], [1, 2])).data).toEqual([1, 2])
    // Doubled: a quarter of the way between the two centres, clamped outside.
    expect(await feed([[0, 1]], [1, 4])).toEqual({ dims: [1, 1, 1, 4], data: [0, 0.25, 0.75, 1] })
    expect((await feed([[0], [1]], [4, 1])).data).toEqual([0, 0.25, 0.75, 1])
    // Halved: 1, 3, 3, 1 eighths of the pixels around, renormalised at the ends.
    const halved = (await feed([[0, 1, 2, 3]], [1, 2])).data
    expect(halved[0]).toBeCloseTo((0 * 3 + 1 * 3 + 2) / 7, 6)
    expect(halved[1]).toBeCloseTo((1 + 2 * 3 + 3 * 3) / 7, 6)
    // One grey stays that grey.
    for (const side of [1, 3, 7, 16])
      for (const value of (
        await feed(
          [
            [0.3, 0.3, 0.3],
            [0.3, 0.3, 0.3],
          ],
          side,
        )
      ).data)
        expect(value).toBeCloseTo(0.3, 6)
  })

  test('rows and columns by the filter’s definition', async () => {
    const draw = generator(4)
    for (const [height, width, rows, columns] of [
      [5, 7, 3, 10],
      [16, 16, 5, 5],
      [3, 2, 9, 1],
    ] as const) {
      const x = Array.from({ length: height }, () => Array.from({ length: width }, () => draw()))
      const { dims, data } = await feed(x, [rows, columns])
      expect(dims).toEqual([1, 1, rows, columns])
      const wide = x.map((row) =>
        Array.from({ length: columns }, (_, i) => resampled(row, columns, i)),
      )
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < columns; column++) {
          const line = wide.map((values) => values[column] as number)
          expect(data[row * columns + column]).toBeCloseTo(resampled(line, rows, row), 6)
        }
    }
  })

  test('of each channel and image apart, before normalising', async () => {
    const images = tensor([0, 2, 4, 6, 1, 1, 3, 3], { shape: [2, 2, 1, 2] }) as Tensor<'float32'>
    const reward = await open({ size: 1, mean: [1, 0], std: [1, 2] })
    ;(await rewards.scoreNumbers(reward, images)).dispose()
    expect(fed().dims).toEqual([2, 2, 1, 1])
    expect([...(fed().data as Float32Array)]).toEqual([0, 2.5, 0, 1.5])
  })
})

describe('refusals', () => {
  const images = zeros([2, 3, 4, 4]) as Tensor<'float32'>

  test('no runtime, and what is none', async () => {
    await expectRejection(
      () =>
        open({ importRuntime: () => Promise.reject(new Error('Cannot find package\nat here')) }),
      'ERR_BACKEND',
      'onnxruntime-node could not be loaded (Cannot find package). To install it: npm install onnxruntime-node',
    )
    for (const module of [{}, { default: {} }, { InferenceSession: {} }])
      await expectRejection(
        () => open({ importRuntime: async () => module }),
        'ERR_BACKEND',
        'onnxruntime-node: expected InferenceSession and Tensor in it',
      )
  })

  test('files', async () => {
    const missing = path.join(folder, 'missing.onnx')
    await expectRejection(
      () => open({ file: missing }),
      'ERR_IO',
      new RegExp(`^${missing}: could not be read: ENOENT`),
    )
    await expectRejection(() => open({ file: folder }), 'ERR_IO', /it is not a regular file$/)
    const damaged = path.join(folder, 'damaged.onnx')
    await expectRejection(
      () => open({ file: damaged }),
      'ERR_FORMAT',
      `${damaged}: could not be loaded: protobuf parsing failed`,
    )
  })

  test('inputs and outputs', async () => {
    inputNames = ['a', 'b']
    await expectRejection(
      () => open(),
      'ERR_CONFIG',
      'options.input: the model has 2: a, b; name one',
    )
    await expectRejection(
      () => open({ input: 'c' }),
      'ERR_CONFIG',
      'options.input: expected one of a, b; got "c"',
    )
    await expectRejection(
      () => open({ input: 'a', output: 'score' }),
      'ERR_CONFIG',
      'options.output: expected one of out; got "score"',
    )
    // The sessions opened meanwhile are released.
    expect(log.released).toBe(3)
  })

  test('images and answers', async () => {
    const refused = async (
      options: Partial<rewards.OnnxOptions>,
      code: 'ERR_SHAPE' | 'ERR_DTYPE' | 'ERR_CONFIG' | 'ERR_NONFINITE',
      message: string,
      x = images,
    ) => {
      const reward = await open(options)
      await expectRejection(() => rewards.scoreNumbers(reward, x), code, message)
    }
    await refused(
      { mean: [0, 0] },
      'ERR_SHAPE',
      'reward "onnx": images: expected [batch, 2, height, width] with at least 1 by 1 pixels, got [2, 3, 4, 4]',
    )
    const flat = zeros([2, 3]) as Tensor<'float32'>
    await refused(
      {},
      'ERR_SHAPE',
      'reward "onnx": images: expected [batch, channels, height, width] with at least 1 by 1 pixels, got [2, 3]',
      flat,
    )
    answer = () => new RuntimeTensor('float32', new Float32Array(6), [2, 3])
    await refused(
      {},
      'ERR_SHAPE',
      'reward "onnx": output "out": expected one number for each of 2 images, got 6 numbers',
    )
    answer = () => new RuntimeTensor('int64', new BigInt64Array(2), [2])
    await refused({}, 'ERR_DTYPE', 'reward "onnx": output "out": expected float32, got int64')
    answer = () => new RuntimeTensor('float32', Float32Array.of(0, Number.NaN), [2])
    await refused(
      {},
      'ERR_NONFINITE',
      'reward "onnx": expected finite scores, got NaN for sample 1 (1 of 2 are not finite)',
    )
    answer = () => {
      throw new Error('invalid dimensions')
    }
    await refused({}, 'ERR_CONFIG', 'reward "onnx": threw: invalid dimensions')
  })

  test('options', async () => {
    const refused = (
      options: object,
      code: 'ERR_CONFIG' | 'ERR_RANGE' | 'ERR_SHAPE',
      message: RegExp,
    ) => expectRejection(() => open(options), code, message)
    await refused({ file: 3 }, 'ERR_CONFIG', /^options.file: expected a path, got 3/)
    await refused({ name: '' }, 'ERR_CONFIG', /^options.name/)
    await refused({ size: 0 }, 'ERR_RANGE', /^options.size: expected an integer from 1/)
    await refused({ size: [1, 2, 3] }, 'ERR_CONFIG', /^options.size/)
    await refused({ size: '224' }, 'ERR_CONFIG', /^options.size/)
    await refused({ mean: [] }, 'ERR_CONFIG', /^options.mean/)
    await refused({ mean: [Number.NaN] }, 'ERR_RANGE', /^options.mean/)
    await refused({ std: [1, 0] }, 'ERR_RANGE', /^options.std: expected numbers above 0/)
    await refused({ mean: [1], std: [1, 1] }, 'ERR_SHAPE', /^options.std: expected 1 numbers/)
    await refused({ model: 'x' }, 'ERR_CONFIG', /^options.model: unknown option/)
  })
})
