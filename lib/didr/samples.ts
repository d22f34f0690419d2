/** What the fused ops share: a batch of samples on a device and one time for each. */
import { fail, show } from '../errors.js'
import { binding, type TensorId } from '../native/binding.js'
import type { Device } from '../tensor/device.js'
import { dtypeIndex, type FloatDType } from '../tensor/dtype.js'
import { type Shape, showShape } from '../tensor/shape.js'
import {
  checkFloat,
  checkSameDevice,
  checkSameDType,
  checkTensorShape,
  idOf,
  type Tensor,
} from '../tensor/tensor.js'
import { checkSchedule, type Schedule } from './schedules.js'

/** A living float tensor with a batch axis; returns its id. */
export function checkSamples(name: string, x: Tensor<FloatDType>): TensorId {
  const id = idOf(name, x as Tensor)
  checkFloat(name, x as Tensor)
  if (x.rank < 1) fail('ERR_SHAPE', `${name}: expected [batch, ...], got ${showShape(x.shape)}`)
  return id
}

/** A living tensor of the shape, dtype and device of `model`; returns its id. */
export function checkLike(
  name: string,
  x: Tensor<FloatDType>,
  model: Tensor<FloatDType>,
): TensorId {
  const id = idOf(name, x as Tensor)
  checkSameDevice(name, x as Tensor, model as Tensor)
  checkSameDType(name, x as Tensor, model as Tensor)
  checkTensorShape(name, x as Tensor, model.shape)
  return id
}

/** The same, or null for undefined. */
export function checkLikeIfGiven(
  name: string,
  x: Tensor<FloatDType> | undefined,
  model: Tensor<FloatDType>,
): TensorId | null {
  return x === undefined ? null : checkLike(name, x, model)
}

/** Checks one time per sample, each in [0, 1]. */
export function checkTimes(t: unknown, of: string, batch: number): asserts t is Float32Array {
  if (!(t instanceof Float32Array))
    fail('ERR_CONFIG', `t: expected a Float32Array, one time per sample, got ${show(t)}`)
  if (t.length !== batch)
    fail('ERR_SHAPE', `t: expected length ${batch} (batch of ${of}), got ${t.length}`)
  for (let i = 0; i < t.length; i++) {
    const time = t[i] as number
    if (!(time >= 0 && time <= 1))
      fail('ERR_RANGE', `t[${i}]: expected a time from 0 to 1, got ${time}`)
  }
}

/** α and σ at each time, in float64. */
export interface NoiseLevels {
  alpha: Float64Array
  sigma: Float64Array
}

/**
 * α and σ of every sample.
 * @param positive refuse levels without noise or without signal, where a score or a division is not defined
 */
export function noiseLevels(
  t: Float32Array,
  schedule: Schedule,
  { positive }: { positive: boolean },
): NoiseLevels {
  checkSchedule('schedule', schedule)
  const alpha = new Float64Array(t.length)
  const sigma = new Float64Array(t.length)
  for (let i = 0; i < t.length; i++) {
    const time = t[i] as number
    const a = schedule.alpha(time)
    const s = schedule.sigma(time)
    alpha[i] = a
    sigma[i] = s
    const good = positive ? a > 0 && s > 0 : a >= 0 && s >= 0
    if (!good || !Number.isFinite(a) || !Number.isFinite(s))
      fail(
        'ERR_RANGE',
        `t[${i}]: expected a time where alpha and sigma are ${positive ? 'above' : 'at least'} 0, ` +
          `got alpha ${a}, sigma ${s} at ${t[i]}`,
      )
  }
  return { alpha, sigma }
}

/** Numbers as a tensor that only the next call needs; release it with `binding.dispose`. */
export function uploadFloats(device: Device, values: Float32Array, shape: Shape): TensorId {
  return binding.upload(device.id, dtypeIndex('float32'), shape, values)
}

/** The [batch, 2] array of (α, σ) that the fused ops read. */
export function uploadLevels(device: Device, { alpha, sigma }: NoiseLevels): TensorId {
  const pairs = new Float32Array(2 * alpha.length)
  for (let i = 0; i < alpha.length; i++) {
    pairs[2 * i] = alpha[i] as number
    pairs[2 * i + 1] = sigma[i] as number
  }
  return uploadFloats(device, pairs, [alpha.length, 2])
}

/**
 * Runs `call` with temporary tensors and releases them after it, also when it throws. The queue has the work by then,
 * and memory is reused in queue order.
 */
export function withTemporaries<R>(call: (keep: (id: TensorId) => TensorId) => R): R {
  const made: TensorId[] = []
  try {
    return call((id) => {
      made.push(id)
      return id
    })
  } finally {
    for (const id of made) binding.dispose(id)
  }
}
