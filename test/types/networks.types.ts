/** What the compiler knows of gradients and networks. Nothing here runs; see tensor.types.ts. */
import {
  checkpoint,
  customOp,
  frozen,
  io,
  models,
  nn,
  noGrad,
  optim,
  Parameter,
  type Prediction,
  schedules,
  stopGradient,
  type Tensor,
  train,
  valueAndGrad,
  vjp,
} from '../../lib/index.js'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Compiles only if the type of `value` is exactly `T`. */
declare function is<T>(): <V>(value: V, ...same: Same<V, T> extends true ? [] : [never]) => void

declare const x: Tensor<'float32', [2, 3]>
declare const w: Tensor<'float32', [3, 4]>
declare const ids: Tensor<'int32', [5]>

// --- Gradients: literal shapes go through, forwards and back ------------------------------------------------------------
const { value, pullback } = vjp((a: typeof x, b: typeof w) => a.matmul(b).tanh(), [x, w])
is<Tensor<'float32', [2, 4]>>()(value)
const [dx, dw] = pullback(value)
is<Tensor<'float32', [2, 3]>>()(dx)
is<Tensor<'float32', [3, 4]>>()(dw)
// @ts-expect-error a cotangent of another dtype
pullback(ids)
// @ts-expect-error a cotangent is needed
pullback()
// @ts-expect-error functions are synchronous
vjp(async (a: typeof x) => a.exp(), [x])
// @ts-expect-error a tensor, not a number
vjp(() => 1, [x])
const several = vjp((a: typeof x) => [a.exp(), a.sum()] as const, [x])
several.pullback([x, undefined])
// @ts-expect-error one cotangent for each value
several.pullback([x])

const { gradients } = valueAndGrad((a: typeof x) => a.square().mean(), [x])
is<[Tensor<'float32', [2, 3]>]>()(gradients)
is<Tensor<'float32', [2, 3]>>()(stopGradient(x))
is<Tensor<'float32', [2, 3]>>()(noGrad(() => x.exp()))
is<Tensor<'float32', [2, 3]>>()(frozen(() => x.exp()))
is<Tensor<'float32', [2, 4]>>()(checkpoint((a: typeof x, b: typeof w) => a.matmul(b), [x, w]))

const sign = customOp({
  forward: (a: Tensor<'float32'>) => a.sign(),
  pullback: ({ cotangent, needs }) => [needs[0] ? cotangent : undefined],
})
sign(x)
// @ts-expect-error the dtype of its input
sign(ids)
// @ts-expect-error a derivative is needed
customOp({ forward: (a: Tensor<'float32'>) => a.sign() })

const parameter = new Parameter('scale', x, { trainable: false })
is<Tensor<'float32', [2, 3]>>()(parameter.value)
is<Tensor<'float32', [2, 3]> | undefined>()(parameter.grad)
// @ts-expect-error parameters are floats
new Parameter('ids', ids)
// @ts-expect-error a misspelt option
new Parameter('scale', x, { trained: false })

// --- Modules ----------------------------------------------------------------------------------------------------------
const init = new nn.Initializer({ seed: 1 })
// @ts-expect-error a seed is needed
new nn.Initializer({})
// @ts-expect-error parameters are floats
new nn.Initializer({ seed: 1, dtype: 'int32' })
class Network extends nn.Module {
  readonly prediction = 'x0'
  readonly layer = new nn.Linear(init, 2, 2, { bias: false })
  forward(xt: Tensor<'float32' | 'bfloat16'>) {
    return this.layer.forward(xt, 'silu')
  }
}
const network = new Network()
const asModel: models.ScoreModel = network
const adapted = nn.lora(network, { rank: 2, targets: ['layer'] })
is<nn.LoraAdapters>()(adapted.lora)
const prediction: 'x0' = adapted.prediction
// @ts-expect-error a rank is needed
nn.lora(network, {})
// @ts-expect-error no such activation
network.layer.forward(x, 'swish')
// @ts-expect-error ids are int32
nn.embedding(x, w)
// @ts-expect-error eps is needed
nn.layerNorm(x, {})
// @ts-expect-error a mask is uint8
nn.attention(x, x, x, { mask: x })
// @ts-expect-error stride 1 or 2
nn.conv2d(x, x, { stride: 3 })
// @ts-expect-error targets are int32
nn.crossEntropy(x, x)
is<Tensor<'float32', []>>()(nn.crossEntropy(x, ids))

// --- Models: what is missing, what is misspelt ------------------------------------------------------------------------
const schedule = schedules.flow()
// @ts-expect-error what the output is has to be said
const silent: models.ScoreModel = { forward: (xt) => xt, parameters: () => [] }
// @ts-expect-error noise has a shape
const shapeless: models.Generator = { forward: (z) => z, parameters: () => [] }
const generator: models.Generator = models.oneStep(asModel, { schedule, sampleShape: [2] })
// @ts-expect-error samples have a shape
models.oneStep(asModel, { schedule })
// @ts-expect-error a single step has one time
models.oneStep(asModel, { schedule, sampleShape: [2], times: [1] })
// @ts-expect-error several steps have several
models.fewStep(asModel, { schedule, sampleShape: [2] })
// @ts-expect-error the elements of a sample
models.mlp({ hidden: [8] })
// @ts-expect-error no such prediction
const wrong: Prediction = 'score'
// @ts-expect-error no such file
models.embeddedFile('generators')
const loaded: Promise<models.LoraGenerator> = models.loadNanoZImage('teacher.safetensors').then(
  // @ts-expect-error a generator is loaded onto its teacher
  () => models.loadLoraGenerator('generator.safetensors'),
)

// --- Optimisers, files, runs ------------------------------------------------------------------------------------------
const optimizer = new optim.AdamW(network.parameters(), { lr: 1e-3, maxNorm: 1 })
// @ts-expect-error a misspelt setting
new optim.AdamW(network.parameters(), { learningRate: 1e-3 })
// @ts-expect-error parameters, not a module
new optim.AdamW(network)
new optim.Ema(network.parameters(), { decay: 0.9 })
optimizer.step({ lrScale: optim.cosine({ steps: 10 })(0) })
// @ts-expect-error a schedule has an end
optim.cosine({ warmup: 2 })
io.saveSafetensors('weights.safetensors', network.state())
// @ts-expect-error tensors by name
io.saveSafetensors('weights.safetensors', [x])
train.align({ beta: 0.1, optimizer: { generator: { lr: 1e-4 } } }, { out: 'runs/a' })
// @ts-expect-error a folder is needed
train.align({}, {})
// @ts-expect-error a misspelt field, however deep
train.align({ lora: { generator: { ranks: 2 } } }, { out: 'runs/a' })
void [prediction, silent, shapeless, generator, wrong, loaded]
