/** The pictures of the selected runs over training, all at one step. */
import type { RunSummary } from '../api.js'
import { find, keyed, make, setText, swatch } from './elements.js'
import { fileAddress } from './request.js'
import { state } from './state.js'
import { grouped, nameOf } from './texts.js'

interface Picture extends HTMLElement {
  show: (step: number) => void
}

const slider = find('step', HTMLInputElement)
const play = find('play', HTMLButtonElement)
const pictures = find('pictures', HTMLElement)
const none = find('samples-none', HTMLElement)
const figures = new Map<string, Picture>()
const playEvery = 400

/** Steps with a picture in any of the runs, ascending. */
let steps: number[] = []
let runs = new Map<string, RunSummary>()
let timer: ReturnType<typeof setInterval> | undefined

export function startSamples(): void {
  slider.addEventListener('input', show)
  // From the picture on, arrow keys are the slider's.
  pictures.addEventListener('click', () => slider.focus())
  play.addEventListener('click', () => (timer === undefined ? begin() : end()))
}

function begin(): void {
  if (Number(slider.value) === steps.length - 1) slider.value = '0'
  show()
  timer = setInterval(() => {
    slider.value = String(Number(slider.value) + 1)
    show()
    if (Number(slider.value) >= steps.length - 1) end()
  }, playEvery)
  showPlaying()
}

function end(): void {
  clearInterval(timer)
  timer = undefined
  showPlaying()
}

function showPlaying(): void {
  play.ariaPressed = String(timer !== undefined)
  setText(play, timer === undefined ? 'Play' : 'Stop')
}

/** Takes up new pictures. A slider at its end goes on with them; elsewhere it stays at its step. */
export function updateSamples(all: readonly RunSummary[]): void {
  runs = new Map(
    all
      .filter(({ path, samples }) => state.runs.has(path) && samples.length > 0)
      .map((run) => [run.path, run]),
  )
  const before = steps[Number(slider.value)]
  const wasLast = before === undefined || before === steps.at(-1)
  steps = [...new Set([...runs.values()].flatMap(({ samples }) => samples))].sort((a, b) => a - b)
  slider.max = String(Math.max(0, steps.length - 1))
  const kept = steps.findLastIndex((step) => step <= (before ?? 0))
  slider.value = String(wasLast && timer === undefined ? steps.length - 1 : Math.max(0, kept))
  slider.disabled = steps.length < 2
  play.disabled = steps.length < 2
  if (steps.length < 2 && timer !== undefined) end()
  find('samples-controls', HTMLElement).hidden = steps.length === 0
  none.hidden = steps.length > 0
  setText(
    none,
    state.runs.size === 0
      ? 'Select runs in the list to see their samples.'
      : 'No samples yet: a run draws them every previewEvery steps.',
  )
  keyed(pictures, figures, [...runs.keys()], pictureOf)
  show()
}

function show(): void {
  const step = steps[Number(slider.value)]
  if (step === undefined) return
  const text = grouped(step)
  setText(find('step-text', HTMLElement), `${text} of ${grouped(steps.at(-1) ?? step)}`)
  slider.setAttribute('aria-valuetext', `step ${text}`)
  for (const figure of figures.values()) figure.show(step)
}

function pictureOf(path: string): Picture {
  const image = make('img')
  const mark = make('span')
  const name = make('span')
  const figure = make('figure', {}, make('figcaption', {}, mark, name), image)
  const show = (step: number) => {
    const own = runs.get(path)?.samples ?? []
    // The latest one that there was at that step; before the first one, the first one.
    const at = Math.max(
      0,
      own.findLastIndex((one) => one <= step),
    )
    const drawn = own[at] ?? step
    const slot = state.runs.get(path) ?? 0
    mark.replaceChildren(swatch(slot))
    setText(name, `${nameOf(path)}${drawn === step ? '' : `, step ${grouped(drawn)}`}`)
    const address = addressOf(path, drawn)
    if (image.getAttribute('src') !== address) {
      image.src = address
      image.alt = `Samples of ${nameOf(path)} at step ${drawn}`
    }
    // The neighbours are there when they are asked for.
    for (const near of [own[at - 1], own[at + 1]])
      if (near !== undefined) new Image().src = addressOf(path, near)
  }
  return Object.assign(figure, { show })
}

function addressOf(path: string, step: number): string {
  return fileAddress(path, `samples/step-${String(step).padStart(6, '0')}.png`)
}
