export {
  AdamW,
  type AdamWOptions,
  type AdamWSettings,
  type AdamWStateSettings,
  type ParameterGroup,
  type StepOptions,
} from './adamw.js'
export { Ema, type EmaOptions, type EmaStateSettings } from './ema.js'
export type { OptimState } from './parameters.js'
export {
  type CosineOptions,
  constant,
  cosine,
  type LearningRateSchedule,
  warmup,
} from './schedules.js'
