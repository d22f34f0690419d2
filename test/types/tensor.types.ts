/**
 * What the compiler knows of tensors. Nothing here runs: `tsc -p test/tsconfig.json` passes if every type is as stated
 * and every line after a @ts-expect-error is refused.
 */
import {
  arange,
  concat,
  type Device,
  type DType,
  device,
  full,
  keep,
  normal,
  ones,
  stack,
  type Tensor,
  tensor,
  tidy,
  uniform,
  where,
  zeros,
} from '../../lib/index.js'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Compiles only if the type of `value` is exactly `T`. */
declare function is<T>(): <V>(value: V, ...same: Same<V, T> extends true ? [] : [never]) => void

const x = zeros([2, 3])
const y = ones([3, 4])

// --- Creation ---------------------------------------------------------------------------------------------------------
is<Tensor<'float32', readonly [2, 3]>>()(x)
is<Tensor<'int32', readonly [5]>>()(full([5], 7, { dtype: 'int32' }))
is<Tensor<'float32', readonly []>>()(zeros([]))
is<Tensor<'float32', [10]>>()(arange(10))
is<Tensor<'uint8', [4]>>()(arange(4, { dtype: 'uint8', start: 1 }))
is<Tensor<'bfloat16', readonly [2]>>()(normal([2], { seed: 1, dtype: 'bfloat16' }))
is<Tensor<'float32', number[]>>()(tensor([1, 2, 3]))
is<Tensor<'float32', readonly [2, 3]>>()(tensor(new Float32Array(6), { shape: [2, 3] }))
declare const sizes: number[]
is<Tensor<'float32', number[]>>()(zeros(sizes))

// @ts-expect-error random numbers are floats
normal([2], { seed: 1, dtype: 'int32' })
// @ts-expect-error a seed is needed
uniform([2], {})
// @ts-expect-error no such dtype
zeros([2], { dtype: 'float64' })
// @ts-expect-error a misspelt option
zeros([2], { dtyp: 'float32' })
// @ts-expect-error a shape is an array
zeros(3)
// @ts-expect-error sizes are numbers
zeros(['3'])
// @ts-expect-error numbers, not strings
tensor(['1'])
// @ts-expect-error numbers, not bigints
tensor([1n])

// --- Elementwise ------------------------------------------------------------------------------------------------------
is<Tensor<'float32', readonly [2, 3]>>()(x.exp())
is<Tensor<'float32', readonly [2, 3]>>()(x.add(1))
is<Tensor<'float32', readonly [2, 3]>>()(x.add(x))
is<Tensor<'float32', readonly [2, 3]>>()(x.mul(zeros([])))
is<Tensor<'float32', readonly [2, 3]>>()(zeros([]).mul(x))
is<Tensor<'float32', number[]>>()(x.add(zeros([3])))
is<Tensor<'uint8', readonly [2, 3]>>()(x.less(0))
is<Tensor<'uint8', readonly [2, 3]>>()(x.equal(x))
is<Tensor<'uint8', readonly [2, 3]>>()(x.isFinite())
is<Tensor<'uint8', readonly [2, 3]>>()(x.greater(0).logicalAnd(x.less(1)))

const ints = zeros([2, 3], { dtype: 'int32' })
// @ts-expect-error another dtype
x.add(ints)
// @ts-expect-error another dtype
x.copyFrom(ints)
// @ts-expect-error a number or a tensor
x.add('1')
// @ts-expect-error an array is not a tensor
x.mul([1, 2, 3])
// @ts-expect-error an approximation that does not exist
x.gelu('exact')
is<Tensor<'float32', readonly number[]>>()(where(x.less(0), x, x))
// @ts-expect-error a condition is uint8
where(x, x, x)

// --- Layout -----------------------------------------------------------------------------------------------------------
is<Tensor<'float32', readonly [6]>>()(x.reshape([6]))
is<Tensor<'float32', readonly [3, 2]>>()(x.reshape([3, 2]))
is<Tensor<'float32', number[]>>()(x.reshape([-1, 2]))
is<Tensor<'float32', [3, 2]>>()(x.transpose())
is<Tensor<'bfloat16', readonly [2, 3]>>()(x.cast('bfloat16'))
is<Tensor<'float32', readonly [4, 2, 3]>>()(x.broadcastTo([4, 2, 3]))
is<Tensor<'float32', readonly [2, 3]>>()(x.clone())
is<Tensor<'float32', number[]>>()(concat([x, y]))
is<Tensor<'float32', number[]>>()(stack([x, x]))
// @ts-expect-error no such dtype
x.cast('double')

// --- Reductions and products ------------------------------------------------------------------------------------------
is<Tensor<'float32', []>>()(x.sum())
is<Tensor<'float32', number[]>>()(x.sum(0))
is<Tensor<'float32', number[]>>()(x.mean([0, 1], { keepDims: true }))
is<Tensor<'int32', number[]>>()(x.argMax(1))
is<Tensor<'float32', readonly [2, 3]>>()(x.softmax())
// @ts-expect-error a misspelt option
x.sum(0, { keepdims: true })

is<Tensor<'float32', [2, 4]>>()(x.matmul(y))
is<Tensor<'float32', number[]>>()(x.matmul(x, { transB: true }))
is<Tensor<'float32', number[]>>()(zeros([5, 2, 3]).matmul(y))
// @ts-expect-error another dtype
x.matmul(ints)
// @ts-expect-error a bias of another dtype
x.matmul(y, { bias: ints })
// @ts-expect-error an activation that does not exist
x.matmul(y, { activation: 'swish' })

// --- Reading and lifetime ---------------------------------------------------------------------------------------------
is<Promise<Float32Array<ArrayBuffer>>>()(x.data())
is<Promise<Int32Array<ArrayBuffer>>>()(ints.data())
is<Promise<Uint8Array<ArrayBuffer>>>()(x.less(1).data())
is<Promise<Float32Array<ArrayBuffer>>>()(x.cast('bfloat16').data())
is<Float32Array<ArrayBuffer>>()(x.dataSync())
is<Promise<number>>()(x.sum().item())
is<readonly [2, 3]>()(x.shape)
is<'float32'>()(x.dtype)
is<Tensor<'float32', readonly [2, 3]>>()(tidy(() => x.add(1)))
is<{ a: Tensor<'float32', readonly [2, 3]>; n: number }>()(tidy(() => ({ a: x.exp(), n: 1 })))
is<Tensor<'float32', readonly [2, 3]>>()(keep(x))
is<Promise<Device>>()(device('cuda:1'))
// @ts-expect-error no such device
device('gpu')
// @ts-expect-error a tensor's shape does not change
x.shape = [3, 2]
// @ts-expect-error not even one size
x.shape[0] = 5
{
  using scoped = zeros([1])
  is<Tensor<'float32', readonly [1]>>()(scoped)
}

/** Any tensor is a `Tensor`, and functions can be generic over dtype and shape. */
const anything: Tensor = ints
declare function twice<D extends DType, S extends readonly number[]>(t: Tensor<D, S>): Tensor<D, S>
is<Tensor<'int32', readonly [2, 3]>>()(twice(ints))
is<DType>()(anything.dtype)
