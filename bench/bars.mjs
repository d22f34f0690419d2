// What the package is meant to reach (bars.json), and whether it does, from the newest saved results.
//
//   npm run bench:bars -- [--ops FILE] [--peers FILE] [--check]
//
//   --ops, --peers   results of `npm run bench` and `npm run bench:peers`. Default: the newest in bench/results/
//   --check          end with 1 where a bar is missed
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { benchFolder } from './harness.mjs'
import { newestResults } from './machine.mjs'
import { barsTable, judge } from './report/bars.mjs'

const { values: options } = parseArgs({
  options: {
    ops: { type: 'string' },
    peers: { type: 'string' },
    check: { type: 'boolean', default: false },
  },
})

const bars = JSON.parse(readFileSync(path.join(benchFolder, 'bars.json'), 'utf8'))
const rowsOf = (kind) => {
  const file = options[kind]
  const results = file === undefined ? newestResults(kind) : JSON.parse(readFileSync(file, 'utf8'))
  if (results === undefined)
    console.error(
      `no results of ${kind} are saved (npm run bench${kind === 'ops' ? '' : ':peers'} -- --save)`,
    )
  else console.log(`${kind}: ${results.machine.date}, ${results.machine.processor}`)
  return results?.rows ?? []
}
const results = { ops: rowsOf('ops'), peers: rowsOf('peers') }
const judged = bars.map((bar) => judge(bar, results))
console.log(`\n${barsTable(judged)}`)
if (options.check && judged.some(({ verdict }) => verdict === 'miss')) process.exitCode = 1
