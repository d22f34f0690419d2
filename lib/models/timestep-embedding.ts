import type { Initializer } from '../nn/initializer.js'
import { Linear } from '../nn/layers.js'
import { Module } from '../nn/module.js'
import { type PlaceOptions, tensor } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import { concat } from '../tensor/layout.js'
import { tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'

/**
 * exp(x) for x <= 0 as float32 libraries compute it: reduced to |s| <= ln 2 / 2, then Σ sⁿ/n! up to s⁸ (the rest is below
 * 1e-9), with every step rounded to float32.
 */
function expFloat32(x: number): number {
  const power = Math.round(x / Math.LN2)
  const s = Math.fround(x - power * Math.LN2)
  let sum = 0
  for (const factorial of [40320, 5040, 720, 120, 24, 6, 2])
    sum = Math.fround(sum * s + Math.fround(1 / factorial))
  return Math.fround(1 + Math.fround(Math.fround(s * s) * sum + s)) * 2 ** power
}

/** f_i = 10000^(-i / half), float32 at every step, by the number of features. */
const frequencyTables = new Map<number, Float32Array>()

function frequenciesOf(features: number): Float32Array {
  let table = frequencyTables.get(features)
  if (table === undefined) {
    const half = features / 2
    const rate = Math.fround(-Math.log(10000))
    table = Float32Array.from({ length: half }, (_, i) =>
      expFloat32(Math.fround(Math.fround(rate * i) / half)),
    )
    frequencyTables.set(features, table)
  }
  return table
}

/**
 * cos and sin of t · f_i with f_i = 10000^(-i / half), i < half = features / 2: cosines first (arXiv 1706.03762).
 *
 * Frequencies and angles are float32, as where the published networks were trained: a frequency's last bit turns an angle
 * at t = 1000 by 6e-5.
 *
 * @returns [t.length, features]
 */
export function sinusoidalFeatures(
  t: ArrayLike<number>,
  features: number,
  { dtype = 'float32', device }: PlaceOptions<FloatDType> = {},
): Tensor<FloatDType> {
  const place = device === undefined ? {} : { device }
  return tidy(() => {
    const times = tensor(Float32Array.from(t), { shape: [t.length, 1], ...place })
    const angles = times.mul(
      tensor(frequenciesOf(features), { shape: [1, features / 2], ...place }),
    )
    return concat([angles.cos(), angles.sin()], 1).cast(dtype) as Tensor<FloatDType>
  })
}

/** Times as vectors: sinusoidal features and two linear layers with SiLU between them. */
export class TimestepEmbedding extends Module {
  readonly mlp: [Linear, null, Linear]
  readonly features: number

  constructor(init: Initializer, size: number, { hidden = 1024, features = 256 } = {}) {
    super()
    this.features = features
    this.mlp = [new Linear(init, features, hidden), null, new Linear(init, hidden, size)]
  }

  /** @param t one number for each sample, in the network's own unit @returns [t.length, size] */
  forward(t: ArrayLike<number>): Tensor<FloatDType> {
    const [first, , second] = this.mlp
    const { dtype, device } = first.weight.value
    const features = sinusoidalFeatures(t, this.features, { dtype, device })
    return second.forward(first.forward(features, 'silu'))
  }
}
