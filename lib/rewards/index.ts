export { blackBox, fromFunction, type Numbers } from './from-function.js'
export { colourfulness, sharpness } from './image-statistics.js'
export {
  type LoadedReward,
  loadReward,
  type NamedPart,
  type NamedRewardOptions,
  named,
} from './named.js'
export { type OnnxOptions, type OnnxReward, onnx } from './onnx.js'
export { PartScores } from './part-scores.js'
export { type Quadratic, type QuadraticOptions, quadratic } from './quadratic.js'
export { checkRewards, type Reward, scoreDifferentiably, scoreNumbers } from './reward.js'
export type { RunningState } from './running-statistics.js'
export {
  type WeightedOptions,
  type WeightedPart,
  WeightedReward,
  type WeightedState,
  weighted,
} from './weighted.js'
