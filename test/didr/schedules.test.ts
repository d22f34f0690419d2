import { describe, expect, it } from 'vitest'
import { DidrError, schedules } from '../../lib/index.js'

const all = {
  flow: schedules.flow(),
  'flow shift 3': schedules.flow({ shift: 3 }),
  'vp linear': schedules.vp({ kind: 'linear' }),
  'vp scaled-linear': schedules.vp(),
  'vp cosine': schedules.vp({ kind: 'cosine' }),
  edm: schedules.edm(),
}
const times = Array.from({ length: 99 }, (_, i) => (i + 1) / 100)

describe.each(Object.entries(all))('%s', (_, schedule) => {
  it('has a log-SNR that agrees with alpha and sigma, decreases, and inverts', () => {
    let last = Number.POSITIVE_INFINITY
    for (const t of times) {
      const direct = Math.log(schedule.alpha(t) ** 2 / schedule.sigma(t) ** 2)
      expect(Math.abs(schedule.logSnr(t) - direct)).toBeLessThan(
        1e-9 * Math.max(1, Math.abs(direct)),
      )
      expect(schedule.logSnr(t)).toBeLessThan(last)
      last = schedule.logSnr(t)
      expect(schedule.timeOfLogSnr(schedule.logSnr(t))).toBeCloseTo(t, 9)
    }
  })

  it('gives the nearer end for a log-SNR that it never reaches', () => {
    expect(schedule.timeOfLogSnr(1e4)).toBeCloseTo(0, 6)
    expect(schedule.timeOfLogSnr(-1e4)).toBeCloseTo(1, 6)
  })
})

describe('known values', () => {
  it('flow: alpha + sigma = 1, with the shift of SD3', () => {
    for (const t of times) {
      expect(all['flow shift 3'].alpha(t) + all['flow shift 3'].sigma(t)).toBeCloseTo(1, 12)
      expect(all['flow shift 3'].sigma(t)).toBeCloseTo((3 * t) / (1 + 2 * t), 12)
    }
  })

  it('vp: alpha^2 + sigma^2 = 1, with the last cumulative products of DDPM and SDXL', () => {
    for (const kind of ['linear', 'scaled-linear', 'cosine'] as const) {
      const schedule = schedules.vp({ kind })
      for (const t of times)
        expect(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2).toBeCloseTo(1, 12)
    }
    // Products over 1000 steps in exact arithmetic, rounded.
    expect(all['vp linear'].alpha(1) ** 2).toBeCloseTo(4.0358e-5, 8)
    expect(all['vp scaled-linear'].alpha(1) ** 2).toBeCloseTo(4.66e-3, 5)
    expect(all['vp linear'].alpha(0) ** 2).toBeCloseTo(1 - 1e-4, 12)
    expect(all['vp scaled-linear'].alpha(0) ** 2).toBeCloseTo(1 - 0.00085, 12)
  })

  it('edm: alpha = 1, sigma geometric between its ends', () => {
    expect(all.edm.alpha(0.3)).toBe(1)
    expect(all.edm.sigma(0)).toBeCloseTo(0.002, 12)
    expect(all.edm.sigma(1)).toBeCloseTo(80, 9)
    expect(all.edm.sigma(0.5)).toBeCloseTo(Math.sqrt(0.002 * 80), 9)
  })
})

describe('refused options', () => {
  it.each([
    [() => schedules.flow({ shift: 0 }), 'ERR_RANGE', 'options.shift'],
    [() => schedules.flow({ shift: Number.NaN }), 'ERR_RANGE', 'options.shift'],
    [() => schedules.flow({ shfit: 3 } as never), 'ERR_CONFIG', 'options.shfit'],
    [() => schedules.vp({ kind: 'sigmoid' as never }), 'ERR_CONFIG', 'options.kind'],
    [() => schedules.vp({ steps: 1 }), 'ERR_RANGE', 'options.steps'],
    [() => schedules.edm({ sigmaMin: 0 }), 'ERR_RANGE', 'sigmaMin'],
    [() => schedules.edm({ sigmaMin: 2, sigmaMax: 1 }), 'ERR_RANGE', 'sigmaMax'],
  ])('%s', (make, code, names) => {
    expect(make).toThrow(DidrError)
    try {
      make()
    } catch (error) {
      expect((error as DidrError).code).toBe(code)
      expect((error as DidrError).message).toContain(names)
    }
  })
})
