/** The methods of the family side by side, at equal budget, seeds and reward. */
import { access, readFile } from 'node:fs/promises'
import path from 'node:path'
import { checkInteger } from '../checks.js'
import type { Objective } from '../didr/config.js'
import type { DrsOptions } from '../didr/drs-config.js'
import { fail } from '../errors.js'
import { writeAtomically } from '../io/files.js'
import { loadClip } from '../models/clip.js'
import { embeddedOr } from '../models/embedded.js'
import { loadLoraGenerator } from '../models/lora-generator.js'
import { loadNanoZImage } from '../models/nano-z-image.js'
import { type LoadedReward, loadReward } from '../rewards/named.js'
import { type AlignConfig, align, readPrompts } from '../train/align.js'
import type { Partly } from '../train/config.js'
import type { Progress } from '../train/run.js'
import type { Comparison } from './comparison.js'
import { alarmsAgainst, generatorSubject, type Judgement, judge, teacherSubject } from './judge.js'
import { loadReferences } from './references.js'

/** A method with one temperature: a point of its curve. */
export interface Contender {
  /** Points of one name are a curve. */
  method: string
  objective: Objective
  /** Of `didr`. */
  drs?: DrsOptions
  /** Undefined where the method has no reward. */
  beta: number | undefined
  /** Where the configuration's does not apply. */
  weighting?: AlignConfig['weighting']
}

/**
 * Every objective and estimator. The temperatures of the objectives with a terminal reward reach the rewards of those of
 * `didr`: they weigh the reward of a sample against a score, not a score against a score.
 */
export function contenders(): Contender[] {
  const swept = (
    method: string,
    objective: Objective,
    betas: readonly number[],
    drs?: DrsOptions,
  ): Contender[] =>
    betas.map((beta) => ({ method, objective, beta, ...(drs === undefined ? {} : { drs }) }))
  return [
    { method: 'diff-instruct', objective: 'diff-instruct', beta: undefined },
    { method: 'dmd2', objective: 'dmd2', beta: undefined },
    ...swept('didr, tweedie', 'didr', [0.1, 0.04, 0.02], { estimator: 'tweedie' }),
    ...swept('didr, drp', 'didr', [0.1, 0.04, 0.02], { estimator: 'drp' }),
    ...swept('didr, damped', 'didr', [0.1, 0.04, 0.02], { estimator: 'damped' }),
    ...swept('didr, particles', 'didr', [0.1, 0.04, 0.02], {
      estimator: 'particles',
      steps: 2,
      particles: 4,
    }),
    ...swept('diff-instruct++', 'diff-instruct++', [1, 0.3, 0.1]),
    ...swept('diff-instruct*', 'diff-instruct*', [1, 0.3, 0.1]).map((contender) => ({
      ...contender,
      // It has no denoiser difference that `dmd` could divide.
      weighting: 'x0' as const,
    })),
    ...swept('reward', 'reward', [1, 0.3, 0.1]),
  ]
}

/** What {@link compare} is given. */
export interface CompareOptions {
  /** A folder: a run for each contender and seed in `runs/`, which a later call goes on with. */
  out: string
  /** Of every run; what the contenders say comes on top. */
  config: Partly<AlignConfig>
  /** Seeds 1 to `seeds` of every contender. Default 1. */
  seeds?: number
  /** Default {@link contenders}. */
  contenders?: readonly Contender[]
  /** Images of each generator. Default 512; the teacher's rows have as many. */
  count?: number
  features?: string
  references?: string
  signal?: AbortSignal
  onProgress?: (run: string, progress: Progress) => void
}

/**
 * Trains and judges every contender, and the base, the teacher of 50 steps and the teacher of one.
 * @returns undefined if the signal stopped it
 */
export async function compare(options: CompareOptions): Promise<Comparison[] | undefined> {
  const { out, config, seeds = 1, count = 512, signal, onProgress } = options
  checkInteger('options.seeds', seeds, 1)
  const all = options.contenders ?? contenders()
  const rewards = config.rewards ?? []
  if (rewards.length === 0) fail('ERR_CONFIG', 'options.config.rewards: expected at least one')
  using teacher = await loadNanoZImage(embeddedOr('teacher', config.teacher ?? 'embedded'))
  using features = await loadClip(embeddedOr('features', options.features ?? 'embedded'))
  const references = await loadReferences(
    embeddedOr('references', options.references ?? 'embedded'),
    features.config.widths.at(-1) as number,
  )
  const prompts = await readPrompts(embeddedOr('prompts', config.prompts ?? 'embedded'))
  const clip = config.clip ?? 'embedded'
  const loaded: LoadedReward[] = []
  const baseFile = embeddedOr('generator', config.generator ?? 'embedded')
  try {
    for (const { reward } of rewards) loaded.push(await loadReward(reward, { clip }))
    const draw = { teacher, features, references, prompts, count, seed: 7 }
    const judged = { ...draw, rewards: loaded.map(({ reward }) => reward) }
    /** Evaluated once: the result is kept in a file. */
    const cached = async (file: string, evaluate: () => Promise<Judgement>) => {
      if (await exists(file)) return JSON.parse(await readFile(file, 'utf8')) as Judgement
      const judgement = await evaluate()
      const text = JSON.stringify(judgement, null, 2)
      await writeAtomically(file, (write) => write(Buffer.from(`${text}\n`)))
      return judgement
    }
    const ofGenerator = async (name: string, file: string) => {
      using generator = await loadLoraGenerator(file, teacher)
      generator.transformer.lora.merge()
      return judge(generatorSubject(name, generator, teacher), judged)
    }
    const summed = ({ rewards: means }: Judgement) =>
      rewards.reduce(
        (sum, { weight = 1 }, i) =>
          sum + weight * (means[(loaded[i] as LoadedReward).reward.name]?.mean ?? Number.NaN),
        0,
      )
    const fixed = { objective: undefined, beta: undefined, seed: 0, alarms: [] }
    const base = await cached(path.join(out, 'base.json'), () => ofGenerator('base', baseFile))
    const results: Comparison[] = [{ ...base, ...fixed, method: 'base', reward: summed(base) }]
    for (const [name, steps] of [
      ['teacher, 50 steps', 50],
      ['teacher, 1 step', 1],
    ] as const) {
      const own = await cached(path.join(out, `teacher-${steps}.json`), () =>
        judge(teacherSubject(teacher, { steps }), judged),
      )
      results.push({ ...own, ...fixed, method: name, reward: summed(own) })
    }

    for (let seed = 1; seed <= seeds; seed++)
      for (const { method, objective, drs, beta, weighting } of all) {
        const name = runName({ method, beta }, seed)
        const run = path.join(out, 'runs', name)
        const finished =
          (await exists(path.join(run, 'generator.safetensors'))) ||
          (await align(
            {
              ...config,
              objective,
              seed,
              previewEvery: 0,
              ...(drs === undefined ? {} : { drs }),
              ...(beta === undefined ? {} : { beta }),
              ...(weighting === undefined ? {} : { weighting }),
            },
            {
              out: run,
              resume: true,
              ...(signal === undefined ? {} : { signal }),
              onProgress: (progress) => onProgress?.(name, progress),
            },
          ))
        if (!finished || signal?.aborted) return undefined
        const own = await cached(path.join(run, 'judgement.json'), () =>
          ofGenerator(method, path.join(run, 'generator.safetensors')),
        )
        const alarms = alarmsAgainst(base, own).map(
          ({ statistic, ratio }) => `${statistic} × ${ratio.toFixed(2)}`,
        )
        results.push({ ...own, method, objective, beta, seed, reward: summed(own), alarms })
      }
    return results
  } finally {
    for (const { release } of loaded) await release()
  }
}

/** A folder's name for each contender and seed: `diff-instruct-plus-plus_0.3_1`. @internal */
export function runName(
  { method, beta }: Pick<Contender, 'method' | 'beta'>,
  seed: number,
): string {
  const plain = method
    .replaceAll('+', '-plus')
    .replaceAll('*', '-star')
    .replace(/[^\w-]+/g, '-')
  return [plain, beta, seed].filter((part) => part !== undefined).join('_')
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  )
}
