/** The HTTP side of the run viewer: on the loopback interface alone, and it only reads. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { checkInteger } from '../checks.js'
import { fail } from '../errors.js'
import type { MetricNames, RunList } from './api.js'
import { comparisonView } from './comparisons.js'
import { curvesOf } from './curves.js'
import { type Found, findRuns } from './find-runs.js'
import { joined, ViewedFolder } from './folder.js'
import { MetricsFile } from './metrics-file.js'
import { icon, page } from './page.js'
import { RunReader, sampleFile } from './runs.js'
import { style } from './style.js'

export interface ViewServerOptions {
  /** Default: {@link defaultPort}, or one that is free where that is taken. */
  port?: number | undefined
}

/** d, i, d, r on the keys of a telephone. */
export const defaultPort = 3437

/** Names under which a browser may ask; another one is that of a page that has bent its own name to this machine. */
const ownHosts = ['localhost', '127.0.0.1', '[::1]']

const securityHeaders = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  // Asked for again each time, and answered by 304 where nothing has changed.
  'cache-control': 'no-cache',
}

/** A report is one file with its style and pictures inside; nothing in it runs. */
const reportPolicy =
  "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; base-uri 'none'; form-action 'none'; " +
  "frame-ancestors 'none'"

/** The modules of the page, which tsc has put beside this one. */
const clientScript = /^\/client\/([a-z-]+\.js)$/

/** Folders are looked through again after this many ms, or after 20 times what it took. */
const scanEvery = 1500
/** Steps that smoothing averages over, at most. */
const maxSpan = 10_000

/** What a request is answered with, other than a file. */
interface Answer {
  type: string
  body: string | Buffer
}

/** A request that is refused, with the status to tell. */
class Refusal extends Error {
  readonly status: number
  readonly headers: Record<string, string>

  constructor(status: number, message: string, headers: Record<string, string> = {}) {
    super(message)
    this.status = status
    this.headers = headers
  }
}

/**
 * Serves the viewer's page and what it shows of the runs in a folder.
 *
 * It listens on 127.0.0.1, answers GET and HEAD only, and reads inside of the folder alone. Whoever has an account on the
 * machine can ask it.
 */
export class ViewServer {
  readonly folder: ViewedFolder
  readonly #server: Server
  readonly #reader: RunReader
  readonly #metrics = new Map<string, MetricsFile>()
  #found: { at: number; took: number; result: Promise<Found> } | undefined

  private constructor(folder: ViewedFolder) {
    this.folder = folder
    this.#reader = new RunReader(folder)
    this.#server = createServer((request, response) => {
      this.#handle(request, response).catch(() => response.destroy())
    })
  }

  /**
   * @throws {DidrError} (as a rejection) ERR_IO if there is no such folder or nothing can be listened on; ERR_CONFIG for a
   *   port that is taken; ERR_RANGE for one that is none
   */
  static async start(folder: string, { port }: ViewServerOptions = {}): Promise<ViewServer> {
    if (port !== undefined) checkInteger('options.port', port, 0, 65535)
    const server = new ViewServer(await ViewedFolder.open(folder))
    try {
      await server.#listen(port ?? defaultPort)
    } catch (error) {
      const taken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
      if (port === undefined && taken) await server.#listen(0)
      else if (taken)
        fail('ERR_CONFIG', `options.port: ${port} is taken by another program; choose another one`)
      else
        fail(
          'ERR_IO',
          `127.0.0.1:${port ?? defaultPort}: could not be listened on: ${(error as Error).message}`,
          {
            cause: error,
          },
        )
    }
    return server
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`
  }

  /** Ends it, open connections too. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
  }

  async #listen(port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen({ host: '127.0.0.1', port, exclusive: true }, () => {
        this.#server.off('error', reject)
        resolve()
      })
    })
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(securityHeaders)) response.setHeader(name, value)
    try {
      await this.#answer(request, response)
    } catch (error) {
      if (response.headersSent) throw error
      // What went wrong inside is nobody's business but the terminal's.
      const refusal = error instanceof Refusal ? error : new Refusal(500, 'internal error')
      if (!(error instanceof Refusal)) console.error(error)
      response.writeHead(refusal.status, {
        'content-type': 'text/plain; charset=utf-8',
        ...refusal.headers,
      })
      response.end(request.method === 'HEAD' ? undefined : `${refusal.message}\n`)
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    checkHost(request.headers.host)
    if (request.method !== 'GET' && request.method !== 'HEAD')
      throw new Refusal(405, 'only GET and HEAD', { allow: 'GET, HEAD' })
    // By hand: the URL class would resolve `..` and take a path that begins with // for a host.
    const [rawPath = '', rawQuery = ''] = (request.url ?? '').split(/\?(.*)/s)
    const path = decoded(rawPath)
    const query = new URLSearchParams(rawQuery)
    if (path.startsWith('/files/')) {
      await this.#sendFile(request, response, path.slice('/files/'.length))
      return
    }
    const { type, body } = await this.#bodyOf(path, query)
    const tag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`
    response.setHeader('etag', tag)
    if (request.headers['if-none-match'] === tag) {
      response.writeHead(304).end()
      return
    }
    response.writeHead(200, { 'content-type': type, 'content-length': Buffer.byteLength(body) })
    response.end(request.method === 'HEAD' ? undefined : body)
  }

  async #bodyOf(path: string, query: URLSearchParams): Promise<Answer> {
    const json = (value: unknown) => ({
      type: 'application/json; charset=utf-8',
      body: JSON.stringify(value),
    })
    const script = clientScript.exec(path)?.[1]
    if (script !== undefined) return clientModule(script)
    switch (path) {
      case '/':
        return { type: 'text/html; charset=utf-8', body: page }
      case '/style.css':
        return { type: 'text/css; charset=utf-8', body: style }
      case '/icon.svg':
        return { type: 'image/svg+xml', body: icon }
      case '/api/runs':
        return json(await this.#list())
      case '/api/metrics':
        return json(await this.#metricNames(query))
      case '/api/chart':
        return json(await this.#chart(query))
      case '/api/run': {
        const run = await this.#knownRun(query.get('run'))
        return json(await this.#reader.details(run, await this.#metricsOf(run)))
      }
      case '/api/comparison': {
        const comparison = query.get('comparison')
        const { comparisons } = await this.#find()
        if (comparison === null || !comparisons.includes(comparison))
          throw new Refusal(404, 'no such comparison')
        return json(await comparisonView(this.folder, comparison))
      }
      default:
        throw new Refusal(404, 'not found')
    }
  }

  async #list(): Promise<RunList> {
    const { runs, comparisons, truncated } = await this.#find()
    for (const path of this.#metrics.keys()) if (!runs.includes(path)) this.#metrics.delete(path)
    const states = await Promise.all(
      comparisons.map((path) => this.folder.stateOf(joined(path, 'compare.json'))),
    )
    return {
      folder: this.folder.root,
      now: Date.now(),
      runs: await Promise.all(runs.map((path) => this.#reader.summary(path))),
      comparisons: comparisons.map((path, i) => ({ path, changed: states[i]?.changed ?? 0 })),
      truncated,
    }
  }

  /** Runs and comparisons, as of not long ago. */
  async #find(): Promise<Found> {
    const now = performance.now()
    if (
      this.#found === undefined ||
      now - this.#found.at > Math.max(scanEvery, 20 * this.#found.took)
    ) {
      const found = { at: now, took: 0, result: findRuns(this.folder) }
      this.#found = found
      await found.result
      found.took = performance.now() - now
    }
    return this.#found.result
  }

  async #knownRun(path: string | null): Promise<string> {
    if (path === null || !(await this.#find()).runs.includes(path))
      throw new Refusal(404, 'no such run')
    return path
  }

  /** The metrics of a run, up to date. */
  async #metricsOf(run: string): Promise<MetricsFile> {
    let metrics = this.#metrics.get(run)
    if (metrics === undefined) {
      metrics = new MetricsFile(this.folder, joined(run, 'metrics.jsonl'))
      this.#metrics.set(run, metrics)
    }
    await metrics.update()
    return metrics
  }

  async #metricNames(query: URLSearchParams): Promise<MetricNames> {
    const names = new Set<string>()
    for (const run of query.getAll('run')) {
      const { series } = await this.#metricsOf(await this.#knownRun(run))
      for (const name of series.keys()) names.add(name)
    }
    return { names: [...names] }
  }

  async #chart(query: URLSearchParams) {
    const metric = query.get('metric')
    if (metric === null) throw new Refusal(400, 'metric: expected a name')
    const slots = query.getAll('slot')
    const runs = []
    for (const [i, name] of query.getAll('run').entries()) {
      const run = await this.#knownRun(name)
      const { series } = await this.#metricsOf(run)
      runs.push({
        run,
        slot: integerOf('slot', slots[i] ?? String(i), 0, 1000),
        series: series.get(metric),
      })
    }
    return curvesOf({
      metric,
      runs,
      span: integerOf('span', query.get('span') ?? '1', 1, maxSpan),
      log: query.has('log'),
      width: integerOf('width', query.get('width') ?? '560', 240, 1600),
    })
  }

  /** Pictures and reports of runs; nothing else of the folder leaves it as it is. */
  async #sendFile(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    const [, run, sample] =
      /^(?:(.*)\/)?(?:samples\/step-(\d{1,15})\.png|report\.html)$/s.exec(path) ?? []
    const { runs } = await this.#find()
    const file = sample === undefined ? 'report.html' : sampleFile(Number(sample))
    // The name is made again from what was read: only the one way to write it is right.
    if (!runs.includes(run ?? '') || joined(run ?? '', file) !== path)
      throw new Refusal(404, 'not found')
    const opened = await this.folder.openFile(path)
    if (opened === undefined) throw new Refusal(404, 'not found')
    const { handle, bytes, changed } = opened
    try {
      const tag = `"${bytes}-${Math.round(changed * 1000)}"`
      response.setHeader('etag', tag)
      if (sample === undefined) response.setHeader('content-security-policy', reportPolicy)
      if (request.headers['if-none-match'] === tag) {
        response.writeHead(304).end()
        return
      }
      response.writeHead(200, {
        'content-type': sample === undefined ? 'text/html; charset=utf-8' : 'image/png',
        'content-length': bytes,
      })
      if (request.method === 'HEAD' || bytes === 0) response.end()
      // Not past the length that was promised: a file may grow.
      else
        await pipeline(
          handle.createReadStream({ start: 0, end: bytes - 1, autoClose: false }),
          response,
        )
    } finally {
      await handle.close()
    }
  }
}

function checkHost(host: string | undefined): void {
  // Any port: it may come through a tunnel that has another one at its other end.
  const name = host?.replace(/:\d{1,5}$/, '').toLowerCase()
  if (name === undefined || !ownHosts.includes(name))
    throw new Refusal(421, `Host: expected one of ${ownHosts.join(', ')}`)
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    throw new Refusal(400, 'the path is not valid percent-encoding')
  }
}

function integerOf(name: string, text: string, low: number, high: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= low && value <= high))
    throw new Refusal(400, `${name}: expected an integer from ${low} to ${high}`)
  return value
}

async function clientModule(name: string): Promise<Answer> {
  try {
    const body = await readFile(new URL(`./client/${name}`, import.meta.url))
    return { type: 'text/javascript; charset=utf-8', body }
  } catch {
    throw new Refusal(404, 'not found')
  }
}
