// What nvcc makes of the CUDA kernels, as Markdown: registers, shared memory and spills per architecture, 16-byte loads and
// stores in the PTX, theoretical occupancy, bytes moved beside the least that the contract allows. Needs nvcc and a C++
// compiler, no GPU: nothing here is a measurement of a device.
//
//   node scripts/kernels-report.mjs [--check] [--write] [--arch 80,90]
//
//   --check   exit 1 when a kernel spills, lacks a 16-byte access that native/cuda/kernels.json asks for, or is not listed
//             there
//   --write   writes the method's own kernels between README.md's `kernels` markers, and all of them to docs/kernels.md
//   --arch    compute capabilities; default DIDR_CUDA_REPORT_ARCHITECTURES, else all that the module is built for
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')
const ALL_ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
const OCCUPANCY_ARCHITECTURES = [80, 90, 100]
const BEGIN = '<!-- kernels:begin -->'
const END = '<!-- kernels:end -->'

// As in native/cuda/CMakeLists.txt.
const NVCC_FLAGS = ['-std=c++20', '-O3', '-fmad=false', `-I${ROOT}`]

async function compile(nvcc, file, extra) {
  const child = spawn(nvcc, [...NVCC_FLAGS, ...extra, file], { stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text) => {
      log += text
    })
  const [status] = await once(child, 'close')
  if (status !== 0) throw new Error(`nvcc ${relative(ROOT, file)}:\n${log}`)
  return log
}

// Mangled name -> readable name: the kernel and its template arguments, without namespaces and parameters.
function readableNames(mangled) {
  const lines = execFileSync('c++filt', { input: mangled.join('\n'), encoding: 'utf8' }).split('\n')
  return new Map(
    mangled.map((name, i) => {
      const plain = lines[i]
        .replace(/\(anonymous namespace\)::/g, '')
        .replace(/didr::/g, '')
        .replace(/^void /, '')
      return [name, plain.slice(0, plain.indexOf('(') === -1 ? undefined : parameterStart(plain))]
    }),
  )
}

// Where the parameter list begins: the first parenthesis outside template arguments.
function parameterStart(name) {
  let depth = 0
  for (let i = 0; i < name.length; ++i) {
    if (name[i] === '<') ++depth
    else if (name[i] === '>') --depth
    else if (name[i] === '(' && depth === 0) return i
  }
  return name.length
}

// ptxas -v: entry function, architecture, then stack and spills, then registers and shared memory.
function parseResources(log) {
  const rows = []
  let row
  for (const line of log.split('\n')) {
    const entry = line.match(/Compiling entry function '(\S+)' for 'sm_(\d+)\w*'/)
    if (entry) {
      row = { mangled: entry[1], architecture: Number(entry[2]) }
      rows.push(row)
    }
    const spills = line.match(/(\d+) bytes spill stores, (\d+) bytes spill loads/)
    if (spills && row) row.spills = Number(spills[1]) + Number(spills[2])
    const used = line.match(/Used (\d+) registers/)
    if (used && row) {
      row.registers = Number(used[1])
      row.shared = Number(line.match(/(\d+) bytes smem/)?.[1] ?? 0)
    }
  }
  return rows
}

// Per entry of a PTX file: threads per block (from __launch_bounds__) and 16-byte accesses of global memory.
function parsePtx(ptx) {
  const entries = new Map()
  for (const part of ptx.split(/^\.visible \.entry |^\.entry /m).slice(1)) {
    entries.set(part.match(/^(\S+?)\(/)[1], {
      threads: Number(part.match(/\.maxntid (\d+)/)?.[1] ?? 0),
      load: (part.match(/\bld\.global(\.\w+)*\.v4\.\w*32/g) ?? []).length,
      store: (part.match(/\bst\.global(\.\w+)*\.v4\.\w*32/g) ?? []).length,
    })
  }
  return entries
}

function occupancies(folder, nvcc, kernels) {
  const program = join(folder, 'occupancy')
  const toolkit = toolkitInclude(nvcc)
  execFileSync(process.env.CXX ?? 'c++', [
    '-std=c++20',
    '-O1',
    `-I${toolkit}`,
    join(ROOT, 'native/cuda/occupancy.cc'),
    '-o',
    program,
  ])
  const asked = kernels.flatMap((kernel) =>
    kernel.resources
      .filter((r) => OCCUPANCY_ARCHITECTURES.includes(r.architecture))
      .map((resources) => ({ kernel, resources })),
  )
  const input = asked
    .map(
      ({ kernel, resources: r }) =>
        `${r.architecture} ${kernel.threads} ${r.registers} ${r.shared}\n`,
    )
    .join('')
  const lines = execFileSync(program, { input, encoding: 'utf8' }).trim().split('\n')
  asked.forEach(({ resources }, i) => {
    resources.occupancy = Number(lines[i].split(' ')[1])
  })
}

// The include folder that this nvcc uses itself.
function toolkitInclude(nvcc) {
  const log = spawnSync(nvcc, ['--dryrun', '-c', '-x', 'cu', '/dev/null', '-o', '/dev/null'], {
    encoding: 'utf8',
  })
  const found = log.stderr.match(/INCLUDES="-I([^"]+?)"/)
  if (!found) throw new Error('nvcc does not tell where its headers are')
  return found[1].trim()
}

async function inspect(nvcc, architectures, folder) {
  const listed = JSON.parse(readFileSync(join(ROOT, 'native/cuda/kernels.json'), 'utf8')).kernels
  const problems = []
  const kernels = []
  const ops = join(ROOT, 'native/ops')
  const sources = readdirSync(ops, { recursive: true })
    .filter((name) => name.endsWith('.cu'))
    .sort()
    .map((name) => join(ops, name))
  const generate = architectures.flatMap((a) => ['-gencode', `arch=compute_${a},code=sm_${a}`])
  // A file at a time for each core; what they say is looked at in their order.
  const compiled = new Map()
  const waiting = sources.map((source, i) => ({ source, name: join(folder, `kernels-${i}`) }))
  const work = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { source, name } = next
      const log = await compile(nvcc, source, [
        ...generate,
        ...['-Xptxas', '-v,-warn-spills', '-c', '-o', `${name}.o`],
      ])
      const ptx = ['-ptx', '-o', `${name}.ptx`]
      await compile(nvcc, source, [`-arch=compute_${architectures.at(-1)}`, ...ptx])
      compiled.set(source, { log, ptxFile: `${name}.ptx` })
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
  for (const source of sources) {
    const { log, ptxFile } = compiled.get(source)
    const resources = parseResources(log)
    const names = readableNames([...new Set(resources.map((r) => r.mangled))])
    for (const [mangled, entry] of parsePtx(readFileSync(ptxFile, 'utf8'))) {
      const name = names.get(mangled)
      const kernel = {
        name,
        source: relative(ROOT, source),
        listed: listed[name.replace(/<.*/, '')],
        // Bytes of an element of the data that the kernel is compiled for.
        bytes: name.includes('BFloat16') ? 2 : 4,
        resources: resources.filter((r) => r.mangled === mangled),
        ...entry,
      }
      kernels.push(kernel)
      if (!kernel.listed) {
        problems.push(`${name} (${kernel.source}) is not listed in native/cuda/kernels.json`)
        continue
      }
      for (const access of kernel.listed.vector)
        if (kernel[access] === 0) problems.push(`${name}: no 16-byte ${access} in its PTX`)
      for (const r of kernel.resources)
        if (r.spills > 0) problems.push(`${name}: spills ${r.spills} bytes on sm_${r.architecture}`)
    }
  }
  const found = new Set(kernels.map((k) => k.name.replace(/<.*/, '')))
  for (const name of Object.keys(listed))
    if (!found.has(name))
      problems.push(`native/cuda/kernels.json lists ${name}, which no file defines`)
  occupancies(folder, nvcc, kernels)
  return { kernels, problems }
}

const table = (head, rows) =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')

const range = (values) => {
  const low = Math.min(...values)
  const high = Math.max(...values)
  return low === high ? `${low}` : `${low}-${high}`
}

const occupancyOf = (kernel, architecture) =>
  kernel.resources.find((r) => r.architecture === architecture)?.occupancy

function summary(kernels, architectures, version) {
  const occupied = OCCUPANCY_ARCHITECTURES.filter((a) => architectures.includes(a))
  const rows = kernels.map((k) => [
    `\`${k.name}\``,
    k.listed?.op ?? '?',
    k.threads,
    range(k.resources.map((r) => r.registers)),
    range(k.resources.map((r) => r.shared)),
    k.resources.reduce((sum, r) => sum + r.spills, 0),
    `${k.load} / ${k.store}`,
    occupied.map((a) => occupancyOf(k, a)).join(' / '),
    k.listed?.moved ? `${k.listed.moved * k.bytes} / ${k.listed.minimum * k.bytes}` : '',
  ])
  const head = [
    'kernel',
    'op',
    'threads',
    'registers',
    'shared bytes',
    'spilled bytes',
    '16-byte loads / stores',
    `occupancy %, sm_${occupied.join(' / ')}`,
    'bytes per element: moved / least',
  ]
  const cases = Object.entries(
    Object.fromEntries(
      kernels.filter((k) => k.listed?.case).map((k) => [k.name.replace(/<.*/, ''), k.listed.case]),
    ),
  ).map(([name, text]) => `\`${name}\`: ${text}`)
  return [
    `nvcc ${version}, architectures ${architectures.join(', ')}. Figures of the compiler, not of a device.`,
    '',
    table(head, rows),
    '',
    `Bytes are counted for ${cases.join('; ')}.`,
  ].join('\n')
}

function perArchitecture(kernels, architectures) {
  const cell = (r) =>
    r ? `${r.registers} r, ${r.shared} B${r.spills ? `, ${r.spills} spilled` : ''}` : ''
  return table(
    ['kernel', ...architectures.map((a) => `sm_${a}`)],
    kernels.map((k) => [
      `\`${k.name}\``,
      ...architectures.map((a) => cell(k.resources.find((r) => r.architecture === a))),
    ]),
  )
}

/** The method's own kernels in README.md, all of them in docs/kernels.md. */
function writeTables(kernels, architectures, version) {
  const file = join(ROOT, 'README.md')
  const readme = readFileSync(file, 'utf8')
  const begin = readme.indexOf(BEGIN)
  const end = readme.indexOf(END)
  if (begin === -1 || end < begin) throw new Error(`README.md has no ${BEGIN} ... ${END}`)
  const own = kernels.filter(({ source }) => source.startsWith('native/ops/didr/'))
  const text = summary(own, architectures, version)
  writeFileSync(file, `${readme.slice(0, begin + BEGIN.length)}\n${text}\n${readme.slice(end)}`)
  writeFileSync(
    join(ROOT, 'docs/kernels.md'),
    `# CUDA kernels\n\n\`npm run kernels:report -- --write\` writes this page.\n\n${summary(kernels, architectures, version)}\n`,
  )
}

async function main() {
  const { values } = parseArgs({
    options: {
      check: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
      arch: { type: 'string', default: process.env.DIDR_CUDA_REPORT_ARCHITECTURES },
    },
  })
  const architectures = values.arch
    ? values.arch
        .split(',')
        .map(Number)
        .sort((a, b) => a - b)
    : ALL_ARCHITECTURES
  const nvcc = process.env.NVCC ?? 'nvcc'
  const told = spawnSync(nvcc, ['--version'], { encoding: 'utf8' })
  if (told.error) {
    console.log(
      `kernels-report: no nvcc on this machine (${told.error.message}); nothing was checked.`,
    )
    return
  }
  const version = told.stdout.match(/V([\d.]+)/)?.[1]
  const folder = mkdtempSync(join(tmpdir(), 'didr-kernels-'))
  try {
    const { kernels, problems } = await inspect(nvcc, architectures, folder)
    const text = summary(kernels, architectures, version)
    console.log(`# CUDA kernels\n\n${text}\n\n## Registers and shared memory per architecture\n`)
    console.log(perArchitecture(kernels, architectures))
    if (values.write) writeTables(kernels, architectures, version)
    if (problems.length > 0) {
      console.log(`\n## Problems\n\n${problems.map((p) => `- ${p}`).join('\n')}`)
      if (values.check) process.exitCode = 1
    } else {
      console.log(
        '\nNo spills; every 16-byte access that native/cuda/kernels.json asks for is there.',
      )
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

await main()
