/**
 * Differentiable functions of networks, each one fused operation forward and one or two backward.
 *
 * Tensors are float32 or bfloat16 (computed in float32) unless said otherwise, all operands of one call alike. Errors
 * are those of {@link Tensor}.
 */
import { type Rule, record, recording } from '../autograd/tape.js'
import { checkBoolean, checkFinite, checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { fail } from '../errors.js'
import { binding, type TensorId } from '../native/binding.js'
import type { Device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import { type Activation, matmul } from '../tensor/matmul.js'
import { type Shape, sameShape, showShape } from '../tensor/shape.js'
import {
  checkFloat,
  checkSameDevice,
  checkSameDType,
  checkTensorShape,
  idOf,
  Tensor,
} from '../tensor/tensor.js'

type Float = Tensor<FloatDType>

/** A living float tensor; its id. */
function checkInput(name: string, x: Float): TensorId {
  const id = idOf(name, x)
  checkFloat(name, x)
  return id
}

/** A living tensor beside `model`, of its dtype and device, and of the shape given; its id. */
function checkOperand(name: string, x: Float, model: Float, shape?: Shape): TensorId {
  const id = idOf(name, x)
  checkSameDevice(name, x, model)
  checkSameDType(name, x, model)
  if (shape !== undefined) checkTensorShape(name, x, shape)
  return id
}

/** The same, or null for undefined. */
function checkIfGiven(
  name: string,
  x: Float | undefined,
  model: Float,
  shape: Shape,
): TensorId | null {
  return x === undefined ? null : checkOperand(name, x, model, shape)
}

function like(id: TensorId, { shape, dtype, device }: Float): Float {
  return new Tensor(id, shape, dtype, device)
}

/** A by-product of a forward pass that only the backward pass reads. */
function statistic(id: TensorId, shape: Shape, device: Device): Tensor<'float32'> {
  return new Tensor(id, shape, 'float32', device)
}

/** A float32 gradient in the dtype of what it is the gradient of. */
function gradientOf(
  id: TensorId | null,
  of: { shape: Shape; dtype: FloatDType; device: Device } | undefined,
): Tensor | undefined {
  if (id === null || of === undefined) return undefined
  const gradient = new Tensor(id, of.shape, 'float32', of.device)
  return of.dtype === 'float32' ? gradient : gradient.cast(of.dtype)
}

/** Records the operation where a tape runs, then releases its by-products. */
function finish<T extends Float>(
  y: T,
  inputs: readonly (Tensor | undefined)[],
  rule: Rule,
  byProducts: readonly Tensor[] = [],
): T {
  if (recording !== undefined) record([y], inputs, rule)
  for (const tensor of byProducts) tensor.dispose()
  return y
}

/**
 * y = activation(x Wᵀ + b) over the last axis.
 * @param x [..., in]
 * @param weight [out, in]
 * @param bias [out]
 * @returns [..., out]
 */
export function linear(
  x: Float,
  weight: Float,
  bias?: Float,
  activation: Activation = 'none',
): Float {
  checkInput('x', x)
  if (x.rank === 0) fail('ERR_SHAPE', 'x: expected [..., in], got a scalar')
  checkOperand('weight', weight, x)
  if (weight.rank !== 2 || weight.shape[1] !== x.shape.at(-1))
    fail(
      'ERR_SHAPE',
      `weight: expected [out, ${x.shape.at(-1)}] to go with x ${showShape(x.shape)}, got ${showShape(weight.shape)}`,
    )
  const options = { transB: true, activation, ...(bias === undefined ? {} : { bias }) }
  if (x.rank > 1) return matmul<FloatDType, number[]>(x, weight, options) as Float
  const row = x.reshape([1, x.size])
  const y = matmul<FloatDType, number[]>(row as Float, weight, options)
  const flat = y.reshape([y.size])
  row.dispose()
  y.dispose()
  return flat as Float
}

/**
 * Rows of a table: y[i] = table[ids[i]].
 * @param ids int32 [...]; one outside the table is refused at the next wait
 * @param table [N, D]
 * @returns [..., D]
 */
export function embedding(ids: Tensor<'int32'>, table: Float): Float {
  const tableId = checkInput('table', table)
  const id = idOf('ids', ids as Tensor)
  checkSameDevice('ids', ids as Tensor, table)
  if (ids.dtype !== 'int32') fail('ERR_DTYPE', `ids: expected int32, got ${ids.dtype as string}`)
  if (table.rank !== 2)
    fail('ERR_SHAPE', `table: expected [entries, size], got ${showShape(table.shape)}`)
  const [entries, size] = table.shape as readonly [number, number]
  const { shape, dtype, device } = table
  const y = new Tensor(binding.embedding(tableId, id), [...ids.shape, size], dtype, device)
  return finish(y as Float, [table], ({ save }) => {
    const kept = save(ids as Tensor)
    return (dy) => {
      const exact = dy.dtype === 'float32' ? dy : dy.cast('float32')
      const gradient = binding.embeddingBackward(idOf('dy', exact), idOf('ids', kept), entries)
      return [gradientOf(gradient, { shape, dtype, device })]
    }
  })
}

/** Settings, parameters and modulation of {@link rmsNorm}. */
export interface RmsNormOptions {
  /** Added to the mean square. */
  eps: number
  /** [D]. Default: ones. */
  weight?: Float | undefined
  /** Each sample's rows are multiplied by 1 + scale, [B, D]. x is [B, ..., D] then. */
  scale?: Float | undefined
}

/** y = x / sqrt(mean(x²) + eps) · weight · (1 + scale) over the last axis (arXiv 1910.07467). */
export function rmsNorm(x: Float, options: RmsNormOptions): Float {
  const id = checkInput('x', x)
  checkOptions('options', options, ['eps', 'weight', 'scale'])
  const { eps, weight, scale } = options
  checkFinite('options.eps', eps)
  const weightId = checkIfGiven('options.weight', weight, x, [lastAxis(x)])
  const scaleId = checkModulation('options.scale', scale, x)
  const [yId, rstdId] = binding.rmsNorm(id, weightId, scaleId, eps)
  const rstd = statistic(rstdId, [x.size / Math.max(lastAxis(x), 1)], x.device)
  return finish(
    like(yId, x),
    [x, weight, scale],
    ({ save }) => {
      const kept = { x: save(x), weight: weight && save(weight), scale: scale && save(scale) }
      const keptRstd = save(rstd)
      return (dy) => {
        const [dx, dweight, dscale] = binding.rmsNormBackward(
          idOf('x', kept.x),
          idOf('dy', dy),
          idOrNull(kept.weight),
          idOrNull(kept.scale),
          idOf('rstd', keptRstd),
        )
        return [like(dx, kept.x), gradientOf(dweight, kept.weight), gradientOf(dscale, kept.scale)]
      }
    },
    [rstd],
  )
}

/** Settings, parameters and modulation of {@link layerNorm}. */
export interface LayerNormOptions extends RmsNormOptions {
  /** [D]. Default: zeros. */
  bias?: Float | undefined
  /** [B, D], added to each sample's rows last. x is [B, ..., D] then. */
  shift?: Float | undefined
}

/** y = (x̂ · weight + bias) · (1 + scale) + shift, x̂ with mean 0 and variance 1 over the last axis (arXiv 1607.06450). */
export function layerNorm(x: Float, options: LayerNormOptions): Float {
  const id = checkInput('x', x)
  checkOptions('options', options, ['eps', 'weight', 'bias', 'scale', 'shift'])
  const { eps, weight, bias, scale, shift } = options
  checkFinite('options.eps', eps)
  const weightId = checkIfGiven('options.weight', weight, x, [lastAxis(x)])
  const biasId = checkIfGiven('options.bias', bias, x, [lastAxis(x)])
  const scaleId = checkModulation('options.scale', scale, x)
  const shiftId = checkModulation('options.shift', shift, x)
  const [yId, meanId, rstdId] = binding.layerNorm(id, weightId, biasId, scaleId, shiftId, eps)
  const rows = [x.size / Math.max(lastAxis(x), 1)]
  const mean = statistic(meanId, rows, x.device)
  const rstd = statistic(rstdId, rows, x.device)
  return finish(
    like(yId, x),
    [x, weight, bias, scale, shift],
    ({ save }) => {
      const kept = [x, weight, bias, scale, shift].map((tensor) => tensor && save(tensor))
      const [keptMean, keptRstd] = [save(mean), save(rstd)]
      return (dy) => {
        const [keptX, ...others] = kept as [Float, ...(Float | undefined)[]]
        const [dx, ...gradients] = binding.layerNormBackward(
          idOf('x', keptX),
          idOf('dy', dy),
          ...(others.map(idOrNull) as [
            TensorId | null,
            TensorId | null,
            TensorId | null,
            TensorId | null,
          ]),
          idOf('mean', keptMean),
          idOf('rstd', keptRstd),
        )
        return [like(dx, keptX), ...gradients.map((gradient, i) => gradientOf(gradient, others[i]))]
      }
    },
    [mean, rstd],
  )
}

/** Settings and parameters of {@link groupNorm}. */
export interface GroupNormOptions {
  /** How many groups the channels form; divides their number. */
  groups: number
  /** Added to the variance. */
  eps: number
  /** [C]. Default: ones. */
  weight?: Float | undefined
  /** [C]. Default: zeros. */
  bias?: Float | undefined
  /** Applied in the same pass. Default none. */
  activation?: 'none' | 'silu'
}

/** Group normalisation of x [B, C, ...] (arXiv 1803.08494), with silu after it in the same pass if asked for. */
export function groupNorm(x: Float, options: GroupNormOptions): Float {
  const id = checkInput('x', x)
  checkOptions('options', options, ['groups', 'eps', 'weight', 'bias', 'activation'])
  const { groups, eps, weight, bias, activation = 'none' } = options
  checkInteger('options.groups', groups, 1)
  checkFinite('options.eps', eps)
  checkOneOf('options.activation', activation, ['none', 'silu'])
  if (x.rank < 2) fail('ERR_SHAPE', `x: expected [batch, channels, ...], got ${showShape(x.shape)}`)
  const [batch, channels] = x.shape as unknown as [number, number]
  if (channels % groups !== 0)
    fail('ERR_SHAPE', `options.groups: expected a divisor of ${channels} channels, got ${groups}`)
  const weightId = checkIfGiven('options.weight', weight, x, [channels])
  const biasId = checkIfGiven('options.bias', bias, x, [channels])
  const silu = activation === 'silu'
  const [yId, meanId, rstdId] = binding.groupNorm(id, weightId, biasId, groups, eps, silu)
  const mean = statistic(meanId, [batch, groups], x.device)
  const rstd = statistic(rstdId, [batch, groups], x.device)
  return finish(
    like(yId, x),
    [x, weight, bias],
    ({ save }) => {
      const kept = { x: save(x), weight: weight && save(weight), bias: bias && save(bias) }
      const [keptMean, keptRstd] = [save(mean), save(rstd)]
      return (dy) => {
        const [dx, dweight, dbias] = binding.groupNormBackward(
          idOf('x', kept.x),
          idOf('dy', dy),
          idOrNull(kept.weight),
          idOrNull(kept.bias),
          idOf('mean', keptMean),
          idOf('rstd', keptRstd),
          silu,
        )
        return [like(dx, kept.x), gradientOf(dweight, kept.weight), gradientOf(dbias, kept.bias)]
      }
    },
    [mean, rstd],
  )
}

/** silu(a) · b, both of one shape (arXiv 2002.05202). */
export function swiGlu(a: Float, b: Float): Float {
  const id = checkInput('a', a)
  const y = like(binding.swiGlu(id, checkOperand('b', b, a, a.shape)), a)
  return finish(y, [a, b], ({ save }) => {
    const [keptA, keptB] = [save(a), save(b)]
    return (dy) => {
      const [da, db] = binding.swiGluBackward(idOf('a', keptA), idOf('b', keptB), idOf('dy', dy))
      return [like(da, keptA), like(db, keptB)]
    }
  })
}

/**
 * x + tanh(gate) · h, the gate shared by a sample's rows.
 * @param x [B, ..., D]
 * @param h like x
 * @param gate [B, D]
 * @param options `tanh`: false takes the gate as it is. Default true.
 */
export function gatedResidual(
  x: Float,
  h: Float,
  gate: Float,
  options: { tanh?: boolean } = {},
): Float {
  const id = checkInput('x', x)
  checkOptions('options', options, ['tanh'])
  const { tanh = true } = options
  checkBoolean('options.tanh', tanh)
  const hId = checkOperand('h', h, x, x.shape)
  const gateId = checkModulation('gate', gate, x) as TensorId
  const y = like(binding.gatedResidual(id, hId, gateId, tanh), x)
  return finish(y, [x, h, gate], ({ needs, save }) => {
    if (!needs[1] && !needs[2]) return (dy) => [dy]
    const [keptH, keptGate] = [save(h), save(gate)]
    return (dy) => {
      const [dh, dgate] = binding.gatedResidualBackward(
        idOf('h', keptH),
        idOf('gate', keptGate),
        idOf('dy', dy),
        tanh,
      )
      return [dy, like(dh, keptH), gradientOf(dgate, keptGate)]
    }
  })
}

/**
 * Rotary position embedding of interleaved pairs (arXiv 2104.09864).
 * @param x [B, T, H, Dh]
 * @param cos float32 [T, Dh/2], or [B·T, Dh/2] where samples differ
 * @param sin like cos
 */
export function rope(x: Float, cos: Tensor<'float32'>, sin: Tensor<'float32'>): Float {
  checkInput('x', x)
  if (x.rank !== 4)
    fail('ERR_SHAPE', `x: expected [batch, tokens, heads, size], got ${showShape(x.shape)}`)
  const [batch, tokens, , size] = x.shape as readonly [number, number, number, number]
  for (const [name, table] of Object.entries({ cos, sin })) {
    idOf(name, table as Tensor)
    checkSameDevice(name, table as Tensor, x)
    if (table.dtype !== 'float32')
      fail('ERR_DTYPE', `${name}: expected float32, got ${table.dtype as string}`)
    if (![tokens, batch * tokens].some((rows) => sameShape(table.shape, [rows, size / 2])))
      fail(
        'ERR_SHAPE',
        `${name}: expected [${tokens}, ${size / 2}] or [${batch * tokens}, ${size / 2}] to go with x ${showShape(x.shape)}, got ${showShape(table.shape)}`,
      )
  }
  checkTensorShape('sin', sin as Tensor, cos.shape)
  const rotate = (of: Float, c: Tensor, s: Tensor, inverse: boolean) =>
    like(binding.rope(idOf('x', of), idOf('cos', c), idOf('sin', s), inverse), of)
  return finish(rotate(x, cos as Tensor, sin as Tensor, false), [x], ({ save }) => {
    const [keptCos, keptSin] = [save(cos as Tensor), save(sin as Tensor)]
    return (dy) => [rotate(dy as Float, keptCos, keptSin, true)]
  })
}

/** Settings of {@link attention}. */
export interface AttentionOptions {
  /** uint8 [B, Tk]: 0 where a key is not to be seen. A query that sees no key gets zeros. Default: all are seen. */
  mask?: Tensor<'uint8'> | undefined
  /** Of the products of queries and keys. Default 1 / sqrt(Dh). */
  scale?: number | undefined
}

/**
 * softmax(scale · q kᵀ) v for each head, in tiles: no matrix of queries by keys is kept (arXiv 2205.14135).
 * @param q [B, Tq, H, Dh]
 * @param k [B, Tk, H, Dh]
 * @param v like k
 * @returns like q
 */
export function attention(q: Float, k: Float, v: Float, options: AttentionOptions = {}): Float {
  const id = checkInput('q', q)
  checkOptions('options', options, ['mask', 'scale'])
  if (q.rank !== 4)
    fail('ERR_SHAPE', `q: expected [batch, queries, heads, size], got ${showShape(q.shape)}`)
  const [batch, queries, heads, size] = q.shape as readonly [number, number, number, number]
  const { mask, scale = 1 / Math.sqrt(size) } = options
  checkFinite('options.scale', scale)
  const keys = k.rank === 4 ? (k.shape[1] as number) : 0
  const kId = checkOperand('k', k, q, [batch, keys, heads, size])
  const vId = checkOperand('v', v, q, k.shape)
  let maskId: TensorId | null = null
  if (mask !== undefined) {
    maskId = idOf('options.mask', mask as Tensor)
    checkSameDevice('options.mask', mask as Tensor, q)
    if (mask.dtype !== 'uint8')
      fail('ERR_DTYPE', `options.mask: expected uint8, got ${mask.dtype as string}`)
    checkTensorShape('options.mask', mask as Tensor, [batch, keys])
  }
  const [yId, logSumExpId] = binding.attention(id, kId, vId, maskId, scale)
  const y = like(yId, q)
  const logSumExp = statistic(logSumExpId, [batch, heads, queries], q.device)
  return finish(
    y,
    [q, k, v],
    ({ save }) => {
      const kept = { q: save(q), k: save(k), v: save(v), y: save(y) }
      const keptMask = mask && save(mask as Tensor)
      const keptLogSumExp = save(logSumExp)
      return (dy) => {
        const [dq, dk, dv] = binding.attentionBackward(
          idOf('q', kept.q),
          idOf('k', kept.k),
          idOf('v', kept.v),
          idOrNull(keptMask),
          idOf('y', kept.y),
          idOf('dy', dy),
          idOf('logSumExp', keptLogSumExp),
          scale,
        )
        return [like(dq, kept.q), like(dk, kept.k), like(dv, kept.v)]
      }
    },
    [logSumExp],
  )
}

/** Settings of {@link conv2d}. */
export interface Conv2dOptions {
  /** [O] */
  bias?: Float | undefined
  /** Default 1. */
  stride?: 1 | 2
  /** Zeros around the image, less than the kernel's size: on all sides alike, or [top, bottom, left, right]. Default 0. */
  padding?: number | readonly [top: number, bottom: number, left: number, right: number]
}

/**
 * Cross-correlation of images, float32.
 * @param x [B, C, H, W]
 * @param weight [O, C, rows, columns], at most 7 by 7
 * @returns [B, O, H', W'] with H' = floor((H + top + bottom - rows) / stride) + 1
 */
export function conv2d(x: Float, weight: Float, options: Conv2dOptions = {}): Float {
  const id = checkInput('x', x)
  checkOptions('options', options, ['bias', 'stride', 'padding'])
  const { bias, stride = 1, padding = 0 } = options
  if (x.rank !== 4)
    fail('ERR_SHAPE', `x: expected [batch, channels, height, width], got ${showShape(x.shape)}`)
  const [batch, channels, height, width] = x.shape as readonly [number, number, number, number]
  const weightId = checkOperand('weight', weight, x)
  if (weight.rank !== 4 || weight.shape[1] !== channels)
    fail(
      'ERR_SHAPE',
      `weight: expected [outputs, ${channels}, rows, columns], got ${showShape(weight.shape)}`,
    )
  const [outputs, , rows, columns] = weight.shape as readonly [number, number, number, number]
  if (stride !== 1 && stride !== 2)
    fail('ERR_RANGE', `options.stride: expected 1 or 2, got ${stride}`)
  const border = typeof padding === 'number' ? [padding, padding, padding, padding] : [...padding]
  if (border.length !== 4)
    fail('ERR_CONFIG', 'options.padding: expected a number or [top, bottom, left, right]')
  for (const [i, size] of border.entries())
    checkInteger('options.padding', size, 0, (i < 2 ? rows : columns) - 1)
  const [top, bottom, left, right] = border as [number, number, number, number]
  const shape = [
    batch,
    outputs,
    Math.floor((height + top + bottom - rows) / stride) + 1,
    Math.floor((width + left + right - columns) / stride) + 1,
  ]
  const biasId = checkIfGiven('options.bias', bias, x, [outputs])
  const yId = binding.conv2d(id, weightId, biasId, stride, border)
  const y: Float = new Tensor(yId, shape, x.dtype, x.device)
  const [xShape, weightShape] = [x.shape, weight.shape]
  return finish(y, [x, weight, bias], ({ needs, save }) => {
    const keptWeight = needs[0] ? save(weight) : undefined
    const keptX = needs[1] || needs[2] ? save(x) : undefined
    return (dy) => {
      const { dtype, device } = dy
      const dyId = idOf('dy', dy)
      const dx =
        keptWeight &&
        new Tensor(
          binding.conv2dBackwardData(dyId, idOf('weight', keptWeight), xShape, stride, border),
          xShape,
          dtype,
          device,
        )
      if (keptX === undefined) return [dx]
      const xId = idOf('x', keptX)
      const hasBias = needs[2] === true
      const [dweight, dbias] = binding.conv2dBackwardWeight(
        xId,
        dyId,
        weightShape,
        stride,
        border,
        hasBias,
      )
      return [
        dx,
        new Tensor(dweight, weightShape, dtype, device),
        dbias === null ? undefined : new Tensor(dbias, [outputs], dtype, device),
      ]
    }
  })
}

/** Each pixel four times: [..., H, W] to [..., 2H, 2W]. */
export function upsampleNearest2x(x: Float): Float {
  const id = checkInput('x', x)
  if (x.rank < 2) fail('ERR_SHAPE', `x: expected [..., height, width], got ${showShape(x.shape)}`)
  const { shape, dtype, device } = x
  const doubled = shape.map((size, axis) => (axis >= shape.length - 2 ? 2 * size : size))
  const y: Float = new Tensor(binding.upsampleNearest2x(id), doubled, dtype, device)
  return finish(y, [x], () => (dy) => [
    new Tensor(binding.upsampleNearest2xBackward(idOf('dy', dy)), shape, dtype, device),
  ])
}

/** A loss with its gradient by x, found in the same pass and scaled by the cotangent later. */
function loss(
  [lossId, gradientId]: [TensorId, TensorId],
  x: Float,
  inputs: readonly Tensor[],
  backward: (dx: Tensor, needs: readonly boolean[]) => readonly (Tensor | undefined)[],
): Tensor<'float32', []> {
  const value = new Tensor<'float32', []>(lossId, [], 'float32', x.device)
  const gradient = like(gradientId, x)
  if (recording !== undefined)
    record([value as Tensor], inputs, ({ needs, save }) => {
      const kept = save(gradient)
      return (dy) => {
        const scale = dy.dtype === kept.dtype ? dy : dy.cast(kept.dtype)
        return backward(kept.mul(scale as Float), needs)
      }
    })
  gradient.dispose()
  return value
}

/**
 * The mean of -log softmax(logits)[target] over the rows.
 * @param logits [..., C]
 * @param targets int32 [...]; one outside 0..C-1 is refused at the next wait
 * @returns [], float32
 */
export function crossEntropy(logits: Float, targets: Tensor<'int32'>): Tensor<'float32', []> {
  const id = checkInput('logits', logits)
  if (logits.rank === 0) fail('ERR_SHAPE', 'logits: expected [..., classes], got a scalar')
  const targetsId = idOf('targets', targets as Tensor)
  checkSameDevice('targets', targets as Tensor, logits)
  if (targets.dtype !== 'int32')
    fail('ERR_DTYPE', `targets: expected int32, got ${targets.dtype as string}`)
  checkTensorShape('targets', targets as Tensor, logits.shape.slice(0, -1))
  return loss(binding.crossEntropy(id, targetsId), logits, [logits], (dx) => [dx])
}

/**
 * The mean of (x - y)².
 * @param y like x
 * @returns [], float32
 */
export function mse(x: Float, y: Float): Tensor<'float32', []> {
  const id = checkInput('x', x)
  const yId = checkOperand('y', y, x, x.shape)
  return loss(binding.mse(id, yId), x, [x, y], (dx, needs) => [dx, needs[1] ? dx.neg() : undefined])
}

function lastAxis(x: Float): number {
  if (x.rank === 0) fail('ERR_SHAPE', 'x: expected at least one axis, got a scalar')
  return x.shape.at(-1) as number
}

/** One row per sample of x. */
function checkModulation(name: string, rows: Float | undefined, x: Float): TensorId | null {
  if (rows === undefined) return null
  if (x.rank < 2) fail('ERR_SHAPE', `x: expected [batch, ..., size], got ${showShape(x.shape)}`)
  return checkOperand(name, rows, x, [x.shape[0] as number, lastAxis(x)])
}

function idOrNull(x: Tensor | undefined): TensorId | null {
  return x === undefined ? null : idOf('tensor', x)
}
