/** Configuration, checkpoints and notes of the selected runs. */
import type { RunDetails, RunSummary } from '../api.js'
import { find, keyed, make, setText } from './elements.js'
import { fileAddress, request } from './request.js'
import { state } from './state.js'
import { grouped, nameOf, size } from './texts.js'

interface Entry extends HTMLDetailsElement {
  /** Asks again if it is open. */
  refresh: () => Promise<void>
}

const list = find('details-list', HTMLElement)
const entries = new Map<string, Entry>()
let runs: readonly RunSummary[] = []

export async function updateDetails(all: readonly RunSummary[]): Promise<void> {
  runs = all
  const shown = all.filter(({ path }) => state.runs.has(path)).map(({ path }) => path)
  keyed(list, entries, shown, entryOf)
  await Promise.all([...entries.values()].map((entry) => entry.refresh()))
}

function entryOf(path: string): Entry {
  const body = make('div')
  const entry = make('details', {}, make('summary', {}, nameOf(path)), body)
  const refresh = async () => {
    if (entry.open) show(await request<RunDetails>('/api/run', [['run', path]]))
  }
  // What is there already stays, so that a text that is being read does not jump.
  const config = make('pre', { tabIndex: 0, ariaLabel: 'Configuration' })
  const rest = make('div')
  body.append(rest, config)
  let before = ''
  const show = (details: RunDetails) => {
    setText(config, details.config ?? 'config.json could not be read')
    const text = JSON.stringify([details, runs.find((run) => run.path === path)?.report])
    if (text === before) return
    before = text
    rest.replaceChildren(...partsOf(details))
  }
  entry.addEventListener('toggle', () => void refresh().catch(() => {}))
  return Object.assign(entry, { refresh })
}

function partsOf({ path, checkpoints, notes, unreadableLines }: RunDetails): HTMLElement[] {
  const parts: HTMLElement[] = []
  if (runs.find((run) => run.path === path)?.report)
    parts.push(
      make(
        'p',
        {},
        make(
          'a',
          { href: fileAddress(path, 'report.html'), target: '_blank', rel: 'noopener' },
          'Report',
        ),
      ),
    )
  if (unreadableLines > 0)
    parts.push(
      make(
        'p',
        { className: 'problem' },
        `${grouped(unreadableLines)} lines of metrics.jsonl could not be read`,
      ),
    )
  for (const { step, name, texts } of notes)
    parts.push(make('p', {}, `From step ${grouped(step)}, ${name}: ${texts.join('; ')}`))
  const rows = checkpoints.map(({ name, bytes, changed }) =>
    make(
      'tr',
      {},
      make('td', {}, name),
      make('td', {}, size(bytes)),
      make('td', {}, new Date(changed).toLocaleString()),
    ),
  )
  const heads = ['Checkpoint', 'Size', 'Written'].map((text) => make('th', { scope: 'col' }, text))
  if (rows.length > 0)
    parts.push(
      make('table', {}, make('thead', {}, make('tr', {}, ...heads)), make('tbody', {}, ...rows)),
    )
  return parts
}
