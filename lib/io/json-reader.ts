import { fail } from '../errors.js'

/** How deep a value may nest that nobody looks at. */
const maxDepth = 32

/** A name for an error message, cut where a hostile one would fill the screen. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}...` : name)
}

/**
 * Reads JSON of a known structure front to back.
 *
 * JSON.parse would build whatever a hostile file nests before anybody could look at it (a hundred megabytes of brackets
 * exhaust the heap), and keeps the last of two equal keys without a word. This reader builds what is asked for alone and
 * refuses what is not expected where it stands.
 */
export class JsonReader {
  readonly #text: string
  readonly #file: string
  #at = 0
  /** What is being read, for messages: empty or `tensor "a": `. */
  where = ''

  constructor(text: string, file: string) {
    this.#text = text
    this.#file = file
  }

  refuse(message: string): never {
    return fail('ERR_FORMAT', `${this.#file}: ${this.where}${message}`)
  }

  /** Calls `onKey` for each key, to read its value. */
  object(onKey: (key: string) => void): void {
    this.#expect('{')
    if (this.#accept('}')) return
    const keys = new Set<string>()
    do {
      const key = this.string()
      if (keys.has(key)) this.refuse(`the key ${quote(key)} appears twice`)
      keys.add(key)
      this.#expect(':')
      onKey(key)
    } while (this.#accept(','))
    this.#expect('}')
  }

  /** Calls `onItem` for each item, to read it. */
  array(onItem: () => void): void {
    this.#expect('[')
    if (this.#accept(']')) return
    do onItem()
    while (this.#accept(','))
    this.#expect(']')
  }

  string(): string {
    this.#expect('"')
    const start = this.#at - 1
    let end = this.#text.indexOf('"', this.#at)
    while (end >= 0 && this.#isEscaped(end)) end = this.#text.indexOf('"', end + 1)
    if (end < 0) this.refuse('the JSON ends inside a string')
    this.#at = end + 1
    let value: string
    try {
      value = JSON.parse(this.#text.slice(start, end + 1)) as string
    } catch {
      return this.refuse(`${quote(this.#text.slice(start + 1, end))} is not a JSON string`)
    }
    if (/\p{Surrogate}/u.test(value)) this.refuse(`${quote(value)} is not valid Unicode`)
    return value
  }

  /** An integer from 0 to 2^53 - 1, written in digits alone. */
  natural(): number {
    const token = this.#number()
    const value = Number(token)
    if (!/^(0|[1-9][0-9]*)$/.test(token) || !Number.isSafeInteger(value))
      this.refuse(`expected an integer from 0 to 2^53 - 1, got ${token}`)
    return value
  }

  /** Any value, unused. */
  skip(depth = 0): void {
    if (depth > maxDepth) this.refuse('the JSON nests too deep')
    const next = this.#peek()
    if (next === '{') this.object(() => this.skip(depth + 1))
    else if (next === '[') this.array(() => this.skip(depth + 1))
    else if (next === '"') this.string()
    else if (!['true', 'false', 'null'].some((word) => this.#accept(word))) this.#number()
  }

  /** Nothing but white space may follow. */
  end(): void {
    this.#peek()
    if (this.#at < this.#text.length) this.#unexpected('the end of the JSON')
  }

  #number(): string {
    this.#peek()
    const number = /-?\d+(\.\d+)?([eE][-+]?\d+)?/y
    number.lastIndex = this.#at
    const token = number.exec(this.#text)?.[0]
    if (token === undefined) return this.#unexpected('a number')
    this.#at += token.length
    return token.length > 40 ? `${token.slice(0, 40)}...` : token
  }

  /** The next character that is not white space. */
  #peek(): string | undefined {
    const text = this.#text
    while (' \t\n\r'.includes(text[this.#at] ?? 'end')) this.#at++
    return text[this.#at]
  }

  #accept(token: string): boolean {
    this.#peek()
    if (!this.#text.startsWith(token, this.#at)) return false
    this.#at += token.length
    return true
  }

  #expect(token: string): void {
    if (!this.#accept(token)) this.#unexpected(`'${token}'`)
  }

  #unexpected(expected: string): never {
    const rest = this.#text.slice(this.#at, this.#at + 20)
    return this.refuse(
      `expected ${expected} at character ${this.#at}, got ${rest === '' ? 'the end' : JSON.stringify(rest)}`,
    )
  }

  #isEscaped(quoteAt: number): boolean {
    let backslashes = 0
    while (this.#text[quoteAt - 1 - backslashes] === '\\') backslashes++
    return backslashes % 2 === 1
  }
}
