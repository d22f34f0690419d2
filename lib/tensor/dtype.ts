import { fail, show } from '../errors.js'

/** Element types, in the order of the addon's `DType`. float32 is the reference; bfloat16 and float16 are storage. */
export const dtypes = ['float32', 'bfloat16', 'float16', 'int32', 'uint8'] as const

/** What the elements of a tensor are. */
export type DType = (typeof dtypes)[number]
/** The dtypes that arithmetic on real numbers is defined for. */
export type FloatDType = 'float32' | 'bfloat16'

/** What `data()` gives: numbers as JavaScript has them, the 16-bit floats widened exactly. */
export type DataOf<D extends DType> = D extends 'int32'
  ? Int32Array<ArrayBuffer>
  : D extends 'uint8'
    ? Uint8Array<ArrayBuffer>
    : Float32Array<ArrayBuffer>

const bytes: Record<DType, number> = { float32: 4, bfloat16: 2, float16: 2, int32: 4, uint8: 1 }

export function bytesPerElement(dtype: DType): number {
  return bytes[dtype]
}

/** The addon's number for a dtype. */
export function dtypeIndex(dtype: DType): number {
  return dtypes.indexOf(dtype)
}

export function checkDType(name: string, dtype: unknown): asserts dtype is DType {
  if (!dtypes.includes(dtype as DType))
    fail('ERR_DTYPE', `${name}: expected one of ${dtypes.join(', ')}; got ${show(dtype)}`)
}
