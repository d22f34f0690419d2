import { describe, expect, it } from 'vitest'
import {
  histogramKl,
  histogramOf,
  nearestShares,
  probabilitiesOf,
} from '../../lib/verify/histogram.js'
import { ringProblem } from '../../lib/verify/ring.js'

const grid = { cells: 64, extent: 3.6 }

describe('histograms', () => {
  it('put points into cells, row by row from below, and leave out what is outside', () => {
    const points = Float32Array.of(-0.9, -0.9, 0.9, -0.9, -0.1, 0.1, 0.1, 0.1, 5, 0)
    const shares = histogramOf(points, { cells: 2, extent: 1 })
    expect(Array.from(shares)).toEqual([0.2, 0.2, 0.2, 0.2])
  })

  it('have the upper and right edges outside', () => {
    const shares = histogramOf(Float32Array.of(1, 0, 0, 1, -1, -1), { cells: 2, extent: 1 })
    expect(shares[0]).toBeCloseTo(1 / 3, 15)
    expect(shares.reduce((sum, share) => sum + share)).toBeCloseTo(1 / 3, 15)
  })

  it('give the divergence of the formula', () => {
    const p = Float64Array.of(0.5, 0.5, 0)
    const q = Float64Array.of(0.25, 0.5, 0.25)
    expect(histogramKl(p, q)).toBeCloseTo(0.5 * Math.log(2), 12)
    expect(histogramKl(q, q)).toBe(0)
    // Nothing has probability 0 in float32 sampling; the cost of a sample there stays finite.
    expect(histogramKl(Float64Array.of(1), Float64Array.of(0))).toBeCloseTo(12 * Math.LN10, 9)
  })

  it('say which centre is nearest', () => {
    const points = Float32Array.of(0, 0, 0.4, 0, 0.6, 0, 9, 9)
    const centres = [
      [0, 0],
      [1, 0],
    ]
    expect(nearestShares(points, centres)).toEqual([0.5, 0.5])
  })
})

describe('probabilities of cells', () => {
  it('sum to 1 for a ring that fits, and to the mass of a half-plane on one half', async () => {
    const { reference } = ringProblem(1)
    const probabilities = await probabilitiesOf(reference, grid)
    const total = probabilities.reduce((sum, p) => sum + p)
    expect(total).toBeCloseTo(1, 6)
    const below = probabilities.slice(0, probabilities.length / 2).reduce((sum, p) => sum + p)
    expect(below).toBeCloseTo(0.5, 6)
  })

  it('are what exact samples fill, up to the noise of counting', async () => {
    const { target } = ringProblem(1)
    const count = 100_000
    const probabilities = await probabilitiesOf(target, grid)
    using samples = target.sample({ count, seed: 3 })
    const kl = histogramKl(histogramOf(await samples.data(), grid), probabilities)
    const filled = probabilities.filter((p) => p * count > 1).length
    // E KL of n points of q itself is about (cells - 1) / 2n.
    expect(kl).toBeGreaterThan(0.5 * (filled / (2 * count)))
    expect(kl).toBeLessThan(2 * (filled / (2 * count)))
  })
})
