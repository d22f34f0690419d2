import { describe, expect, it } from 'vitest'
import { runProgram } from '../fixtures/run-program.js'

describe('the functions of the addon, called with anything', () => {
  for (const seed of [1, 2])
    it(`10,000 calls from seed ${seed}: each returns or throws, none crashes`, async () => {
      const { code, signal, stdout, stderr } = await runProgram('fuzz.mjs', {
        args: [String(seed), '10000'],
      })
      expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' })
      const outcome = JSON.parse(stdout)
      // The calls reached both sides of the checks.
      expect(outcome.returned).toBeGreaterThan(1000)
      expect(outcome.refused).toBeGreaterThan(1000)
      expect(outcome.thrownByArgument).toBeGreaterThan(0)
      for (const expected of [
        'ERR_SHAPE',
        'ERR_DTYPE',
        'ERR_RANGE',
        'ERR_CONFIG',
        'ERR_DISPOSED',
        'ERR_OUT_OF_MEMORY',
      ])
        expect(outcome.codes[expected], expected).toBeGreaterThan(0)
    })
})
