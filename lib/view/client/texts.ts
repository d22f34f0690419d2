/** Numbers and times as people read them. */

/** `7,549` */
export function grouped(value: number): string {
  return value.toLocaleString('en')
}

/** Four digits, and a power of ten for what is large or small. */
export function shown(value: number): string {
  const size = Math.abs(value)
  if (value !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2)
  return String(Number(value.toPrecision(4)))
}

/** `40 s`, `12 min`, `3.5 h`, `2 d` */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`
  if (seconds < 36 * 3600) return `${Number((seconds / 3600).toFixed(1))} h`
  return `${Math.round(seconds / 86400)} d`
}

/** `1.4 MB` */
export function size(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3))
  return `${Number((bytes / 1000 ** power).toPrecision(3))} ${units[power]}`
}

/** A run's name: the folder itself has none. */
export function nameOf(path: string): string {
  return path === '' ? 'this folder' : path
}
