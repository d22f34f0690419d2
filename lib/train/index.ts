export {
  type AlignConfig,
  type AlignOptions,
  align,
  distillation,
  readPrompts,
  resolveAlignConfig,
} from './align.js'
export { ShuffledBatches } from './batches.js'
export type { BestOptions } from './best.js'
export { type Partly, readConfig, resolveConfig } from './config.js'
export type { Metrics } from './metrics.js'
export {
  type MemoryPlan,
  type PlanConfig,
  type PlannedStep,
  type PlanOptions,
  planMemory,
} from './plan.js'
export {
  type PretrainAutoencoderConfig,
  pretrainAutoencoder,
} from './pretrain-autoencoder.js'
export { type PretrainClipConfig, pretrainClip } from './pretrain-clip.js'
export type { OptimizerConfig, PretrainConfig, PretrainOptions } from './pretrain-config.js'
export { type PretrainTeacherConfig, pretrainTeacher } from './pretrain-teacher.js'
export { progressLine } from './progress.js'
export {
  type Checkpointed,
  moduleState,
  type Progress,
  type StepHooks,
  TrainingRun,
  type TrainingRunOptions,
} from './run.js'
export { seedsFrom } from './seeds.js'
export { EventWriter } from './tensorboard.js'
