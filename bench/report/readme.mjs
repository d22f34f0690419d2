// @ts-check
// The README's section on speed. Pure, so that it is tested.
import { kernelPeersTable, trainingPeersTable } from './peers-table.mjs'
import { scalingTable } from './rows.mjs'

/** @typedef {import('./rows.mjs').Row} Row */
/** @typedef {import('./peers-table.mjs').PeerRow} PeerRow */

const begin = '<!-- figures:begin -->'
const end = '<!-- figures:end -->'

/** How the README calls the training steps. */
const names = {
  mlp: 'MLP 256-1024-1024-256, batch 256',
  s3dit: 'nano S3-DiT, batch 32',
  autoencoder: 'autoencoder, 16 images of 64 × 64',
  ring: 'didrStep of `verify`, exact score',
  nano: 'didrStep, nano Z-Image, low-rank additions',
  nanoFull: 'didrStep, nano Z-Image, all weights',
}

/**
 * @typedef {object} Results
 * @property {{ date: string, processor: string, cores: number, node: string, revision?: string }} machine
 */

/** @param {Results['machine']} machine */
function taken({ date, processor, cores, node, revision }) {
  return `${date.slice(0, 10)}, ${processor}, ${cores} cores, Node ${node}, revision ${revision ?? 'unknown'}`
}

/**
 * @param {{ ops: (Results & { rows: readonly Row[] }) | undefined,
 *   peers: Results & { rows: readonly PeerRow[], versions: Record<string, Record<string, unknown>>,
 *     absent: Record<string, string> } }} results
 */
export function figures({ ops, peers }) {
  const versions = Object.entries(peers.versions).map(([name, about]) => {
    const version = Object.entries(about).find(([key]) => !['blas', 'node'].includes(key))?.[1]
    return name === 'didr' ? undefined : `${name} ${version}`
  })
  const most = Math.max(...peers.rows.map(({ threads }) => threads))
  const trainings = peers.rows
    .filter(({ training, threads }) => training && threads === most)
    .map((row) => ({
      ...row,
      task: names[/** @type {keyof typeof names} */ (row.task)] ?? row.task,
    }))
  const kernels = peers.rows.filter(({ training }) => !training)
  const absent = Object.keys(peers.absent)
  const parts = [
    `Medians of interleaved turns, beside ${versions.filter((text) => text !== undefined).join(', ')}` +
      `${absent.length > 0 ? ` (not there: ${absent.join(', ')})` : ''}; \`npm run bench:peers\`, ${taken(peers.machine)}. ` +
      'Results agree to 1e-3 before anything is timed. Much of the difference to PyTorch is its BLAS: Debian’s OpenBLAS ' +
      'does not know new processors and takes its slowest kernels, where didr tells its own which to take.',
  ]
  if (trainings.length > 0)
    parts.push('A training step (forward, backward, AdamW):', trainingPeersTable(trainings))
  if (kernels.length > 0)
    parts.push(
      'The fused kernels, per element, beside a plain C loop over the same bytes:',
      kernelPeersTable(kernels),
    )
  if (ops !== undefined) {
    const shown = ops.rows.filter(({ family, dtype }) => family === 'didr' && dtype === 'float32')
    if (shown.length > 0)
      parts.push(
        `Per element over sizes and threads (\`npm run bench\`, ${taken(ops.machine)}):`,
        scalingTable(shown),
      )
  }
  return parts.join('\n\n')
}

/**
 * @param {string} readme
 * @param {string} text
 * @throws {Error} without the two markers
 */
export function withFigures(readme, text) {
  const [first, last] = [readme.indexOf(begin), readme.indexOf(end)]
  if (first < 0 || last < first)
    throw new Error(`README.md: expected the markers ${begin} and ${end}`)
  return `${readme.slice(0, first + begin.length)}\n${text}\n${readme.slice(last)}`
}
