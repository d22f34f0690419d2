import { attention, gatedResidual, rope, swiGlu } from '../nn/functional.js'
import type { Initializer } from '../nn/initializer.js'
import { Linear, RmsNorm } from '../nn/layers.js'
import { Module } from '../nn/module.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import type { S3DiTConfig } from './s3dit-config.js'
import type { Sequences } from './s3dit-layout.js'

type Float = Tensor<FloatDType>
type Config = Required<S3DiTConfig>

/** Self-attention with normalised queries and keys and rotary positions. */
class Attention extends Module {
  readonly to_q: Linear
  readonly to_k: Linear
  readonly to_v: Linear
  readonly to_out: [Linear]
  readonly norm_q: RmsNorm
  readonly norm_k: RmsNorm
  readonly heads: number

  constructor(init: Initializer, { dim, n_heads, norm_eps }: Config) {
    super()
    this.heads = n_heads
    this.to_q = new Linear(init, dim, dim, { bias: false })
    this.to_k = new Linear(init, dim, dim, { bias: false })
    this.to_v = new Linear(init, dim, dim, { bias: false })
    this.to_out = [new Linear(init, dim, dim, { bias: false })]
    this.norm_q = new RmsNorm(init, dim / n_heads, { eps: norm_eps })
    this.norm_k = new RmsNorm(init, dim / n_heads, { eps: norm_eps })
  }

  forward(x: Float, { mask, cos, sin }: Sequences): Float {
    const [batch, tokens, dim] = x.shape as [number, number, number]
    const heads = [batch, tokens, this.heads, dim / this.heads]
    const q = rope(this.norm_q.forward(this.to_q.forward(x).reshape(heads)), cos, sin)
    const k = rope(this.norm_k.forward(this.to_k.forward(x).reshape(heads)), cos, sin)
    const v = this.to_v.forward(x).reshape(heads)
    return this.to_out[0].forward(attention(q, k, v, { mask }).reshape([batch, tokens, dim]))
  }
}

/** w2(silu(w1 x) · w3 x) with a hidden width of 8/3. */
class FeedForward extends Module {
  readonly w1: Linear
  readonly w2: Linear
  readonly w3: Linear

  constructor(init: Initializer, { dim }: Config) {
    super()
    const hidden = Math.trunc((dim / 3) * 8)
    this.w1 = new Linear(init, dim, hidden, { bias: false })
    this.w2 = new Linear(init, hidden, dim, { bias: false })
    this.w3 = new Linear(init, dim, hidden, { bias: false })
  }

  forward(x: Float): Float {
    return this.w2.forward(swiGlu(this.w1.forward(x), this.w3.forward(x)))
  }
}

/**
 * A transformer block with a norm before and after each half. With modulation by the time's embedding e:
 *
 *     (s1, g1, s2, g2) = Linear(e)
 *     x += tanh(g1) · N2(attention(N1(x) · (1 + s1)))
 *     x += tanh(g2) · F2(ffn(F1(x) · (1 + s2)))
 *
 * and without, (s, tanh g) = (0, 1). Modulation starts at 0, so a new block with modulation changes nothing
 * (arXiv 2212.09748).
 */
export class S3DiTBlock extends Module {
  readonly attention: Attention
  readonly feed_forward: FeedForward
  readonly attention_norm1: RmsNorm
  readonly ffn_norm1: RmsNorm
  readonly attention_norm2: RmsNorm
  readonly ffn_norm2: RmsNorm
  readonly adaLN_modulation: [Linear] | null

  constructor(init: Initializer, config: Config, { modulated }: { modulated: boolean }) {
    super()
    const { dim, norm_eps: eps } = config
    this.attention = new Attention(init, config)
    this.feed_forward = new FeedForward(init, config)
    this.attention_norm1 = new RmsNorm(init, dim, { eps })
    this.ffn_norm1 = new RmsNorm(init, dim, { eps })
    this.attention_norm2 = new RmsNorm(init, dim, { eps })
    this.ffn_norm2 = new RmsNorm(init, dim, { eps })
    this.adaLN_modulation = modulated
      ? [new Linear(init, modulationSize(config), 4 * dim, { zero: true })]
      : null
  }

  /** @param x [B, T, dim] @param time [B, modulation size], if the block is modulated */
  forward(x: Float, sequences: Sequences, time?: Float): Float {
    const { attention_norm1, attention_norm2, ffn_norm1, ffn_norm2 } = this
    if (this.adaLN_modulation === null || time === undefined) {
      const attended = this.attention.forward(attention_norm1.forward(x), sequences)
      const between = x.add(attention_norm2.forward(attended)) as Float
      return between.add(
        ffn_norm2.forward(this.feed_forward.forward(ffn_norm1.forward(between))),
      ) as Float
    }
    const modulation = this.adaLN_modulation[0].forward(time)
    const [batch, dim] = [x.shape[0] as number, x.shape[2] as number]
    const part = (i: number) => modulation.slice([0, i * dim], [batch, dim]) as Float
    const [scale1, gate1, scale2, gate2] = [part(0), part(1), part(2), part(3)]
    const attended = this.attention.forward(
      attention_norm1.forward(x, { scale: scale1 }),
      sequences,
    )
    const between = gatedResidual(x, attention_norm2.forward(attended), gate1, { tanh: true })
    const changed = this.feed_forward.forward(ffn_norm1.forward(between, { scale: scale2 }))
    return gatedResidual(between, ffn_norm2.forward(changed), gate2, { tanh: true })
  }
}

/** Width of the time's embedding. */
export function modulationSize({ dim }: Config): number {
  return Math.min(dim, 256)
}
