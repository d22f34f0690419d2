// The README's section on speed, from the newest saved results.
//
//   npm run bench:table [-- --write-readme] [--ops FILE] [--peers FILE]
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { newestResults, root } from './machine.mjs'
import { figures, withFigures } from './report/readme.mjs'

const { values: options } = parseArgs({
  options: {
    'write-readme': { type: 'boolean', default: false },
    ops: { type: 'string' },
    peers: { type: 'string' },
  },
})
const resultsOf = (kind) =>
  options[kind] === undefined
    ? newestResults(kind)
    : JSON.parse(readFileSync(options[kind], 'utf8'))

const peers = resultsOf('peers')
if (peers === undefined)
  throw new Error('bench/results: expected results of npm run bench:peers -- --save, got none')
const text = figures({ ops: resultsOf('ops'), peers })
if (options['write-readme']) {
  const file = path.join(root, 'README.md')
  writeFileSync(file, withFigures(readFileSync(file, 'utf8'), text))
  console.log(`written: ${file}`)
} else console.log(text)
