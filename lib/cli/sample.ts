/** `npx didr sample`: images from prompts. */
import { parseArgs } from 'node:util'
import { checkInteger } from '../checks.js'
import { writeImages } from '../data/images.js'
import { fail } from '../errors.js'
import { embeddedOr } from '../models/embedded.js'
import { loadLoraGenerator } from '../models/lora-generator.js'
import { loadNanoZImage } from '../models/nano-z-image.js'
import type { Tensor } from '../tensor/tensor.js'
import { defined, deviceOf, numberOf } from './options.js'

const usage = `Usage: didr sample --prompt "red heart" --out <image> [options]

One step by the generator; with --steps or --guidance, that many steps by its teacher.

Options:
  --prompt <text>      more of them give a grid
  --count <n>          images of each prompt; default 1
  --out <image>        .png, .jpg or .webp
  --generator <file>   what \`train\` or \`distill\` wrote; default: the one that comes with the package
  --teacher <file>     what \`pretrain teacher\` wrote; default: the one that comes with the package
  --steps <n>          of the teacher's sampler; default 50 where the teacher is asked
  --guidance <g>       of the teacher; default 3; 1 is none
  --shift <s>          above 1 spends more of the steps at high noise; default 3
  --seed <n>           default 0
  --device <name>      cpu (default), cuda, cuda:1, or auto: a GPU where there is one
  --columns <n>        images in a row of the grid
  --scale <n>          each pixel becomes a square of this edge; default 1
  --help               this text`

export async function sample(args: string[]): Promise<number> {
  const values = parsed(args)
  if (values.help) {
    console.log(usage)
    return 0
  }
  const { prompt: prompts, out } = values
  if (prompts === undefined) return fail('ERR_CONFIG', 'sample: --prompt is needed')
  if (out === undefined) return fail('ERR_CONFIG', 'sample: --out is needed')
  const number = (name: 'count' | 'steps' | 'guidance' | 'shift' | 'seed' | 'columns' | 'scale') =>
    numberOf(`--${name}`, values[name])
  const count = number('count') ?? 1
  checkInteger('--count', count, 1, 4096)
  const sampler = defined({
    steps: number('steps'),
    guidance: number('guidance'),
    shift: number('shift'),
  })
  const isOneStep = Object.keys(sampler).length === 0
  if (!isOneStep && values.generator !== undefined)
    fail(
      'ERR_CONFIG',
      'sample: --generator takes one step; --steps, --guidance and --shift are for the teacher',
    )

  const all = prompts.flatMap((prompt) => new Array<string>(count).fill(prompt))
  const seed = number('seed') ?? 0
  const device = await deviceOf(values.device)
  using teacher = await loadNanoZImage(embeddedOr('teacher', values.teacher ?? 'embedded'), {
    device,
  })
  if (isOneStep) {
    const file = embeddedOr('generator', values.generator ?? 'embedded')
    using generator = await loadLoraGenerator(file, teacher)
    using images = generator.generate(teacher.encodePrompts(all), { seed })
    await write(images as Tensor<'float32'>)
  } else {
    using images = await teacher.generate(all, { ...sampler, seed })
    await write(images as Tensor<'float32'>)
  }
  console.log(out)
  return 0

  async function write(images: Tensor<'float32'>): Promise<void> {
    const grid = defined({ columns: number('columns'), scale: number('scale') })
    await writeImages(out as string, images, grid)
  }
}

function parsed(args: string[]) {
  const text = { type: 'string' } as const
  try {
    return parseArgs({
      args,
      options: {
        prompt: { type: 'string', multiple: true },
        count: text,
        out: text,
        generator: text,
        teacher: text,
        steps: text,
        guidance: text,
        shift: text,
        seed: text,
        device: text,
        columns: text,
        scale: text,
        help: { type: 'boolean' },
      },
    }).values
  } catch (error) {
    return fail('ERR_CONFIG', `sample: ${(error as Error).message}`)
  }
}
