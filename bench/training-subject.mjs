// This package's training steps as a contestant. Reads lines, answers each with one:
//
//   write TASK FILE     writes the task's weights, inputs and configuration for a peer; answers "ok"
//   losses TASK N       N steps from the first weights; answers their losses as JSON
//   TASK N              N steps; answers with seconds per step
//
// A step is forward, backward and AdamW, as in peers/training_peer.py; of `ring`, all of a didrStep of the problem of
// `verify`, whose "losses" are the norms of the generator's gradient.
import { createInterface } from 'node:readline'
import {
  createDidr,
  device,
  didrStep,
  io,
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

const dev = await device('cpu')
let offset = 0
const draw = (shape) => normal(shape, { seed: 11, offset: offset++ })

function mlpTask() {
  const sizes = [256, 1024, 1024, 256]
  const make = () => models.mlp({ size: 256, hidden: [1024, 1024], time: 'none', seed: 1 })
  const inputs = { x: draw([256, 256]), target: draw([256, 256]) }
  return {
    config: { sizes },
    make,
    inputs,
    loss: (model) => nn.mse(model.forward(inputs.x), inputs.target),
  }
}

/** Some layers of a new model are 0, and would give their neighbours no gradient. */
function awaken(model) {
  for (const parameter of model.parameters()) {
    if (!/adaLN|linear/.test(parameter.name)) continue
    tidy(() => {
      parameter.value.copyFrom(draw(parameter.shape).mul(0.05))
    })
  }
  return model
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
  return {
    config: first.config,
    make: () => {
      const model = models.s3dit(config, { seed: 1 })
      model.loadState(first.state())
      return model
    },
    inputs,
    loss: (model) => nn.mse(model.transform(inputs.x, time, captions), inputs.target),
  }
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
  return {
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
  }
}

/** didrStep on the ring of `verify`, with the exact score. */
function ringTask() {
  const [batch, assistantSteps, seed, [low, high]] = [512, 5, 3, [0.02, 0.98]]
  const schedule = schedules.flow()
  const angles = Array.from({ length: 8 }, (_, k) => (k * Math.PI) / 4)
  const means = angles.map((angle) => [2 * Math.cos(angle), 2 * Math.sin(angle)])
  const config = { means, std: 0.3, center: [1.5, 1], beta: 1, batch, assistantSteps, lr: 1e-3 }
  const teacher = models.gaussianMixture({ means, std: config.std, schedule })
  // The draws of the first steps, in the order in which didrStep makes them, for a peer to repeat.
  const inputs = {}
  const steps = 3
  for (let i = 0; i < steps * (assistantSteps + 1); i++) {
    inputs[`z${i}`] = normal([batch, 2], { seed, offset: 3 * i })
    inputs[`t${i}`] = uniform([batch], { seed, offset: 3 * i + 1 })
      .mul(high - low)
      .add(low)
    inputs[`noise${i}`] = normal([batch, 2], { seed, offset: 3 * i + 2 })
  }
  const make = () => {
    const generator = models.mlp({ size: 2, time: 'none', seed: 1 })
    const assistant = models.mlp({ size: 2, prediction: 'flow', seed: 2 })
    return new (class extends nn.Module {
      generator = generator
      assistant = assistant
    })()
  }
  const optimizer = { lr: config.lr, maxNorm: null }
  return {
    config,
    make,
    inputs,
    start() {
      const model = make()
      const didr = createDidr({
        generator: models.oneStep(model.generator, { schedule, sampleShape: [2] }),
        teacher,
        assistant: model.assistant,
        reward: rewards.quadratic({ center: config.center }),
        schedule,
        drs: { estimator: 'exact' },
        assistantSteps,
        optimizer: { generator: optimizer, assistant: optimizer },
        ema: 0.99,
        seed,
        rewardEvery: 0,
      })
      return { model, step: async () => (await didrStep(didr, { batchSize: batch })).gradNorm }
    },
  }
}

const makers = { mlp: mlpTask, s3dit: s3ditTask, autoencoder: autoencoderTask, ring: ringTask }
const trainings = new Map()

function training(name) {
  if (!trainings.has(name)) {
    const task = makers[name]()
    trainings.set(name, { task, ...start(task) })
  }
  return trainings.get(name)
}

/** A model and a step of its training, which gives the loss: a tensor, or the promise of a number. */
function start(task) {
  if (task.start) return task.start()
  const model = task.make()
  const optimizer = new optim.AdamW(model.parameters(), {
    lr: 1e-4,
    betas: [0.9, 0.999],
    weightDecay: 0.01,
  })
  return {
    model,
    step() {
      const { value } = valueAndGrad(() => task.loss(model))
      tidy(() => {
        optimizer.step()
      })
      optimizer.zeroGrad()
      return value
    },
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command, name, rest] = line.split(' ')
  if (command === 'write') {
    const { task, model } = training(name)
    const prefixed = (prefix, tensors) =>
      Object.entries(tensors).map(([key, x]) => [`${prefix}.${key}`, x])
    await io.saveSafetensors(
      rest,
      Object.fromEntries([...prefixed('model', model.state()), ...prefixed('in', task.inputs)]),
      { metadata: { config: JSON.stringify(task.config) } },
    )
    console.log('ok')
  } else if (command === 'losses') {
    const fresh = start(training(name).task)
    const losses = []
    for (let i = 0; i < Number(rest); i++) {
      const value = await fresh.step()
      losses.push(typeof value === 'number' ? value : await value.item())
      value.dispose?.()
    }
    fresh.model.dispose()
    console.log(JSON.stringify(losses))
  } else {
    const own = training(command)
    const steps = Number(name)
    await dev.synchronize()
    const begin = performance.now()
    for (let i = 0; i < steps; i++) {
      const value = own.step()
      if (value instanceof Promise) await value
      else value.dispose()
    }
    await dev.synchronize()
    console.log(((performance.now() - begin) / 1000 / steps).toFixed(9))
  }
}
