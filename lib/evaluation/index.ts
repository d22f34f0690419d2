export {
  type Alarm,
  type AlarmLimits,
  type AlarmStatistics,
  alarmsOf,
  type Band,
  defaultLimits,
  type ImageStatistics,
  imageStatistics,
} from './alarms.js'
export { type CompareOptions, type Contender, compare, contenders } from './compare.js'
export { type Comparison, compareChart, compareTable } from './comparison.js'
export { type Diversity, diversity, type PairwiseDistances } from './diversity.js'
export {
  alarmStatistics,
  type EvaluateOptions,
  type EvaluationReport,
  evaluateImages,
  type ImageBatch,
} from './evaluate.js'
export { type FeatureExtractor, type Features, featuresOf } from './features.js'
export { frechetDistance } from './frechet.js'
export {
  alarmsAgainst,
  type DrawOptions,
  featuresOfSubject,
  generatorSubject,
  type Judgement,
  type JudgeOptions,
  judge,
  judgementTable,
  type Subject,
  teacherSubject,
} from './judge.js'
export {
  type PrecisionRecall,
  type PrecisionRecallOptions,
  precisionRecall,
} from './precision-recall.js'
export { loadReferences, saveReferences } from './references.js'
