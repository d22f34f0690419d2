/** The page as somebody uses it, in a headless Chromium. */
import { spawn } from 'node:child_process'
import { appendFile, mkdir, truncate, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { temporaryFolder } from '../data/shapes.js'
import { Browser, type Page } from '../fixtures/browser.js'
import { comparisonResult, linesOf, samplePng, writeRun } from './run-folders.js'

const command = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

let browser: Browser
beforeAll(async () => {
  browser = await Browser.launch()
})
afterAll(() => browser.close())

/** `npx didr view` on a folder; with what is there, in a page. */
async function viewed(root: string, options: { dark?: boolean; query?: string } = {}) {
  const child = spawn(process.execPath, [command, 'view', root, '--port', '0'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => child.on('close', resolve))
  const stop = async () => {
    child.kill('SIGINT')
    await ended
  }
  onTestFinished(stop)
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      resolve(text.trim().split(': ').at(-1) as string)
    })
    child.on('close', () => reject(new Error('didr view has ended')))
  })
  const page = await browser.open(`${url}${options.query ?? ''}`, options)
  return { page, url, stop }
}

const lines = (count: number, scale = 1) =>
  Array.from({ length: count }, (_, i) => ({
    step: i + 1,
    seconds: 0.5,
    loss: scale / (i + 1),
    gradNorm: 1 + ((i * 7) % 5),
    'part/x': i,
  }))

/** Three runs: one trains, one is done, one is of another kind; and a comparison. */
async function someRuns(): Promise<string> {
  const root = await temporaryFolder()
  await writeRun(path.join(root, 'live'), {
    config: { steps: 100, objective: 'didr', drs: { estimator: 'drp' }, beta: 0.02 },
    metrics: lines(20),
    checkpoints: [10, 20],
    samples: [5, 10, 15, 20],
    locked: true,
  })
  await writeRun(path.join(root, 'old/done'), {
    config: { steps: 30 },
    metrics: lines(30, 4),
    kind: 'pretrain teacher',
    checkpoints: [30],
    samples: [10, 30],
    report: '<style>p{color:red}</style><p>report</p><script>parent.document.title="no"</script>',
  })
  await writeRun(path.join(root, 'old/<b>odd</b> & "name"'), { metrics: lines(3) })
  await mkdir(path.join(root, 'compare'))
  await writeFile(
    path.join(root, 'compare/compare.json'),
    JSON.stringify([
      comparisonResult('base', 0.5, 0.1),
      comparisonResult('didr, drp', 0.6, 0.25, 0.1),
      comparisonResult('didr, drp', 0.7, 0.5, 0.02),
    ]),
  )
  return root
}

const text = (page: Page, selector: string) =>
  page.evaluate<string>(`document.querySelector(${JSON.stringify(selector)}).textContent`)
const count = (selector: string) => `document.querySelectorAll(${JSON.stringify(selector)}).length`
const curves = (page: Page, chart: number) =>
  page.evaluate<number>(
    `document.querySelectorAll('#charts figure')[${chart}].querySelectorAll('polyline:not([opacity] *)').length`,
  )
const imageSources = (page: Page) =>
  page.evaluate<string[]>(
    `[...document.querySelectorAll('#pictures img')].map((image) => decodeURIComponent(image.src).replace(/.*files/, ''))`,
  )

describe('the page', () => {
  it('lists runs, shows the one that trains, and asks nobody else', async () => {
    const root = await someRuns()
    const { page, url } = await viewed(root)
    await page.until(`${count('#charts svg[role=img]')} === 2`)
    expect(await page.names('checkbox')).toEqual(
      expect.arrayContaining(['live', 'old/done', 'old/<b>odd</b> & "name"', 'loss', 'part/x']),
    )
    const items = await page.evaluate<string[]>(
      `[...document.querySelectorAll('#runs li')].map((item) => item.innerText.replace(/\\s+/g, ' '))`,
    )
    expect(items[0]).toMatch(
      /^live training train · didr, drp, β = 0.02 step 20 of 100 · 40 s left · \d+ s ago$/,
    )
    expect(items[2]).toMatch(/^old\/ ?done done pretrain teacher step 30 of 30 · \d+ s ago$/)
    expect(items[1]).toContain('stopped no checkpoint yet step 3 of 10')
    expect(await text(page, '#charts figure svg text')).toBe('loss')
    expect(await page.names('progressbar')).toContain('Progress of live')
    // Every control says what it is.
    for (const role of ['checkbox', 'slider', 'button', 'combobox', 'searchbox', 'link', 'image'])
      for (const name of await page.names(role)) expect(name, role).not.toBe('')
    const origin = new URL(url).origin
    expect(page.requests.filter((address) => !address.startsWith(origin))).toEqual([])
    expect(page.problems).toEqual([])
    const bytes = await page.evaluate<number>(
      `performance.getEntriesByType('resource').filter(({ name }) => !/files|api/.test(name)).reduce((sum, { decodedBodySize }) => sum + decodedBodySize, 0)`,
    )
    expect(bytes).toBeGreaterThan(10_000)
    expect(bytes).toBeLessThan(60_000)
  })

  it('compares runs in one chart; metrics, smoothing and axis are chosen by keys', async () => {
    const root = await someRuns()
    const { page } = await viewed(root)
    await page.until(`${count('#charts svg[role=img]')} === 2`)
    expect(await curves(page, 0)).toBe(1)
    await page.focus('checkbox', 'old/done')
    await page.press(' ')
    // Each with its values faintly behind it.
    await page.until(
      `document.querySelector('#charts figure').querySelectorAll('polyline').length === 4`,
    )
    expect(await page.evaluate('location.search')).toBe('?run=live&run=old%2Fdone')

    await page.focus('slider', 'Smoothing')
    await page.press('Home')
    await page.until(
      `document.querySelector('#charts figure').querySelectorAll('polyline').length === 2`,
    )
    expect(await text(page, '#span-text')).toBe('none')
    await page.press('ArrowRight')
    expect(await text(page, '#span-text')).toBe('about 2 steps')

    await page.focus('checkbox', 'part/x')
    await page.press(' ')
    await page.until(`${count('#charts figure')} === 3`)
    await page.focus('checkbox', 'gradNorm')
    await page.press(' ')
    await page.until(`${count('#charts figure')} === 2`)
    await page.click('checkbox', 'Logarithmic')
    await page.until(`document.querySelector('#charts figure svg').dataset.log === 'y'`)

    // Loaded again, it is as before.
    const search = await page.evaluate<string>('location.search')
    await page.send('Page.reload')
    await page.until(`document.querySelectorAll('#charts svg[role=img]').length === 2`)
    expect(await page.evaluate('location.search')).toBe(search)
    expect(
      await page.evaluate(
        `[...document.querySelectorAll('#charts svg[role=img]')].map((svg) => svg.getAttribute('aria-label'))`,
      ),
    ).toEqual(['loss', 'part/x'])
    expect(page.problems).toEqual([])
  })

  it('tells the values at a cursor that keys or a pointer move', async () => {
    const root = await someRuns()
    const { page } = await viewed(root, { query: '?run=live&run=old/done&span=1' })
    await page.until(`${count('#charts svg[role=img]')} === 2`)
    await page.focus('group', 'Chart of loss; arrow keys move the cursor')
    await page.press('Home')
    expect(await text(page, '#charts figcaption')).toBe('step 114')
    await page.press('End')
    // Each run's own last value, 1/20 and 4/30, and where it is if that is elsewhere.
    expect(await text(page, '#charts figcaption')).toBe('step 300.05 at 200.1333')
    expect(await page.evaluate(count('.cursor'))).toBe(1)
    await page.press('Tab')
    await page.until(`${count('.cursor')} === 0`)
  })

  it('follows metrics while they are written, a half line and a cut too', async () => {
    const root = await someRuns()
    const { page } = await viewed(root, { query: '?run=live&span=1&metric=loss' })
    const last = `document.querySelector('#charts svg[role=img]')?.dataset.x.split(' ')[1]`
    await page.until(`${last} === '20'`)
    const file = path.join(root, 'live/metrics.jsonl')
    const [next] = linesOf(lines(21).slice(20)).split('\n') as [string]
    await appendFile(file, next.slice(0, 12))
    await appendFile(file, `${next.slice(12)}\n{"step":22,"lo`)
    await page.until(`${last} === '21'`)
    await page.until(`document.querySelector('#runs').innerText.includes('step 21 of 100')`)
    await truncate(file, linesOf(lines(10)).length)
    await page.until(`${last} === '10'`)
    expect(page.problems).toEqual([])
  })

  it('scrubs samples by arrow keys, and goes on with new ones at the end', async () => {
    const root = await someRuns()
    const { page } = await viewed(root, { query: '?run=live&run=old/done' })
    await page.until(`${count('#pictures img')} === 2`)
    // The latest that there was of each at that step.
    expect(await text(page, '#step-text')).toBe('30 of 30')
    expect(await imageSources(page)).toEqual([
      '/live/samples/step-000020.png',
      '/old/done/samples/step-000030.png',
    ])
    // A click goes to a place on the page, which pictures that are still to come would move.
    await page.until(
      `[...document.querySelectorAll('#pictures img')].every((image) => image.complete && image.naturalWidth === 64)`,
    )
    await page.click('image', 'Samples of live at step 20')
    await page.press('ArrowLeft', 2)
    expect(await text(page, '#step-text')).toBe('15 of 30')
    expect(await imageSources(page)).toEqual([
      '/live/samples/step-000015.png',
      '/old/done/samples/step-000010.png',
    ])
    expect(await text(page, '#pictures')).toContain('old/done, step 10')
    await page.until(
      `[...document.querySelectorAll('#pictures img')].every((image) => image.complete && image.naturalWidth === 64)`,
    )
    await page.press('Home')
    expect(await text(page, '#step-text')).toBe('5 of 30')

    // In the middle it stays where it is; at the end it follows.
    await writeFile(path.join(root, 'live/samples/step-000040.png'), await samplePng(40))
    await page.until(`document.querySelector('#step-text').textContent === '5 of 40'`)
    await page.press('End')
    await writeFile(path.join(root, 'live/samples/step-000050.png'), await samplePng(50))
    await page.until(`document.querySelector('#step-text').textContent === '50 of 50'`)

    await page.click('button', 'Play')
    await page.until(`document.querySelector('#step-text').textContent === '15 of 50'`)
    await page.click('button', 'Stop')
    expect(await page.names('button')).toContain('Play')
    expect(page.problems).toEqual([])
  })

  it('shows what a comparison found', async () => {
    const root = await someRuns()
    const { page } = await viewed(root)
    await page.until(`${count('#pareto circle')} === 3`)
    expect(await page.names('link')).toContain('Comparison')
    expect(await text(page, '#pareto svg text')).toBe('Reward against Fréchet distance to images')
    expect(await text(page, '#comparison-table tbody tr:last-child')).toMatch(
      /^didr, drp0.0210.500/,
    )
    await page.focus('combobox', 'Distance to')
    await page.evaluate(
      `(() => { const s = document.querySelector('#reference'); s.value = 'teacher'; s.dispatchEvent(new Event('change')) })()`,
    )
    expect(await text(page, '#pareto svg text')).toBe('Reward against Fréchet distance to teacher')
    await writeFile(path.join(root, 'compare/compare.json'), '[')
    await page.until(
      `document.querySelector('#comparison-problem').textContent === 'compare.json: expected JSON'`,
    )
    expect(await page.evaluate(`document.querySelector('#pareto').hidden`)).toBe(true)
  })

  it('shows configuration, checkpoints and the report, in which nothing runs', async () => {
    const root = await someRuns()
    const { page, url } = await viewed(root, { query: '?run=old/done' })
    await page.until(`${count('#details-list details')} === 1`)
    await page.evaluate(`document.querySelector('#details-list summary').focus()`)
    await page.press('Enter')
    await page.until(`${count('#details-list tbody tr')} === 1`)
    expect(await text(page, '#details-list pre')).toBe('{\n  "steps": 30\n}\n')
    expect(await page.names('link')).toContain('Report')
    const report = await browser.open(`${url}files/old/done/report.html`)
    expect(await report.evaluate(`getComputedStyle(document.querySelector('p')).color`)).toBe(
      'rgb(255, 0, 0)',
    )
    expect(report.problems.join()).toMatch(/Blocked script execution|sandbox/)
  })

  it('filters the list, selects all of what is left and none', async () => {
    const root = await someRuns()
    const { page } = await viewed(root)
    await page.until(`${count('#runs li')} === 3`)
    await page.focus('searchbox', 'Filter')
    await page.type('old')
    await page.until(`${count('#runs li')} === 2`)
    expect(await text(page, '#count')).toBe('2 of 3 shown')
    await page.click('button', 'Select all')
    await page.until(`${count('#runs li.selected')} === 2`)
    await page.click('button', 'Select none')
    await page.until(`${count('#runs li.selected')} === 0`)
    expect(await page.evaluate('location.search')).toBe('?run=live')
  })

  it('is walked through by Tab, from the link that skips the list on', async () => {
    const root = await someRuns()
    const { page } = await viewed(root)
    await page.until(`${count('#charts svg[role=img]')} === 2`)
    const seen: string[] = []
    for (let i = 0; i < 40 && !seen.includes('comparison-table'); i++) {
      await page.press('Tab')
      seen.push(
        await page.evaluate<string>(
          `(({ id, value, className, firstElementChild, textContent }) => id || firstElementChild?.id || className.split(' ')[0] || value || textContent)(document.activeElement)`,
        ),
      )
      const outline = await page.evaluate<string>(
        `getComputedStyle(document.activeElement).outlineStyle`,
      )
      expect(outline).not.toBe('none')
    }
    expect(seen[0]).toBe('skip')
    const order = [
      'filter',
      'select-all',
      'span',
      'log',
      'chart',
      'step',
      'play',
      'comparison',
      'reference',
    ]
    const places = order.map((name) => seen.indexOf(name))
    expect(places).not.toContain(-1)
    expect(places).toEqual([...places].sort((a, b) => a - b))
  })

  it('follows the colours that the system prefers, and reads well in both', async () => {
    const root = await someRuns()
    for (const dark of [false, true]) {
      const { page } = await viewed(root, { dark })
      await page.until(`${count('#charts svg[role=img]')} === 2`)
      const colour = (selector: string, property: string) =>
        page
          .evaluate<string>(`getComputedStyle(document.querySelector('${selector}')).${property}`)
          .then((value) => (value.match(/[\d.]+/g) as string[]).slice(0, 3).map(Number))
      const card = luminance(await colour('section', 'backgroundColor'))
      expect(card > 0.5).toBe(!dark)
      for (const [selector, property, least] of [
        ['h2', 'color', 7],
        ['.chart text', 'fill', 7],
        ['.quiet', 'color', 4.5],
        ['#runs small', 'color', 4.5],
        ['header a', 'color', 4.5],
      ] as const) {
        const ink = luminance(await colour(selector, property))
        const [light, shade] = [Math.max(card, ink), Math.min(card, ink)]
        expect((light + 0.05) / (shade + 0.05), `${selector} ${dark}`).toBeGreaterThan(least)
      }
    }
  })

  it('is as wide as the window, however narrow', async () => {
    const root = await someRuns()
    const { url } = await viewed(root)
    const page = await browser.open(url, { width: 360, height: 700 })
    await page.until(`${count('#charts svg[role=img]')} === 2`)
    const widths = '[document.documentElement.scrollWidth, document.documentElement.clientWidth]'
    const [content, window] = await page.evaluate<[number, number]>(widths)
    expect(content).toBe(window)
    expect(window).toBeLessThanOrEqual(360)
  })

  it('says so when the server has ended', async () => {
    const root = await someRuns()
    const { page, stop } = await viewed(root)
    await page.until(`${count('#charts svg[role=img]')} === 2`)
    await stop()
    await page.until(`document.querySelector('#connection').textContent.includes('No answer')`)
    expect(await page.evaluate(count('#charts svg[role=img]'))).toBe(2)
  })

  it('of an empty folder says that there is nothing yet, and finds the first run', async () => {
    const root = await temporaryFolder()
    const { page } = await viewed(root)
    await page.until(`document.querySelector('#count').textContent === 'none here yet'`)
    expect(await text(page, '#metrics-none')).toContain('Select runs')
    await writeRun(path.join(root, 'first'), { metrics: lines(2) })
    await page.until(`${count('#runs li')} === 1`)
    await page.click('checkbox', 'first')
    await page.until(`${count('#charts svg[role=img]')} === 2`)
  })
})

/** Relative luminance of sRGB (WCAG 2.2, "relative luminance"). */
function luminance(rgb: readonly number[]): number {
  const [r = 0, g = 0, b = 0] = rgb.map((value) => {
    const part = value / 255
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}
