import { describe, expect, it } from 'vitest'
import { runProgram } from '../fixtures/run-program.js'

describe('worker threads', () => {
  const cases = {
    compute: 'four compute at once, and the main thread beside them',
    terminate: 'terminate() in the middle of the queue',
    exit: 'process.exit() inside a worker with work queued and a read pending',
    'exit with reads done but not told':
      'process.exit() inside a worker before it hears of its reads',
    pending: 'a worker that ends by itself waits for its reads',
    throw: 'a worker that throws with its queue full',
    leave: 'the process ends while a worker is busy',
  }
  for (const [argument, title] of Object.entries(cases))
    it(title, async () => {
      const outcome = await runProgram('workers.mjs', { args: [argument] })
      expect(outcome).toEqual({ code: 0, signal: null, stdout: 'ok\n', stderr: '' })
    })
})
