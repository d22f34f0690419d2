/** What the compiler knows of rewards. Nothing here runs; see tensor.types.ts. */
import { models, rewards, type Tensor } from '../../lib/index.js'

declare const images: Tensor<'float32', [4, 3, 8, 8]>
declare const captions: models.Captions

// --- Functions --------------------------------------------------------------------------------------------------------
const bright: rewards.Reward = rewards.fromFunction('bright', (x) => x.mean([1, 2, 3]))
// @ts-expect-error a differentiable reward is synchronous
rewards.fromFunction('late', async (x) => x.mean([1, 2, 3]))
// @ts-expect-error a differentiable reward gives a tensor
rewards.fromFunction('numbers', () => [1, 2])
rewards.blackBox('numbers', async (x) => await x.mean([1, 2, 3]).data())
rewards.blackBox('numbers', () => [1, 2])
rewards.blackBox('tensor', (x) => x.mean([1, 2, 3]))
// @ts-expect-error numbers, not strings
rewards.blackBox('words', () => ['good'])

/** Any object of the form will do. */
const own: rewards.Reward = {
  name: 'own',
  differentiable: false,
  score: async (x: Tensor) => x,
}

// --- Asking -----------------------------------------------------------------------------------------------------------
const now: Tensor<'float32', [number]> = rewards.scoreDifferentiably(bright, images, captions)
const later: Promise<Tensor<'float32', [number]>> = rewards.scoreNumbers(own, images)
const checked: Promise<Float32Array> = rewards.checkRewards('own', now)
void [later, checked]

// --- Sums and closed forms ----------------------------------------------------------------------------------------------
rewards.weighted([
  { reward: bright, normalize: 'running', margin: 2 },
  { reward: own, weight: -1 },
])
// @ts-expect-error no such normalisation
rewards.weighted([{ reward: bright, normalize: 'batch' }])
// @ts-expect-error a part needs a reward
rewards.weighted([{ weight: 1 }])
models
  .gaussianMixture({ means: [[0, 1]], std: 1 })
  .tilt(rewards.quadratic({ center: [4, 0] }).quadratic, 1)
// @ts-expect-error a centre is needed
rewards.quadratic({ curvature: 1 })
// @ts-expect-error a file is needed
rewards.onnx({ size: 224 })
