import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import {
  arange,
  concat,
  Device,
  DidrError,
  device,
  full,
  keep,
  memory,
  normal,
  ones,
  stack,
  Tensor,
  tensor,
  tidy,
  uniform,
  where,
  zeros,
} from '../../lib/index.js'
import { binding } from '../../lib/native/binding.js'
import { idOf } from '../../lib/tensor/tensor.js'
import { expectRefusal, expectRejection } from '../expectations.js'

/** Passes a value that the types forbid. */
const wrong = (value: unknown) => value as never

let x: Tensor<'float32', [2, 3]>
let ints: Tensor<'int32', [2, 3]>
let bytes: Tensor<'uint8', [2, 3]>
let disposed: Tensor<'float32', [2, 3]>
/** A tensor that says it lives on another device. */
let elsewhere: Tensor<'float32', [2, 3]>

beforeAll(() => {
  x = ones([2, 3])
  ints = ones([2, 3], { dtype: 'int32' })
  bytes = ones([2, 3], { dtype: 'uint8' })
  disposed = ones([2, 3])
  disposed.dispose()
  const other = new Device('cuda:7', wrong(7))
  elsewhere = new Tensor(binding.view(idOf('x', x), [2, 3]), [2, 3], 'float32', other)
})
afterAll(() => {
  for (const t of [x, ints, bytes]) t.dispose()
})

describe('shapes', () => {
  it('are arrays of integers from 0 on', () => {
    expectRefusal(() => zeros(wrong(5)), 'ERR_SHAPE', 'shape: expected an array of sizes, got 5')
    expectRefusal(
      () => zeros(wrong(undefined)),
      'ERR_SHAPE',
      'shape: expected an array of sizes, got undefined',
    )
    expectRefusal(
      () => zeros(wrong({ length: 2 })),
      'ERR_SHAPE',
      'shape: expected an array of sizes, got an object',
    )
    expectRefusal(
      () => zeros(wrong(Int32Array.of(2))),
      'ERR_SHAPE',
      'shape: expected an array of sizes, got a Int32Array',
    )
    for (const size of [-1, 1.5, Number.NaN, 1 / 0, '2', null, 2n])
      expectRefusal(
        () => zeros(wrong([3, size])),
        'ERR_SHAPE',
        /^shape: expected sizes that are integers from 0 on, got \[3, /,
      )
    const endless: unknown[] = []
    endless.push(endless)
    expectRefusal(
      () => zeros(wrong(endless)),
      'ERR_SHAPE',
      'shape: expected sizes that are integers from 0 on, got [[[[[...]]]]]',
    )
    expectRefusal(
      () => zeros(wrong(new Array(2))),
      'ERR_SHAPE',
      /^shape: expected sizes that are integers from 0 on/,
    )
    expectRefusal(
      () => zeros([1, 1, 1, 1, 1, 1, 1, 1, 1]),
      'ERR_SHAPE',
      'shape: expected at most 8 axes, got 9',
    )
  })

  it('whose element count overflows are refused, also beside a zero', () => {
    const message = (sizes: string) => `shape: expected at most 2^50 elements, got [${sizes}]`
    expectRefusal(() => zeros([2 ** 51]), 'ERR_SHAPE', message('2251799813685248'))
    expectRefusal(() => zeros([2 ** 26, 2 ** 26]), 'ERR_SHAPE', message('67108864, 67108864'))
    expectRefusal(() => zeros([2 ** 32, 2 ** 32]), 'ERR_SHAPE', message('4294967296, 4294967296'))
    expectRefusal(
      () => zeros([0, 2 ** 32, 2 ** 32]),
      'ERR_SHAPE',
      message('0, 4294967296, 4294967296'),
    )
    expectRefusal(() => arange(2 ** 52), 'ERR_SHAPE', message('4503599627370496'))
    expectRefusal(
      () => x.broadcastTo([2 ** 50, 2, 3]),
      'ERR_SHAPE',
      /^shape: expected at most 2\^50 elements/,
    )
  })

  it('that an operation would overflow are refused', () => {
    using left = zeros([2 ** 40, 0])
    using right = zeros([0, 2 ** 40])
    expectRefusal(() => left.matmul(right), 'ERR_SHAPE', /2\^50 elements/)
    using tall = zeros([2 ** 32, 0, 1])
    using wide = zeros([1, 0, 2 ** 32])
    expectRefusal(() => tall.add(wide), 'ERR_SHAPE', /2\^50 elements/)
    using twice = concat([left, left])
    expectRefusal(() => twice.sum(1), 'ERR_OUT_OF_MEMORY', /MiB asked for/)
    const many = new Array<typeof left>(2 ** 11).fill(left)
    expectRefusal(() => concat(many), 'ERR_SHAPE', /2\^50 elements/)
    expectRefusal(() => stack(many), 'ERR_SHAPE', /2\^50 elements/)
  })

  it('larger than memory are refused', () => {
    for (const dtype of ['float32', 'bfloat16', 'uint8'] as const)
      expectRefusal(() => zeros([2 ** 40], { dtype }), 'ERR_OUT_OF_MEMORY', /^\d+ MiB asked for/)
    expectRefusal(() => zeros([2 ** 50]), 'ERR_OUT_OF_MEMORY', /^4294967296 MiB asked for/)
    expectRefusal(
      () => normal([2 ** 20, 2 ** 20], { seed: 1 }),
      'ERR_OUT_OF_MEMORY',
      /MiB asked for/,
    )
    expectRefusal(() => arange(2 ** 40), 'ERR_OUT_OF_MEMORY', /MiB asked for/)
    using column = ones([2 ** 20, 1])
    using row = ones([1, 2 ** 20])
    expectRefusal(() => column.add(row), 'ERR_OUT_OF_MEMORY', /MiB asked for/)
    expectRefusal(() => column.matmul(row), 'ERR_OUT_OF_MEMORY', /MiB asked for/)
    expectRefusal(
      () => column.broadcastTo([2 ** 20, 2 ** 20]),
      'ERR_OUT_OF_MEMORY',
      /MiB asked for/,
    )
  })

  it('the memory stays usable after a refusal', async () => {
    expectRefusal(() => zeros([2 ** 45]), 'ERR_OUT_OF_MEMORY', /MiB asked for/)
    using y = x.add(1)
    expect([...(await y.data())]).toEqual([2, 2, 2, 2, 2, 2])
  })
})

describe('options', () => {
  it('unknown names are refused with the known ones', () => {
    expectRefusal(
      () => zeros([2], wrong({ dtyp: 'int32' })),
      'ERR_CONFIG',
      'options.dtyp: unknown option; known are dtype, device',
    )
    expectRefusal(
      () => tensor([1], wrong({ Shape: [1] })),
      'ERR_CONFIG',
      'options.Shape: unknown option; known are shape, dtype, device',
    )
    expectRefusal(
      () => x.matmul(x, wrong({ transposeB: true })),
      'ERR_CONFIG',
      'options.transposeB: unknown option; known are transA, transB, bias, activation',
    )
    expectRefusal(
      () => x.sum(0, wrong({ keepdims: true })),
      'ERR_CONFIG',
      'options.keepdims: unknown option; known are keepDims',
    )
    expectRefusal(
      () => normal([2], wrong({ seed: 1, sigma: 2 })),
      'ERR_CONFIG',
      /^options\.sigma: unknown option/,
    )
  })

  it('of the wrong kind are refused', () => {
    expectRefusal(
      () => zeros([2], wrong(null)),
      'ERR_CONFIG',
      'options: expected an object, got null',
    )
    expectRefusal(
      () => zeros([2], wrong('int32')),
      'ERR_CONFIG',
      'options: expected an object, got "int32"',
    )
    expectRefusal(
      () => zeros([2], wrong({ dtype: 'float64' })),
      'ERR_DTYPE',
      'options.dtype: expected one of float32, bfloat16, float16, int32, uint8; got "float64"',
    )
    expectRefusal(
      () => zeros([2], wrong({ device: 'cpu' })),
      'ERR_CONFIG',
      'device: expected what device() resolves to, got "cpu"',
    )
    expectRefusal(
      () => x.matmul(x, wrong({ transB: 1 })),
      'ERR_CONFIG',
      'options.transB: expected a boolean, got 1',
    )
    expectRefusal(
      () => x.matmul(x, wrong({ transB: true, activation: 'swish' })),
      'ERR_CONFIG',
      /^options\.activation: expected one of none, relu, .*; got "swish"$/,
    )
    expectRefusal(
      () => x.sum(0, wrong({ keepDims: 'no' })),
      'ERR_CONFIG',
      'options.keepDims: expected a boolean, got "no"',
    )
    expectRefusal(
      () => x.gelu(wrong('exact')),
      'ERR_CONFIG',
      'approximate: expected one of none, tanh; got "exact"',
    )
    expectRefusal(
      () => x.cast(wrong('double')),
      'ERR_DTYPE',
      'dtype: expected one of float32, bfloat16, float16, int32, uint8; got "double"',
    )
  })

  it('of random draws are checked', () => {
    expectRefusal(
      () => normal([2], wrong({})),
      'ERR_CONFIG',
      'options.seed: expected a number, got undefined',
    )
    expectRefusal(
      () => uniform([2], wrong(undefined)),
      'ERR_CONFIG',
      'options: expected an object, got undefined',
    )
    for (const seed of [-1, 0.5, Number.NaN, 1 / 0, 2 ** 53])
      expectRefusal(
        () => normal([2], { seed }),
        'ERR_RANGE',
        `options.seed: expected an integer from 0 on, got ${seed}`,
      )
    expectRefusal(
      () => uniform([2], { seed: 1, offset: -1 }),
      'ERR_RANGE',
      'options.offset: expected an integer from 0 on, got -1',
    )
    expectRefusal(
      () => normal([2], { seed: 1, std: -1 }),
      'ERR_RANGE',
      'options.std: expected a number from 0 on, got -1',
    )
    expectRefusal(
      () => normal([2], { seed: 1, mean: Number.NaN }),
      'ERR_RANGE',
      'options.mean: expected a finite number, got NaN',
    )
    expectRefusal(
      () => uniform([2], { seed: 1, low: 2 }),
      'ERR_RANGE',
      'options.high: expected at least low = 2, got 1',
    )
    expectRefusal(
      () => normal([2], wrong({ seed: 1, dtype: 'int32' })),
      'ERR_DTYPE',
      'options.dtype: expected float32 or bfloat16 for random numbers',
    )
  })
})

describe('numbers', () => {
  it('of the wrong kind or outside their range', () => {
    expectRefusal(() => full([2], wrong('1')), 'ERR_CONFIG', 'value: expected a number, got "1"')
    expectRefusal(() => full([2], wrong(1n)), 'ERR_CONFIG', 'value: expected a number, got 1n')
    expectRefusal(() => arange(-1), 'ERR_RANGE', 'count: expected an integer from 0 on, got -1')
    expectRefusal(() => arange(2.5), 'ERR_RANGE', 'count: expected an integer from 0 on, got 2.5')
    expectRefusal(
      () => arange(3, { step: 1 / 0 }),
      'ERR_RANGE',
      'options.step: expected a finite number, got Infinity',
    )
    expectRefusal(() => x.clip(2, 1), 'ERR_RANGE', 'low, high: expected low <= high, got 2 and 1')
    expectRefusal(
      () => x.clip(Number.NaN, 1),
      'ERR_RANGE',
      'low, high: expected low <= high, got NaN and 1',
    )
    expectRefusal(
      () => x.clip(0, wrong(undefined)),
      'ERR_CONFIG',
      'high: expected a number, got undefined',
    )
  })

  it('beside integer tensors are integers that the dtype holds', () => {
    expectRefusal(
      () => ints.add(0.5),
      'ERR_DTYPE',
      'b: expected an integer beside an int32 tensor, got 0.5',
    )
    expectRefusal(
      () => ints.add(Number.NaN),
      'ERR_DTYPE',
      'b: expected an integer beside an int32 tensor, got NaN',
    )
    expectRefusal(
      () => bytes.less(2.5),
      'ERR_DTYPE',
      'b: expected an integer beside a uint8 tensor, got 2.5',
    )
    expectRefusal(
      () => bytes.equal(300),
      'ERR_RANGE',
      'b: expected an integer from 0 to 255 beside a uint8 tensor, got 300',
    )
    expectRefusal(
      () => bytes.greater(-1),
      'ERR_RANGE',
      'b: expected an integer from 0 to 255 beside a uint8 tensor, got -1',
    )
    expectRefusal(
      () => ints.add(2 ** 31),
      'ERR_RANGE',
      'b: expected an integer from -2147483648 to 2147483647 beside an int32 tensor, got 2147483648',
    )
  })

  it('axes', () => {
    expectRefusal(() => x.sum(2), 'ERR_RANGE', 'axes: expected an integer from -2 to 1, got 2')
    expectRefusal(() => x.sum(-3), 'ERR_RANGE', 'axes: expected an integer from -2 to 1, got -3')
    expectRefusal(
      () => x.sum(wrong('0')),
      'ERR_RANGE',
      'axes: expected an integer from -2 to 1, got "0"',
    )
    expectRefusal(() => x.sum([0, -2]), 'ERR_RANGE', 'axes: expected distinct axes, got [0, -2]')
    expectRefusal(
      () => x.softmax(0.5),
      'ERR_RANGE',
      'axis: expected an integer from -2 to 1, got 0.5',
    )
    expectRefusal(
      () => x.argMax(wrong(undefined)),
      'ERR_RANGE',
      'axis: expected an integer from -2 to 1, got undefined',
    )
    expectRefusal(() => x.permute([0]), 'ERR_SHAPE', 'axes: expected 2 axes, got [0]')
    expectRefusal(() => x.permute([0, 0]), 'ERR_RANGE', 'axes: expected each axis once, got [0, 0]')
    expectRefusal(
      () => x.permute(wrong(undefined)),
      'ERR_SHAPE',
      'axes: expected 2 axes, got undefined',
    )
    using scalar = tensor(1)
    expectRefusal(() => scalar.softmax(), 'ERR_RANGE', 'axis: a scalar has no axes, got -1')
    expectRefusal(
      () => scalar.transpose(),
      'ERR_SHAPE',
      'transpose: expected at least two axes, got shape []',
    )
    using none = zeros([0, 2])
    expectRefusal(
      () => none.argMax(0),
      'ERR_SHAPE',
      'axis: the largest of no elements is not defined',
    )
  })

  it('slices', () => {
    expectRefusal(
      () => x.slice([0]),
      'ERR_SHAPE',
      'begin: expected 2 entries, one per axis, got [0]',
    )
    expectRefusal(
      () => x.slice([0, 0], [1]),
      'ERR_SHAPE',
      'size: expected 2 entries, one per axis, got [1]',
    )
    expectRefusal(
      () => x.slice([3, 0]),
      'ERR_RANGE',
      'begin[0]: expected an integer from 0 to 2, got 3',
    )
    expectRefusal(
      () => x.slice([0, -1]),
      'ERR_RANGE',
      'begin[1]: expected an integer from 0 to 3, got -1',
    )
    expectRefusal(
      () => x.slice([0, 1], [1, 3]),
      'ERR_RANGE',
      'size[1]: expected -1 or an integer from 0 to 2, got 3',
    )
    expectRefusal(
      () => x.slice([0, 0], [-2, 1]),
      'ERR_RANGE',
      'size[0]: expected -1 or an integer from 0 to 2, got -2',
    )
    expectRefusal(
      () => x.slice([0, Number.NaN]),
      'ERR_RANGE',
      'begin[1]: expected an integer from 0 to 3, got NaN',
    )
  })
})

describe('shapes of operands', () => {
  it('that do not broadcast', () => {
    using y = ones([2, 4])
    expectRefusal(() => x.add(wrong(y)), 'ERR_SHAPE', 'shapes [2, 3] and [2, 4] do not broadcast')
    using condition = ones([4], { dtype: 'uint8' })
    expectRefusal(
      () => where(condition, x, x),
      'ERR_SHAPE',
      'shapes [4] and [2, 3] do not broadcast',
    )
    expectRefusal(() => x.broadcastTo([3]), 'ERR_SHAPE', 'shape: [2, 3] does not broadcast to [3]')
    expectRefusal(
      () => x.broadcastTo([4, 3]),
      'ERR_SHAPE',
      'shapes [2, 3] and [4, 3] do not broadcast',
    )
  })

  it('of matrix products', () => {
    using y = ones([2, 3, 3])
    using z = ones([4, 3, 3])
    using row = ones([3])
    expectRefusal(() => x.matmul(x), 'ERR_SHAPE', 'b: expected 3 rows to match [2, 3], got [2, 3]')
    expectRefusal(() => y.matmul(z), 'ERR_SHAPE', 'b: expected batch axes [2] or none, got [4]')
    expectRefusal(
      () => x.matmul(row),
      'ERR_SHAPE',
      'matmul: expected at least two axes in each operand, got [2, 3] and [3]',
    )
    expectRefusal(
      () => x.matmul(x, { transB: true, bias: row }),
      'ERR_SHAPE',
      'options.bias: expected shape [2], got [3]',
    )
  })

  it('of reshapes, copies and joins', () => {
    expectRefusal(
      () => x.reshape([4]),
      'ERR_SHAPE',
      'shape: expected 6 elements as in [2, 3], got [4]',
    )
    expectRefusal(
      () => x.reshape([-1, 4]),
      'ERR_SHAPE',
      'shape: [-1, 4] cannot hold the 6 elements of [2, 3]',
    )
    expectRefusal(
      () => x.reshape([-1, -1]),
      'ERR_SHAPE',
      /^shape: expected sizes that are integers from 0 on/,
    )
    expectRefusal(
      () => x.reshape([-1, 0]),
      'ERR_SHAPE',
      'shape: [-1, 0] cannot hold the 6 elements of [2, 3]',
    )
    expectRefusal(
      () => x.reshape(wrong('6')),
      'ERR_SHAPE',
      'shape: expected an array of sizes, got "6"',
    )
    using y = ones([3, 2])
    expectRefusal(() => x.copyFrom(y), 'ERR_SHAPE', 'source: expected shape [2, 3], got [3, 2]')
    expectRefusal(
      () => concat([x, y]),
      'ERR_SHAPE',
      'tensors[1]: [3, 2] does not continue [2, 3] along axis 0',
    )
    expectRefusal(
      () => stack([x, wrong(y)]),
      'ERR_SHAPE',
      'tensors[1]: expected shape [2, 3], got [3, 2]',
    )
    expectRefusal(
      () => concat([]),
      'ERR_CONFIG',
      'tensors: expected an array of at least one tensor, got []',
    )
    expectRefusal(
      () => stack(wrong(x)),
      'ERR_CONFIG',
      'tensors: expected an array of at least one tensor, got a Tensor',
    )
    expectRefusal(
      () => concat([x, x], 2),
      'ERR_RANGE',
      'axis: expected an integer from -2 to 1, got 2',
    )
    using scalar = tensor(1)
    expectRefusal(() => concat([scalar]), 'ERR_RANGE', 'axis: a scalar has no axes, got 0')
    using deep = zeros([1, 1, 1, 1, 1, 1, 1, 1])
    expectRefusal(() => stack([deep, deep]), 'ERR_SHAPE', 'tensors: expected at most 8 axes, got 9')
  })
})

describe('dtypes', () => {
  it('that differ', () => {
    const message = 'expected float32, got int32 (cast() converts)'
    expectRefusal(() => x.add(wrong(ints)), 'ERR_DTYPE', `b: ${message}`)
    expectRefusal(() => x.copyFrom(wrong(ints)), 'ERR_DTYPE', `source: ${message}`)
    expectRefusal(() => concat([x, wrong(ints)]), 'ERR_DTYPE', `tensors[1]: ${message}`)
    expectRefusal(() => where(bytes, x, wrong(ints)), 'ERR_DTYPE', `b: ${message}`)
    expectRefusal(
      () => where(wrong(x), x, x),
      'ERR_DTYPE',
      'condition: expected uint8, got float32',
    )
    expectRefusal(() => x.matmul(wrong(ints)), 'ERR_DTYPE', `b: ${message}`)
    using row = ones([2], { dtype: 'bfloat16' })
    expectRefusal(
      () => x.matmul(x, { transB: true, bias: wrong(row) }),
      'ERR_DTYPE',
      'options.bias: expected float32, got bfloat16 (cast() converts)',
    )
  })

  it('that an operation does not take', () => {
    using half = ones([2, 3], { dtype: 'float16' })
    expectRefusal(
      () => ints.exp(),
      'ERR_DTYPE',
      'exp: expected a tensor of float32 or bfloat16, got int32',
    )
    expectRefusal(
      () => bytes.neg(),
      'ERR_DTYPE',
      'neg: expected a tensor of float32 or bfloat16 or int32, got uint8',
    )
    expectRefusal(
      () => half.add(half),
      'ERR_DTYPE',
      'add: expected a tensor of float32 or bfloat16 or int32, got float16',
    )
    expectRefusal(
      () => bytes.add(bytes),
      'ERR_DTYPE',
      'add: expected a tensor of float32 or bfloat16 or int32, got uint8',
    )
    expectRefusal(
      () => ints.pow(2),
      'ERR_DTYPE',
      'pow: expected a tensor of float32 or bfloat16, got int32',
    )
    expectRefusal(
      () => x.logicalAnd(x),
      'ERR_DTYPE',
      'logicalAnd: expected a tensor of uint8, got float32',
    )
    expectRefusal(
      () => ints.mean(),
      'ERR_DTYPE',
      'mean: expected a tensor of float32 or bfloat16, got int32',
    )
    expectRefusal(
      () => bytes.sum(),
      'ERR_DTYPE',
      'sum: expected a tensor of float32 or bfloat16 or int32, got uint8',
    )
    expectRefusal(
      () => bytes.argMax(0),
      'ERR_DTYPE',
      'argMax: expected a tensor of float32 or bfloat16 or int32, got uint8',
    )
    expectRefusal(
      () => ints.softmax(),
      'ERR_DTYPE',
      'softmax: expected float32 or bfloat16, got int32',
    )
    expectRefusal(
      () => ints.matmul(ints, { transB: true }),
      'ERR_DTYPE',
      'matmul: expected float32 or bfloat16, got int32',
    )
  })
})

describe('operands', () => {
  it('that are no tensors', () => {
    expectRefusal(
      () => x.add(wrong(undefined)),
      'ERR_CONFIG',
      'b: expected a tensor, got undefined',
    )
    expectRefusal(() => x.add(wrong('1')), 'ERR_CONFIG', 'b: expected a tensor, got "1"')
    expectRefusal(() => x.add(wrong([1])), 'ERR_CONFIG', 'b: expected a tensor, got [1]')
    expectRefusal(
      () => x.matmul(wrong({ shape: [3, 2] })),
      'ERR_CONFIG',
      'b: expected a tensor, got an object',
    )
    expectRefusal(
      () => x.matmul(x, { transB: true, bias: wrong([1, 2]) }),
      'ERR_CONFIG',
      'options.bias: expected a tensor, got [1, 2]',
    )
    expectRefusal(
      () => where(wrong(true), x, x),
      'ERR_CONFIG',
      'condition: expected a tensor, got true',
    )
    expectRefusal(
      () => concat([x, wrong(null)]),
      'ERR_CONFIG',
      'tensors[1]: expected a tensor, got null',
    )
    expectRefusal(
      () => x.copyFrom(wrong(new Float32Array(6))),
      'ERR_CONFIG',
      'source: expected a tensor, got a Float32Array',
    )
  })

  it('of two devices', () => {
    const message = 'expected a tensor on cpu, got one on cuda:7'
    expectRefusal(() => x.add(elsewhere), 'ERR_DEVICE', `b: ${message}`)
    expectRefusal(() => x.copyFrom(elsewhere), 'ERR_DEVICE', `source: ${message}`)
    expectRefusal(() => x.matmul(elsewhere, { transB: true }), 'ERR_DEVICE', `b: ${message}`)
    expectRefusal(() => concat([x, elsewhere]), 'ERR_DEVICE', `tensors[1]: ${message}`)
    expectRefusal(() => stack([x, elsewhere]), 'ERR_DEVICE', `tensors[1]: ${message}`)
    expectRefusal(() => where(bytes, x, elsewhere), 'ERR_DEVICE', `b: ${message}`)
    expectRefusal(
      () => where(bytes, elsewhere, x),
      'ERR_DEVICE',
      'condition: expected a tensor on cuda:7, got one on cpu',
    )
  })
})

describe('disposed tensors', () => {
  const message = (name: string) => `${name}: the tensor [2, 3] is disposed`

  it('are refused by every operation, as every argument', async () => {
    const calls: (() => unknown)[] = [
      () => disposed.exp(),
      () => disposed.add(1),
      () => disposed.add(x),
      () => disposed.equal(x),
      () => disposed.clip(0, 1),
      () => disposed.gelu(),
      () => disposed.sum(),
      () => disposed.argMax(0),
      () => disposed.softmax(),
      () => disposed.matmul(x),
      () => disposed.reshape([6]),
      () => disposed.permute([1, 0]),
      () => disposed.transpose(),
      () => disposed.slice([0, 0]),
      () => disposed.broadcastTo([2, 3]),
      () => disposed.cast('int32'),
      () => disposed.clone(),
      () => disposed.copyFrom(x),
      () => disposed.dataSync(),
    ]
    for (const call of calls) expectRefusal(call, 'ERR_DISPOSED', message('tensor'))
    expectRefusal(() => x.add(disposed), 'ERR_DISPOSED', message('b'))
    expectRefusal(() => x.matmul(disposed), 'ERR_DISPOSED', message('b'))
    expectRefusal(() => x.copyFrom(disposed), 'ERR_DISPOSED', message('source'))
    expectRefusal(() => where(bytes, x, disposed), 'ERR_DISPOSED', message('b'))
    expectRefusal(() => concat([x, disposed]), 'ERR_DISPOSED', message('tensors[1]'))
    expectRefusal(() => stack([disposed]), 'ERR_DISPOSED', message('tensors[0]'))
    await expectRejection(() => disposed.data(), 'ERR_DISPOSED', message('tensor'))
    await expectRejection(() => disposed.rawData(), 'ERR_DISPOSED', message('tensor'))
    const cpu = await device('cpu')
    await expectRejection(() => disposed.to(cpu), 'ERR_DISPOSED', message('tensor'))
  })

  it('a second dispose does nothing', () => {
    const y = ones([4])
    const before = memory().tensors
    y.dispose()
    y.dispose()
    y[Symbol.dispose]()
    expect(memory().tensors).toBe(before - 1)
    expect(y.disposed).toBe(true)
  })
})

describe('failing in the middle', () => {
  it('an operation whose last step is refused releases what its first steps made', () => {
    const refuse = (method: 'binary' | 'concat' | 'cast' | 'reduce') =>
      vi.spyOn(binding, method).mockImplementationOnce(() => {
        throw new DidrError('ERR_OUT_OF_MEMORY', 'no more')
      })
    refuse('binary')
    expectRefusal(() => x.add(1), 'ERR_OUT_OF_MEMORY', 'no more')
    refuse('concat')
    expectRefusal(() => stack([x, x]), 'ERR_OUT_OF_MEMORY', 'no more')
    refuse('cast')
    expectRefusal(() => tensor([1, 2], { dtype: 'bfloat16' }), 'ERR_OUT_OF_MEMORY', 'no more')
    using deep = ones([2, 3, 4])
    refuse('reduce')
    expectRefusal(() => deep.sum([0, 2]), 'ERR_OUT_OF_MEMORY', 'no more')
    vi.restoreAllMocks()
  })
})

describe('other calls', () => {
  it('item() is for one element', async () => {
    await expectRejection(
      () => x.item(),
      'ERR_SHAPE',
      'item(): expected a tensor of one element, got shape [2, 3]',
    )
    using none = zeros([0])
    await expectRejection(
      () => none.item(),
      'ERR_SHAPE',
      'item(): expected a tensor of one element, got shape [0]',
    )
    using one = full([1, 1], 2.5)
    expect(await one.item()).toBe(2.5)
  })

  it('device() knows its names', async () => {
    expect((await device('cpu')).name).toBe('cpu')
    await expectRejection(
      () => device(wrong('gpu')),
      'ERR_CONFIG',
      /^name: expected .*; got "gpu"$/,
    )
    await expectRejection(
      () => device(wrong('CPU')),
      'ERR_CONFIG',
      /^name: expected .*; got "CPU"$/,
    )
    await expectRejection(
      () => device(wrong('cuda:x')),
      'ERR_CONFIG',
      /^name: expected .*; got "cuda:x"$/,
    )
    await expectRejection(() => device(wrong(0)), 'ERR_CONFIG', /^name: expected .*; got 0$/)
    await expectRejection(
      () => x.to(wrong('cpu')),
      'ERR_CONFIG',
      'device: expected a device, got "cpu"',
    )
  })

  it('tidy() refuses promises and what is no function', () => {
    expectRefusal(
      () => tidy(async () => ones([3])),
      'ERR_CONFIG',
      'fn: expected a synchronous function, got one that returns a promise',
    )
    expectRefusal(() => tidy(wrong(3)), 'ERR_CONFIG', 'fn: expected a function, got 3')
    expectRefusal(() => keep(wrong(3)), 'ERR_CONFIG', 'tensor: expected a tensor, got 3')
  })

  it('errors have a name, a code and a message', () => {
    try {
      x.reshape([5])
      expect.unreachable()
    } catch (error) {
      expect(error).toBeInstanceOf(Error)
      expect((error as DidrError).name).toBe('DidrError [ERR_SHAPE]')
      expect(String(error)).toBe(
        'DidrError [ERR_SHAPE]: shape: expected 6 elements as in [2, 3], got [5]',
      )
      // The stack leads to the caller.
      expect((error as DidrError).stack).toContain('errors.test')
    }
  })
})
