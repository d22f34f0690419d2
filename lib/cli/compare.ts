/** `npx didr compare`: every method of the family at equal budget. */
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { fail } from '../errors.js'
import { compare as compareAll, contenders } from '../evaluation/compare.js'
import { compareChart, compareTable } from '../evaluation/comparison.js'
import { type AlignConfig, resolveAlignConfig } from '../train/align.js'
import { type Partly, readConfig } from '../train/config.js'
import { progressLine } from '../train/progress.js'
import { abortOnInterrupt, interrupted } from './interrupt.js'
import { defined, numberOf } from './options.js'

const usage = `Usage: didr compare --out <folder> [options]

Aligns the base generator by every objective and estimator, each with several temperatures, and compares the results with
the base and the teacher: <folder>/compare.json, compare.md and, for each reference, compare-<reference>.svg. What is done
is kept in <folder>/runs, so that the command, called again, goes on.

Options:
  --out <folder>
  --steps <n>         of every run; default 100
  --batch-size <n>    default 16
  --seeds <n>         runs of each; default 1
  --count <n>         images of each that are judged; default 512
  --only <method>     of the methods in the table those that begin with this; more of them for more
  --config <file>     of every run, as for \`train\`, as JSON; the options here come before it
  --help              this text

Ctrl-C saves a checkpoint and stops with code 130; a second one stops at once.`

export async function compare(args: string[]): Promise<number> {
  const values = parsed(args)
  if (values.help) {
    console.log(usage)
    return 0
  }
  const { out, only } = values
  if (out === undefined) return fail('ERR_CONFIG', 'compare: --out is needed')
  const config = {
    steps: 100,
    batchSize: 16,
    rewards: resolveAlignConfig().rewards,
    ...(values.config === undefined ? {} : await readConfig(values.config)),
    ...defined({
      steps: numberOf('--steps', values.steps),
      batchSize: numberOf('--batch-size', values['batch-size']),
    }),
  } as Partly<AlignConfig>
  const chosen = contenders().filter(
    ({ method }) => only === undefined || only.some((start) => method.startsWith(start)),
  )
  if (chosen.length === 0) fail('ERR_CONFIG', `--only: no method begins with ${only?.join(' or ')}`)
  const line = progressLine(process.stderr, { metrics: ['reward', 'klToTarget'] })
  let running = ''
  const results = await compareAll({
    out,
    config,
    contenders: chosen,
    signal: abortOnInterrupt('saving a checkpoint'),
    onProgress: (run, progress) => {
      if (run !== running) process.stderr.write(`${run}\n`)
      running = run
      line(progress)
    },
    ...defined({
      seeds: numberOf('--seeds', values.seeds),
      count: numberOf('--count', values.count),
    }),
  })
  if (results === undefined) return interrupted
  const table = compareTable(results)
  await writeFile(path.join(out, 'compare.json'), `${JSON.stringify(results, null, 2)}\n`)
  await writeFile(path.join(out, 'compare.md'), `${table}\n`)
  for (const reference of Object.keys(results[0]?.references ?? {}))
    await writeFile(path.join(out, `compare-${reference}.svg`), compareChart(results, reference))
  console.log(table)
  return 0
}

function parsed(args: string[]) {
  const text = { type: 'string' } as const
  try {
    return parseArgs({
      args,
      options: {
        out: text,
        steps: text,
        'batch-size': text,
        seeds: text,
        count: text,
        only: { type: 'string', multiple: true },
        config: text,
        help: { type: 'boolean' },
      },
    }).values
  } catch (error) {
    return fail('ERR_CONFIG', `compare: ${(error as Error).message}`)
  }
}
