import { describe, expect, it } from 'vitest'
import { runProgram } from '../fixtures/run-program.js'

describe('the end of a process with work in the queue', () => {
  const ends: [how: string, code: number, stdout: string, stderr?: RegExp][] = [
    ['exit', 3, ''],
    ['exit with pending reads', 4, ''],
    ['exit with reads done but not told', 8, ''],
    ['natural, work queued', 0, ''],
    ['natural, read pending', 0, `read ${1024 * 1024}\n`],
    ['natural, wait pending', 0, 'synchronized\n'],
    ['uncaught exception', 1, '', /Error: deliberate/],
    ['unhandled rejection', 1, '', /Error: deliberate/],
    ['exit in a callback', 5, ''],
    ['calls in an exit handler', 6, 'in the handler: 42\n'],
  ]
  for (const [how, code, stdout, stderr = /^$/] of ends)
    it(how, async () => {
      // Several times: what could go wrong here depends on timing.
      for (let round = 0; round < 2; round++) {
        const outcome = await runProgram('exit.mjs', { args: [how] })
        expect(outcome).toMatchObject({ code, signal: null, stdout })
        expect(outcome.stderr).toMatch(stderr)
      }
    })

  it('killed by a signal', async () => {
    const outcome = await runProgram('exit.mjs', { args: ['killed by a signal'] })
    expect(outcome).toMatchObject({ code: null, signal: 'SIGTERM', stdout: '' })
  })
})
