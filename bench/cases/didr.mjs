// The fused kernels of the method.
import { denoisingLoss, diffusedRewardScore, integralKL, normal, perturb, schedules } from 'didr'
import { both, streaming } from './case.mjs'

const schedule = schedules.flow()

/** Samples of a batch, as a step at that size would have them. */
const batch = 64
const times = Float32Array.from({ length: batch }, (_, i) => 0.1 + (0.8 * i) / (batch - 1))
const shape = (size) => [batch, size / batch]
const particles = 8

const perturbation = {
  make: (draw, size) => ({ x0: draw(shape(size)) }),
  run: ({ x0 }) => [perturb(x0, { t: times, schedule, seed: 1 }).xt],
  check({ x0 }) {
    const { xt, noise } = perturb(x0, { t: times, schedule, seed: 1, returnNoise: true })
    return { given: { x0, noise }, results: { xt } }
  },
}

// With one prediction type, guidance and a diffused reward score: x_t cancels and is not read.
const divergence = {
  make: (draw, size) => ({
    xt: draw(shape(size)),
    assistant: draw(shape(size)),
    teacher: draw(shape(size)),
    uncond: draw(shape(size)),
    drs: draw(shape(size)),
  }),
  run({ xt, assistant, teacher, uncond, drs }) {
    const { grad, perSample } = integralKL({
      ...{ xt, t: times, schedule, prediction: 'flow' },
      ...{ assistant, teacher, teacherUncond: uncond, guidance: 3, drs },
    })
    return [grad, perSample.target, perSample.reference]
  },
  check(inputs) {
    const [grad, target, reference] = this.run(inputs)
    return { given: inputs, results: { grad, target, reference } }
  },
}

const matching = {
  make: (draw, size) => ({ x0: draw(shape(size)), output: draw(shape(size)) }),
  run({ x0, output }) {
    const options = { x0, output, prediction: 'flow', t: times, schedule, seed: 1 }
    const { grad, perSample } = denoisingLoss(options)
    return [grad, perSample]
  },
  check(inputs) {
    const [grad, perSample] = this.run(inputs)
    // The noise that is drawn again inside; others keep it from the perturbation.
    const noise = normal(inputs.x0.shape, { seed: 1 })
    return { given: { ...inputs, noise }, results: { grad, perSample } }
  },
}

export const cases = [
  streaming('perturb', { read: 1, written: 1, flops: 3, ...perturbation }),
  streaming('integralKL', { read: 4, written: 1, flops: 11, ...divergence }),
  streaming('denoisingLoss', { read: 2, written: 1, flops: 7, ...matching }),
  {
    name: 'diffusedRewardScore',
    sizes: 'elements',
    unit: 'elements',
    work: (size) => ({
      elements: size,
      moved: (particles + 1) * size,
      flops: (3 * particles + 2) * size,
    }),
    bound: 'memory',
    dtypes: both,
    make: (draw, size) => ({
      particles: draw([particles, ...shape(size)]),
      rewards: draw([particles, batch], 'float32'),
    }),
    run({ particles, rewards }) {
      const options = { particles, rewards, t: times, schedule, beta: 1 }
      const { score, effectiveSampleSize } = diffusedRewardScore(options)
      return [score, effectiveSampleSize]
    },
  },
]
