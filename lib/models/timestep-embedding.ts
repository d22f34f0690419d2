import type { Initializer } from '../nn/initializer.js'
import { Linear } from '../nn/layers.js'
import { Module } from '../nn/module.js'
import { tensor } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'

/**
 * cos and sin of t · f_i with f_i = 10000^(-i / half), i < half = features / 2: cosines first.
 *
 * Frequencies and angles are rounded to float32, as in the networks that were trained with this embedding: at t = 1000
 * an angle in float64 differs visibly.
 *
 * @returns [t.length, features], row by row
 */
export function sinusoidalFeatures(t: ArrayLike<number>, features: number): Float32Array {
  const half = features / 2
  const rate = Math.fround(-Math.log(10000))
  const frequencies = Float32Array.from({ length: half }, (_, i) =>
    Math.exp(Math.fround(Math.fround(rate * i) / half)),
  )
  const result = new Float32Array(t.length * features)
  for (let row = 0; row < t.length; row++)
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(Math.fround(t[row] as number) * (frequencies[i] as number))
      result[row * features + i] = Math.cos(angle)
      result[row * features + half + i] = Math.sin(angle)
    }
  return result
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
    const features = tensor(sinusoidalFeatures(t, this.features), {
      shape: [t.length, this.features],
      dtype,
      device,
    })
    return second.forward(first.forward(features, 'silu'))
  }
}
