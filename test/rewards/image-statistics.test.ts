import { describe, expect, test } from 'vitest'
import { rewards, type Tensor, tensor, vjp, zeros } from '../../lib/index.js'
import { expectGradients } from '../autograd/gradients.js'
import { expectRejection, expectValues } from '../expectations.js'
import { generator, type Values, values } from '../reference.js'

const mean = (x: readonly number[]) => x.reduce((a, b) => a + b, 0) / x.length
const variance = (x: readonly number[]) => mean(x.map((v) => (v - mean(x)) ** 2))

/** The pixels of each image as [r, g, b], row by row. */
function pixelsOf({ shape, data }: Values): [number, number, number][][] {
  const [batch, , height, width] = shape as [number, number, number, number]
  const area = height * width
  return Array.from({ length: batch }, (_, b) =>
    Array.from({ length: area }, (_, i) => {
      const at = (c: number) => data[(3 * b + c) * area + i] as number
      return [at(0), at(1), at(2)]
    }),
  )
}

function colourfulness(x: Values): Values {
  const scores = pixelsOf(x).map((pixels) => {
    const rg = pixels.map(([r, g]) => r - g)
    const yb = pixels.map(([r, g, b]) => 0.5 * (r + g) - b)
    return (
      Math.sqrt(variance(rg) + variance(yb) + 1e-10) +
      0.3 * Math.sqrt(mean(rg) ** 2 + mean(yb) ** 2 + 1e-10)
    )
  })
  return values([scores.length], (i) => scores[i] as number)
}

function sharpness(x: Values): Values {
  const [, , height, width] = x.shape as [number, number, number, number]
  const scores = pixelsOf(x).map((pixels) => {
    const light = pixels.map(([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b)
    const at = (row: number, column: number) => light[row * width + column] as number
    const response: number[] = []
    for (let row = 1; row < height - 1; row++)
      for (let column = 1; column < width - 1; column++)
        response.push(
          at(row - 1, column) +
            at(row + 1, column) +
            at(row, column - 1) +
            at(row, column + 1) -
            4 * at(row, column),
        )
    return variance(response)
  })
  return values([scores.length], (i) => scores[i] as number)
}

const place = ({ shape, data }: Values) => tensor(data, { shape: [...shape] }) as Tensor<'float32'>
const one = (value: number) =>
  tensor(Float32Array.of(value), { shape: [1] }) as Tensor<'float32', [number]>

describe.each([
  { reward: rewards.colourfulness(), reference: colourfulness, shapes: [[1, 3, 1, 2]] },
  { reward: rewards.sharpness(), reference: sharpness, shapes: [[1, 3, 3, 4]] },
])('$reward.name', ({ reward, reference, shapes }) => {
  const random = (shape: readonly number[]) => {
    const draw = generator(shape.reduce((a, b) => 31 * a + b, 7))
    return values(shape, () => Math.fround(draw()))
  }

  test('values against float64', async () => {
    for (const shape of [...shapes, [2, 3, 5, 7], [3, 3, 17, 4], [1, 3, 64, 64], [0, 3, 8, 8]]) {
      const x = random(shape)
      const expected = reference(x)
      await expectValues(`of [${shape}]`, await rewards.scoreNumbers(reward, place(x)), expected, {
        absolute: (i) => 1e-6 * (expected.data[i] as number),
      })
    }
  })

  test('gradients against finite differences', async () => {
    for (const shape of [...shapes, [2, 3, 5, 7], [1, 3, 9, 4], [0, 3, 8, 8]])
      await expectGradients(`of [${shape}]`, {
        inputs: [random(shape)],
        op: (images) => rewards.scoreDifferentiably(reward, images as Tensor<'float32'>),
        reference,
        tolerance: 5e-6,
      })
  })

  test('an image of one grey: nothing to see, and a gradient that is a number', async () => {
    for (const grey of [0, 0.3, 1]) {
      const flat = place(values([1, 3, 8, 8], () => grey))
      const { value, pullback } = vjp(
        (x) => rewards.scoreDifferentiably(reward, x as Tensor<'float32'>),
        [flat],
      )
      expect((await value.data())[0]).toBeLessThan(2e-5)
      for (const slope of await pullback(one(1))[0].data())
        expect(Math.abs(slope)).toBeLessThan(1e-3)
    }
  })

  test('in bfloat16: the score of the rounded image', async () => {
    const x = random([2, 3, 6, 6])
    const rounded = place(x).cast('bfloat16')
    const expected = reference({ shape: x.shape, data: Float64Array.from(await rounded.data()) })
    await expectValues('bfloat16', await rewards.scoreNumbers(reward, rounded), expected, {
      absolute: (i) => 1e-6 * (expected.data[i] as number),
    })
  })

  test('other shapes are refused', async () => {
    for (const shape of [
      [2, 4, 8, 8],
      [2, 1, 8, 8],
      [3, 8, 8],
      [2, 3, 8],
      [2, 3, 0, 8],
    ]) {
      const x = zeros(shape) as Tensor<'float32'>
      await expectRejection(
        () => rewards.scoreNumbers(reward, x),
        'ERR_SHAPE',
        new RegExp(`^reward "${reward.name}": images: expected \\[batch, 3, height, width\\]`),
      )
    }
  })
})

test('colourfulness of known images', async () => {
  const score = async (colours: readonly (readonly number[])[]) => {
    const x = values([1, 3, 1, colours.length], (i) => {
      const pixel = i % colours.length
      return colours[pixel]?.[Math.floor(i / colours.length)] as number
    })
    return (await rewards.scoreNumbers(rewards.colourfulness(), place(x))).item()
  }
  // One red: no spread, μ = (1, 1/2).
  expect(await score([[1, 0, 0]])).toBeCloseTo(0.3 * Math.sqrt(1.25), 4)
  // Red and green halves: rg is ±1, yb is 1/2.
  expect(
    await score([
      [1, 0, 0],
      [0, 1, 0],
    ]),
  ).toBeCloseTo(1 + 0.3 * 0.5, 4)
})

test('sharpness: of one bright pixel, more than of its blur; of a slope, none', async () => {
  const score = async (light: (row: number, column: number) => number) => {
    const x = values([1, 3, 9, 9], (i) => light(Math.floor(i / 9) % 9, i % 9))
    return (await rewards.scoreNumbers(rewards.sharpness(), place(x))).item()
  }
  const dot = await score((row, column) => (row === 4 && column === 4 ? 1 : 0))
  // 49 responses: one -4 and four of 1, mean 0.
  expect(dot).toBeCloseTo(20 / 49, 6)
  const blur = await score((row, column) => Math.exp(-((row - 4) ** 2 + (column - 4) ** 2) / 2))
  expect(blur).toBeLessThan(dot)
  expect(await score((row, column) => 0.05 * row + 0.03 * column)).toBeLessThan(1e-12)
})
