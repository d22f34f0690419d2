import { appendFile, mkdir, rm, symlink, truncate, unlink, writeFile } from 'node:fs/promises'
import http from 'node:http'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type {
  ComparisonView,
  Curves,
  MetricNames,
  RunDetails,
  RunList,
} from '../../lib/view/api.js'
import { ViewServer } from '../../lib/view/server.js'
import { temporaryFolder } from '../data/shapes.js'
import { comparisonResult, linesOf, samplePng, writeRun } from './run-folders.js'

interface Reply {
  status: number
  headers: http.IncomingHttpHeaders
  body: Buffer
}

interface Request {
  method?: string
  headers?: Record<string, string>
}

async function started(folder?: string) {
  const root = folder ?? (await temporaryFolder())
  const server = await ViewServer.start(root, { port: 0 })
  onTestFinished(() => server.close())
  /** The path is sent as it is: fetch would tidy it up. */
  const ask = (target: string, { method = 'GET', headers = {} }: Request = {}) =>
    new Promise<Reply>((resolve, reject) => {
      const { hostname, port } = new URL(server.url)
      http
        .request({ hostname, port, path: target, method, headers, agent: false }, (response) => {
          const parts: Buffer[] = []
          response.on('data', (part) => parts.push(part))
          response.on('end', () =>
            resolve({
              status: response.statusCode as number,
              headers: response.headers,
              body: Buffer.concat(parts),
            }),
          )
        })
        .on('error', reject)
        .end()
    })
  const json = async <T>(target: string): Promise<T> => {
    const { status, body } = await ask(target)
    expect(status, `${target}: ${body}`).toBe(200)
    return JSON.parse(body.toString())
  }
  return { root, server, ask, json }
}

const lines = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ step: i + 1, seconds: 2, loss: 1 / (i + 1) }))

describe('the list of runs', () => {
  it('tells what they are, how far they are and which ones train', async () => {
    const { root, json } = await started()
    await writeRun(path.join(root, 'a'), {
      config: { steps: 10, objective: 'didr', drs: { estimator: 'drp' }, beta: 0.04 },
      metrics: lines(4),
      checkpoints: [2, 4],
      samples: [4, 2],
      locked: true,
      report: '<p>',
    })
    await writeRun(path.join(root, 'deep/er/b'), {
      config: { steps: 3, objective: 'diff-instruct' },
      metrics: lines(3),
      checkpoints: [3],
      kind: 'pretrain teacher',
    })
    await writeRun(path.join(root, 'c'), { metrics: lines(3) })
    const before = Date.now()
    const { runs, folder, now, comparisons, truncated } = await json<RunList>('/api/runs')
    expect([folder, comparisons, truncated]).toEqual([root, [], false])
    expect(now).toBeGreaterThanOrEqual(before)
    expect(runs).toEqual([
      {
        path: 'a',
        kind: 'train',
        method: 'didr, drp, β = 0.04',
        step: 4,
        steps: 10,
        state: 'training',
        changed: expect.any(Number),
        bytes: linesOf(lines(4)).length,
        secondsLeft: 12,
        samples: [2, 4],
        report: true,
      },
      expect.objectContaining({ path: 'c', kind: null, method: '', state: 'stopped', step: 3 }),
      expect.objectContaining({
        path: 'deep/er/b',
        kind: 'pretrain teacher',
        method: 'diff-instruct',
        state: 'done',
        secondsLeft: null,
      }),
    ])
  })

  it('a lock counts while its process runs, or where that cannot be known', async () => {
    const { root, json } = await started()
    await writeRun(path.join(root, 'a'), { metrics: lines(1) })
    const state = async () => (await json<RunList>('/api/runs')).runs[0]?.state
    const lock = path.join(root, 'a/lock')
    const host = os.hostname()
    for (const [text, expected] of [
      [{ pid: process.pid, host, started: null }, 'training'],
      [{ pid: 2 ** 30, host, started: null }, 'stopped'],
      [{ pid: 1, host: 'elsewhere.invalid', started: null }, 'training'],
      [{ pid: -1, host, started: null }, 'stopped'],
    ] as const) {
      await writeFile(lock, JSON.stringify(text))
      expect(await state()).toBe(expected)
    }
    await writeFile(lock, '{"pi')
    expect(await state()).toBe('stopped')
  })

  it('survives whatever lies there', async () => {
    const { root, json } = await started()
    await writeRun(path.join(root, 'a'), { config: '{"steps": ', metrics: '{"st' })
    await writeRun(path.join(root, 'b'), { config: '[]', metrics: '\0\0\n[]\n"x"\n' })
    await writeRun(path.join(root, 'c'), { config: { steps: 'many', objective: 7 } })
    await mkdir(path.join(root, 'd/metrics.jsonl'), { recursive: true })
    await mkdir(path.join(root, 'd/checkpoints/step-000001.safetensors'), { recursive: true })
    await writeFile(path.join(root, 'd/config.json'), '{}')
    await writeRun(path.join(root, 'e'), {})
    for (const [step, bytes] of [
      [1, ''],
      [2, 'short'],
      [3, '\xff\xff\xff\xff\xff\xff\xff\xff{}'],
      [4, '\x02\0\0\0\0\0\0\0{}'],
      [5, '\x08\0\0\0\0\0\0\0{"a": 1}'],
    ] as const) {
      const file = path.join(root, `e/checkpoints/step-00000${step}.safetensors`)
      await writeFile(file, Buffer.from(bytes, 'latin1'))
      const { runs } = await json<RunList>('/api/runs')
      expect(runs.map(({ path, kind, step, state }) => [path, kind, step, state])).toEqual(
        ['a', 'b', 'c', 'd', 'e'].map((name) => [name, null, 0, 'stopped']),
      )
    }
    const details = await json<RunDetails>('/api/run?run=b')
    expect(details).toMatchObject({ config: '[]', unreadableLines: 3 })
  })
})

describe('following', () => {
  it('a run that trains, a line that is half there, and a cut', async () => {
    const { root, json } = await started()
    await writeRun(path.join(root, 'a'), { metrics: lines(2), locked: true })
    const file = path.join(root, 'a/metrics.jsonl')
    const points = async () =>
      (await json<Curves>('/api/chart?metric=loss&run=a')).series[0]?.points
    expect(await points()).toEqual([
      [1, 1],
      [2, 0.5],
    ])
    await appendFile(file, '{"step":3,"loss":0.2')
    expect(await points()).toHaveLength(2)
    await appendFile(file, '5}\n')
    expect((await points())?.at(-1)).toEqual([3, 0.25])
    await truncate(file, linesOf(lines(1)).length)
    expect(await points()).toEqual([[1, 1]])
    await appendFile(file, '{"step":2,"loss":7}\n')
    expect((await points())?.at(-1)).toEqual([2, 7])
  })

  it('finds runs that come and forgets those that go', async () => {
    const { root, json } = await started()
    const count = async () => (await json<RunList>('/api/runs')).runs.length
    const poll = () => expect.poll(count, { timeout: 30_000, interval: 100 })
    expect(await count()).toBe(0)
    await writeRun(path.join(root, 'new/one'), { metrics: lines(1) })
    await poll().toBe(1)
    await rm(path.join(root, 'new'), { recursive: true })
    await poll().toBe(0)
  })

  it('answers 304 where nothing has changed', async () => {
    const { root, ask } = await started()
    await writeRun(path.join(root, 'a'), { metrics: lines(2), samples: [1] })
    for (const target of [
      '/',
      '/api/chart?metric=loss&run=a',
      '/files/a/samples/step-000001.png',
    ]) {
      const { headers } = await ask(target)
      const again = { headers: { 'if-none-match': headers.etag as string } }
      expect(await ask(target, again)).toMatchObject({ status: 304, body: Buffer.alloc(0) })
      if (target.startsWith('/files'))
        await writeFile(path.join(root, 'a/samples/step-000001.png'), await samplePng(9))
      else await appendFile(path.join(root, 'a/metrics.jsonl'), '{"step":3,"loss":4}\n')
      expect((await ask(target, again)).status).toBe(target === '/' ? 304 : 200)
    }
  })
})

describe('charts of several runs', () => {
  it('have the metrics of any of them, and a curve for each', async () => {
    const { root, json, ask } = await started()
    await writeRun(path.join(root, 'a'), { metrics: [{ step: 1, loss: 1, 'part/x & y': 2 }] })
    await writeRun(path.join(root, 'b ü'), { metrics: [{ step: 1, reward: 5, loss: 3 }] })
    const names = await json<MetricNames>(`/api/metrics?run=a&run=${encodeURIComponent('b ü')}`)
    expect(names).toEqual({ names: ['loss', 'part/x & y', 'reward'] })
    const query = `metric=loss&run=a&slot=4&run=${encodeURIComponent('b ü')}&slot=1`
    const { svg, series } = await json<Curves>(`/api/chart?${query}&log&span=20&width=400`)
    expect(series).toEqual([
      { run: 'a', slot: 4, points: [[1, 1]] },
      { run: 'b ü', slot: 1, points: [[1, 3]] },
    ])
    expect(svg).toMatch(/^<svg .*width="400".*data-log="y"/)
    expect((await json<Curves>('/api/chart?metric=__proto__&run=a')).series).toEqual([])
    for (const wrong of [
      '',
      'metric=loss&run=none',
      'metric=loss&run=a/..',
      'metric=loss&run=../x',
    ])
      expect((await ask(`/api/chart?${wrong}`)).status).toBe(wrong === '' ? 400 : 404)
    for (const [field, values] of Object.entries({
      span: ['0', '-1', 'x', '1.5', '99999', ''],
      width: ['1', '1e9', '100000'],
      slot: ['-1', '1001'],
    }))
      for (const value of values) {
        const { status, body } = await ask(`/api/chart?metric=loss&run=a&${field}=${value}`)
        expect([status, body.toString()]).toEqual([
          400,
          expect.stringContaining(`${field}: expected`),
        ])
      }
  })
})

describe('details of a run', () => {
  it('are its configuration, checkpoints and notes', async () => {
    const { root, json, ask } = await started()
    await writeRun(path.join(root, 'a'), {
      metrics: [{ step: 5, noOps: ['drs', 'guidance'] }],
      checkpoints: [5, 10],
    })
    await writeFile(path.join(root, 'a/checkpoints/.step-000011.safetensors.1-2.tmp'), '')
    await writeFile(path.join(root, 'a/checkpoints/best.safetensors'), 'abc')
    const details = await json<RunDetails>('/api/run?run=a')
    expect(details.checkpoints.map(({ name }) => name)).toEqual([
      'best.safetensors',
      'step-000005.safetensors',
      'step-000010.safetensors',
    ])
    expect(details.checkpoints[0]).toMatchObject({ bytes: 3 })
    expect(details.notes).toEqual([{ step: 5, name: 'noOps', texts: ['drs', 'guidance'] }])
    expect(JSON.parse(details.config as string)).toEqual({ steps: 10 })
    expect((await ask('/api/run?run=b')).status).toBe(404)
    expect((await ask('/api/run')).status).toBe(404)
  })
})

describe('a comparison', () => {
  it('is a table and a plot for each reference', async () => {
    const { root, json } = await started()
    await mkdir(path.join(root, 'compare'))
    await writeFile(
      path.join(root, 'compare/compare.json'),
      JSON.stringify([
        comparisonResult('base', 0.5, 0.1),
        comparisonResult('didr, drp', 0.6, 0.25, 0.1),
        comparisonResult('didr, drp', 0.7, 0.5, 0.02),
      ]),
    )
    const { comparisons } = await json<RunList>('/api/runs')
    expect(comparisons).toEqual([{ path: 'compare', changed: expect.any(Number) }])
    const view = await json<ComparisonView>('/api/comparison?comparison=compare')
    expect(view.problem).toBeNull()
    expect(view.rows.map((row) => row.slice(0, 4))).toEqual([
      ['method', 'β', 'calls', 'reward'],
      ['base', '', '1', '0.100'],
      ['didr, drp', '0.1', '1', '0.250'],
      ['didr, drp', '0.02', '1', '0.500'],
    ])
    expect(view.charts.map(({ reference }) => reference)).toEqual(['images', 'teacher'])
    expect(view.charts[1]?.svg).toContain(
      '<title>didr, drp, β = 0.02: reward 0.500, distance 0.350</title>',
    )
  })

  it.each([
    ['', 'expected JSON'],
    ['{}', 'expected an array'],
    ['[]', 'there are no results'],
    ['[null]', '[0]: expected a result'],
    [JSON.stringify([comparisonResult('a', 1, 1), { method: 'b' }]), '[1]: expected a result'],
    [
      JSON.stringify([
        comparisonResult('a', 1, 1),
        { ...comparisonResult('b', 1, 1), references: {} },
      ]),
      '[1]: expected the references of the first',
    ],
    [JSON.stringify([{ ...comparisonResult('a', 1, 1), reward: null }]), '[0]: expected a result'],
  ])('that is %j is told as a problem', async (text, problem) => {
    const { root, json } = await started()
    await writeFile(path.join(root, 'compare.json'), text)
    const view = await json<ComparisonView>('/api/comparison?comparison=')
    expect(view).toEqual({
      path: '',
      rows: [],
      charts: [],
      problem: expect.stringContaining(problem),
    })
  })
})

describe('files', () => {
  it('are samples and reports, as they are', async () => {
    const { root, ask } = await started()
    await writeRun(path.join(root, 'x/ü & %'), { samples: [1, 1234567], report: '<h1>r</h1>' })
    await writeRun(root, { samples: [2] })
    const base = `/files/${['x', 'ü & %'].map(encodeURIComponent).join('/')}`
    const sample = await ask(`${base}/samples/step-000001.png`)
    expect(sample).toMatchObject({ status: 200, body: await samplePng(1) })
    expect(sample.headers['content-type']).toBe('image/png')
    expect((await ask(`${base}/samples/step-1234567.png`)).status).toBe(200)
    expect((await ask('/files/samples/step-000002.png')).status).toBe(200)
    const report = await ask(`${base}/report.html`)
    expect(report).toMatchObject({ status: 200, body: Buffer.from('<h1>r</h1>') })
    expect(report.headers['content-security-policy']).toMatch(/default-src 'none'.*sandbox;/)
    const head = await ask(`${base}/report.html`, { method: 'HEAD' })
    expect(head).toMatchObject({ status: 200, body: Buffer.alloc(0) })
    expect(head.headers['content-length']).toBe('10')
  })

  it('of other names, outside, or behind links are not found', async () => {
    const outer = await temporaryFolder()
    const root = path.join(outer, 'runs')
    await writeRun(path.join(outer, 'secret'), { samples: [1], report: 'secret' })
    await writeFile(path.join(outer, 'report.html'), 'secret')
    await writeRun(path.join(root, 'a'), { samples: [1], checkpoints: [1], metrics: lines(1) })
    await writeRun(path.join(root, 'b'), {})
    await writeRun(path.join(root, 'c'), {})
    await symlink('../../secret/report.html', path.join(root, 'b/report.html'))
    await symlink(
      '../../../secret/samples/step-000001.png',
      path.join(root, 'b/samples/step-000001.png'),
    )
    await rm(path.join(root, 'c/samples'), { recursive: true })
    await symlink('../../secret/samples', path.join(root, 'c/samples'))
    await symlink('../secret', path.join(root, 'link'))
    const { ask, json } = await started(root)
    for (const target of [
      ...['a/config.json', 'a/metrics.jsonl', 'a/lock', 'a/checkpoints/step-000001.safetensors'],
      ...['a/samples/step-1.png', 'a/samples/step-0000001.png', 'a/samples/step-000002.png'],
      ...['a/samples/', 'a/samples', 'a', '', '/', 'a/samples/../report.html', 'a/report.html'],
      ...['../report.html', '..%2freport.html', '%2e%2e/report.html', '%2e%2e%2freport.html'],
      ...['a/../../report.html', 'a/%2e%2e/%2e%2e/report.html', '..%5creport.html'],
      ...[
        '%252e%252e/report.html',
        '../secret/report.html',
        '/../report.html',
        'a/%00/report.html',
      ],
      ...['../secret/samples/step-000001.png', `${outer}/report.html`, `%2f${outer}/report.html`],
      ...['b/report.html', 'b/samples/step-000001.png', 'c/samples/step-000001.png'],
      ...['link/report.html', 'link/samples/step-000001.png', 'a/samples/step-000001.png%00.html'],
    ]) {
      const { status, body } = await ask(`/files/${target}`)
      expect([target, status, body.toString()]).toEqual([target, 404, 'not found\n'])
    }
    for (const target of [
      '/../report.html',
      '//report.html',
      '/client/../server.js',
      '/client/x.js',
    ])
      expect((await ask(target)).status, target).toBe(404)
    expect((await ask('/client/..%2fserver.js')).status).toBe(404)
    const { runs } = await json<RunList>('/api/runs')
    expect(runs.map(({ path: own, samples, report }) => [own, samples, report])).toEqual([
      ['a', [1], false],
      ['b', [], false],
      ['c', [], false],
    ])
  })

  it('that go while they are asked for are not found', async () => {
    const { root, ask } = await started()
    await writeRun(path.join(root, 'a'), { samples: [1] })
    const target = '/files/a/samples/step-000001.png'
    expect((await ask(target)).status).toBe(200)
    await unlink(path.join(root, 'a/samples/step-000001.png'))
    expect((await ask(target)).status).toBe(404)
  })
})

describe('the server', () => {
  it('refuses what is not GET or HEAD, on every path', async () => {
    const { ask } = await started()
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND'])
      for (const target of ['/', '/api/runs', '/files/x/report.html']) {
        const reply = await ask(target, { method })
        expect([method, reply.status, reply.headers.allow]).toEqual([method, 405, 'GET, HEAD'])
      }
    expect(await ask('/', { method: 'HEAD' })).toMatchObject({ status: 200, body: Buffer.alloc(0) })
  })

  it('answers to names of the loopback interface alone', async () => {
    const { ask } = await started()
    for (const host of ['localhost', 'LocalHost:8080', '127.0.0.1:3437', '[::1]:1'])
      expect((await ask('/', { headers: { host } })).status, host).toBe(200)
    for (const host of [
      ...['evil.example', 'evil.example:3437', 'localhost.evil.example', '127.0.0.1.evil.example'],
      ...['localhost:evil', 'localhost:', 'a@localhost', '0.0.0.0', '192.168.0.1:3437'],
    ])
      for (const target of ['/', '/api/runs'])
        expect((await ask(target, { headers: { host } })).status, host).toBe(421)
  })

  it('sends no permission to other pages, and a policy that lets nothing in', async () => {
    const { ask } = await started()
    for (const target of ['/', '/api/runs', '/style.css', '/icon.svg', '/none']) {
      const { headers } = await ask(target, { headers: { origin: 'https://evil.example' } })
      expect(headers['access-control-allow-origin']).toBeUndefined()
      expect(headers).toMatchObject({
        'content-security-policy': expect.stringMatching(
          /^default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';.*frame-ancestors 'none'$/,
        ),
        'x-content-type-options': 'nosniff',
        'cross-origin-resource-policy': 'same-origin',
        'referrer-policy': 'no-referrer',
      })
    }
  })

  it('names nothing of another machine', async () => {
    const { ask } = await started()
    for (const target of ['/', '/style.css']) {
      const { body } = await ask(target)
      expect(body.toString()).not.toMatch(/https?:\/\/|@import|src="\/\//)
    }
  })

  it('lives through requests that are none', async () => {
    const { ask, server } = await started()
    for (const target of [
      '/%',
      '/%ff',
      '/files/%c3%28',
      '/?%',
      '/api/run?run=%ff',
      '*',
      '/\\',
      '/?',
    ])
      expect((await ask(target)).status, target).toBeLessThan(500)
    const { port } = new URL(server.url)
    for (const text of [
      'GET / HTTP/1.0\r\n\r\n',
      'GET / HTTP/1.1\r\n\r\n',
      'nonsense\r\n\r\n',
      '\0\0\0\0\r\n\r\n',
      '',
    ]) {
      const reply = await new Promise<string>((resolve) => {
        let received = ''
        const socket = net.connect(Number(port), '127.0.0.1', () => socket.end(text))
        socket.setEncoding('latin1').on('data', (data) => {
          received += data
        })
        socket.on('error', () => {}).on('close', () => resolve(received))
      })
      expect(reply).toMatch(text === '' ? /^$/ : /^HTTP\/1.1 4\d\d /)
    }
    expect((await ask('/')).status).toBe(200)
  })

  it('listens on the loopback interface alone', async () => {
    const { server } = await started()
    const { hostname, port } = new URL(server.url)
    expect(hostname).toBe('127.0.0.1')
    const others = Object.values(os.networkInterfaces())
      .flatMap((list) => list ?? [])
      .filter(({ internal, family }) => !internal && family === 'IPv4')
    for (const { address } of others) {
      const code = await new Promise((resolve) => {
        const socket = net.connect(Number(port), address, () => {
          socket.destroy()
          resolve('connected')
        })
        socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code))
      })
      expect(code).toBe('ECONNREFUSED')
    }
  })

  it('says which port is taken, and which is none', async () => {
    const { server, root } = await started()
    const port = Number(new URL(server.url).port)
    await expect(ViewServer.start(root, { port })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: `options.port: ${port} is taken by another program; choose another one`,
    })
    for (const wrong of [-1, 65536, 1.5])
      await expect(ViewServer.start(root, { port: wrong })).rejects.toMatchObject({
        code: 'ERR_RANGE',
      })
    await expect(ViewServer.start(path.join(root, 'none'))).rejects.toMatchObject({
      code: 'ERR_IO',
    })
  })

  it('takes a free port where the usual one is taken', async () => {
    const root = await temporaryFolder()
    const [one, two] = [await ViewServer.start(root), await ViewServer.start(root)]
    try {
      expect(one.url).not.toBe(two.url)
      for (const { url } of [one, two]) expect((await fetch(url)).status).toBe(200)
    } finally {
      await Promise.all([one.close(), two.close()])
    }
  })
})
