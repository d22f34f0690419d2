/** Charts as SVG text: for reports, which have to be one file and to work without a network. */

export interface Series {
  label: string
  /** Pairs of x and y; those that are not finite, or not above 0 on a logarithmic axis, are left out. */
  points: readonly (readonly [x: number, y: number])[]
  /** Default line. */
  kind?: 'line' | 'points' | 'both'
  /** Broken lines. Default false. */
  dashed?: boolean
  /** Which colour, counted from 0; past the last one they come again with hollow points and broken lines. Default: its place. */
  slot?: number
  /** From 0 to 1. Default 1. */
  opacity?: number
  /** What each point is, told where a pointer rests on it. */
  names?: readonly string[]
}

export interface Axis {
  label: string
  /** Default: that of the points. */
  range?: readonly [low: number, high: number]
  /** Logarithmic, for ranges above 0. Default false. */
  log?: boolean
}

export interface ChartOptions {
  title: string
  x: Axis
  y: Axis
  series: readonly Series[]
  /** Drawn below the series, in data coordinates. */
  background?: (toX: (x: number) => number, toY: (y: number) => number) => string
  /** In pixels. Default 560 and 400. */
  width?: number
  height?: number
  /** The axes have the same scale. Default false. */
  square?: boolean
}

/** Colours that stay apart for readers with colour-blindness (Okabe and Ito, 2008). */
const colours = [
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
  '#000000',
  '#999999',
]

/** The colour of the i-th series, counted from 0. */
export function colourOf(i: number): string {
  return colours[i % colours.length] as string
}

/** Whether the colours have been used up before the i-th series. */
export function isSecondRound(i: number): boolean {
  return Math.floor(i / colours.length) % 2 === 1
}

/** Attributes of a series' points and of its square in the legend. */
function fillOf(slot: number, opacity = 1): string {
  const colour = colourOf(slot)
  // Hollow ones can still be hit by a pointer.
  if (isSecondRound(slot))
    return `fill="${colour}" fill-opacity="0.1" stroke="${colour}" stroke-width="1.5" stroke-opacity="${opacity}"`
  return `fill="${colour}"${opacity === 1 ? '' : ` fill-opacity="${opacity}"`}`
}

/** Text as it may stand in SVG and HTML. */
export function escapeMarkup(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}

/** Round numbers that divide a range into about `count` parts. */
export function ticksOf(
  [low, high]: readonly [number, number],
  count: number,
  log = false,
): number[] {
  if (log) {
    const decades: number[] = []
    for (let e = Math.ceil(Math.log10(low)); 10 ** e <= high; e++) decades.push(10 ** e)
    if (decades.length > 1) return decades
  }
  const rough = (high - low) / count
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) as number) * power
  const ticks: number[] = []
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) ticks.push(i * step)
  return ticks
}

/** A number as a tick shows it. */
function shown(value: number): string {
  if (value === 0) return '0'
  const size = Math.abs(value)
  const rounded = Number(value.toPrecision(6))
  return size >= 1e6 || size < 1e-3 ? rounded.toExponential() : String(rounded)
}

const margin = { left: 58, right: 16, top: 34, bottom: 46 }
const legendLine = 16
/** From the margin's end to the middle of the legend's first line. */
const legendGap = 8

/**
 * A chart with axes, ticks and a legend below.
 *
 * For programs that read it back, the root has `data-plot`: left, top, width and height of the plot, `data-x` and
 * `data-y`: the ranges, and `data-log`: the axes with logarithms. There are no names (`id`) in it, so that several may
 * stand in one page.
 */
export function chart(options: ChartOptions): string {
  const { title, x, y, series, background, width = 560, square = false } = options
  const plotWidth = width - margin.left - margin.right
  const plotHeight = square ? plotWidth : (options.height ?? 400) - margin.top - margin.bottom
  const named = series.filter(({ label }) => label !== '')
  const legend = named.length === 0 ? 0 : legendGap + legendLine * Math.ceil(named.length / 2)
  const height = margin.top + plotHeight + margin.bottom + legend
  const shownPoints = series.flatMap(({ points }) => points.filter((point) => isShown(point, x, y)))
  const xRange = rangeOf(x, shownPoints, 0)
  const yRange = rangeOf(y, shownPoints, 1)
  const toX = (value: number) => margin.left + plotWidth * fractionOf(value, xRange, x.log)
  const toY = (value: number) => margin.top + plotHeight * (1 - fractionOf(value, yRange, y.log))
  const at = (value: number) => value.toFixed(1)
  const parts: string[] = []
  parts.push(
    `<text x="${width / 2}" y="20" text-anchor="middle" font-weight="bold">${escapeMarkup(title)}</text>`,
  )
  // A picture in the picture cuts off what leaves the plot, and needs no name as a clipPath does.
  const place = [margin.left, margin.top, plotWidth, plotHeight].join(' ')
  const clipped = (content: string) =>
    `<svg x="${margin.left}" y="${margin.top}" width="${plotWidth}" height="${plotHeight}" viewBox="${place}">${content}</svg>`
  if (background) parts.push(clipped(background(toX, toY)))
  const bottom = margin.top + plotHeight
  for (const tick of ticksOf(xRange, 6, x.log))
    parts.push(
      `<path d="M${at(toX(tick))} ${margin.top}V${bottom}" class="grid" stroke="#8883"/>`,
      `<text x="${at(toX(tick))}" y="${bottom + 16}" text-anchor="middle">${shown(tick)}</text>`,
    )
  for (const tick of ticksOf(yRange, 6, y.log))
    parts.push(
      `<path d="M${margin.left} ${at(toY(tick))}H${margin.left + plotWidth}" class="grid" stroke="#8883"/>`,
      `<text x="${margin.left - 6}" y="${at(toY(tick) + 4)}" text-anchor="end">${shown(tick)}</text>`,
    )
  parts.push(
    `<rect x="${margin.left}" y="${margin.top}" width="${plotWidth}" height="${plotHeight}" fill="none" stroke="#888"/>`,
    `<text x="${margin.left + plotWidth / 2}" y="${bottom + 36}" text-anchor="middle">${escapeMarkup(x.label)}</text>`,
    `<text transform="translate(14 ${margin.top + plotHeight / 2}) rotate(-90)" text-anchor="middle">${escapeMarkup(y.label)}</text>`,
  )
  for (const [i, entry] of series.entries()) {
    const { points, kind = 'line', slot = i, opacity = 1, names } = entry
    const colour = colourOf(slot)
    const { dashed = isSecondRound(slot) } = entry
    const drawn = points.flatMap((point, k) =>
      isShown(point, x, y) ? [[at(toX(point[0])), at(toY(point[1])), k] as const] : [],
    )
    const marks: string[] = []
    if (kind !== 'points')
      marks.push(
        `<polyline points="${drawn.map(([px, py]) => `${px},${py}`).join(' ')}" fill="none" stroke="${colour}" ` +
          `stroke-width="1.6"${dashed ? ' stroke-dasharray="5 4"' : ''}/>`,
      )
    const radius = drawn.length > 500 ? 0.8 : 3
    const titleOf = (k: number) =>
      names?.[k] === undefined ? '' : `<title>${escapeMarkup(names[k])}</title>`
    if (kind !== 'line')
      marks.push(
        `<g ${fillOf(slot, drawn.length > 500 ? 0.5 : 1)}>` +
          drawn
            .map(([x, y, k]) => `<circle cx="${x}" cy="${y}" r="${radius}">${titleOf(k)}</circle>`)
            .join('') +
          '</g>',
      )
    parts.push(
      clipped(opacity === 1 ? marks.join('') : `<g opacity="${opacity}">${marks.join('')}</g>`),
    )
  }
  for (const [i, entry] of named.entries()) {
    const left = margin.left + (i % 2) * (plotWidth / 2)
    const top = bottom + margin.bottom + legendGap + legendLine * Math.floor(i / 2)
    const { slot = series.indexOf(entry) } = entry
    parts.push(
      `<rect x="${left + 0.5}" y="${top - 8.5}" width="9" height="9" ${fillOf(slot)}/>`,
      `<text x="${left + 15}" y="${top}">${escapeMarkup(entry.label)}</text>`,
    )
  }
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    `font-family="system-ui, sans-serif" font-size="11" role="img" aria-label="${escapeMarkup(title)}" ` +
    `data-plot="${place}" data-x="${xRange.join(' ')}" data-y="${yRange.join(' ')}" ` +
    `data-log="${x.log ? 'x' : ''}${y.log ? 'y' : ''}">` +
    `<rect class="ground" width="${width}" height="${height}" fill="#fff"/>${parts.join('')}</svg>\n`
  )
}

/** Whether a point has a place: there is none for what is not finite, nor for 0 and below on a logarithmic axis. */
function isShown([px, py]: readonly [number, number], x: Axis, y: Axis): boolean {
  return Number.isFinite(px) && Number.isFinite(py) && !(x.log && px <= 0) && !(y.log && py <= 0)
}

/** The axis' range, or that of the points with a little room. */
function rangeOf(axis: Axis, points: Series['points'], which: 0 | 1): [number, number] {
  if (axis.range !== undefined) return [axis.range[0], axis.range[1]]
  let [low, high] = [Infinity, -Infinity]
  for (const point of points) {
    low = Math.min(low, point[which])
    high = Math.max(high, point[which])
  }
  if (low > high) return axis.log ? [1, 10] : [0, 1]
  if (axis.log) return [low / 1.2, high * 1.2]
  const room = high > low ? 0.05 * (high - low) : 0.5
  return [low - room, high + room]
}

function fractionOf(value: number, [low, high]: readonly [number, number], log = false): number {
  return log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low)
}
