/** What commands share in reading their options. */
import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { fail } from '../errors.js'
import { checkDeviceName, type Device, device } from '../tensor/device.js'
import { readConfig } from '../train/config.js'

/** The value of an option that is a number; undefined where it is not given. */
export function numberOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value))
    fail('ERR_CONFIG', `${option}: expected a number, got ${JSON.stringify(text)}`)
  return value
}

/** The device that `--device` names. Default: the CPU. */
export function deviceOf(name = 'cpu'): Promise<Device> {
  checkDeviceName('--device', name)
  return device(name)
}

/** The fields that are given. */
export function defined(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

/** The configuration of a run that has been started; nothing if none has. */
export async function savedConfig(out: string): Promise<object> {
  const files = await readdir(out).catch((): string[] => [])
  return files.includes('config.json') ? readConfig(path.join(out, 'config.json')) : {}
}
