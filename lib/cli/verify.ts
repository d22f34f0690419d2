/** `npx didr verify`: the method on a problem whose answer is known. */
import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { checkInteger } from '../checks.js'
import { type Objective, objectives } from '../didr/config.js'
import { fail } from '../errors.js'
import { makeFolder } from '../io/files.js'
import { paretoChart, ringChart, trackingChart } from '../verify/charts.js'
import { type ScoreError, scoreErrors } from '../verify/scores.js'
import {
  type Measurement,
  type RingEstimator,
  ringEstimators,
  type VerifyReport,
  verify as verifyOnce,
} from '../verify/verify.js'
import { deviceOf, numberOf } from './options.js'

const usage = `Usage: didr verify [options]

Trains a small generator on a ring of eight Gaussians with a quadratic reward, from a distilled start, and compares its
samples with the closed form of the target: KL(p_theta || p*) and KL(p_theta || p_ref) in nats, mean reward, share of
samples at the wrong mode.

  --objective NAME    ${objectives.join(' | ')}; default didr
  --estimator NAME    ${Object.keys(ringEstimators).join(' | ')}; default exact
  --beta X            temperature of the reward; default 1
  --steps N           updates of the generator; default 2500
  --batch N           samples in a batch; default 512
  --seed N            default 0
  --device NAME       cpu (default), cuda, cuda:1, or auto; with --all and --pareto, too
  --all               every objective and estimator, as a table
  --seeds N           of the table: seeds 0 to N - 1; default 3
  --pareto            reward against KL to the reference, didr and diff-instruct++ over a range of temperatures
  --scores            bias and spread of the estimators by noise level
  --out FOLDER        write results (JSON) and plots (SVG) there
  --json              print JSON
  --help              this text`

const mainFile = fileURLToPath(new URL('./main.js', import.meta.url))

interface Row {
  objective: Objective
  estimator: RingEstimator
  beta: number
}

/** The table of `--all`. */
const rows: Omit<Row, 'beta'>[] = [
  ...(Object.keys(ringEstimators) as RingEstimator[]).map(
    (estimator) => ({ objective: 'didr', estimator }) as const,
  ),
  ...objectives
    .filter((objective) => objective !== 'didr')
    .map((objective) => ({ objective, estimator: 'exact' }) as const),
]
const defaultSeeds = 3

/** Temperatures of the two fronts; those of diff-instruct++ reach the same rewards. */
const fronts: Partial<Record<Objective, readonly number[]>> = {
  didr: [0.5, 1, 2, 5],
  'diff-instruct++': [10, 20, 40, 80],
}

export async function verify(args: string[]): Promise<number> {
  const options = parse(args)
  if (options.help) {
    console.log(usage)
    return 0
  }
  const folder = options.out
  if (folder !== undefined) await makeFolder(folder)
  const write = async (name: string, text: string) => {
    if (folder === undefined) return
    await writeFile(path.join(folder, name), text)
    console.error(`wrote ${path.join(folder, name)}`)
  }
  const shared = ['steps', 'batch', 'device'] as const
  const passedOn = shared.flatMap((name) =>
    options[name] === undefined ? [] : [`--${name}`, options[name]],
  )

  if (options.scores) {
    const errors = await scoreErrors({ ...given('beta', numberOf('--beta', options.beta)) })
    await write('scores.json', json(errors))
    console.log(options.json ? json(errors) : scoreTable(errors))
  } else if (options.all) {
    const beta = numberOf('--beta', options.beta) ?? 1
    const seeds = numberOf('--seeds', options.seeds) ?? defaultSeeds
    checkInteger('--seeds', seeds, 1)
    const jobs = rows.flatMap((row) =>
      Array.from({ length: seeds }, (_, seed) => ({ ...row, beta, seed })),
    )
    const reports = await runAll(jobs, passedOn)
    await write('table.json', json(reports))
    await write('table.md', `${table(reports)}\n`)
    console.log(options.json ? json(reports) : table(reports))
  } else if (options.pareto) {
    const jobs = Object.entries(fronts).flatMap(([objective, betas]) =>
      betas.map((beta) => ({
        objective: objective as Objective,
        estimator: 'exact' as const,
        beta,
        seed: numberOf('--seed', options.seed) ?? 0,
      })),
    )
    const reports = await runAll(jobs, passedOn)
    await write('pareto.json', json(reports))
    await write('pareto.svg', paretoChart(reports))
    console.log(options.json ? json(reports) : table(reports))
  } else {
    const steps = numberOf('--steps', options.steps)
    const report = await verifyOnce({
      ...given('objective', options.objective as Objective | undefined),
      ...given('estimator', options.estimator as RingEstimator | undefined),
      ...given('beta', numberOf('--beta', options.beta)),
      ...given('steps', steps),
      ...given('batchSize', numberOf('--batch', options.batch)),
      ...given('seed', numberOf('--seed', options.seed)),
      device: await deviceOf(options.device),
      ...(folder === undefined ? {} : { curveEvery: 100, keepSamples: true }),
      onProgress: (step, of) => {
        if (process.stderr.isTTY) process.stderr.write(`\r${step} of ${of} steps`)
      },
    })
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
    const { samples, ...rest } = report
    await write('verify.json', json(rest))
    if (samples !== undefined) await write('samples.svg', ringChart(report.settings, samples))
    await write('tracking.svg', trackingChart(report))
    console.log(options.json ? json(rest) : table([rest]))
  }
  return 0
}

function parse(args: string[]) {
  try {
    const text = { type: 'string' } as const
    const flag = { type: 'boolean' } as const
    return parseArgs({
      args,
      options: {
        objective: text,
        estimator: text,
        beta: text,
        steps: text,
        batch: text,
        seed: text,
        device: text,
        seeds: text,
        out: text,
        all: flag,
        pareto: flag,
        scores: flag,
        json: flag,
        help: flag,
      },
    }).values
  } catch (error) {
    return fail('ERR_CONFIG', `verify: ${(error as Error).message}`)
  }
}

function given<K extends string, V>(name: K, value: V | undefined): { [key in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [key in K]: V })
}

type Report = Omit<VerifyReport, 'samples'>

/** One process of one thread for each core: the networks are too small to share among threads. */
async function runAll(
  jobs: readonly (Row & { seed: number })[],
  passedOn: string[],
): Promise<Report[]> {
  const reports: Report[] = []
  const queue = [...jobs.entries()]
  const work = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [i, { objective, estimator, beta, seed }] = next
      const fields = { objective, estimator, beta: String(beta), seed: String(seed) }
      const args = Object.entries(fields).flatMap(([name, value]) => [`--${name}`, value])
      reports[i] = JSON.parse(await runOne([...args, ...passedOn])) as Report
      const { klToTarget, seconds } = reports[i] as Report
      console.error(
        `${objective} ${estimator} beta ${beta} seed ${seed}: ${klToTarget.toFixed(3)} nats to p*, ${seconds.toFixed(0)} s`,
      )
    }
  }
  await Promise.all(Array.from({ length: os.availableParallelism() }, work))
  return reports
}

function runOne(args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [mainFile, 'verify', '--json', ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, DIDR_NUM_THREADS: '1' },
    })
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
    child.on('error', reject)
    child.on('close', (status) => {
      if (status === 0) resolve(output)
      else reject(new Error(`verify ${args.join(' ')}: exit status ${status}`))
    })
  })
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`
}

/** Means over seeds, with the range behind them. */
function table(reports: readonly Report[]): string {
  const groups = new Map<string, Report[]>()
  for (const report of reports) {
    const { objective, estimator, beta } = report.settings
    const name = `${objective}${objective === 'didr' ? `, ${estimator}` : ''}, β = ${beta}`
    groups.set(name, [...(groups.get(name) ?? []), report])
  }
  const cell = (values: number[]) => {
    const mean = (values.reduce((sum, value) => sum + value, 0) / values.length).toFixed(2)
    if (values.length === 1) return mean
    return `${mean} (${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)})`
  }
  const line = (name: string, of: readonly Measurement[]) =>
    `| ${[
      name,
      cell(of.map(({ klToTarget }) => klToTarget)),
      cell(of.map(({ klToReference }) => klToReference)),
      cell(of.map(({ meanReward }) => meanReward)),
      cell(of.map(({ modeWeightError }) => modeWeightError)),
    ].join(' | ')} |`
  const lines = [
    '| objective | KL to p* | KL to p_ref | mean reward | samples at the wrong mode |',
    '|---|---|---|---|---|',
    ...Array.from(groups, ([name, group]) => line(name, group)),
  ]
  for (const beta of new Set(reports.map(({ settings }) => settings.beta))) {
    const of = reports.filter(({ settings }) => settings.beta === beta)
    lines.push(line(`exact samples of p*, β = ${beta}`, [(of[0] as Report).target]))
  }
  const starts = new Map(reports.map((report) => [report.settings.seed, report.start]))
  lines.push(line('the start (against the first target)', [...starts.values()]))
  lines.push(line('exact samples of p_ref', [(reports[0] as Report).reference]))
  return lines.join('\n')
}

/** Rows are estimators, columns noise levels. */
function scoreTable(errors: readonly ScoreError[]): string {
  const times = [...new Set(errors.map(({ t }) => t))]
  const estimators = [...new Set(errors.map(({ estimator }) => estimator))]
  return [
    'Bias / standard deviation, relative to the exact score:',
    `| estimator | ${times.map((t) => `t = ${t}`).join(' | ')} |`,
    `|---|${times.map(() => '---|').join('')}`,
    ...estimators.map((estimator) => {
      const cells = times.map((time) => {
        const error = errors.find(({ estimator: name, t }) => name === estimator && t === time)
        return `${error?.bias.toFixed(2)} / ${error?.deviation.toFixed(2)}`
      })
      return `| ${estimator} | ${cells.join(' | ')} |`
    }),
  ].join('\n')
}
