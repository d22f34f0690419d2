import { describe, expect, it } from 'vitest'
import { optim } from '../../lib/index.js'
import { expectRefusal } from '../expectations.js'

describe('learning-rate schedules', () => {
  it('constant is 1', () => {
    expect([0, 1, 1e9].map(optim.constant())).toEqual([1, 1, 1])
  })

  it('warmup rises linearly to 1 and stays', () => {
    expect([0, 1, 2, 3, 4, 100].map(optim.warmup({ steps: 4 }))).toEqual([0.25, 0.5, 0.75, 1, 1, 1])
    expect(optim.warmup({ steps: 0 })(0)).toBe(1)
  })

  it('cosine warms up, falls along half a cosine and stays at its end', () => {
    const scale = optim.cosine({ steps: 110, warmup: 10, final: 0.2 })
    expect(scale(0)).toBe(0.1)
    expect(scale(9)).toBe(1)
    expect(scale(10)).toBe(1)
    expect(scale(35)).toBeCloseTo(0.2 + 0.8 * 0.5 * (1 + Math.SQRT1_2), 12)
    expect(scale(60)).toBeCloseTo(0.6, 12)
    expect(scale(110)).toBe(0.2)
    expect(scale(5000)).toBe(0.2)
    for (let step = 10; step < 110; step++) expect(scale(step + 1)).toBeLessThan(scale(step))
    expect(optim.cosine({ steps: 4 })(4)).toBe(0)
    expect(optim.cosine({ steps: 4, warmup: 4 })(4)).toBe(0)
  })

  it('refuse what makes no sense', () => {
    expectRefusal(
      () => optim.cosine({ steps: 0 }),
      'ERR_RANGE',
      /options\.steps: expected an integer from 1/,
    )
    expectRefusal(
      () => optim.cosine({ steps: 4, warmup: 5 }),
      'ERR_RANGE',
      'options.warmup: expected at most steps = 4, got 5',
    )
    expectRefusal(() => optim.cosine({ steps: 4, final: -1 }), 'ERR_RANGE', /options\.final/)
    expectRefusal(
      () => optim.warmup({ step: 4 } as never),
      'ERR_CONFIG',
      /options\.step: unknown option/,
    )
    expectRefusal(
      () => optim.constant()(-1),
      'ERR_RANGE',
      /step: expected an integer from 0 on, got -1/,
    )
    expectRefusal(() => optim.constant()(0.5), 'ERR_RANGE', /step/)
  })
})
