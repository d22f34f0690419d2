/** Metrics of the selected runs: a chart for each, drawn by the server, with a cursor that tells the values. */
import type { Curves, MetricNames } from '../api.js'
import { find, keyed, make, setText, swatch } from './elements.js'
import { type Query, request } from './request.js'
import { remember, spans, state } from './state.js'
import { grouped, nameOf, shown } from './texts.js'

/** Shown first, as far as the runs have them, where none have been chosen. */
const usual = [...['reward', 'klToTarget', 'klToReference', 'loss', 'assistantLoss', 'gradNorm']]

const charts = find('charts', HTMLElement)
const none = find('metrics-none', HTMLElement)
const fieldset = find('names', HTMLFieldSetElement)
const span = find('span', HTMLInputElement)
const log = find('log', HTMLInputElement)
const figures = new Map<string, ChartFigure>()
const boxes = new Map<string, HTMLLabelElement>()

let names: string[] = []
/** Of the last request; an answer to an earlier one comes too late. */
let turn = 0

/** One chart. The cursor stays at its step while the curves grow. */
class ChartFigure {
  readonly element = make('figure', { className: 'chart', tabIndex: 0 })
  readonly #picture = make('div')
  readonly #readout = make('figcaption', { className: 'readout' })
  #curves: Curves | undefined
  #step: number | undefined

  constructor(metric: string) {
    this.element.append(this.#picture, this.#readout)
    this.element.setAttribute('role', 'group')
    this.element.ariaLabel = `Chart of ${metric}; arrow keys move the cursor`
    this.#picture.addEventListener('pointermove', (event) => this.#follow(event))
    this.#picture.addEventListener('pointerleave', () => this.#moveTo(undefined))
    this.element.addEventListener('blur', () => this.#moveTo(undefined))
    this.element.addEventListener('keydown', (event) => this.#press(event))
  }

  show(curves: Curves): void {
    this.#curves = curves
    const drawn = new DOMParser().parseFromString(curves.svg, 'image/svg+xml').documentElement
    this.#picture.replaceChildren(document.importNode(drawn, true))
    this.#moveTo(this.#step)
  }

  /** Left, top, width and height of the plot, and the steps at its sides. */
  #frame() {
    const svg = this.#picture.querySelector('svg')
    if (svg === null) return undefined
    const [left = 0, top = 0, width = 1, height = 1] = numbers(svg.dataset.plot)
    const [first = 0, last = 1] = numbers(svg.dataset.x)
    return { svg, left, top, width, height, first, last }
  }

  #follow(event: PointerEvent): void {
    const frame = this.#frame()
    if (frame === undefined) return
    const { svg, left, width, first, last } = frame
    const box = svg.getBoundingClientRect()
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width
    this.#moveTo(first + ((x - left) / width) * (last - first))
  }

  #press(event: KeyboardEvent): void {
    const frame = this.#frame()
    if (frame === undefined) return
    const { first, last } = frame
    const by = (last - first) / 50
    const step = this.#step ?? last
    const to: Record<string, number> = {
      ArrowLeft: this.#step === undefined ? last : step - by,
      ArrowRight: this.#step === undefined ? last : step + by,
      Home: first,
      End: last,
    }
    const wanted = to[event.key]
    if (wanted === undefined) return
    event.preventDefault()
    this.#moveTo(Math.min(last, Math.max(first, wanted)))
  }

  #moveTo(step: number | undefined): void {
    this.#step = step
    const frame = this.#frame()
    frame?.svg.querySelector('.cursor')?.remove()
    const values = step === undefined ? [] : this.#valuesAt(step)
    if (frame === undefined || step === undefined || values.length === 0) {
      this.#readout.replaceChildren()
      return
    }
    const { svg, left, top, width, height, first, last } = frame
    // Where the nearest point of any run is; those of others may be far, and then say where they are.
    const at = nearest(
      values.map((value) => value.step),
      step,
    )
    const x = left + (width * (at - first)) / (last - first)
    const line = document.createElementNS('http://www.w3.org/2000/svg', 'path')
    line.setAttribute('d', `M${x} ${top}v${height}`)
    line.setAttribute('class', 'cursor')
    svg.append(line)
    this.#readout.replaceChildren(
      make('span', {}, `step ${grouped(at)}`),
      ...values.map(({ run, slot, step: own, value }) => {
        const far = Math.abs(own - at) > 0.02 * (last - first)
        const text = far ? `${shown(value)} at ${grouped(own)}` : shown(value)
        return make('span', { title: nameOf(run) }, swatch(slot), text)
      }),
    )
  }

  /** Of each curve the point that is nearest to a step. */
  #valuesAt(step: number) {
    return (this.#curves?.series ?? []).flatMap(({ run, slot, points }) => {
      if (points.length === 0) return []
      const own = nearest(
        points.map(([at]) => at),
        step,
      )
      const value = points.find(([at]) => at === own)?.[1] ?? Number.NaN
      return [{ run, slot, step: own, value }]
    })
  }
}

/** The number of a list that is nearest to another one. */
function nearest(list: readonly number[], to: number): number {
  return list.reduce((best, one) => (Math.abs(one - to) < Math.abs(best - to) ? one : best))
}

function numbers(text: string | undefined): number[] {
  return (text ?? '').split(' ').map(Number)
}

export function startCharts(): void {
  span.max = String(spans.length - 1)
  span.value = String(spans.indexOf(state.span))
  log.checked = state.log
  showSpan()
  span.addEventListener('input', () => {
    state.span = spans[Number(span.value)] ?? 1
    showSpan()
    remember()
    void drawCharts()
  })
  log.addEventListener('change', () => {
    state.log = log.checked
    remember()
    void drawCharts()
  })
  // The server draws them as wide as they are shown, so that their text has its size.
  let width = 0
  new ResizeObserver(() => {
    if (Math.abs(widthOf() - width) < 8) return
    width = widthOf()
    void drawCharts()
  }).observe(charts)
}

function showSpan(): void {
  const text = state.span === 1 ? 'none' : `about ${grouped(state.span)} steps`
  setText(find('span-text', HTMLElement), text)
  span.setAttribute('aria-valuetext', text)
}

/** Asks which metrics the selected runs have, and draws those that are chosen. */
export async function updateCharts(): Promise<void> {
  const runs: Query = [...state.runs.keys()].map((run) => ['run', run])
  names = runs.length === 0 ? [] : (await request<MetricNames>('/api/metrics', runs)).names
  keyed(fieldset, boxes, names, boxOf)
  fieldset.hidden = names.length === 0
  await drawCharts()
}

function boxOf(name: string): HTMLLabelElement {
  const box = make('input', { type: 'checkbox', value: name })
  box.addEventListener('change', () => {
    const now = new Set(chosen())
    if (box.checked) now.add(name)
    else now.delete(name)
    state.metrics = [...now]
    remember()
    void drawCharts()
  })
  return make('label', { className: 'check' }, box, name)
}

function chosen(): string[] {
  if (state.metrics !== undefined) return state.metrics
  const known = usual.filter((name) => names.includes(name))
  return known.length > 0 ? known : names.slice(0, 4)
}

function widthOf(): number {
  const columns = getComputedStyle(charts).gridTemplateColumns.split(' ')
  const first = Number.parseFloat(columns[0] ?? '')
  const width = Number.isFinite(first) ? first : charts.clientWidth
  return Math.round(Math.min(1600, Math.max(240, width)))
}

async function drawCharts(): Promise<void> {
  const own = ++turn
  const picked = chosen()
  for (const [name, label] of boxes)
    (label.firstElementChild as HTMLInputElement).checked = picked.includes(name)
  const shownNames = names.filter((name) => picked.includes(name))
  none.hidden = shownNames.length > 0
  setText(
    none,
    state.runs.size === 0
      ? 'Select runs in the list to see their metrics.'
      : names.length === 0
        ? 'No metrics yet.'
        : 'Choose a chart above.',
  )
  const order = [...state.runs].flatMap(
    ([run, slot]): Query => [
      ['run', run],
      ['slot', String(slot)],
    ],
  )
  const query = (metric: string): Query => [
    ['metric', metric],
    ...order,
    ['span', String(state.span)],
    ['width', String(widthOf())],
    ...(state.log ? ([['log', '']] as const) : []),
  ]
  const all = await Promise.all(
    shownNames.map((metric) => request<Curves>('/api/chart', query(metric))),
  )
  if (own !== turn) return
  const known = new Map([...figures].map(([name, { element }]) => [name, element]))
  keyed(charts, known, shownNames, (name) => {
    const figure = new ChartFigure(name)
    figures.set(name, figure)
    return figure.element
  })
  for (const name of figures.keys()) if (!known.has(name)) figures.delete(name)
  for (const [i, name] of shownNames.entries()) figures.get(name)?.show(all[i] as Curves)
}
