/** `npx didr train` and `npx didr distill`: the main loop. */
import path from 'node:path'
import { parseArgs } from 'node:util'
import { fail } from '../errors.js'
import { type AlignConfig, align, distillation } from '../train/align.js'
import type { Partly } from '../train/config.js'
import { readConfig } from '../train/config.js'
import { progressLine } from '../train/progress.js'
import { abortOnInterrupt, interrupted } from './interrupt.js'
import { defined, numberOf, savedConfig } from './options.js'

const usageOf = (command: 'train' | 'distill') => `Usage: didr ${command} --out <run> [options]

${
  command === 'train'
    ? 'Aligns a one-step text-to-image generator with a reward.'
    : 'Makes a one-step text-to-image generator from a teacher of many steps, by diff-instruct with guidance.'
}

Options:
  --out <run>            the run's folder: config.json, metrics.jsonl, events for TensorBoard, checkpoints/, samples/ and,
                         at the end, generator.safetensors
  --teacher <file>       what \`pretrain teacher\` wrote; default: the one that comes with the package
  --model <folder>       Z-Image as the teacher, with --embeddings: see docs/z-image.md
  --embeddings <file>    its prompts and their embeddings
  --generator <file>     what it starts from: the file of another run, \`embedded\`, or \`teacher\`;
                         default ${command === 'train' ? 'embedded' : 'teacher'}
  --prompts <file>       one a line; default: those that come with the package
  --reward <name>        clip, colourfulness, sharpness, a module (.ts, .js) or an ONNX model (.onnx); more of them are
                         summed; with a weight: --reward clip=2${command === 'train' ? '; default clip and colourfulness' : ''}
  --clip <file>          the CLIP that the reward clip is; default: the one that comes with the package
  --objective <name>     didr, diff-instruct, diff-instruct++, diff-instruct*, dmd2, reward
  --estimator <name>     of the diffused reward score: tweedie, drp, damped, particles
  --beta <x>             temperature of the reward: lower follows it further
  --guidance <g>         of the teacher
  --steps <n>            how many in all
  --batch-size <n>
  --seed <n>
  --device <name>        cpu (default), cuda, cuda:1, or auto: a GPU where there is one
  --config <file>        any field of the configuration, as JSON; the options here come before it
  --resume               go on from the run's last checkpoint, with its configuration
  --help                 this text

Ctrl-C saves a checkpoint and stops with code 130; a second one stops at once.`

export async function train(command: 'train' | 'distill', args: string[]): Promise<number> {
  const values = parsed(command, args)
  if (values.help) {
    console.log(usageOf(command))
    return 0
  }
  const { out, resume = false } = values
  if (out === undefined) fail('ERR_CONFIG', `${command}: --out is needed: the folder of the run`)

  if (values.model !== undefined && values.teacher !== undefined)
    fail('ERR_CONFIG', `${command}: --model is a teacher, too; expected one of them`)

  const given = {
    ...(command === 'distill' ? distillation : {}),
    ...(resume ? await savedConfig(out) : {}),
    ...(values.config === undefined ? {} : await readConfig(values.config)),
    ...defined({
      teacher: values.model ?? values.teacher,
      zImage: values.embeddings === undefined ? undefined : { embeddings: values.embeddings },
      generator: values.generator,
      prompts: values.prompts,
      clip: values.clip,
      objective: values.objective,
      rewards: values.reward?.map(partOf),
      drs: values.estimator === undefined ? undefined : { estimator: values.estimator },
      beta: numberOf('--beta', values.beta),
      guidance: numberOf('--guidance', values.guidance),
      steps: numberOf('--steps', values.steps),
      batchSize: numberOf('--batch-size', values['batch-size']),
      seed: numberOf('--seed', values.seed),
      device: values.device,
    }),
  } as Partly<AlignConfig>
  const finished = await align(given, {
    out,
    resume,
    signal: abortOnInterrupt('saving a checkpoint'),
    onProgress: progressLine(process.stderr, {
      metrics: ['reward', 'klToTarget', 'klToReference', 'assistantLoss'],
    }),
  })
  if (!finished) return interrupted
  console.log(path.join(out, 'generator.safetensors'))
  return 0
}

/** `clip`, or with a weight `clip=2`. */
function partOf(text: string): { reward: string; weight?: number } {
  const [, reward, weight] = /^(.+?)(?:=([^=]*))?$/.exec(text) ?? []
  if (reward === undefined) return fail('ERR_CONFIG', '--reward: expected a name, got ""')
  return {
    reward,
    ...defined({ weight: numberOf(`--reward ${reward}: its weight`, weight) }),
  }
}

function parsed(command: string, args: string[]) {
  const text = { type: 'string' } as const
  try {
    return parseArgs({
      args,
      options: {
        out: text,
        teacher: text,
        model: text,
        embeddings: text,
        generator: text,
        prompts: text,
        clip: text,
        reward: { type: 'string', multiple: true },
        objective: text,
        estimator: text,
        beta: text,
        guidance: text,
        steps: text,
        'batch-size': text,
        seed: text,
        device: text,
        config: text,
        resume: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    }).values
  } catch (error) {
    return fail('ERR_CONFIG', `${command}: ${(error as Error).message}`)
  }
}
