import { describe, expect, it } from 'vitest'
import { device, normal, uniform } from '../../lib/index.js'
import { runProgram } from '../fixtures/run-program.js'
import { stored } from '../reference.js'

/** Philox4x32-10 (Salmon et al. 2011, section 3.3), in exact integer arithmetic. */
function philox(counter: readonly bigint[], key: readonly bigint[]): number[] {
  const mask = 0xffffffffn
  let [c0, c1, c2, c3] = counter as [bigint, bigint, bigint, bigint]
  let [k0, k1] = key as [bigint, bigint]
  for (let round = 0; round < 10; round++) {
    const [p0, p1] = [0xd2511f53n * c0, 0xcd9e8d57n * c2]
    ;[c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & mask, (p0 >> 32n) ^ c3 ^ k1, p0 & mask]
    k0 = (k0 + 0x9e3779b9n) & mask
    k1 = (k1 + 0xbb67ae85n) & mask
  }
  return [c0, c1, c2, c3].map(Number)
}

/** Word `i` of a draw: counter (i div 4, offset), key seed. */
function word(seed: number, offset: number, i: number): number {
  const split = (x: number) => [BigInt(x) & 0xffffffffn, BigInt(x) >> 32n]
  return philox([...split(Math.floor(i / 4)), ...split(offset)], split(seed))[i % 4] as number
}

describe('the reference', () => {
  it('gives the known answers of Random123', () => {
    const hex = (words: number[]) => words.map((w) => w.toString(16)).join(' ')
    const ones = 0xffffffffn
    expect(hex(philox([0n, 0n, 0n, 0n], [0n, 0n]))).toBe('6627e8d5 e169c58d bc57ac4c 9b00dbd8')
    expect(hex(philox([ones, ones, ones, ones], [ones, ones]))).toBe(
      '408f276d 41c83b0e a20bc7c6 6d5451fd',
    )
    expect(
      hex(philox([0x243f6a88n, 0x85a308d3n, 0x13198a2en, 0x03707344n], [0xa4093822n, 0x299f31d0n])),
    ).toBe('d16cfe09 94fdcceb 5001e420 24126ea1')
  })
})

describe('uniform', () => {
  it('is Philox, word by word', async () => {
    for (const [seed, offset] of [
      [0, 0],
      [1, 0],
      [123456789, 42],
      [2 ** 53 - 1, 2 ** 53 - 1],
      [2 ** 40 + 3, 2 ** 33],
    ] as const) {
      const got = await uniform([101], { seed, offset }).data()
      for (let i = 0; i < 101; i++)
        expect(got[i], `seed ${seed}, offset ${offset}, element ${i}`).toBe(
          (word(seed, offset, i) >>> 8) / 2 ** 24,
        )
    }
  })

  it('spans [low, high), rounded once for bfloat16', async () => {
    const x = await uniform([100_000], { seed: 5, low: -3, high: 5 }).data()
    expect(Math.min(...x.slice(0, 50_000), ...x.slice(50_000))).toBeGreaterThanOrEqual(-3)
    for (const value of x) if (!(value < 5)) expect.fail(`${value} is not below 5`)
    const wide = await uniform([257], { seed: 5 }).data()
    const narrow = await uniform([257], { seed: 5, dtype: 'bfloat16' }).data()
    expect([...narrow]).toEqual([...wide].map((value) => stored('bfloat16', value)))
    expect([...(await uniform([3], { seed: 1, low: 2, high: 2 }).data())]).toEqual([2, 2, 2])
  })
})

describe('normal', () => {
  it('has the moments and the tails of the normal distribution', async () => {
    const n = 1 << 22
    const x = await normal([n], { seed: 11 }).data()
    const moments = [0, 0, 0, 0]
    let beyond3 = 0
    for (const value of x) {
      let power = 1
      for (let k = 0; k < 4; k++) {
        power *= value
        moments[k] = (moments[k] as number) + power
      }
      if (Math.abs(value) > 3) beyond3++
    }
    const [m1, m2, m3, m4] = moments.map((m) => m / n) as [number, number, number, number]
    // Five standard errors each: the variances of x, x², x³, x⁴ are 1, 2, 15, 96.
    const error = (variance: number) => 5 * Math.sqrt(variance / n)
    expect(Math.abs(m1)).toBeLessThan(error(1))
    expect(Math.abs(m2 - 1)).toBeLessThan(error(2))
    expect(Math.abs(m3)).toBeLessThan(error(15))
    expect(Math.abs(m4 - 3)).toBeLessThan(error(96))
    const p = 0.0026997960632601866
    expect(Math.abs(beyond3 / n - p)).toBeLessThan(5 * Math.sqrt(p / n))
  })

  it('mean and std scale the same draw', async () => {
    const x = await normal([1001], { seed: 3, offset: 9 }).data()
    const y = await normal([1001], { seed: 3, offset: 9, mean: 10, std: 0.25 }).data()
    for (let i = 0; i < 1001; i++) expect(y[i]).toBe(Math.fround(0.25 * (x[i] as number) + 10))
    expect([...(await normal([3], { seed: 1, mean: 4, std: 0 }).data())]).toEqual([4, 4, 4])
  })
})

for (const [name, draw] of Object.entries({ uniform, normal })) {
  describe(name, () => {
    it('a shorter draw is a prefix of a longer one, whatever the shape', async () => {
      const long = await draw([1_000_003], { seed: 8, offset: 1 }).data()
      for (const size of [0, 1, 2, 3, 4, 5, 17, 63, 64, 65, 4099, 99_999])
        expect(await draw([size], { seed: 8, offset: 1 }).data()).toEqual(long.slice(0, size))
      expect(await draw([7, 3, 5], { seed: 8, offset: 1 }).data()).toEqual(long.slice(0, 105))
    })

    it('repeats for a seed and offset, and differs for others', async () => {
      const get = async (seed: number, offset: number) => {
        const data = await draw([4096], { seed, offset }).data()
        return { data, text: data.join() }
      }
      const draws = []
      for (const seed of [0, 1, 2, 2 ** 32, 2 ** 53 - 1])
        for (const offset of [0, 1, 2 ** 32, 2 ** 53 - 1]) {
          draws.push(await get(seed, offset))
          expect((await get(seed, offset)).text).toBe(draws.at(-1)?.text)
        }
      expect(new Set(draws.map(({ text }) => text)).size).toBe(draws.length)
      // No pair is correlated: 190 coefficients of 4096 elements, each under six standard errors.
      const center = name === 'uniform' ? 0.5 : 0
      const variance = name === 'uniform' ? 1 / 12 : 1
      for (const [i, a] of draws.entries())
        for (const b of draws.slice(0, i)) {
          let covariance = 0
          for (let k = 0; k < 4096; k++)
            covariance += ((a.data[k] as number) - center) * ((b.data[k] as number) - center)
          expect(Math.abs(covariance / 4096 / variance)).toBeLessThan(6 / 64)
        }
    })
  })
}

describe('the same bits', () => {
  const environments = async () => {
    const wanted = [
      { DIDR_NUM_THREADS: '2' },
      { DIDR_NUM_THREADS: '7' },
      { DIDR_NUM_THREADS: '2', DIDR_SIMD: 'v2' },
      { DIDR_NUM_THREADS: '7', DIDR_SIMD: 'v3' },
    ]
    const level = (await device('cpu')).info.instructionLevel
    // A level that this machine lacks would silently be another.
    return wanted.filter(
      ({ DIDR_SIMD }) =>
        DIDR_SIMD === undefined || (level !== 'base' && DIDR_SIMD <= (level as string)),
    )
  }

  for (const program of ['draw.mjs', 'arithmetic.mjs'])
    it(`for every thread count and instruction level: ${program}`, async () => {
      const base = await runProgram(program, { env: { DIDR_NUM_THREADS: '1' } })
      expect(base.stderr).not.toMatch(/Error/)
      expect(base.code).toBe(0)
      expect(base.stdout.split('\n').length).toBeGreaterThan(30)
      for (const env of await environments()) {
        const other = await runProgram(program, { env })
        expect(other.stdout.split('\n'), JSON.stringify(env)).toEqual(base.stdout.split('\n'))
      }
    })

  it('the environment variables are obeyed', async () => {
    const { stderr } = await runProgram('draw.mjs', { env: { DIDR_NUM_THREADS: '3' } })
    expect(JSON.parse(stderr).threads).toBe('3')
  })
})
