/** What `didr compare` found: reward against distance, and the table. */
import type { ComparisonSummary, ComparisonView } from '../api.js'
import { find, make, setText } from './elements.js'
import { request } from './request.js'
import { nameOf } from './texts.js'

const section = find('comparisons', HTMLElement)
const folders = find('comparison', HTMLSelectElement)
const references = find('reference', HTMLSelectElement)
const plot = find('pareto', HTMLElement)
const table = find('comparison-table', HTMLTableElement)
const problem = find('comparison-problem', HTMLElement)

let known: ComparisonSummary[] = []
let view: ComparisonView | undefined
/** The path and the time of what is shown. */
let shownState = ''

export function startComparison(): void {
  folders.addEventListener('change', () => void load())
  references.addEventListener('change', draw)
}

export async function updateComparison(comparisons: readonly ComparisonSummary[]): Promise<void> {
  section.hidden = comparisons.length === 0
  find('comparisons-link', HTMLElement).hidden = section.hidden
  const paths = (list: readonly ComparisonSummary[]) => list.map(({ path }) => path).join('\n')
  const isOther = paths(known) !== paths(comparisons) || folders.options.length === 0
  known = [...comparisons]
  if (isOther) {
    const chosen = folders.value
    folders.replaceChildren(
      ...known.map(({ path }) => make('option', { value: path }, nameOf(path))),
    )
    if (known.some(({ path }) => path === chosen)) folders.value = chosen
  }
  await load()
}

async function load(): Promise<void> {
  const chosen = known.find(({ path }) => path === folders.value)
  if (chosen === undefined) return
  const state = `${chosen.changed} ${chosen.path}`
  if (state === shownState) return
  view = await request<ComparisonView>('/api/comparison', [['comparison', chosen.path]])
  shownState = state
  problem.hidden = view.problem === null
  setText(problem, view.problem ?? '')
  const before = references.value
  const names = view.charts.map(({ reference }) => reference)
  references.replaceChildren(...names.map((name) => make('option', { value: name }, name)))
  if (names.includes(before)) references.value = before
  const [head = [], ...rows] = view.rows
  table.replaceChildren(
    make('thead', {}, make('tr', {}, ...head.map((text) => make('th', { scope: 'col' }, text)))),
    make(
      'tbody',
      {},
      ...rows.map((cells) => make('tr', {}, ...cells.map((text) => make('td', {}, text)))),
    ),
  )
  draw()
}

function draw(): void {
  const chart = view?.charts.find(({ reference }) => reference === references.value)
  plot.hidden = chart === undefined
  if (chart === undefined) return
  const drawn = new DOMParser().parseFromString(chart.svg, 'image/svg+xml').documentElement
  plot.replaceChildren(document.importNode(drawn, true))
}
