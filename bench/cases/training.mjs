// Training steps: forward, backward and AdamW; of `ring` and the nano models, all of a didrStep. The peers' are in
// peers/torch_training.py.
//
// A task has the weights and inputs that peers start from, and start(): a new training from those weights, of which
// step() gives numbers that a peer's steps have to give too: losses, or norms of gradients.
import {
  createDidr,
  didrStep,
  models,
  nn,
  normal,
  optim,
  rewards,
  schedules,
  tensor,
  tidy,
  uniform,
  valueAndGrad,
} from 'didr'

let offset = 0
const draw = (shape) => normal(shape, { seed: 11, offset: offset++ })

/** Some layers of a new model are 0, and would give their neighbours no gradient. */
function awaken(model, layers = /adaLN|linear/) {
  for (const [name, parameter] of model.namedParameters()) {
    if (!layers.test(name)) continue
    tidy(() => {
      parameter.value.copyFrom(draw(parameter.shape).mul(0.05))
    })
  }
  return model
}

/** A loss of a network, minimised. */
function regression({ make, inputs, config, loss }) {
  return {
    config,
    inputs,
    start() {
      const model = make()
      const optimizer = new optim.AdamW(model.parameters(), {
        lr: 1e-4,
        betas: [0.9, 0.999],
        weightDecay: 0.01,
      })
      return {
        state: () => model.state(),
        dispose() {
          optimizer.dispose()
          model.dispose()
        },
        step() {
          const { value } = valueAndGrad(() => loss(model))
          tidy(() => {
            optimizer.step()
          })
          optimizer.zeroGrad()
          return value
        },
      }
    },
  }
}

function mlpTask() {
  const sizes = [256, 1024, 1024, 256]
  const inputs = { x: draw([256, 256]), target: draw([256, 256]) }
  return regression({
    config: { sizes },
    make: () => models.mlp({ size: 256, hidden: [1024, 1024], time: 'none', seed: 1 }),
    inputs,
    loss: (model) => nn.mse(model.forward(inputs.x), inputs.target),
  })
}

function s3ditTask() {
  const [batch, words] = [32, 12]
  const config = {
    in_channels: 4,
    dim: 192,
    n_layers: 6,
    n_refiner_layers: 1,
    n_heads: 6,
    cap_feat_dim: 192,
    axes_dims: [8, 12, 12],
    axes_lens: [256, 64, 64],
    pad_multiple: 4,
  }
  const lengths = new Int32Array(batch).fill(words)
  const inputs = {
    x: draw([batch, 4, 16, 16]),
    target: draw([batch, 4, 16, 16]),
    captions: draw([batch * words, 192]),
    t: uniform([batch], { seed: 12 }),
    lengths: tensor(lengths),
  }
  const time = inputs.t.dataSync()
  const captions = { features: inputs.captions, lengths: Array.from(lengths) }
  const first = awaken(models.s3dit(config, { seed: 1 }))
  return regression({
    config: first.config,
    make: () => copyOf(first),
    inputs,
    loss: (model) => nn.mse(model.transform(inputs.x, time, captions), inputs.target),
  })
}

function copyOf(transformer) {
  const copy = models.s3dit(transformer.config)
  copy.loadState(transformer.state())
  return copy
}

function autoencoderTask() {
  const config = {
    in_channels: 3,
    out_channels: 3,
    block_out_channels: [16, 32, 64],
    layers_per_block: 1,
    latent_channels: 4,
    norm_num_groups: 8,
    use_quant_conv: false,
    use_post_quant_conv: false,
  }
  const inputs = { images: draw([16, 3, 64, 64]), noise: draw([16, 4, 16, 16]) }
  return regression({
    config,
    make: () => models.autoencoderKL(config, { seed: 1 }),
    inputs,
    loss(model) {
      const { mean, logVariance } = model.encode(inputs.images)
      const latent = mean.add(logVariance.mul(0.5).exp().mul(inputs.noise))
      const divergence = mean
        .square()
        .add(logVariance.exp())
        .sub(logVariance)
        .sub(1)
        .mean()
        .mul(0.5)
      return nn.mse(model.decode(latent), inputs.images).add(divergence.mul(1e-3))
    },
  })
}

/** Steps whose results are compared. */
const comparedSteps = 3
const timeRange = [0.02, 0.98]

/** The draws of the first steps, in the order in which didrStep makes them, for a peer to repeat. */
function drawsOf(shape, { seed, assistantSteps }) {
  const [low, high] = timeRange
  const inputs = {}
  for (let i = 0; i < comparedSteps * (assistantSteps + 1); i++) {
    inputs[`z${i}`] = normal(shape, { seed, offset: 3 * i })
    inputs[`t${i}`] = uniform([shape[0]], { seed, offset: 3 * i + 1 })
      .mul(high - low)
      .add(low)
    inputs[`noise${i}`] = normal(shape, { seed, offset: 3 * i + 2 })
  }
  return inputs
}

function prefixed(prefix, tensors) {
  return Object.fromEntries(Object.entries(tensors).map(([key, x]) => [`${prefix}.${key}`, x]))
}

/** didrStep on the ring of `verify`, with the exact score. */
function ringTask() {
  const [batch, assistantSteps, seed] = [512, 5, 3]
  const schedule = schedules.flow()
  const angles = Array.from({ length: 8 }, (_, k) => (k * Math.PI) / 4)
  const means = angles.map((angle) => [2 * Math.cos(angle), 2 * Math.sin(angle)])
  const config = { means, std: 0.3, center: [1.5, 1], beta: 1, batch, assistantSteps, lr: 1e-3 }
  const teacher = models.gaussianMixture({ means, std: config.std, schedule })
  const optimizer = { lr: config.lr, maxNorm: null }
  return {
    config,
    inputs: drawsOf([batch, 2], { seed, assistantSteps }),
    start() {
      const generator = models.mlp({ size: 2, time: 'none', seed: 1 })
      const assistant = models.mlp({ size: 2, prediction: 'flow', seed: 2 })
      const didr = createDidr({
        generator: models.oneStep(generator, { schedule, sampleShape: [2] }),
        teacher,
        assistant,
        reward: rewards.quadratic({ center: config.center }),
        schedule,
        drs: { estimator: 'exact' },
        assistantSteps,
        optimizer: { generator: optimizer, assistant: optimizer },
        ema: 0.99,
        seed,
        rewardEvery: 0,
      })
      return {
        state: () => ({
          ...prefixed('generator', generator.state()),
          ...prefixed('assistant', assistant.state()),
        }),
        dispose() {
          for (const part of [didr, generator, assistant]) part.dispose()
        },
        step: async () => [(await didrStep(didr, { batchSize: batch })).gradNorm],
      }
    },
  }
}

const vocabulary = Array.from({ length: 64 }, (_, i) => `word${i}`)

/**
 * didrStep on the nano Z-Image of `pretrain teacher`, with new weights: the diffused reward proxy through two steps of the
 * teacher and the decoder, one update of the assistant, guidance.
 * @param options `lowRank`: generator and assistant are low-rank additions to the teacher, as `npx didr train` has them;
 *   else copies of it of which every weight is trained
 */
function nanoTask({ lowRank }) {
  const [batch, assistantSteps, seed] = [32, 1, 5]
  const settings = {
    batch,
    assistantSteps,
    beta: 0.02,
    guidance: 3,
    ema: 0.99,
    lr: { generator: 5e-4, assistant: 1e-3 },
    maxNorm: 1,
    rank: lowRank ? { generator: 20, assistant: 32 } : null,
    logSnrEnd: 4,
    leastSpan: 4,
  }
  const teacher = models.nanoZImage(
    {
      imageSize: 64,
      autoencoder: {
        block_out_channels: [16, 32, 64],
        layers_per_block: 1,
        latent_channels: 4,
        norm_num_groups: 8,
        mid_block_add_attention: true,
        use_quant_conv: false,
        use_post_quant_conv: false,
      },
      transformer: {
        in_channels: 4,
        dim: 160,
        n_layers: 6,
        n_refiner_layers: 1,
        n_heads: 5,
        cap_feat_dim: 160,
        axes_dims: [8, 12, 12],
        axes_lens: [64, 32, 32],
        pad_multiple: 16,
      },
      captions: { vocabulary, dim: 160 },
    },
    { seed: 1 },
  )
  awaken(teacher.transformer)
  teacher.setTrainable(false)
  const prompts = Array.from({ length: batch }, (_, i) =>
    vocabulary.slice(i, i + 2 + (i % 7)).join(' '),
  )
  const condition = teacher.encodePrompts(prompts)
  const unconditional = teacher.encodePrompts(prompts.map(() => ''))
  const { schedule } = teacher
  const sampleShape = teacher.latentShape(1).slice(1)

  /** A transformer to train, its trained parameters, and as what didrStep takes it. */
  const adapted = (rank, loraSeed) => {
    const network = nn.lora(teacher.transformer, {
      rank,
      targets: models.everyLinear,
      seed: loraSeed,
    })
    return { network, trained: network.lora }
  }
  const whole = () => {
    const network = copyOf(teacher.transformer)
    return { network, trained: network }
  }
  const parts = () =>
    lowRank
      ? [adapted(settings.rank.generator, 2), adapted(settings.rank.assistant, 3)]
      : [whole(), whole()]
  const first = parts().map(({ trained }) => awaken(trained, /lora_B/).state())
  const optimizer = (which) => ({ lr: settings.lr[which], maxNorm: settings.maxNorm })
  return {
    config: { ...settings, ...teacher.config, transformer: teacher.transformer.config },
    inputs: {
      ...drawsOf(teacher.latentShape(batch), { seed, assistantSteps }),
      captions: condition.features,
      lengths: tensor(Int32Array.from(condition.lengths)),
      uncond: unconditional.features,
      uncondLengths: tensor(Int32Array.from(unconditional.lengths)),
    },
    start() {
      const [generator, assistant] = parts()
      generator.trained.loadState(first[0])
      assistant.trained.loadState(first[1])
      const didr = createDidr({
        generator: {
          ...models.oneStep(generator.network, { schedule, sampleShape }),
          parameters: () => generator.trained.parameters(),
        },
        teacher: teacher.transformer,
        assistant: assistant.network,
        reward: rewards.colourfulness(),
        decode: (latents) => teacher.decode(latents),
        schedule,
        beta: settings.beta,
        guidance: settings.guidance,
        weighting: 'dmd',
        drs: { estimator: 'drp', steps: 2, particles: 1 },
        assistantSteps,
        times: { kind: 'uniform', range: timeRange },
        optimizer: { generator: optimizer('generator'), assistant: optimizer('assistant') },
        ema: settings.ema,
        seed,
        rewardEvery: 0,
      })
      return {
        state: () => ({
          ...prefixed('teacher', teacher.state()),
          ...prefixed('generator', generator.trained.state()),
          ...prefixed('assistant', assistant.trained.state()),
        }),
        dispose() {
          for (const part of [didr, generator.network, assistant.network]) part.dispose()
        },
        async step() {
          const step = await didrStep(didr, { batchSize: batch, condition, unconditional })
          return [step.gradNorm, step.assistantLoss, step.drsNorm]
        },
      }
    },
  }
}

const makers = {
  mlp: mlpTask,
  s3dit: s3ditTask,
  autoencoder: autoencoderTask,
  ring: ringTask,
  nano: () => nanoTask({ lowRank: true }),
  nanoFull: () => nanoTask({ lowRank: false }),
}

const tasks = new Map()

/** The task of a name, made once. */
export function taskOf(name) {
  if (!tasks.has(name)) tasks.set(name, makers[name]())
  return tasks.get(name)
}

const training = (name, repeats) => ({
  name,
  sizes: [1],
  unit: 'steps',
  work: () => ({ elements: 1, moved: 0, flops: 0 }),
  bound: 'step',
  dtypes: ['float32'],
  repeats,
  make: () => taskOf(name).start(),
  async run({ step }) {
    const value = await step()
    return Array.isArray(value) ? [] : [value]
  },
})

export const cases = [
  training('mlp', 20),
  training('s3dit', 1),
  training('autoencoder', 2),
  training('ring', 20),
  training('nano', 1),
  training('nanoFull', 1),
]
