/** `npx didr eval` and `npx didr references`: how good generated images are. */
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { loadCaptionedImages } from '../data/load.js'
import { spread } from '../data/spread.js'
import { fail } from '../errors.js'
import { featuresOf } from '../evaluation/features.js'
import {
  type DrawOptions,
  featuresOfSubject,
  generatorSubject,
  type Judgement,
  judge,
  judgementTable,
  type Subject,
  teacherSubject,
} from '../evaluation/judge.js'
import { loadReferences, saveReferences } from '../evaluation/references.js'
import { makeFolder } from '../io/files.js'
import { type Clip, loadClip } from '../models/clip.js'
import { embeddedOr } from '../models/embedded.js'
import { type LoraGenerator, loadLoraGenerator } from '../models/lora-generator.js'
import { loadNanoZImage, type NanoZImage } from '../models/nano-z-image.js'
import { type LoadedReward, loadReward } from '../rewards/named.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import { readPrompts } from '../train/align.js'
import { defined, numberOf } from './options.js'

const usage = `Usage: didr eval [<generator> ...] [options]

Images of generators side by side, on the same prompts and noise: rewards; Fréchet distance, precision and recall against
references, in the features of a network that is no reward; diversity; and alarms: statistics that no reward asks for and
that left those of the base.

Arguments: files that \`train\` or \`distill\` wrote, \`embedded\` for the one that comes with the package (it is the base,
and always there unless --base says another).

Options:
  --base <file>          the generator that alarms compare with; default embedded
  --teacher <file>       what \`pretrain teacher\` wrote; default: the one that comes with the package
  --teacher-steps <n>    the teacher's images, too, in so many steps; more of them for more rows
  --guidance <g>         of the teacher; default 3
  --count <n>            images of each; default 512
  --per-prompt <n>       images of each prompt; default 2
  --prompts <file>       one a line; default: those that come with the package
  --reward <name>        as for \`train\`; default clip, colourfulness, sharpness
  --clip <file>          the CLIP that the reward clip is; default: the one that comes with the package
  --features <file>      the CLIP whose features are compared; default: the one that comes with the package
  --references <file>    what \`references\` wrote; default: those that come with the package
  --seed <n>             of the noise; default 0
  --out <folder>         writes eval.json and eval.md there
  --json                 prints JSON
  --help                 this text`

const referencesUsage = `Usage: didr references --data <folder> --out <file> [options]

Writes what \`eval\` compares with: features of a folder's images and of the teacher's samples.

Options:
  --data <folder>        images and prompts, as for \`pretrain\`
  --out <file>           .safetensors
  --teacher <file>       what \`pretrain teacher\` wrote; default: the one that comes with the package
  --steps <n>            of the teacher; default 50
  --guidance <g>         of the teacher; default 3
  --count <n>            samples of the teacher, and at most so many images; default 1024
  --prompts <file>       one a line; default: those that come with the package
  --features <file>      the CLIP whose features are compared; default: the one that comes with the package
  --seed <n>             of the noise; default 1
  --help                 this text`

export async function evaluate(args: string[]): Promise<number> {
  const { values, positionals } = parsed(args, 'eval')
  if (values.help) {
    console.log(usage)
    return 0
  }
  const baseFile = values.base ?? 'embedded'
  const files = [...new Set([baseFile, ...positionals])]
  const teacherSteps = (values['teacher-steps'] ?? []).map((text) =>
    numberOf('--teacher-steps', text),
  ) as number[]
  const guidance = numberOf('--guidance', values.guidance) ?? 3
  const names = values.reward ?? ['clip', 'colourfulness', 'sharpness']

  using teacher = await loadNanoZImage(embeddedOr('teacher', values.teacher ?? 'embedded'))
  using features = await loadClip(embeddedOr('features', values.features ?? 'embedded'))
  const references = await loadReferences(
    embeddedOr('references', values.references ?? 'embedded'),
    features.config.widths.at(-1) as number,
  )
  const rewards: LoadedReward[] = []
  const generators: LoraGenerator[] = []
  try {
    for (const name of names)
      rewards.push(await loadReward(name, defined({ clip: values.clip }), '--reward'))
    const subjects: Subject[] = []
    for (const file of files) {
      const generator = await loadLoraGenerator(embeddedOr('generator', file), teacher)
      generator.transformer.lora.merge()
      generators.push(generator)
      const name = file === baseFile ? `base (${file})` : file
      subjects.push(generatorSubject(name, generator, teacher))
    }
    for (const steps of teacherSteps) subjects.push(teacherSubject(teacher, { steps, guidance }))
    const judgements: Judgement[] = []
    const draw = await drawOptions(values, teacher, features, { count: 512, seed: 0 })
    for (const subject of subjects) {
      if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${subject.name}`)
      judgements.push(
        await judge(subject, {
          ...draw,
          references,
          rewards: rewards.map(({ reward }) => reward),
        }),
      )
    }
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
    const table = judgementTable(judgements, judgements[0])
    const json = `${JSON.stringify(judgements, null, 2)}\n`
    if (values.out !== undefined) {
      await makeFolder(values.out)
      await writeFile(path.join(values.out, 'eval.json'), json)
      await writeFile(path.join(values.out, 'eval.md'), `${table}\n`)
    }
    console.log(values.json ? json : table)
    return 0
  } finally {
    for (const reward of rewards) await reward.release()
    for (const generator of generators) generator.dispose()
  }
}

export async function references(args: string[]): Promise<number> {
  const { values } = parsed(args, 'references')
  if (values.help) {
    console.log(referencesUsage)
    return 0
  }
  const { data, out } = values
  if (data === undefined) return fail('ERR_CONFIG', 'references: --data is needed')
  if (out === undefined) return fail('ERR_CONFIG', 'references: --out is needed')
  const steps = numberOf('--steps', values.steps) ?? 50
  const guidance = numberOf('--guidance', values.guidance) ?? 3
  using teacher = await loadNanoZImage(embeddedOr('teacher', values.teacher ?? 'embedded'))
  using features = await loadClip(embeddedOr('features', values.features ?? 'embedded'))
  const draw = await drawOptions(values, teacher, features, { count: 1024, seed: 1 })

  const images = await loadCaptionedImages(data, { size: teacher.config.imageSize })
  const all = Array.from({ length: images.length }, (_, i) => i)
  const chosen = spread(all, Math.min(draw.count, images.length))
  const real = await featuresOf(
    (batch) => features.features(batch),
    (function* () {
      for (let first = 0; first < chosen.length; first += 64) {
        const indices = chosen.slice(first, first + 64)
        using batch = tidy(() => images.batch(indices).mul(0.5).add(0.5))
        yield batch as Tensor<FloatDType>
      }
    })(),
  )
  const samples = await featuresOfSubject(teacherSubject(teacher, { steps, guidance }), draw)
  await saveReferences(
    out,
    { images: real, teacher: samples },
    {
      images: `${chosen.length} of ${images.length} images of the folder`,
      teacher: `${draw.count} samples in ${steps} steps, guidance ${guidance}, seed ${draw.seed}`,
    },
  )
  console.log(out)
  return 0
}

async function drawOptions(
  values: ReturnType<typeof parsed>['values'],
  teacher: NanoZImage,
  features: Clip,
  defaults: { count: number; seed: number },
): Promise<DrawOptions & { count: number; seed: number }> {
  return {
    teacher,
    features,
    prompts: await readPrompts(embeddedOr('prompts', values.prompts ?? 'embedded')),
    count: numberOf('--count', values.count) ?? defaults.count,
    perPrompt: numberOf('--per-prompt', values['per-prompt']) ?? 2,
    seed: numberOf('--seed', values.seed) ?? defaults.seed,
  }
}

function parsed(args: string[], command: 'eval' | 'references') {
  const text = { type: 'string' } as const
  const list = { type: 'string', multiple: true } as const
  const flag = { type: 'boolean' } as const
  const shared = {
    teacher: text,
    features: text,
    prompts: text,
    count: text,
    'per-prompt': text,
    guidance: text,
    seed: text,
    out: text,
    help: flag,
  }
  const own = {
    eval: {
      clip: text,
      base: text,
      'teacher-steps': list,
      reward: list,
      references: text,
      json: flag,
    },
    references: { data: text, steps: text },
  }
  const everything = { ...own.eval, ...own.references, ...shared }
  try {
    const found = parseArgs({
      args,
      allowPositionals: command === 'eval',
      options: everything,
    })
    for (const option of Object.keys(found.values))
      if (!Object.hasOwn({ ...shared, ...own[command] }, option))
        fail('ERR_CONFIG', `${command}: unknown option --${option}`)
    return found
  } catch (error) {
    return fail('ERR_CONFIG', `${command}: ${(error as Error).message}`)
  }
}
