/** Asking the server. */

/** Pairs of names and values, of which several may have one name. */
export type Query = readonly (readonly [name: string, value: string])[]

/** The JSON of an address. Throws where the server is gone or refuses. */
export async function request<T>(path: string, query: Query = []): Promise<T> {
  const search = new URLSearchParams(query.map(([name, value]) => [name, value])).toString()
  const response = await fetch(search === '' ? path : `${path}?${search}`)
  if (!response.ok) throw new Error(`${path}: ${response.status}`)
  return (await response.json()) as T
}

/** The address of a file of a run. */
export function fileAddress(run: string, file: string): string {
  const path = run === '' ? file : `${run}/${file}`
  return `/files/${path.split('/').map(encodeURIComponent).join('/')}`
}
