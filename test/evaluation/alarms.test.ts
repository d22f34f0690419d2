import { describe, expect, it } from 'vitest'
import { type ErrorCode, evaluation, memory, type Tensor, tensor, zeros } from '../../lib/index.js'
import { expectRefusal, expectRejection } from '../expectations.js'
import { generator } from '../reference.js'
import { lightness, place, recoloured, type Scene, scenes } from './scenes.js'

type Images = Tensor<'float32'>

const { alarmsOf, imageStatistics } = evaluation
const statisticsOf = (images: readonly Scene[]) => imageStatistics([place(images)])

function randomImages(shape: [number, 3, number, number], seed: number): Images {
  const draw = generator(seed)
  const [batch, , height, width] = shape
  return tensor(
    Float32Array.from({ length: batch * 3 * height * width }, () => draw()),
    { shape },
  ) as Images
}

/** From a function of the place: one image. */
function drawn(
  height: number,
  width: number,
  colour: (row: number, column: number) => [number, number, number],
): Images {
  const values = [0, 1, 2].flatMap((channel) =>
    Array.from(
      { length: height * width },
      (_, i) => colour(Math.floor(i / width), i % width)[channel] as number,
    ),
  )
  return tensor(Float32Array.from(values), { shape: [1, 3, height, width] }) as Images
}

const grey = (value: number): [number, number, number] => [value, value, value]

/** The statistics once more: maps of colours, explicit kernels, saturation by sorting. */
async function reference(batches: readonly Images[]): Promise<evaluation.ImageStatistics> {
  const kernel = [
    [-1, 0, 1],
    [-2, 0, 2],
    [-1, 0, 1],
  ]
  const bits = (counts: Map<string, number>) => {
    const total = [...counts.values()].reduce((a, b) => a + b, 0)
    return [...counts.values()].reduce((sum, n) => sum - (n / total) * Math.log2(n / total), 0)
  }
  const all = new Map<string, number>()
  const [edges, entropies, saturations]: [number[], number[], number[]] = [[], [], []]
  for (const images of batches) {
    const [batch = 0, , height = 0, width = 0] = images.shape
    const data = await images.data()
    for (let b = 0; b < batch; b++) {
      const at = (row: number, column: number) =>
        [0, 1, 2].map((c) => data[((3 * b + c) * height + row) * width + column] as number)
      const light = (row: number, column: number) => lightness(at(row, column) as [number, 0, 0])
      const own = new Map<string, number>()
      let saturation = 0
      let found = 0
      for (let row = 0; row < height; row++)
        for (let column = 0; column < width; column++) {
          const key = at(row, column)
            .map((x) => (x >= 0.75 ? 3 : x >= 0.5 ? 2 : x >= 0.25 ? 1 : 0))
            .join()
          for (const counts of [own, all]) counts.set(key, (counts.get(key) ?? 0) + 1)
          const [least = 0, , most = 0] = at(row, column).sort((a, b) => a - b)
          saturation += most === 0 ? 0 : 1 - least / most
          if (row === 0 || column === 0 || row === height - 1 || column === width - 1) continue
          let [across, down] = [0, 0]
          for (const [i, weights] of kernel.entries())
            for (const [j, weight] of weights.entries()) {
              across += weight * light(row + i - 1, column + j - 1)
              down += weight * light(row + j - 1, column + i - 1)
            }
          if (Math.sqrt(across ** 2 + down ** 2) > 0.4) found++
        }
      edges.push(found / ((height - 2) * (width - 2)))
      entropies.push(bits(own))
      saturations.push(saturation / (height * width))
    }
  }
  const mean = (x: number[]) => x.reduce((a, b) => a + b, 0) / x.length
  return {
    edgeDensity: mean(edges),
    colourEntropy: mean(entropies),
    pooledColourEntropy: bits(all),
    saturation: mean(saturations),
  }
}

describe('statistics', () => {
  it('against a second implementation', async () => {
    const cases = [
      [randomImages([1, 3, 3, 3], 1)],
      [randomImages([4, 3, 5, 9], 2)],
      [
        randomImages([2, 3, 17, 4], 3),
        randomImages([0, 3, 8, 8], 4),
        randomImages([3, 3, 6, 6], 5),
      ],
      [place(scenes(5, 6))],
      [randomImages([2, 3, 8, 8], 7).cast('bfloat16') as unknown as Images],
    ]
    for (const batches of cases) {
      const [got, expected] = [await imageStatistics(batches), await reference(batches)]
      for (const [name, value] of Object.entries(expected))
        expect(got[name as keyof typeof got], name).toBeCloseTo(value, 12)
    }
  })

  it('of one colour: nothing but its saturation', async () => {
    const zero = { edgeDensity: 0, colourEntropy: 0, pooledColourEntropy: 0 }
    for (const [colour, saturation] of [
      [[0, 0, 0], 0],
      [[1, 1, 1], 0],
      [[1, 0, 0], 1],
      [[0.5, 0.25, 0.25], 0.5],
      [[0, 0, 0.125], 1],
    ] as const)
      expect(await imageStatistics([drawn(4, 5, () => [...colour])])).toEqual({
        ...zero,
        saturation,
      })
  })

  it('of two halves: one bit', async () => {
    const halves = drawn(4, 8, (_, column) => (column < 4 ? [1, 0, 0] : [0, 0, 1]))
    expect((await imageStatistics([halves])).colourEntropy).toBe(1)
  })

  it('of every colour once: six bits', async () => {
    const level = (n: number) => (n + 0.5) / 4
    const every = drawn(8, 8, (row, column) => {
      const n = 8 * row + column
      return [level(n >> 4), level((n >> 2) & 3), level(n & 3)]
    })
    expect((await imageStatistics([every])).colourEntropy).toBeCloseTo(6, 12)
  })

  it('images of one colour each: none in an image, two bits in all', async () => {
    const colours = [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
      [1, 1, 1],
    ] as [number, number, number][]
    const batches = colours.map((colour) => drawn(3, 3, () => colour))
    const { colourEntropy, pooledColourEntropy } = await imageStatistics(batches)
    expect(colourEntropy).toBe(0)
    expect(pooledColourEntropy).toBe(2)
  })

  it('a step is an edge on both of its sides if it is above 0.1, a slope if it is that steep', async () => {
    const density = async (f: (row: number, column: number) => number) =>
      (await imageStatistics([drawn(6, 12, (row, column) => grey(f(row, column)))])).edgeDensity
    expect(await density((_, x) => (x < 6 ? 0.3 : 0.41))).toBeCloseTo(2 / 10, 12)
    expect(await density((_, x) => (x < 6 ? 0.3 : 0.39))).toBe(0)
    expect(await density((y) => (y < 3 ? 0 : 1))).toBeCloseTo(2 / 4, 12)
    // The difference of the two neighbours, twice the slope.
    expect(await density((_, x) => 0.055 * x)).toBe(1)
    expect(await density((_, x) => 0.045 * x)).toBe(0)
  })

  it('leave nothing behind', async () => {
    const images = place(scenes(2, 1))
    const before = memory().tensors
    await imageStatistics([images])
    expect(memory().tensors).toBe(before)
    expect(images.disposed).toBe(false)
  })

  it.each<[Images[], ErrorCode, RegExp]>([
    [[], 'ERR_RANGE', /^images: expected one or more, got none/],
    [[zeros([0, 3, 4, 4]) as Images], 'ERR_RANGE', /^images: expected one or more, got none/],
    [[zeros([1, 4, 4, 4]) as Images], 'ERR_SHAPE', /^images: expected \[batch, 3, height, width\]/],
    [[zeros([1, 3, 2, 4]) as Images], 'ERR_SHAPE', /at least 3 by 3 pixels, got \[1, 3, 2, 4\]/],
    [
      [drawn(3, 3, () => grey(-0.5))],
      'ERR_RANGE',
      /^images: expected pixels from 0 to 1, got -0.5/,
    ],
    [[drawn(3, 3, () => grey(255))], 'ERR_RANGE', /^images: expected pixels from 0 to 1, got 255/],
    [
      [drawn(3, 3, (row) => grey(row === 2 ? Number.NaN : 1))],
      'ERR_NONFINITE',
      /^images: expected pixels from 0 to 1, got NaN/,
    ],
  ])('refused: case %#', async (batches, code, message) => {
    await expectRejection(() => imageStatistics(batches), code, message)
  })
})

describe('alarms on images', () => {
  const base = scenes(64, 100)
  const names = (alarms: evaluation.Alarm[]) => alarms.map(({ statistic }) => statistic)
  const ofBase = statisticsOf(base)
  const compared = async (images: readonly Scene[]) =>
    alarmsOf(await statisticsOf(images), await ofBase)

  it('none between seeds', async () => {
    for (let seed = 1; seed <= 20; seed++) expect(await compared(scenes(64, seed))).toEqual([])
  })

  it('everything flattened to red', async () => {
    const red = recoloured(base, (colour) => [0.95, 0.05 * lightness(colour), 0.05])
    const alarms = await compared(red)
    expect(names(alarms)).toEqual([
      'edgeDensity',
      'colourEntropy',
      'pooledColourEntropy',
      'saturation',
    ])
    for (const { statistic, ratio, limit } of alarms)
      expect(ratio > 1, statistic).toBe(statistic === 'saturation' && limit === 1.5)
  })

  it('shapes flattened to red on white', async () => {
    const red = recoloured(base, (colour) => (Math.min(...colour) === 1 ? colour : [1, 0, 0]))
    expect(names(await compared(red))).toEqual(
      expect.arrayContaining(['pooledColourEntropy', 'saturation']),
    )
  })

  it('a collapse to two colours', async () => {
    const two = recoloured(base, (colour) => (lightness(colour) > 0.6 ? [1, 1, 1] : [0, 0, 0]))
    expect(names(await compared(two))).toContain('pooledColourEntropy')
  })

  it('noise, as a reward for sharpness would have it', async () => {
    const draw = generator(5)
    const noisy = recoloured(
      base,
      (colour) =>
        colour.map((x) => Math.min(1, Math.max(0, x + 0.8 * (draw() - 0.5)))) as typeof colour,
    )
    const alarms = await compared(noisy)
    expect(names(alarms)).toEqual(expect.arrayContaining(['edgeDensity', 'pooledColourEntropy']))
    for (const { ratio } of alarms) expect(ratio).toBeGreaterThan(1.5)
  })

  it('one image over and over, by its colours alone', async () => {
    const one = Array.from({ length: 64 }, () => base[0] as Scene)
    expect(names(await compared(one))).toContain('pooledColourEntropy')
  })
})

describe('alarms on numbers', () => {
  const base: evaluation.AlarmStatistics = {
    edgeDensity: 0.2,
    colourEntropy: 2,
    pooledColourEntropy: 3,
    saturation: 0.3,
    diversity: 4,
    promptDiversity: 1,
  }

  it('none for the base itself, nor for a base of nothing', () => {
    expect(alarmsOf(base, base)).toEqual([])
    const nothing = { edgeDensity: 0, colourEntropy: 0, pooledColourEntropy: 0, saturation: 0 }
    expect(alarmsOf(nothing, nothing)).toEqual([])
    // Two pixels in a thousand are no news.
    expect(alarmsOf({ ...nothing, saturation: 0.002, edgeDensity: 0.002 }, nothing)).toEqual([])
  })

  it('what one says', () => {
    expect(alarmsOf({ ...base, saturation: 0.92 }, base)).toEqual([
      { statistic: 'saturation', value: 0.92, base: 0.3, ratio: 0.93 / 0.31, limit: 1.5 },
    ])
    expect(alarmsOf({ ...base, pooledColourEntropy: 1 }, base)).toEqual([
      { statistic: 'pooledColourEntropy', value: 1, base: 3, ratio: 0.25, limit: 1 / 1.5 },
    ])
    expect(alarmsOf({ ...base, diversity: 1, promptDiversity: 0 }, base)).toEqual([
      { statistic: 'diversity', value: 1, base: 4, ratio: 0.25, limit: 1 / 1.5 },
      { statistic: 'promptDiversity', value: 0, base: 1, ratio: 0, limit: 1 / 1.5 },
    ])
  })

  it('bands are symmetric in the logarithm, those of diversity open above', () => {
    const moved = (factor: number) => ({
      edgeDensity: factor * (base.edgeDensity + 0.01) - 0.01,
      colourEntropy: base.colourEntropy + Math.log2(factor),
      pooledColourEntropy: base.pooledColourEntropy + Math.log2(factor),
      saturation: factor * (base.saturation + 0.01) - 0.01,
      diversity: 4 * factor,
      promptDiversity: factor,
    })
    expect(alarmsOf(moved(1.49), base)).toEqual([])
    expect(alarmsOf(moved(1 / 1.49), base)).toEqual([])
    expect(alarmsOf(moved(1.51), base).map(({ statistic }) => statistic)).toEqual(
      Object.keys(base).slice(0, 4),
    )
    expect(alarmsOf(moved(1 / 1.51), base).map(({ statistic }) => statistic)).toEqual(
      Object.keys(base),
    )
  })

  it('other limits, statistic by statistic', () => {
    const moved = { ...base, saturation: 0.4, edgeDensity: 1 }
    const limits = { saturation: { least: 0.8, most: 1.2 }, edgeDensity: { least: 0.5 } }
    expect(alarmsOf(moved, base, { limits }).map(({ limit }) => limit)).toEqual([1.2])
    const { saturation } = evaluation.defaultLimits
    expect(alarmsOf({ ...base, saturation: 1 }, base, { limits: { saturation: {} } })).toEqual([])
    expect(evaluation.defaultLimits.saturation).toBe(saturation)
  })

  it('diversities are watched where both sides have them', () => {
    const { diversity: _, promptDiversity: __, ...rest } = base
    expect(alarmsOf(rest, rest)).toEqual([])
    expect(alarmsOf({ ...rest, diversity: 1 }, { ...rest, diversity: 4 })).toHaveLength(1)
  })

  it.each<[unknown, unknown, unknown, ErrorCode, string]>([
    [undefined, base, {}, 'ERR_CONFIG', 'statistics: expected an object, got undefined'],
    [
      { ...base, sharpness: 1 },
      base,
      {},
      'ERR_CONFIG',
      'statistics.sharpness: unknown option; known are edgeDensity, colourEntropy, pooledColourEntropy, saturation, ' +
        'diversity, promptDiversity',
    ],
    [
      { ...base, diversity: undefined },
      base,
      {},
      'ERR_CONFIG',
      'statistics.diversity: expected a number, got undefined',
    ],
    [
      base,
      { ...base, promptDiversity: undefined },
      {},
      'ERR_CONFIG',
      'base.promptDiversity: expected a number, got undefined',
    ],
    [
      { ...base, saturation: Number.NaN },
      base,
      {},
      'ERR_RANGE',
      'statistics.saturation: expected a finite number, got NaN',
    ],
    [
      { ...base, saturation: -1 },
      base,
      {},
      'ERR_RANGE',
      'statistics.saturation: expected a number from 0 on, got -1',
    ],
    [
      base,
      { ...base, diversity: 0 },
      {},
      'ERR_RANGE',
      'base.diversity: expected a number above 0, got 0',
    ],
    [base, base, { limit: 2 }, 'ERR_CONFIG', 'options.limit: unknown option; known are limits'],
    [
      base,
      base,
      { limits: { saturation: { most: 0.5 } } },
      'ERR_RANGE',
      'options.limits.saturation.most: expected a number from 1 on, got 0.5',
    ],
    [
      base,
      base,
      { limits: { saturation: { least: 1.5 } } },
      'ERR_RANGE',
      'options.limits.saturation.least: expected a number from 0 to 1, got 1.5',
    ],
    [
      base,
      base,
      { limits: { saturation: 2 } },
      'ERR_CONFIG',
      'options.limits.saturation: expected an object, got 2',
    ],
  ])('refused: case %#', (statistics, of, options, code, message) => {
    const call = () =>
      alarmsOf(
        statistics as evaluation.AlarmStatistics,
        of as evaluation.AlarmStatistics,
        options as { limits?: Partial<evaluation.AlarmLimits> },
      )
    expectRefusal(call, code, message)
  })
})
