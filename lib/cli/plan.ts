/** `npx didr plan`: what aligning Z-Image takes of a GPU's memory, before there is one. */
import { parseArgs } from 'node:util'
import { fail } from '../errors.js'
import { readConfig } from '../train/config.js'
import { type MemoryPlan, type PlanConfig, planMemory } from '../train/plan.js'
import { numberOf } from './options.js'

const usage = `Usage: didr plan [options]

The memory of one step of DIDR on Z-Image: a frozen base that teacher, assistant and generator share, with a LoRA for
each of the last two. The step is run as it is on tensors without elements, so the figures are those of a real step, to
the byte. Not in them: the reward's own networks, the driver's context, gaps between blocks.

Options:
  --config <file>      JSON with any of transformer and autoencoder (fields of diffusers' config.json), dtype,
                       captionTokens, lora, didr (fields of createDidr); default the published Z-Image, rank 16
  --batch <n>          samples in a batch; default 1
  --size <n>           edge of the images in pixels; default 1024
  --gpu <memory>       80GB, 79.6GiB, ...: says whether it is enough, and ends with code 1 if it is not
  --no-checkpointing   that question for a step that keeps all activations
  --json               the figures in bytes
  --help               this text`

export async function plan(args: string[]): Promise<number> {
  const values = parsed(args)
  if (values.help) {
    console.log(usage)
    return 0
  }
  const config: PlanConfig = values.config === undefined ? {} : await readConfig(values.config)
  const batchSize = numberOf('--batch', values.batch) ?? 1
  const size = numberOf('--size', values.size) ?? 1024
  const available = values.gpu === undefined ? undefined : bytesOf('--gpu', values.gpu)
  const kept = values['no-checkpointing'] ?? false

  const of = (checkpointing: boolean) => planMemory(config, { batchSize, size, checkpointing })
  const plans = { checkpointing: await of(true), noCheckpointing: await of(false) }
  const { peak } = kept ? plans.noCheckpointing : plans.checkpointing
  if (values.json) console.log(JSON.stringify({ batchSize, size, available, ...plans }, null, 2))
  else {
    console.log(`batch ${batchSize}, ${size} x ${size} pixels\n`)
    print([
      ['', 'with checkpointing', 'without'],
      ...rows.map(([field, name]) => [
        name,
        gibibytes(plans.checkpointing[field]),
        gibibytes(plans.noCheckpointing[field]),
      ]),
    ])
    if (available !== undefined) console.log(`\n${verdict(peak, available, values.gpu, kept)}`)
  }
  return available !== undefined && peak > available ? 1 : 0
}

const rows: [field: keyof MemoryPlan, name: string][] = [
  ['transformer', 'transformer, shared'],
  ['autoencoder', 'autoencoder'],
  ['lora', 'LoRA, two'],
  ['optimizer', 'optimisers, averages'],
  ['inputs', 'captions, tables'],
  ['activations', 'activations, gradients'],
  ['peak', 'peak'],
]

function print(table: readonly (readonly string[])[]): void {
  for (const [name, ...cells] of table)
    console.log(`${name?.padEnd(24)}${cells.map((cell) => cell.padStart(20)).join('')}`)
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`
}

function verdict(peak: number, available: number, gpu: string | undefined, kept: boolean): string {
  const rest = available - peak
  const answer = rest < 0 ? 'does not fit' : 'fits'
  return (
    `${answer} ${gpu} ${kept ? 'without' : 'with'} checkpointing: ${gibibytes(peak)} of ${gibibytes(available)}` +
    (rest < 0 ? '' : `, which leaves ${gibibytes(rest)} for the reward and the driver`)
  )
}

/** GB are 10^9 bytes, GiB 2^30: a card sold as 80GB has a little more than the former. */
function bytesOf(option: string, text: string): number {
  const [, digits, unit] = /^(\d+(?:\.\d+)?) *(GB|GiB)$/i.exec(text.trim()) ?? []
  if (digits === undefined)
    return fail(
      'ERR_CONFIG',
      `${option}: expected a number of GB or GiB, got ${JSON.stringify(text)}`,
    )
  return Number(digits) * (unit?.toLowerCase() === 'gb' ? 1e9 : 2 ** 30)
}

function parsed(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        config: { type: 'string' },
        batch: { type: 'string' },
        size: { type: 'string' },
        gpu: { type: 'string' },
        'no-checkpointing': { type: 'boolean' },
        json: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    }).values
  } catch (error) {
    return fail('ERR_CONFIG', `plan: ${(error as Error).message}`)
  }
}
