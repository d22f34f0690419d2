/** The paths at which two JSON values differ: `optimizer.generator.lr`. @param path of the values themselves */
export function differences(a: unknown, b: unknown, path = ''): string[] {
  if (!isObject(a) || !isObject(b)) return JSON.stringify(a) === JSON.stringify(b) ? [] : [path]
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].flatMap((field) =>
    differences(a[field], b[field], path === '' ? field : `${path}.${field}`),
  )
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
