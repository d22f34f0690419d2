import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { device } from '../../lib/index.js'
import { hostModule } from '../cuda/open.js'
import { runProgram } from '../fixtures/run-program.js'

describe('the cuda device', () => {
  it('that cannot be had is refused, saying which part is missing, and auto falls back', async () => {
    const absent = await device('cuda').then(
      () => undefined,
      (error) => error,
    )
    const auto = await device('auto')
    if (absent === undefined) {
      expect(auto.name).toBe('cuda:0')
      return
    }
    expect(absent.code).toBe('ERR_BACKEND')
    expect(absent.message).toMatch(/^cuda:0: (module|driver|device|version)\b/)
    expect(auto.name).toBe('cpu')
    expect(auto.info.reason).toBe(absent.message)
  })

  it('refuses a module that is not one, and one that is not there', async () => {
    const program = 'device.mjs'
    for (const module of ['/nonexistent/didr_cuda.so', fileURLToPath(import.meta.url)]) {
      const { stdout, code } = await runProgram(program, {
        args: ['cuda'],
        env: { DIDR_CUDA_MODULE: module },
      })
      expect(code).toBe(0)
      expect(JSON.parse(stdout)).toMatchObject({
        code: 'ERR_BACKEND',
        message: expect.stringMatching(/^cuda:0: module missing: /),
      })
    }
  })

  it('does what the CPU does, with its kernels run on the host', async () => {
    const outcome = await runProgram('cuda.mjs', { env: { DIDR_CUDA_MODULE: hostModule() } })
    expect(outcome).toMatchObject({ code: 0, stdout: 'ok\n' })
  })
})
