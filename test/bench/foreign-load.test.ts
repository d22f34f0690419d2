import { describe, expect, it } from 'vitest'
import { account, foreignBetween, parseProcess, parseSystem } from '../../bench/foreign-load.mjs'

describe("Linux's accounts", () => {
  it('of the machine: what is neither idle nor waiting is busy, time stolen included, guests counted once', () => {
    const text = 'cpu  10 20 30 400 50 6 7 80 5 5\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n'
    expect(parseSystem(text)).toEqual({ total: 603, busy: 153 })
  })

  it('of a process, whatever its name', () => {
    const fields = Array.from({ length: 50 }, (_, i) => i + 1)
    const text = `42 (a (strange) name) S ${fields.slice(3).join(' ')}`
    // utime and stime are the 14th and 15th field.
    expect(parseProcess(text)).toBe(14 + 15)
  })
})

describe('foreign load', () => {
  const before = { total: 1000, busy: 500, own: 100 }

  it('is what was busy without what is our own, in processors', () => {
    const after = { total: 1200, busy: 650, own: 200 }
    expect(foreignBetween(before, after, 2)).toBeCloseTo(0.5, 12)
  })

  it('is not below 0, and unknown without accounts or ticks', () => {
    expect(foreignBetween(before, { total: 1100, busy: 540, own: 150 }, 2)).toBe(0)
    expect(foreignBetween(before, before, 2)).toBeUndefined()
    expect(foreignBetween(undefined, before, 2)).toBeUndefined()
    expect(foreignBetween(before, undefined, 2)).toBeUndefined()
  })

  it('has no account of a process that is not there', () => {
    expect(account([2 ** 30])).toBeUndefined()
  })
})
