/** What is selected; kept in the address, so that a page can be loaded again and sent to somebody. */

export interface State {
  /** Colour slots by the path of the run. */
  runs: Map<string, number>
  /** Names of metrics; undefined for those that are usual. */
  metrics: string[] | undefined
  /** Steps that smoothing averages over. */
  span: number
  log: boolean
}

/** The spans of the slider's positions, about equally spaced in their logarithm. */
export const spans: readonly number[] = [
  ...[
    1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400,
  ],
  ...[500, 600, 800, 1000, 1200, 1500, 2000],
]

const defaultSpan = 10

export const state: State = stateOf(new URLSearchParams(location.search))

function stateOf(query: URLSearchParams): State {
  const span = Number(query.get('span') ?? defaultSpan)
  return {
    runs: new Map(query.getAll('run').map((path, i) => [path, i])),
    metrics: query.has('metric') ? query.getAll('metric').filter((name) => name !== '') : undefined,
    span: spans.includes(span) ? span : defaultSpan,
    log: query.has('log'),
  }
}

/** Writes the state into the address. */
export function remember(): void {
  const query = new URLSearchParams()
  for (const run of state.runs.keys()) query.append('run', run)
  // An empty name stands for none.
  if (state.metrics?.length === 0) query.append('metric', '')
  for (const metric of state.metrics ?? []) query.append('metric', metric)
  if (state.span !== defaultSpan) query.set('span', String(state.span))
  if (state.log) query.set('log', '')
  const text = query.toString()
  history.replaceState(null, '', (text === '' ? '/' : `/?${text}`) + location.hash)
}

/** Selects or deselects a run; it takes the first colour that is free. */
export function select(path: string, selected: boolean): void {
  if (!selected) state.runs.delete(path)
  else if (!state.runs.has(path)) {
    const taken = new Set(state.runs.values())
    let slot = 0
    while (taken.has(slot)) slot++
    state.runs.set(path, slot)
  }
}
