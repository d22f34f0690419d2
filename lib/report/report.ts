/** A run as one page of HTML that needs nothing beside itself: pictures as data, plots as SVG. */
import { type ChartOptions, chart, escapeMarkup } from '../plot/chart.js'

export interface Picture {
  caption: string
  /** PNG. */
  bytes: Buffer
}

export interface ReportSection {
  title: string
  /** Paragraphs of text. */
  text?: readonly string[]
  /** Rows of cells; the first row is the head. */
  table?: readonly (readonly string[])[]
  charts?: readonly ChartOptions[]
  /** A row of pictures under each other for each prompt, with a head over each column. */
  pictures?: { heads: readonly string[]; rows: readonly (readonly Picture[])[] }
  /** Set in a fixed-width font. */
  code?: string
}

export interface Report {
  title: string
  sections: readonly ReportSection[]
}

const style = `
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #eee }
.charts { display: flex; flex-wrap: wrap; gap: 1rem } .charts img { max-width: 100% }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem } .pictures figure { margin: 0; width: 13.4rem }
.pictures .row { display: flex; gap: 2px } .pictures img { width: 4.4rem; image-rendering: auto; background: #fff }
.pictures small { width: 4.4rem; color: #666 } figcaption { font-size: .85rem }
pre { background: #f6f6f6; padding: .8rem; overflow: auto; font-size: .85rem }`

/** The page. */
export function reportPage({ title, sections }: Report): string {
  const body = sections.map(sectionHtml).join('\n')
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeMarkup(title)}</title><style>${style}</style></head>
<body>
<h1>${escapeMarkup(title)}</h1>
${body}
</body>
</html>
`
}

function sectionHtml({ title, text, table, charts, pictures, code }: ReportSection): string {
  const parts = [`<h2>${escapeMarkup(title)}</h2>`]
  for (const paragraph of text ?? []) parts.push(`<p>${escapeMarkup(paragraph)}</p>`)
  if (table !== undefined) parts.push(tableHtml(table))
  if (charts !== undefined)
    parts.push(
      // As images: the names inside of one SVG are not to meet those of another.
      `<div class="charts">${charts
        .map((options) => imageHtml('image/svg+xml', Buffer.from(chart(options)), options.title))
        .join('')}</div>`,
    )
  if (pictures !== undefined) parts.push(picturesHtml(pictures))
  if (code !== undefined) parts.push(`<pre>${escapeMarkup(code)}</pre>`)
  return `<section>${parts.join('\n')}</section>`
}

function tableHtml(rows: readonly (readonly string[])[]): string {
  const row = (cells: readonly string[], tag: 'th' | 'td') =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeMarkup(cell)}</${tag}>`).join('')}</tr>`
  return `<table>${rows.map((cells, i) => row(cells, i === 0 ? 'th' : 'td')).join('')}</table>`
}

function picturesHtml({ heads, rows }: NonNullable<ReportSection['pictures']>): string {
  const head = heads.map((text) => `<small>${escapeMarkup(text)}</small>`).join('')
  const figures = rows.map((row) => {
    const images = row.map(({ bytes, caption }) => imageHtml('image/png', bytes, caption)).join('')
    const caption = escapeMarkup(row[0]?.caption ?? '')
    return `<figure><div class="row">${head}</div><div class="row">${images}</div><figcaption>${caption}</figcaption></figure>`
  })
  return `<div class="pictures">${figures.join('')}</div>`
}

function imageHtml(type: string, bytes: Buffer, alt: string): string {
  return `<img src="data:${type};base64,${bytes.toString('base64')}" alt="${escapeMarkup(alt)}">`
}
