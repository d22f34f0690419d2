/** The page: asks every two seconds what has changed, and shows it. */
import type { RunList, RunSummary } from '../api.js'
import { startCharts, updateCharts } from './charts.js'
import { startComparison, updateComparison } from './comparison.js'
import { updateDetails } from './details.js'
import { find, setText } from './elements.js'
import { request } from './request.js'
import { showRuns, startRunList } from './run-list.js'
import { startSamples, updateSamples } from './samples.js'
import { remember, select, state } from './state.js'

const askEvery = 2000
/** Selected at first where several train at once. */
const mostAtFirst = 4

const connection = find('connection', HTMLElement)
let list: RunList | undefined
let isFirst = true
/** What the charts show: they are drawn again when it is another. */
let drawn = ''

async function ask(): Promise<void> {
  list = await request<RunList>('/api/runs')
  if (isFirst && state.runs.size === 0) selectAtFirst(list.runs)
  isFirst = false
  const there = new Set(list.runs.map(({ path }) => path))
  for (const path of [...state.runs.keys()]) if (!there.has(path)) select(path, false)
  await show()
}

/** Those that train; if none does, the one that did last. */
function selectAtFirst(runs: readonly RunSummary[]): void {
  const latest = [...runs].sort((a, b) => b.changed - a.changed)
  const training = latest.filter((run) => run.state === 'training').slice(0, mostAtFirst)
  for (const { path } of training.length > 0 ? training : latest.slice(0, 1)) select(path, true)
}

async function show(): Promise<void> {
  if (list === undefined) return
  const { runs, comparisons } = list
  showRuns(list, selectionChanged)
  updateSamples(runs)
  const now = JSON.stringify(
    [...state.runs].map(([path, slot]) => {
      const run = runs.find((one) => one.path === path)
      return [path, slot, run?.changed, run?.bytes]
    }),
  )
  const isOther = now !== drawn
  // Set first: a selection that changes meanwhile is another again.
  drawn = now
  const charts = isOther ? updateCharts() : Promise.resolve()
  charts.catch(() => {
    drawn = ''
  })
  await Promise.all([charts, updateDetails(runs), updateComparison(comparisons)])
}

function selectionChanged(): void {
  remember()
  void show().catch(lost)
}

function lost(): void {
  setText(connection, 'No answer from didr view; trying again')
  connection.className = 'lost'
}

async function keepAsking(): Promise<void> {
  for (;;) {
    // Nobody looks at a page that is hidden.
    if (!document.hidden)
      try {
        await ask()
        setText(connection, '')
        connection.className = ''
      } catch {
        lost()
      }
    await new Promise((resolve) => setTimeout(resolve, askEvery))
  }
}

startRunList(selectionChanged)
startCharts()
startSamples()
startComparison()
void keepAsking()
