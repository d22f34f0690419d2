import type { Parameter } from '../autograd/parameter.js'
import type { Prediction } from '../didr/prediction.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Captions } from './caption-encoder.js'

/** What samples are conditioned on: a tensor with one row per sample, or captions. */
export type Condition = Tensor | Captions

/** A network, or a formula, that knows the denoiser E[x0 | x_t] of some distribution. */
export interface ScoreModel {
  /** What `forward` returns. */
  readonly prediction: Prediction
  /**
   * @param xt noisy samples [B, ...]
   * @param t one time per sample, each in [0, 1]
   * @returns the raw output, like xt; differentiable
   */
  forward(xt: Tensor<FloatDType>, t: Float32Array, condition?: Condition): Tensor<FloatDType>
  parameters(): Parameter[]
}
