/** Evaluates text-to-image generators side by side: the same prompts, the same noise. */
import { checkInteger } from '../checks.js'
import { spread } from '../data/spread.js'
import { fail } from '../errors.js'
import type { Captions } from '../models/caption-encoder.js'
import type { Clip } from '../models/clip.js'
import type { LoraGenerator } from '../models/lora-generator.js'
import type { NanoZImage } from '../models/nano-z-image.js'
import type { Reward } from '../rewards/reward.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { type Alarm, alarmsOf } from './alarms.js'
import {
  alarmStatistics,
  type EvaluationReport,
  evaluateImages,
  type ImageBatch,
} from './evaluate.js'
import { type Features, featuresOf } from './features.js'

/** Something that makes an image for each prompt. */
export interface Subject {
  name: string
  /** Calls of a network for each image. */
  calls: number
  /** @returns [prompts.length, 3, H, W] from 0 to 1, image i from the noise (seed, i) */
  generate(prompts: readonly string[], seed: number): Promise<Tensor<FloatDType>>
}

/** The teacher's sampler as a subject. */
export function teacherSubject(
  teacher: NanoZImage,
  { steps = 50, guidance = 3 }: { steps?: number; guidance?: number } = {},
): Subject {
  return {
    name: `teacher, ${steps} ${steps === 1 ? 'step' : 'steps'}`,
    calls: guidance === 1 ? steps : 2 * steps,
    generate: (prompts, seed) => teacher.generate(prompts, { steps, guidance, seed }),
  }
}

/** A one-step generator as a subject; the teacher encodes the prompts. */
export function generatorSubject(
  name: string,
  generator: LoraGenerator,
  teacher: NanoZImage,
): Subject {
  return {
    name,
    calls: 1,
    async generate(prompts, seed) {
      const captions = teacher.encodePrompts(prompts)
      try {
        return generator.generate(captions, { seed })
      } finally {
        captions.features.dispose()
      }
    },
  }
}

/** Which images of a subject are generated, and by whose features they are compared. */
export interface DrawOptions {
  /** Encodes the prompts for the rewards. */
  teacher: NanoZImage
  /** Whose features are compared; of a network that is no reward. */
  features: Clip
  /** As many of them are taken as are needed, evenly spread over the list. */
  prompts: readonly string[]
  /** Images of each subject. */
  count: number
  /** Images of each prompt, each from noise of its own. Default 2. */
  perPrompt?: number
  /** Images at a time. Default 32. */
  batchSize?: number
  /** Of the noise. Default 0. */
  seed?: number
}

/** What {@link judge} is given beside the subject. */
export interface JudgeOptions extends DrawOptions {
  references?: Readonly<Record<string, Features>>
  rewards?: readonly Reward[]
}

/** What {@link judge} finds: the report of a subject's images and what they cost. */
export interface Judgement extends EvaluationReport {
  name: string
  /** Calls of a network for each image. */
  calls: number
  /** For generating, decoding included. */
  secondsPerImage: number
}

/** Generates a subject's images and evaluates them. What it draws depends on the options alone. */
export async function judge(subject: Subject, options: JudgeOptions): Promise<Judgement> {
  const { features, references = {}, rewards = [], count } = options
  const batches: ImageBatch[] = []
  try {
    const started = performance.now()
    for await (const batch of generated(subject, options)) batches.push(batch)
    const secondsPerImage = (performance.now() - started) / 1000 / count
    const report = await evaluateImages({
      batches,
      features: (images) => features.features(images),
      references,
      rewards,
    })
    return { name: subject.name, calls: subject.calls, secondsPerImage, ...report }
  } finally {
    for (const batch of batches) disposeBatch(batch)
  }
}

/** The features of a subject's images, as references for others. */
export async function featuresOfSubject(subject: Subject, options: DrawOptions): Promise<Features> {
  async function* images() {
    for await (const batch of generated(subject, options)) {
      try {
        yield batch.images
      } finally {
        disposeBatch(batch)
      }
    }
  }
  return featuresOf((batch) => options.features.features(batch), images())
}

async function* generated(
  subject: Subject,
  { teacher, prompts, count, perPrompt = 2, batchSize = 32, seed = 0 }: DrawOptions,
): AsyncGenerator<ImageBatch & { condition: Captions }> {
  if (prompts.length === 0) fail('ERR_CONFIG', 'options.prompts: expected at least one')
  checkInteger('options.count', count, 2)
  checkInteger('options.perPrompt', perPrompt, 1)
  checkInteger('options.batchSize', batchSize, 1)
  const chosen = spread(prompts, Math.ceil(count / perPrompt))
  const all = Array.from({ length: count }, (_, i) => chosen[Math.floor(i / perPrompt)] as string)
  for (let first = 0; first < count; first += batchSize) {
    const texts = all.slice(first, first + batchSize)
    const images = await subject.generate(texts, seed * 2 ** 20 + first)
    await images.device.synchronize()
    yield { images, condition: teacher.encodePrompts(texts) }
  }
}

function disposeBatch({ images, condition }: ImageBatch): void {
  images.dispose()
  if (condition !== undefined && 'features' in condition) condition.features.dispose()
}

/** What moved against the base further than chance would have it. */
export function alarmsAgainst(base: Judgement, judgement: Judgement): Alarm[] {
  return alarmsOf(alarmStatistics(judgement), alarmStatistics(base))
}

/** A table in Markdown: a row for each judgement; alarms are against `base`. */
export function judgementTable(judgements: readonly Judgement[], base?: Judgement): string {
  const [first] = judgements
  if (first === undefined) return ''
  const rewards = Object.keys(first.rewards)
  const references = Object.keys(first.references)
  const heads = [
    'generator',
    'calls',
    'ms per image',
    ...rewards,
    ...references.flatMap((name) => [`Fréchet to ${name}`, `precision / recall`]),
    'diversity',
    'alarms',
  ]
  const rows = judgements.map((judgement) => {
    const { name, calls, secondsPerImage, diversity } = judgement
    const alarms = base === undefined || judgement === base ? [] : alarmsAgainst(base, judgement)
    return [
      name,
      String(calls),
      (1000 * secondsPerImage).toFixed(1),
      ...rewards.map((reward) => judgement.rewards[reward]?.mean.toFixed(3) ?? ''),
      ...references.flatMap((reference) => {
        const { frechet, precision, recall } = judgement.references[reference] ?? {}
        return [frechet?.toFixed(3) ?? '', `${precision?.toFixed(2)} / ${recall?.toFixed(2)}`]
      }),
      diversity.all.euclidean.toFixed(2),
      alarms.map(({ statistic, ratio }) => `${statistic} × ${ratio.toFixed(2)}`).join(', ') ||
        'none',
    ]
  })
  return [heads, heads.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')
}
