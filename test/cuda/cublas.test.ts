/**
 * A cuBLAS that is opened at run time: a stand-in for kernels that run on the host, whatever device the other tests have.
 * test/native/cuda/cublas_test.cc goes through the mapping of its arguments.
 */
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { device, type FloatDType, nn, normal, type Tensor, vjp } from '../../lib/index.js'
import { runProgram } from '../fixtures/run-program.js'
import { hostModule } from './open.js'

const module = hostModule()
const standIn = (name: string) => path.join(path.dirname(module), `${name}.so`)
process.env.DIDR_CUDA_MODULE = module
process.env.DIDR_CUBLAS = standIn('fake_cublas')
const [cpu, cuda] = [await device('cpu'), await device('cuda')]

describe('cuBLAS', () => {
  it('is named, with its version', () => {
    expect(cuda.info.matrixProducts).toBe(`cuBLAS 13.0.2 (${process.env.DIDR_CUBLAS})`)
  })

  for (const dtype of ['float32', 'bfloat16'] as const)
    it(`makes the products, in the order of the queue, ${dtype}`, async () => {
      const results = [cpu, cuda].map((on) => {
        const draw = (shape: readonly number[], offset: number) =>
          normal(shape, { seed: 3, offset, dtype: dtype as FloatDType, device: on })
        const { value, pullback } = vjp(
          (x, weight, bias) => nn.linear(nn.linear(x, weight, bias, 'silu'), weight.add(1)),
          [draw([2, 3, 7], 0), draw([7, 7], 1), draw([7], 2)],
        )
        return [value, ...pullback(draw([2, 3, 7], 3))] as Tensor[]
      })
      for (const [i, expected] of (results[0] as Tensor[]).entries()) {
        const [got, want] = [await results[1]?.[i]?.data(), await expected.data()]
        const largest = Math.max(...want.map(Math.abs))
        for (const [j, value] of want.entries())
          expect(Math.abs((got?.[j] as number) - value) / largest, `${i}[${j}]`).toBeLessThan(
            dtype === 'float32' ? 1e-6 : 2 ** -6,
          )
      }
    })

  it.each([
    ['0', 'own kernel: cuBLAS is off (DIDR_CUBLAS=0)'],
    [
      standIn('fake_cublas_old'),
      `own kernel: no cuBLAS: ${standIn('fake_cublas_old')} is version 11.5.4, 12.0 or newer is needed`,
    ],
    [
      standIn('fake_cublas_incomplete'),
      `own kernel: no cuBLAS: ${standIn('fake_cublas_incomplete')} has no cublasGemmStridedBatchedEx`,
    ],
    ['/nonexistent/libcublas.so', 'own kernel: no cuBLAS: /nonexistent/libcublas.so: cannot open'],
  ])('DIDR_CUBLAS=%s leaves the own kernel, and says why', async (DIDR_CUBLAS, reason) => {
    const env = { DIDR_CUDA_MODULE: module, DIDR_CUBLAS }
    const { stdout, code } = await runProgram('device.mjs', { args: ['cuda'], env })
    expect(code).toBe(0)
    const { name, matrixProducts } = JSON.parse(stdout)
    expect(name).toBe('cuda:0')
    expect(matrixProducts.slice(0, reason.length)).toBe(reason)
  })
})
