/** The runs at the side: which there are, how far they are, which are selected. */
import type { RunList, RunSummary } from '../api.js'
import { find, keyed, make, setText, swatch } from './elements.js'
import { select, state } from './state.js'
import { duration, grouped, nameOf } from './texts.js'

/** A run's element, and how to bring it up to date. */
interface Item extends HTMLLIElement {
  show: (run: RunSummary, now: number) => void
}

const list = find('runs', HTMLUListElement)
const filter = find('filter', HTMLInputElement)
const items = new Map<string, Item>()
const states = { training: 'training', done: 'done', stopped: 'stopped' }

let latest: RunList | undefined

/** @param onSelect after the selection has changed */
export function startRunList(onSelect: () => void): void {
  filter.addEventListener('input', () => latest && showRuns(latest, onSelect))
  const selectShown = (selected: boolean) => () => {
    for (const { path } of shownRuns()) select(path, selected)
    onSelect()
  }
  find('select-all', HTMLButtonElement).addEventListener('click', selectShown(true))
  find('select-none', HTMLButtonElement).addEventListener('click', selectShown(false))
}

export function showRuns(runs: RunList, onSelect: () => void): void {
  latest = runs
  setText(find('folder', HTMLElement), runs.folder)
  find('truncated', HTMLElement).hidden = !runs.truncated
  const shown = shownRuns()
  const total = runs.runs.length
  const count = shown.length === total ? grouped(total) : `${shown.length} of ${grouped(total)}`
  setText(find('count', HTMLElement), total === 0 ? 'none here yet' : `${count} shown`)
  const byPath = new Map(shown.map((run) => [run.path, run]))
  keyed(list, items, [...byPath.keys()], (path) => itemOf(path, onSelect))
  for (const [path, item] of items) item.show(byPath.get(path) as RunSummary, runs.now)
}

/** Those that the filter lets through; what trains comes first. */
function shownRuns(): RunSummary[] {
  const words = filter.value.toLowerCase().split(/\s+/)
  const runs = latest?.runs ?? []
  const trains = (run: RunSummary) => run.state === 'training'
  const ordered = [...runs.filter(trains), ...runs.filter((run) => !trains(run))]
  return ordered.filter((run) => {
    const text = `${nameOf(run.path)} ${run.kind ?? ''} ${run.method} ${run.state}`.toLowerCase()
    return words.every((word) => text.includes(word))
  })
}

function itemOf(path: string, onSelect: () => void): Item {
  // Named as a whole: the path is in two parts on the screen.
  const box = make('input', { type: 'checkbox', ariaLabel: nameOf(path) })
  box.addEventListener('change', () => {
    select(path, box.checked)
    onSelect()
  })
  const cut = path.lastIndexOf('/') + 1
  const parent = make('small', {}, path.slice(0, cut))
  const name = make(
    'span',
    { className: 'text' },
    ...(cut > 0 ? [parent] : []),
    nameOf(path.slice(cut)),
  )
  const mark = make('span')
  const badge = make('span')
  const label = make('label', { className: 'name' }, box, mark, name)
  const kind = make('small')
  const facts = make('small')
  const bar = make('progress', { ariaLabel: `Progress of ${nameOf(path)}` })
  const item = make('li', {}, make('div', { className: 'head' }, label, badge), kind, bar, facts)
  const show = (run: RunSummary, now: number) => {
    const slot = state.runs.get(path)
    box.checked = slot !== undefined
    item.className = slot === undefined ? 'keyed' : `keyed selected slot-${slot % 8}`
    mark.replaceChildren(...(slot === undefined ? [] : [swatch(slot)]))
    setText(badge, states[run.state])
    badge.className = `state ${run.state}`
    const what = [run.kind ?? 'no checkpoint yet', run.method].filter((text) => text !== '')
    setText(kind, what.join(' · '))
    const of = run.steps === null ? '' : ` of ${grouped(run.steps)}`
    const left = run.secondsLeft === null ? [] : [`${duration(run.secondsLeft)} left`]
    const ago = duration((now - run.changed) / 1000)
    setText(facts, [`step ${grouped(run.step)}${of}`, ...left, `${ago} ago`].join(' · '))
    bar.hidden = run.steps === null || run.state === 'done'
    bar.max = Math.max(1, run.steps ?? 1)
    bar.value = Math.min(run.step, bar.max)
  }
  return Object.assign(item, { show })
}
