/** `npx didr inspect`: what a bug report needs to know about this installation. */
import os from 'node:os'
import { parseArgs } from 'node:util'
import { fail } from '../errors.js'
import { loadReport } from '../native/binding.js'
import { device } from '../tensor/device.js'
import { version } from './version.js'

const usage = `Usage: didr inspect [options]

What was loaded and from where: devices, instruction level, threads, BLAS, memory. Bug reports need it.

Options:
  --json   as JSON
  --help   this text`

interface Inspection {
  didr: string
  node: string
  platform: string
  processor: string
  addon: { file: string; refused: { candidate: string; reason: string }[] }
  devices: Record<string, string>[]
  refusedDevices: { name: string; reason: string }[]
  memory: {
    tensors: number
    bytes: number
    pooledBytes: number
    peakBytes: number
    systemBytes: number
  }
}

async function collect(): Promise<Inspection> {
  const cpu = await device('cpu')
  const inspection: Inspection = {
    didr: version,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    processor: os.cpus()[0]?.model ?? 'unknown',
    addon: loadReport,
    devices: [{ ...cpu.info }],
    refusedDevices: [],
    memory: { ...cpu.memory(), systemBytes: os.totalmem() },
  }
  try {
    inspection.devices.push({ ...(await device('cuda')).info })
  } catch (error) {
    inspection.refusedDevices.push({ name: 'cuda', reason: (error as Error).message })
  }
  return inspection
}

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`

function print(inspection: Inspection): void {
  const line = (name: string, value: string) => console.log(`${name.padEnd(20)}${value}`)
  line('didr', inspection.didr)
  line('node', `${inspection.node} on ${inspection.platform}`)
  line('processor', inspection.processor)
  line('addon', inspection.addon.file)
  for (const { candidate, reason } of inspection.addon.refused)
    line('  passed over', `${candidate}: ${reason}`)
  for (const { name, ...facts } of inspection.devices) {
    line('device', name ?? '')
    for (const [fact, value] of Object.entries(facts))
      line(`  ${fact}`, fact.endsWith('Bytes') ? mebibytes(Number(value)) : value)
  }
  for (const { name, reason } of inspection.refusedDevices) line('no device', `${name}: ${reason}`)
  const { memory } = inspection
  line(
    'memory in use',
    `${mebibytes(memory.bytes)} in ${memory.tensors} tensors, ${mebibytes(memory.pooledBytes)} pooled`,
  )
  line('memory of system', mebibytes(memory.systemBytes))
}

export async function inspect(args: string[]): Promise<number> {
  const values = parsed(args)
  if (values.help) {
    console.log(usage)
    return 0
  }
  const inspection = await collect()
  if (values.json) console.log(JSON.stringify(inspection, null, 2))
  else print(inspection)
  return 0
}

function parsed(args: string[]) {
  try {
    return parseArgs({ args, options: { json: { type: 'boolean' }, help: { type: 'boolean' } } })
      .values
  } catch (error) {
    return fail('ERR_CONFIG', `inspect: ${(error as Error).message}`)
  }
}
