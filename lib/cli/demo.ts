/** `npx didr demo`: the whole job in a few minutes: aligns the base generator, compares, and writes a report. */
import { readFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { checkInteger } from '../checks.js'
import { encodeImages } from '../data/images.js'
import { spread } from '../data/spread.js'
import { fail } from '../errors.js'
import {
  alarmsAgainst,
  generatorSubject,
  type Judgement,
  judge,
  type Subject,
  teacherSubject,
} from '../evaluation/judge.js'
import type { PrecisionRecall } from '../evaluation/precision-recall.js'
import { loadReferences } from '../evaluation/references.js'
import { writeAtomically } from '../io/files.js'
import { loadClip } from '../models/clip.js'
import { embeddedFile } from '../models/embedded.js'
import { loadLoraGenerator } from '../models/lora-generator.js'
import { loadNanoZImage } from '../models/nano-z-image.js'
import type { ChartOptions } from '../plot/chart.js'
import { type Picture, type ReportSection, reportPage } from '../report/report.js'
import { loadReward } from '../rewards/named.js'
import { cpuDevice } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { type AlignConfig, align, readPrompts, resolveAlignConfig } from '../train/align.js'
import { progressLine } from '../train/progress.js'
import { abortOnInterrupt, interrupted } from './interrupt.js'
import { numberOf } from './options.js'
import { version } from './version.js'

const usage = `Usage: didr demo [options]

Aligns the one-step generator that comes with the package with two rewards, how well image and prompt match and how
colourful the image is, and writes <out>/report.html: pictures before and after, curves, and where it stands beside the base
and its teacher of 50 steps.

Options:
  --out <folder>   default runs/demo
  --steps <n>      default ${resolveAlignConfig().steps}
  --seed <n>       default 1
  --count <n>      images of each generator that are judged; default 512, of the teacher a quarter
  --pictures <n>   prompts that the report shows, half of them of held-out combinations; default 32
  --resume         go on from the last checkpoint there
  --help           this text

Ctrl-C saves a checkpoint and stops with code 130; a second one stops at once.`

export async function demo(args: string[]): Promise<number> {
  const values = parsed(args)
  if (values.help) {
    console.log(usage)
    return 0
  }
  const { out = path.join('runs', 'demo'), resume = false } = values
  const [steps, seed] = [numberOf('--steps', values.steps), numberOf('--seed', values.seed)]
  const count = numberOf('--count', values.count) ?? 512
  checkInteger('--count', count, 16)
  const pictures = numberOf('--pictures', values.pictures) ?? 32
  checkInteger('--pictures', pictures, 2)
  const config = resolveAlignConfig({
    ...(steps === undefined ? {} : { steps }),
    ...(seed === undefined ? {} : { seed }),
  })
  const started = performance.now()
  const finished = await align(config, {
    out,
    resume,
    signal: abortOnInterrupt('saving a checkpoint'),
    onProgress: progressLine(process.stderr, {
      metrics: ['reward', 'klToTarget', 'klToReference'],
    }),
  })
  if (!finished) return interrupted
  const seconds = (performance.now() - started) / 1000
  console.error('comparing with the base and the teacher')
  const file = path.join(out, 'report.html')
  const page = reportPage(await reportOf(out, config, { seconds, count, pictures }))
  await writeAtomically(file, (write) => write(Buffer.from(page)))
  console.log(file)
  return 0
}

async function reportOf(
  out: string,
  config: AlignConfig,
  { seconds, count: judged, pictures }: { seconds: number; count: number; pictures: number },
) {
  using teacher = await loadNanoZImage(embeddedFile('teacher'))
  using features = await loadClip(embeddedFile('features'))
  using base = await loadLoraGenerator(embeddedFile('generator'), teacher)
  using aligned = await loadLoraGenerator(path.join(out, 'generator.safetensors'), teacher)
  for (const generator of [base, aligned]) generator.transformer.lora.merge()
  const references = await loadReferences(
    embeddedFile('references'),
    features.config.widths.at(-1) as number,
  )
  const names = ['clip', 'colourfulness', 'sharpness']
  const rewards = await Promise.all(names.map((name) => loadReward(name)))
  const prompts = await readPrompts(embeddedFile('prompts'))
  const heldOut = await readPrompts(embeddedFile('held-out-prompts'))
  try {
    const subjects: [Subject, Subject, Subject] = [
      generatorSubject('base', base, teacher),
      generatorSubject('aligned', aligned, teacher),
      teacherSubject(teacher),
    ]
    const draw = {
      teacher,
      features,
      prompts,
      seed: 2,
      rewards: rewards.map(({ reward }) => reward),
    }
    const far = { ...draw, count: judged, references }
    const [before, after] = [await judge(subjects[0], far), await judge(subjects[1], far)] as const
    // The teacher's images take a hundred calls each; the others' on its prompts and noise take next to nothing.
    const few = { ...draw, count: Math.ceil(judged / 4) }
    const beside: Judgement[] = []
    for (const subject of subjects) beside.push(await judge(subject, few))
    const half = Math.ceil(pictures / 2)
    const shown = [...spread(prompts, half), ...spread(heldOut, half)]
    const columns = await Promise.all(
      subjects.map(async (subject) => picturesOf(await subject.generate(shown, 3), shown)),
    )
    const metrics = await readMetrics(path.join(out, 'metrics.jsonl'))
    const sections: ReportSection[] = [
      {
        title: 'Rewards and distances',
        text: [
          `${config.steps} steps of ${config.batchSize} images in ${seconds.toFixed(0)} s: objective ${config.objective}, estimator ${config.drs.estimator}, β = ${config.beta}.`,
          `${judged} images of each one-step generator on the same prompts and noise. Fréchet distances are in the features of a network that is no reward.`,
          alarmText(before, after),
        ],
        table: tableOf(config, [before, after]),
      },
      {
        title: 'Beside the teacher of 50 steps',
        text: [`${few.count} images of each on the same prompts and noise.`],
        table: tableOf(config, beside),
        charts: [pareto(config, [before, after], beside)],
      },
      {
        title: 'Before and after: the same prompts and noise',
        text: [
          `The first ${half} prompts are of the training list, the last ${half} are combinations of words that no model here was trained on.`,
        ],
        pictures: {
          heads: ['base', 'aligned', 'teacher'],
          rows: shown.map((_, i) => columns.map((column) => column[i] as Picture)),
        },
      },
      { title: 'The run', charts: curves(metrics) },
      { title: 'Configuration', code: JSON.stringify(config, null, 2) },
      {
        title: 'Machine',
        code: [
          `didr ${version}, Node ${process.version}, ${os.platform()} ${os.arch()}`,
          `${os.cpus()[0]?.model ?? 'unknown processor'}, ${os.availableParallelism()} threads`,
          JSON.stringify(cpuDevice().info),
        ].join('\n'),
      },
    ]
    return { title: 'One-step text to image, aligned', sections }
  } finally {
    for (const { release } of rewards) await release()
  }
}

/** The weighted sum that was optimised. */
function rewardOf({ rewards: parts }: AlignConfig, { rewards }: Judgement): number {
  return parts.reduce(
    (sum, { reward, weight = 1 }) => sum + weight * (rewards[reward]?.mean ?? Number.NaN),
    0,
  )
}

function tableOf(config: AlignConfig, judgements: readonly Judgement[]): string[][] {
  const [first] = judgements as [Judgement]
  const rewards = Object.keys(first.rewards)
  const references = Object.keys(first.references)
  return [
    [
      'generator',
      'network calls per image',
      'ms per image',
      'reward',
      ...rewards,
      ...references.map((name) => `Fréchet distance to ${name}`),
      ...(references.length > 0 ? ['precision / recall'] : []),
    ],
    ...judgements.map((judgement) => [
      judgement.name,
      String(judgement.calls),
      (1000 * judgement.secondsPerImage).toFixed(1),
      rewardOf(config, judgement).toFixed(3),
      ...rewards.map((name) => judgement.rewards[name]?.mean.toFixed(3) ?? ''),
      ...references.map((name) => judgement.references[name]?.frechet.toFixed(3) ?? ''),
      ...references
        .slice(0, 1)
        .map((name) => judgement.references[name] as PrecisionRecall)
        .map(({ precision, recall }) => `${precision.toFixed(2)} / ${recall.toFixed(2)}`),
    ]),
  ]
}

function alarmText(before: Judgement, after: Judgement): string {
  const alarms = alarmsAgainst(before, after)
  if (alarms.length === 0)
    return 'No alarm: edges, colours, saturation and diversity are near those of the base.'
  const listed = alarms.map(({ statistic, ratio }) => `${statistic} is ${ratio.toFixed(2)} times`)
  return `Alarm: ${listed.join(', ')} the base's. The reward may have been hacked; a higher β holds the generator closer.`
}

/** Rewards on the teacher's prompts against distances from its images; its own is none. */
function pareto(
  config: AlignConfig,
  far: readonly Judgement[],
  beside: readonly Judgement[],
): ChartOptions {
  return {
    title: 'Reward against Fréchet distance to the teacher',
    x: { label: 'Fréchet distance to the teacher' },
    y: { label: 'reward' },
    series: beside.map((judgement, i) => ({
      label: judgement.name,
      kind: 'points' as const,
      points: [[far[i]?.references.teacher?.frechet ?? 0, rewardOf(config, judgement)]],
    })),
  }
}

function curves(metrics: readonly Record<string, number>[]): ChartOptions[] {
  const line = (name: string) => ({
    label: name,
    points: metrics.map((at) => [at.step as number, at[name] ?? Number.NaN] as const),
  })
  return [
    {
      title: 'Reward',
      x: { label: 'step' },
      y: { label: 'mean reward' },
      series: [line('reward')],
    },
    {
      title: 'KL estimated from scores',
      x: { label: 'step' },
      y: { label: 'nats' },
      series: [line('klToTarget'), line('klToReference')],
    },
    {
      title: 'Assistant',
      x: { label: 'step' },
      y: { label: 'denoising loss' },
      series: [line('assistantLoss')],
    },
  ]
}

async function picturesOf(
  images: Tensor<FloatDType>,
  prompts: readonly string[],
): Promise<Picture[]> {
  try {
    const pictures: Picture[] = []
    for (const [i, caption] of prompts.entries()) {
      const [, channels, height, width] = images.shape as [number, number, number, number]
      using one = images.slice([i, 0, 0, 0], [1, channels, height, width])
      pictures.push({ caption, bytes: await encodeImages(one as Tensor<'float32'>, 'png') })
    }
    return pictures
  } finally {
    images.dispose()
  }
}

async function readMetrics(file: string): Promise<Record<string, number>[]> {
  try {
    const lines = (await readFile(file, 'utf8')).split('\n').filter((line) => line !== '')
    return lines.map((line) => JSON.parse(line) as Record<string, number>)
  } catch (error) {
    return fail('ERR_IO', `${file}: could not be read: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

function parsed(args: string[]) {
  const text = { type: 'string' } as const
  try {
    return parseArgs({
      args,
      options: {
        out: text,
        steps: text,
        seed: text,
        count: text,
        pictures: text,
        resume: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    }).values
  } catch (error) {
    return fail('ERR_CONFIG', `demo: ${(error as Error).message}`)
  }
}
