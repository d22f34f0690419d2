/** What the tests say about tensors and errors, with messages that name the element or field that is wrong. */
import { expect } from 'vitest'
import { DidrError, type DType, type ErrorCode, memory, type Tensor, tensor } from '../lib/index.js'
import { count, spacing, type Values } from './reference.js'

export function tensorOf<D extends DType>(x: Values, dtype: D): Tensor<D, number[]> {
  if (dtype === 'int32') return tensor(Int32Array.from(x.data), { shape: [...x.shape], dtype })
  return tensor(Float64Array.from(x.data), { shape: [...x.shape], dtype })
}

export interface Closeness {
  /** In units of the last place of the expected value; 0 (the default) asks for the same number. */
  ulps?: number | undefined
  /** An absolute error that is allowed on top. */
  absolute?: number | ((i: number) => number)
}

/** Compares shape and elements; NaN equals NaN and, where the expected value is a zero, its sign is free. */
export async function expectValues(
  what: string,
  x: Tensor,
  expected: Values,
  { ulps = 0, absolute = 0 }: Closeness = {},
): Promise<void> {
  expect(x.shape, what).toEqual([...expected.shape])
  const got = await x.data()
  expect(got.length, what).toBe(count(expected.shape))
  for (let i = 0; i < got.length; i++) {
    const [a, e] = [got[i] as number, expected.data[i] as number]
    if (Object.is(a, e) || a === e) continue
    const allowance =
      ulps * spacing(x.dtype, e) + (typeof absolute === 'number' ? absolute : absolute(i))
    if (!(Math.abs(a - e) <= allowance))
      expect.fail(
        `${what}: element ${i} of ${x}: expected ${e} within ${allowance}, got ${a} (off by ${a - e})`,
      )
  }
}

/** The call throws a DidrError of the code whose message matches, and leaves no tensor and no byte behind. */
export function expectRefusal(call: () => unknown, code: ErrorCode, message: string | RegExp) {
  const before = memory()
  let thrown: unknown
  try {
    call()
  } catch (error) {
    thrown = error
  }
  checkRefusal(thrown, code, message)
  const after = memory()
  expect([after.tensors, after.bytes], 'tensors and bytes after the refused call').toEqual([
    before.tensors,
    before.bytes,
  ])
}

/** The same for a call that returns a promise. */
export async function expectRejection(
  call: () => Promise<unknown>,
  code: ErrorCode,
  message: string | RegExp,
): Promise<void> {
  const before = memory()
  let thrown: unknown
  try {
    await call()
  } catch (error) {
    thrown = error
  }
  checkRefusal(thrown, code, message)
  const after = memory()
  expect([after.tensors, after.bytes]).toEqual([before.tensors, before.bytes])
}

function checkRefusal(thrown: unknown, code: ErrorCode, message: string | RegExp) {
  expect(thrown, 'what was thrown').toBeInstanceOf(DidrError)
  const { code: got, message: text } = thrown as DidrError
  if (typeof message === 'string') expect(`${got}: ${text}`).toBe(`${code}: ${message}`)
  else {
    expect(text).toMatch(message)
    expect(got).toBe(code)
  }
}
