/** `npx didr sample`: images from prompts. */
import { parseArgs } from 'node:util'
import { checkInteger } from '../checks.js'
import { writeImages } from '../data/images.js'
import { fail } from '../errors.js'
import { loadNanoZImage } from '../models/nano-z-image.js'
import type { Tensor } from '../tensor/tensor.js'
import { numberOf } from './options.js'

const usage = `Usage: didr sample --model <file> --prompt "red heart" --out <image> [options]

Options:
  --model <file>      what \`pretrain teacher\` wrote
  --prompt <text>     more of them give a grid
  --count <n>         images of each prompt; default 1
  --out <image>       .png, .jpg or .webp
  --steps <n>         of the sampler; default 50
  --guidance <g>      default 3; 1 is none
  --shift <s>         above 1 spends more steps at high noise; default 3
  --seed <n>          default 0
  --columns <n>       images in a row of the grid
  --scale <n>         each pixel becomes a square of this edge; default 1
  --help              this text`

export async function sample(args: string[]): Promise<number> {
  const values = parsed(args)
  if (values.help) {
    console.log(usage)
    return 0
  }
  const { model: file, prompt: prompts, out } = values
  if (file === undefined) return fail('ERR_CONFIG', 'sample: --model is needed')
  if (prompts === undefined) return fail('ERR_CONFIG', 'sample: --prompt is needed')
  if (out === undefined) return fail('ERR_CONFIG', 'sample: --out is needed')
  const number = (name: 'count' | 'steps' | 'guidance' | 'shift' | 'seed' | 'columns' | 'scale') =>
    numberOf(`--${name}`, values[name])
  const count = number('count') ?? 1
  checkInteger('--count', count, 1, 4096)
  const [columns, scale] = [number('columns'), number('scale')]

  using model = await loadNanoZImage(file)
  using images = await model.generate(
    prompts.flatMap((prompt) => new Array<string>(count).fill(prompt)),
    {
      steps: number('steps') ?? 50,
      guidance: number('guidance') ?? 3,
      shift: number('shift') ?? 3,
      seed: number('seed') ?? 0,
    },
  )
  await writeImages(out, images as Tensor<'float32'>, {
    ...(columns === undefined ? {} : { columns }),
    ...(scale === undefined ? {} : { scale }),
  })
  console.log(out)
  return 0
}

function parsed(args: string[]) {
  const text = { type: 'string' } as const
  try {
    return parseArgs({
      args,
      options: {
        model: text,
        prompt: { type: 'string', multiple: true },
        count: text,
        out: text,
        steps: text,
        guidance: text,
        shift: text,
        seed: text,
        columns: text,
        scale: text,
        help: { type: 'boolean' },
      },
    }).values
  } catch (error) {
    return fail('ERR_CONFIG', `sample: ${(error as Error).message}`)
  }
}
