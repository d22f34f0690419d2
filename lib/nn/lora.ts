/**
 * Low-rank adaptation (arXiv 2106.09685): beside a frozen weight W, y = x Wᵀ + (alpha / r) x Aᵀ Bᵀ with A [r, in] and
 * B [out, r] trained. B starts at 0, so an adapted model starts as its base.
 */
import { handleOn, Parameter } from '../autograd/parameter.js'
import { recording } from '../autograd/tape.js'
import { noGrad } from '../autograd/vjp.js'
import { checkFinite, checkInteger, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Activation } from '../tensor/matmul.js'
import { tidy } from '../tensor/scope.js'
import { Tensor } from '../tensor/tensor.js'
import { linear } from './functional.js'
import { Initializer } from './initializer.js'
import { Linear } from './layers.js'
import { Module } from './module.js'

type Float = Tensor<FloatDType>

/** What {@link lora} adds to a model, and to which of its layers. */
export interface LoraOptions {
  /** Rank of the change of each weight; 0 for no change at all. */
  rank: number
  /** The change is scaled by alpha / rank. Default: the rank. */
  alpha?: number
  /**
   * Which linear layers are adapted: those whose path is one of these, or ends in a dot and one of these. Default the
   * projections of attention, `to_q`, `to_k`, `to_v` and `to_out.0`.
   */
  targets?: readonly string[]
  /** Of the first A. Default 0. */
  seed?: number
}

/** What an adapted model has beside its base. */
export class LoraAdapters extends Module {
  readonly rank: number
  readonly alpha: number
  readonly #layers: ReadonlyMap<string, LoraLinear>

  /** @internal */
  constructor(rank: number, alpha: number, layers: ReadonlyMap<string, LoraLinear>) {
    super()
    this.rank = rank
    this.alpha = alpha
    this.#layers = layers
  }

  /** A and B of each adapted layer: `layers.0.attention.to_q.lora_A.weight` and so on. */
  override namedParameters(): Map<string, Parameter> {
    const named = new Map<string, Parameter>()
    for (const [path, layer] of this.#layers) {
      named.set(`${path}.lora_A.weight`, layer.lora_A.weight)
      named.set(`${path}.lora_B.weight`, layer.lora_B.weight)
    }
    return named
  }

  /** Paths of the adapted layers. */
  get targets(): string[] {
    return [...this.#layers.keys()]
  }

  /** Whether the changes are in the weights. */
  get merged(): boolean {
    return Array.from(this.#layers.values()).some((layer) => layer.merged)
  }

  /**
   * Puts the changes into weights of the adapted model's own, W + (alpha / r) B A, so that its forward pass costs no
   * more than the base's. The base keeps its weights. A merged model is not trained; it takes memory for its weights.
   */
  merge(): void {
    for (const layer of this.#layers.values()) layer.merge()
  }

  /** Back to the base's weights, bit for bit. */
  unmerge(): void {
    for (const layer of this.#layers.values()) layer.unmerge()
  }
}

/** A linear layer on a frozen weight of someone else's with a trained change. */
class LoraLinear extends Linear {
  declare readonly lora_A: { readonly weight: Parameter }
  declare readonly lora_B: { readonly weight: Parameter }
  declare private readonly scale: number
  /** The shared weight while `weight` is the merged one. */
  declare private shared: Float | undefined

  /** Not constructed: a `Linear` would make weights of its own. */
  static on(base: Linear, init: Initializer, rank: number, scale: number): LoraLinear {
    const [outputs, inputs] = base.weight.shape as readonly [number, number]
    const a = new Parameter('lora_A.weight', init.uniform([rank, inputs], 1 / Math.sqrt(inputs)))
    const b = new Parameter('lora_B.weight', init.zeros([outputs, rank]))
    return Object.assign(Object.create(LoraLinear.prototype), {
      weight: sharing(base.weight),
      bias: base.bias && sharing(base.bias),
      lora_A: { weight: a },
      lora_B: { weight: b },
      scale,
      shared: undefined,
    })
  }

  get merged(): boolean {
    return this.shared !== undefined
  }

  override forward(x: Float, activation: Activation = 'none'): Float {
    if (this.merged) return super.forward(x, activation)
    const { lora_A, lora_B, scale, bias } = this
    return tidy(() => {
      if (this.isCheaperMerged(x)) return linear(x, this.sum(), bias?.value, activation)
      const narrow = linear(x, lora_A.weight.value)
      const inner = scale === 1 ? narrow : (narrow.mul(scale) as Float)
      const y = super.forward(x).add(linear(inner, lora_B.weight.value)) as Float
      return activate(y, activation)
    })
  }

  /**
   * Whether to add the change to the weight for this call alone: where no gradient is asked for, and there are enough rows
   * to make up for it. In bfloat16 a small change would be lost in the rounding of the weight.
   */
  private isCheaperMerged(x: Float): boolean {
    const [outputs, inputs] = this.weight.shape as readonly [number, number]
    const isWorthIt = (x.size / inputs) * (inputs + outputs) > 2 * inputs * outputs
    return recording === undefined && x.dtype === 'float32' && isWorthIt
  }

  /** W + (alpha / r) B A */
  private sum(): Float {
    const { weight, lora_A, lora_B, scale } = this
    const change = lora_B.weight.value.matmul(lora_A.weight.value)
    return weight.value.addScaled(change as Float, scale) as Float
  }

  merge(): void {
    if (this.merged) return
    this.shared = this.weight.value
    this.weight.value = noGrad(() => tidy(() => this.sum()))
  }

  unmerge(): void {
    if (this.shared === undefined) return
    const merged = this.weight.value
    this.weight.value = this.shared
    merged.dispose()
    this.shared = undefined
  }

  override dispose(): void {
    this.unmerge()
    super.dispose()
  }
}

function activate(y: Float, activation: Activation): Float {
  switch (activation) {
    case 'none':
      return y
    case 'geluTanh':
      return y.gelu('tanh') as Float
    default:
      return y[activation]() as Float
  }
}

/** A frozen parameter on the memory of another. */
function sharing(parameter: Parameter): Parameter {
  return new Parameter(parameter.name, handleOn(parameter.value as Tensor) as Float, {
    trainable: false,
  })
}

/** A model whose weights are shared with its base, and what has been added to it. */
export type Adapted<M extends Module> = M & { readonly lora: LoraAdapters }

/**
 * Adapts linear layers of a model. The result is a model of the same class on the memory of the base's parameters,
 * which are frozen in it, with trainable parameters `lora_A.weight` and `lora_B.weight` in each adapted layer. The base
 * is not changed, and what is later copied into its parameters shows in the adapted model, too.
 *
 * `lora.parameters()`, `lora.state()` and `lora.loadState()` are about the additions alone; `lora.merge()` and
 * `lora.unmerge()` switch between one weight and two.
 *
 * @param model its modules are copied field by field; those with private (#) fields cannot be
 * @throws {DidrError} ERR_CONFIG if nothing matches a target
 * @example
 * const generator = nn.lora(teacher, { rank: 16, targets: ['to_q', 'to_v', 'feed_forward.w2'] })
 * const optimizer = new optim.AdamW(generator.lora.parameters(), { lr: 1e-4 })
 */
export function lora<M extends Module>(model: M, options: LoraOptions): Adapted<M> {
  if (!(model instanceof Module)) fail('ERR_CONFIG', `model: expected a module, got ${show(model)}`)
  checkOptions('options', options, ['rank', 'alpha', 'targets', 'seed'])
  const { rank, alpha = rank, targets = ['to_q', 'to_k', 'to_v', 'to_out.0'], seed = 0 } = options
  checkInteger('options.rank', rank, 0, 2 ** 20)
  checkFinite('options.alpha', alpha)
  checkInteger('options.seed', seed, 0)
  if (!Array.isArray(targets) || targets.length === 0 || targets.some((t) => typeof t !== 'string'))
    fail('ERR_CONFIG', `options.targets: expected an array of names, got ${show(targets)}`)

  const adapted = new Map<string, LoraLinear>()
  const met = new Set<string>()
  const copies = new Map<object, unknown>()
  const first = model.parameters()[0]?.value
  const place = first === undefined ? {} : { dtype: first.dtype, device: first.device }
  const init = new Initializer({ seed, ...place })

  const copy = (value: unknown, path: string): unknown => {
    if (typeof value !== 'object' || value === null || value instanceof Tensor) return value
    const known = copies.get(value)
    if (known !== undefined) return known
    const make = (): unknown => {
      if (value instanceof Parameter) return sharing(value)
      if (value instanceof Linear) {
        const target = targets.find((name) => path === name || path.endsWith(`.${name}`))
        if (target !== undefined) {
          met.add(target)
          if (rank > 0) {
            const layer = LoraLinear.on(value, init, rank, alpha / rank)
            adapted.set(path, layer)
            return layer
          }
        }
      }
      if (Array.isArray(value))
        return value.map((item, i) => copy(item, path === '' ? `${i}` : `${path}.${i}`))
      const prototype = Object.getPrototypeOf(value)
      if (!(value instanceof Module) && prototype !== Object.prototype) return value
      const result = Object.create(prototype)
      for (const [field, item] of Object.entries(value))
        result[field] = copy(item, path === '' ? field : `${path}.${field}`)
      return result
    }
    const result = make()
    copies.set(value, result)
    return result
  }
  const result = copy(model, '') as M
  for (const target of targets)
    if (!met.has(target)) {
      result.dispose()
      fail('ERR_CONFIG', `options.targets: no linear layer is named ${show(target)}`)
    }
  // Not enumerable: the additions are already part of the model's own fields.
  return Object.defineProperty(result, 'lora', {
    value: new LoraAdapters(rank, alpha, adapted),
  }) as Adapted<M>
}
