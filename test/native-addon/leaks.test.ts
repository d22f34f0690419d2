import { describe, expect, it } from 'vitest'
import { runProgram } from '../fixtures/run-program.js'

/** What the heap, the pool and the allocator may still settle by after the warm-up of 100,000 cycles. */
const mostGrowthMiB = 30

describe('resident memory after 200,000 cycles', () => {
  for (const [how, title] of [
    ['dispose', 'with dispose()'],
    ['collect', 'relying on garbage collection alone'],
  ] as const)
    it(title, async () => {
      const { code, stdout, stderr } = await runProgram('leak.mjs', {
        args: [how, '200000'],
        milliseconds: 110_000,
      })
      expect([code, stderr]).toEqual([0, ''])
      const { before, after, tensors } = JSON.parse(stdout)
      expect(after - before, `MiB more than the ${before} after the warm-up`).toBeLessThan(
        mostGrowthMiB,
      )
      if (how === 'dispose') expect(tensors).toBe(0)
    })
})
