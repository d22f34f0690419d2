/** The problem with a known answer: eight Gaussians on a ring, pulled to one side by a quadratic reward. */
import { noGrad, valueAndGrad } from '../autograd/vjp.js'
import { type Schedule, schedules } from '../didr/schedules.js'
import { type GaussianMixture, gaussianMixture } from '../models/gaussian-mixture.js'
import { type Generator, oneStep } from '../models/generator.js'
import { type Mlp, mlp } from '../models/mlp.js'
import { AdamW } from '../optim/adamw.js'
import { cosine } from '../optim/schedules.js'
import { quadratic } from '../rewards/quadratic.js'
import { normal } from '../tensor/create.js'
import { cpuDevice, type Device } from '../tensor/device.js'
import { tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'

type Float32 = Tensor<'float32'>

const modes = 8
const radius = 2
const std = 0.3
const rewardCenter = [1.5, 1]

/** Prior, reward and target in closed form. */
export interface RingProblem {
  schedule: Schedule
  /** p_ref, and the teacher. */
  reference: GaussianMixture
  reward: ReturnType<typeof quadratic>
  /** p* ∝ p_ref exp(r/β) */
  target: GaussianMixture
}

export function ringProblem(beta: number): RingProblem {
  const schedule = schedules.flow()
  const means = Array.from({ length: modes }, (_, k) => {
    const angle = (2 * Math.PI * k) / modes
    return [radius * Math.cos(angle), radius * Math.sin(angle)]
  })
  const reference = gaussianMixture({ means, std, schedule })
  const reward = quadratic({ center: rewardCenter })
  return { schedule, reference, reward, target: reference.tilt(reward.quadratic, beta) }
}

/** A generator in the plane and the network that it is. */
export interface RingGenerator {
  network: Mlp
  generator: Generator
  device: Device
}

/** x0 = network(z); the network has no use for a time. */
export function ringGenerator(
  seed: number,
  { schedule }: RingProblem,
  device: Device = cpuDevice(),
): RingGenerator {
  const network = mlp({ size: 2, time: 'none', seed, device })
  return { network, generator: oneStep(network, { schedule, sampleShape: [2] }), device }
}

const mostPairs = 1 << 15
const odeSteps = 40
const learningRate = 2e-3

/**
 * Distils the reference into a generator, the start of every run: least squares on pairs of noise and the end of the
 * probability-flow ODE from there, which the closed-form teacher integrates in DDIM steps evenly spaced in log-SNR.
 */
export async function distil(
  { network, generator, device }: RingGenerator,
  { reference, schedule }: RingProblem,
  { steps, seed, batch = 512 }: { steps: number; seed: number; batch?: number },
): Promise<void> {
  if (steps === 0) return
  const pairs = Math.min(mostPairs, steps * batch)
  using noise = normal([pairs, 2], { seed, offset: 0, device }) as Float32
  using ends = noGrad(() => tidy(() => flowEnds(noise, reference, schedule)))
  using optimizer = new AdamW(network.parameters(), { lr: learningRate, weightDecay: 0 })
  const scale = cosine({ steps })
  for (let step = 0; step < steps; step++) {
    const begin = (step * batch) % pairs
    const loss = tidy(() => {
      const [z, y] = [noise.slice([begin, 0], [batch, 2]), ends.slice([begin, 0], [batch, 2])]
      const { value } = valueAndGrad(() =>
        generator
          .forward(z)
          .sub(y as Float32)
          .square()
          .mean(),
      )
      optimizer.step({ lrScale: scale(step) })
      optimizer.zeroGrad()
      return value
    })
    // Lets the queue drain now and then; it would grow to the end of the loop.
    if (step % 32 === 0) await loss.data()
    loss.dispose()
  }
}

/** Where the probability-flow ODE takes noise [n, 2]. */
function flowEnds(z: Float32, model: GaussianMixture, schedule: Schedule): Float32 {
  const [first, last] = [schedule.logSnr(0.995), schedule.logSnr(0.005)]
  const timeOf = (step: number) => schedule.timeOfLogSnr(first + ((last - first) * step) / odeSteps)
  const denoise = (x: Float32, t: number) =>
    model.denoise(x, new Float32Array(x.shape[0] as number).fill(t)) as Float32
  let x = z
  for (let step = 0; step < odeSteps; step++) {
    const [t, next] = [timeOf(step), timeOf(step + 1)]
    const shrink = schedule.sigma(next) / schedule.sigma(t)
    const towards = schedule.alpha(next) - schedule.alpha(t) * shrink
    x = tidy(() => x.mul(shrink).addScaled(denoise(x, t), towards)) as Float32
  }
  return denoise(x, timeOf(odeSteps))
}
