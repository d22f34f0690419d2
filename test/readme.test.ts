/**
 * What the README and docs/ say is so: their programs compile and run, their commands and options exist, their links and
 * paths lead somewhere, and every error code is explained.
 *
 * Words after a block's language say how it is taken:
 *
 * - `ts`: a program. The programs of a page run one after another in a folder of the page.
 * - `ts file=red.ts`: a module, written under that name for later programs of the page; it runs, too.
 * - `ts assets`: a program that needs the models that come with the package.
 * - `ts machine`: a program that needs what is not everywhere, a GPU or published weights: compiled, not run.
 * - `json align`: a configuration of `train` and `distill`; `json plan`: one of `plan`.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { train } from '../lib/index.js'
import {
  anchorsOf,
  type CodeBlock,
  codeBlocks,
  commandsIn,
  localLinks,
  proseOf,
  wrongOptions,
} from './fixtures/markdown.js'
import { runCommand } from './fixtures/run-program.js'

const require = createRequire(import.meta.url)
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const read = (file: string) => readFileSync(path.join(root, file), 'utf8')
const pages = [
  'README.md',
  ...readdirSync(path.join(root, 'docs'))
    .filter((file) => file.endsWith('.md'))
    .map((file) => `docs/${file}`),
]
const blocks = pages.flatMap((page) => codeBlocks(page, read(page)))
const ofLanguage = (...languages: string[]) =>
  blocks.filter(({ info: [language = ''] }) => languages.includes(language))
const nameOf = ({ page, line }: CodeBlock) => `${page}:${line}`
const named = (some: readonly CodeBlock[]) => some.map((block) => [nameOf(block), block] as const)

const programs = ofLanguage('ts')
// Inside the repository, where the package can be imported by its name.
const folder = path.join(root, 'out', 'readme')

function fileOf({ page, line, info }: CodeBlock): string {
  const given = info.find((word) => word.startsWith('file='))?.slice('file='.length)
  return path.join(folder, path.basename(page, '.md'), given ?? `line-${line}.ts`)
}

describe('the programs of the README and docs', () => {
  beforeAll(() => {
    rmSync(folder, { recursive: true, force: true })
    for (const block of programs) {
      mkdirSync(path.dirname(fileOf(block)), { recursive: true })
      writeFileSync(fileOf(block), block.code)
    }
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it('are there', () => {
    for (const page of pages.filter((page) => !/troubleshooting|kernels/.test(page)))
      expect(
        blocks.some((block) => block.page === page),
        page,
      ).toBe(true)
    expect(programs.length).toBeGreaterThan(10)
    expect(new Set(programs.map(fileOf)).size).toBe(programs.length)
  })

  it('compile', () => {
    const config = {
      extends: path.join(root, 'test/tsconfig.json'),
      compilerOptions: {
        allowImportingTsExtensions: true,
        noUnusedLocals: false,
        noUnusedParameters: false,
      },
      include: ['**/*.ts'],
    }
    writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify(config))
    const compiler = path.join(path.dirname(require.resolve('typescript/package.json')), 'bin/tsc')
    const { stdout } = spawnSync(process.execPath, [compiler, '-p', folder], { encoding: 'utf8' })
    expect(stdout).toBe('')
  })

  const assets = existsSync(path.join(root, 'assets'))
  const needs = (word: string) => programs.filter(({ info }) => info.includes(word))
  const notRun = new Set([...needs('machine'), ...(assets ? [] : needs('assets'))])
  for (const block of notRun)
    console.log(
      `${nameOf(block)}: compiled, not run: ${block.info.includes('machine') ? 'it needs a GPU or published weights' : 'there is no assets/'}`,
    )

  it.each(named(programs.filter((block) => !notRun.has(block))))('%s runs', async (_, block) => {
    const before = process.cwd()
    process.chdir(path.dirname(fileOf(block)))
    try {
      await import(pathToFileURL(fileOf(block)).href)
    } finally {
      process.chdir(before)
    }
  })
})

describe('the commands of the README and docs', () => {
  const shell = [...ofLanguage('sh'), ...blocks.filter(({ info }) => info.length === 0)]
  const calls = shell.flatMap((block) =>
    commandsIn(block.code).map(
      (args) => [`${nameOf(block)}: didr ${args.join(' ')}`, args] as const,
    ),
  )
  const helps = new Map<string, Promise<string>>()
  const helpOf = (command: string) => {
    const help =
      helps.get(command) ??
      runCommand([command, '--help']).then(({ code, stdout }) => {
        expect(code, `didr ${command} --help`).toBe(0)
        return stdout
      })
    helps.set(command, help)
    return help
  }

  it('are there', () => {
    expect(calls.length).toBeGreaterThan(10)
  })

  it.each(calls)('%s', async (_, [command, ...args]) => {
    expect(wrongOptions(args, await helpOf(command as string))).toEqual([])
  })

  it('of npm exist', () => {
    const { scripts } = JSON.parse(read('package.json'))
    const called = shell.flatMap(({ code }) =>
      Array.from(code.matchAll(/npm run ([\w:]+)/g), ([, name]) => name),
    )
    expect(called.length).toBeGreaterThan(0)
    for (const name of called) expect(Object.keys(scripts)).toContain(name)
  })

  it('would be found if they were wrong', async () => {
    const code =
      'npx didr train \\\n  --out runs/a --betta 1 --beta --steps 3 # --ignored\nls --all'
    const [args, ...more] = commandsIn(code)
    expect(args).toEqual(['train', '--out', 'runs/a', '--betta', '1', '--beta', '--steps', '3'])
    expect(more).toEqual([])
    expect(wrongOptions((args as string[]).slice(1), await helpOf('train'))).toEqual([
      '--betta: there is no such option',
      '--beta: expected a value',
    ])
    expect(commandsIn('npm ci && npx didr sample --prompt "red heart"')).toEqual([
      ['sample', '--prompt', 'red heart'],
    ])
  })
})

describe('the rest of the README and docs', () => {
  it.each(named(ofLanguage('json')))('%s is JSON', async (_, { code, info }) => {
    const config = JSON.parse(code)
    if (info.includes('align')) train.resolveAlignConfig(config)
    // Of a network of few layers, which takes less time and has the same fields.
    const transformer = { ...config.transformer, n_layers: 1, n_refiner_layers: 0 }
    if (info.includes('plan'))
      await train.planMemory({ ...config, transformer }, { batchSize: 1, size: 64 })
  })

  it.each(named(ofLanguage('jsonl')))('%s is JSON, line by line', (_, { code }) => {
    for (const line of code.trimEnd().split('\n')) expect(JSON.parse(line)).toBeTypeOf('object')
  })

  it('has no block of a language that nothing checks', () => {
    const known = ['ts', 'sh', 'json', 'jsonl', 'mermaid', 'python', 'txt', '']
    for (const block of blocks) expect(known, nameOf(block)).toContain(block.info[0] ?? '')
  })

  it.each(pages)('%s: links lead somewhere', (page) => {
    for (const link of localLinks(read(page))) {
      const [file = '', anchor] = link.split('#')
      const target = file === '' ? page : path.join(path.dirname(page), file)
      expect(existsSync(path.join(root, target)), link).toBe(true)
      if (anchor !== undefined) expect(anchorsOf(read(target)), link).toContain(anchor)
    }
  })

  it.each(pages)('%s: paths of the repository exist', (page) => {
    const quoted = Array.from(proseOf(read(page)).matchAll(/`([^`\s]+)`/g), ([, text]) => text)
    for (const file of quoted as string[])
      if (/^(lib|native|test|bench|scripts|docs)\/[\w./-]*$/.test(file))
        expect(existsSync(path.join(root, file)), file).toBe(true)
  })

  it('explains every error code', () => {
    const codes = Array.from(read('lib/errors.ts').matchAll(/\| '(ERR_\w+)'/g), ([, code]) => code)
    const headings = Array.from(
      read('docs/troubleshooting.md').matchAll(/^## `(ERR_\w+)`$/gm),
      ([, code]) => code,
    )
    expect(codes.length).toBeGreaterThan(5)
    expect(headings.sort()).toEqual(codes.sort())
  })
})
