import { describe, expect, it } from 'vitest'
import { contenders, runName } from '../../lib/evaluation/compare.js'

describe('the contenders', () => {
  it('have a folder each', () => {
    const all = contenders()
    const names = [1, 2].flatMap((seed) => all.map((contender) => runName(contender, seed)))
    expect(new Set(names).size).toBe(2 * all.length)
    for (const name of names) expect(name).toMatch(/^[\w.-]+$/)
    const methods = new Set(all.map(({ objective }) => objective))
    expect([...methods].sort()).toEqual(
      ['didr', 'diff-instruct', 'diff-instruct*', 'diff-instruct++', 'dmd2', 'reward'].sort(),
    )
  })
})
