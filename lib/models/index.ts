export {
  AutoencoderKL,
  type AutoencoderKLConfig,
  type AutoencoderKLOptions,
  autoencoderKL,
  type LatentDistribution,
  loadAutoencoderKL,
  saveAutoencoderKL,
} from './autoencoder-kl.js'
export {
  CaptionEncoder,
  type CaptionEncoderConfig,
  type CaptionEncoderOptions,
  type Captions,
  captionEncoder,
  vocabularyOf,
  wordsOf,
} from './caption-encoder.js'
export { Clip, type ClipConfig, type ClipOptions, clip, loadClip } from './clip.js'
export { type EmbeddedFile, embeddedFile } from './embedded.js'
export {
  GaussianMixture,
  type GaussianMixtureOptions,
  gaussianMixture,
  type QuadraticReward,
} from './gaussian-mixture.js'
export {
  type FewStepOptions,
  fewStep,
  type Generator,
  type OneStepOptions,
  oneStep,
} from './generator.js'
export {
  everyLinear,
  LoraGenerator,
  type LoraGeneratorConfig,
  loadLoraGenerator,
  loraGenerator,
} from './lora-generator.js'
export { Mlp, type MlpOptions, mlp } from './mlp.js'
export {
  type GenerateOptions,
  loadNanoZImage,
  NanoZImage,
  type NanoZImageConfig,
  type NanoZImageOptions,
  nanoZImage,
} from './nano-z-image.js'
export { S3DiT, type S3DiTOptions, s3dit } from './s3dit.js'
export type { S3DiTConfig } from './s3dit-config.js'
export { type SampleOptions, sample, samplingTimes } from './sample.js'
export type { Condition, ScoreModel } from './score-model.js'
export type { NoiseOptions, TextToImage } from './text-to-image.js'
export { sinusoidalFeatures, TimestepEmbedding } from './timestep-embedding.js'
export { type LoadZImageOptions, loadZImage, ZImage } from './z-image.js'
