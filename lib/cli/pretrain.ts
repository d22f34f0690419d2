/** `npx didr pretrain`: the models that the alignment starts from. */
import path from 'node:path'
import { parseArgs } from 'node:util'
import { checkOneOf } from '../checks.js'
import { fail } from '../errors.js'
import { readConfig } from '../train/config.js'
import { pretrainAutoencoder } from '../train/pretrain-autoencoder.js'
import { pretrainClip } from '../train/pretrain-clip.js'
import type { PretrainOptions } from '../train/pretrain-config.js'
import { pretrainTeacher } from '../train/pretrain-teacher.js'
import { progressLine } from '../train/progress.js'
import { abortOnInterrupt, interrupted } from './interrupt.js'
import { defined, numberOf, savedConfig } from './options.js'

const usage = `Usage: didr pretrain <model> --data <folder> --out <run> [options]

Models, in the order in which they are needed:
  autoencoder   images to latents and back; writes <run>/autoencoder.safetensors
  teacher       latents from noise and words, by flow matching; writes <run>/teacher.safetensors
  clip          how well an image and a prompt match; writes <run>/clip.safetensors

Options:
  --data <folder>       images and prompts: a folder with a JSON-lines file of
                        {"image": "heart.png", "prompt": "red heart"}, or Twemoji graphics (CC-BY 4.0):
                        npm install --no-save emoji-datasource-twitter, then node_modules/emoji-datasource-twitter
  --out <run>           the run's folder: config.json, metrics.jsonl, checkpoints/, samples/, event files
                        for TensorBoard
  --autoencoder <file>  for the teacher: what \`pretrain autoencoder\` wrote
  --steps <n>           how many in all
  --batch-size <n>
  --seed <n>
  --device <name>       cpu (default), cuda, cuda:1, or auto: a GPU where there is one
  --config <file>       any field of the configuration, as JSON; the options here come before it
  --resume              go on from the run's last checkpoint, with its configuration
  --help                this text

Ctrl-C saves a checkpoint and stops with code 130; a second one stops at once.`

const models = ['autoencoder', 'teacher', 'clip'] as const

export async function pretrain(args: string[]): Promise<number> {
  const { values, positionals } = parsed(args)
  if (values.help) {
    console.log(usage)
    return 0
  }
  const [model, ...more] = positionals
  checkOneOf('pretrain: the model', model, models)
  if (more.length > 0)
    fail('ERR_CONFIG', `pretrain: expected one model, got ${positionals.join(' ')}`)
  const { out, resume = false } = values
  if (out === undefined) fail('ERR_CONFIG', 'pretrain: --out is needed: the folder of the run')

  const given = {
    ...(resume ? await savedConfig(out) : {}),
    ...(values.config === undefined ? {} : await readConfig(values.config)),
    ...defined({
      data: values.data,
      autoencoder: values.autoencoder,
      steps: numberOf('--steps', values.steps),
      batchSize: numberOf('--batch-size', values['batch-size']),
      seed: numberOf('--seed', values.seed),
      device: values.device,
    }),
  }
  const options: PretrainOptions = {
    out,
    resume,
    signal: abortOnInterrupt('saving a checkpoint'),
    onProgress: progressLine(process.stderr),
  }
  const finished = await run(model, given, options)
  if (!finished) return interrupted
  console.log(path.join(out, `${model}.safetensors`))
  return 0
}

async function run(
  model: (typeof models)[number],
  given: object,
  options: PretrainOptions,
): Promise<boolean> {
  if (model === 'autoencoder') return pretrainAutoencoder(given, options)
  if (model === 'teacher') return pretrainTeacher(given, options)
  const accuracy = await pretrainClip(given, options)
  if (accuracy === undefined) return false
  const percent = (share: number) => (Number.isNaN(share) ? 'none' : `${(100 * share).toFixed(1)}%`)
  console.log(`nearest caption is the image's own: ${percent(accuracy.kept)} of those trained on,`)
  console.log(`${percent(accuracy.heldOut)} of the held-out combinations`)
  return true
}

function parsed(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        data: { type: 'string' },
        out: { type: 'string' },
        autoencoder: { type: 'string' },
        steps: { type: 'string' },
        'batch-size': { type: 'string' },
        seed: { type: 'string' },
        device: { type: 'string' },
        config: { type: 'string' },
        resume: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    })
  } catch (error) {
    return fail('ERR_CONFIG', `pretrain: ${(error as Error).message}`)
  }
}
