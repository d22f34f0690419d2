import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Parameter } from '../../lib/autograd/parameter.js'
import {
  arange,
  type DType,
  full,
  io,
  memory,
  normal,
  optim,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { expectRejection } from '../expectations.js'
import { generator, integer } from '../reference.js'
import { settled } from '../settled.js'
import { compose, decode, encode, type PlainTensor } from './format.js'

let folder = ''
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'didr-io-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const fixtures = path.resolve(import.meta.dirname, '../fixtures')

function place(name: string, contents: Buffer | string): string {
  const file = path.join(folder, name)
  writeFileSync(file, contents)
  return file
}

function floats(dtype: 'F32' | 'F64', values: number[], shape = [values.length]): PlainTensor {
  const array = dtype === 'F32' ? Float32Array.from(values) : Float64Array.from(values)
  return { dtype, shape, bytes: Buffer.from(array.buffer) }
}

function dispose(tensors: Record<string, Tensor>): void {
  for (const x of Object.values(tensors)) x.dispose()
}

async function bits(x: Tensor): Promise<Buffer> {
  return Buffer.from(await x.rawData())
}

describe('saveSafetensors', () => {
  it('writes the bytes of the reference writer', async () => {
    const file = path.join(folder, 'exact.safetensors')
    using f = tensor([1, -2], { shape: [1, 2] })
    using h = tensor(new Uint16Array([0x3f80]), { dtype: 'bfloat16', shape: [] })
    using i = tensor(new Int32Array([7]), { shape: [1] })
    using z = tensor([0.5])
    await io.saveSafetensors(file, { h, z, i, f }, { metadata: { format: 'pt' } })
    // Float32 first, then by falling size and by name; spaces up to a multiple of eight.
    const header =
      '{"__metadata__":{"format":"pt"},' +
      '"f":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},' +
      '"z":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},' +
      '"i":{"dtype":"I32","shape":[1],"data_offsets":[12,16]},' +
      '"h":{"dtype":"BF16","shape":[],"data_offsets":[16,18]}}'
    const padded = header.padEnd(Math.ceil(header.length / 8) * 8, ' ')
    expect(readFileSync(file)).toEqual(
      compose(padded, Buffer.from('0000803f000000c00000003f07000000803f', 'hex')),
    )
  })

  it.each(['float32', 'bfloat16', 'float16', 'int32', 'uint8'] as DType[])(
    'keeps the bits of %s in every shape, and a second reader agrees',
    async (dtype) => {
      const shapes = [[], [0], [1], [3, 0, 2], [5], [17, 3], [63], [65], [1, 2, 1, 2, 1, 2, 1, 2]]
      const tensors = Object.fromEntries(
        shapes.map((shape, s) => {
          using random = normal(shape, { seed: s + 1, std: 100 })
          return [`layers.${s}.weight`, random.cast(dtype) as Tensor]
        }),
      )
      // Bit patterns that arithmetic would not keep: signalling NaNs, subnormals, the sign of zero.
      if (dtype === 'float16' || dtype === 'bfloat16')
        tensors.hostile = tensor(new Uint16Array([0x7f81, 0x7c01, 0x8000, 0x0001, 0xffff]), {
          dtype,
        })
      if (dtype === 'float32')
        tensors.hostile = tensor(
          new Float32Array(new Uint32Array([0x7f800001, 0x80000000, 1, 0xff800000]).buffer),
        )
      const file = path.join(folder, `${dtype}.safetensors`)
      await io.saveSafetensors(file, tensors)
      const loaded = await io.loadSafetensors(file)
      const plain = decode(readFileSync(file))
      expect(Object.keys(loaded.tensors).sort()).toEqual(Object.keys(tensors).sort())
      expect(loaded.metadata).toEqual({})
      for (const [name, x] of Object.entries(tensors)) {
        const y = loaded.tensors[name] as Tensor
        expect([y.dtype, y.shape]).toEqual([dtype, x.shape])
        const expected = await bits(x)
        expect((await bits(y)).equals(expected), name).toBe(true)
        expect(plain?.get(name)?.bytes.equals(expected), name).toBe(true)
        expect(plain?.get(name)?.shape).toEqual(x.shape)
      }
      dispose(tensors)
      dispose(loaded.tensors)
    },
  )

  it('takes names and metadata of any Unicode, and refuses what is none', async () => {
    const names = ['', '__proto__', 'constructor', '1', '0', 'a"b\\c\n\u0001', 'grün/🎨', '\u2028']
    const tensors = Object.fromEntries(names.map((name, i) => [name, full([1], i) as Tensor]))
    const metadata = Object.fromEntries(names.map((name, i) => [name, `${i} 🎨 "\\`]))
    const file = path.join(folder, 'names.safetensors')
    await io.saveSafetensors(file, tensors, { metadata })
    const loaded = await io.loadSafetensors(file)
    expect(loaded.metadata).toEqual(metadata)
    expect(Object.keys(loaded.tensors).sort()).toEqual([...names].sort())
    for (const [i, name] of names.entries())
      expect(await Object.getOwnPropertyDescriptor(loaded.tensors, name)?.value.item()).toBe(i)
    dispose(tensors)
    dispose(loaded.tensors)

    using x = zeros([1])
    await expectRejection(
      () => io.saveSafetensors(file, { 'a\ud800': x }),
      'ERR_CONFIG',
      'tensors: "a\\ud800" is not Unicode',
    )
    await expectRejection(
      () => io.saveSafetensors(file, { __metadata__: x }),
      'ERR_CONFIG',
      'tensors: the format keeps the name __metadata__ for itself',
    )
    await expectRejection(
      () => io.saveSafetensors(file, { x }, { metadata: { a: 1 as never } }),
      'ERR_CONFIG',
      'options.metadata.a: expected a string, got 1',
    )
    await expectRejection(
      () => io.saveSafetensors(file, { x: [1] as never }),
      'ERR_CONFIG',
      /tensors\["x"\]: expected a tensor/,
    )
  })

  it('writes a file of no tensors', async () => {
    const file = path.join(folder, 'empty.safetensors')
    await io.saveSafetensors(file, {})
    expect(readFileSync(file)).toEqual(compose('{}      '))
    expect(await io.loadSafetensors(file)).toEqual({ tensors: {}, metadata: {} })
  })

  it('replaces a file whole or leaves it as it was, and leaves nothing else', async () => {
    const home = path.join(folder, 'atomic')
    mkdirSync(home)
    const file = path.join(home, 'model.safetensors')
    using x = full([1000], 1)
    await io.saveSafetensors(file, { x })
    const first = readFileSync(file)

    using y = full([1000], 2)
    await io.saveSafetensors(file, { y })
    expect(decode(readFileSync(file))?.has('y')).toBe(true)
    await io.saveSafetensors(file, { x })
    expect(readFileSync(file)).toEqual(first)

    // An op that failed before the call: found out while the temporary file is being written.
    const parameter = new Parameter('p', zeros([1]))
    using optimizer = new optim.AdamW([parameter])
    using bad = tensor([Number.NaN])
    optimizer.step({ gradients: [bad] }).dispose()
    await expectRejection(() => io.saveSafetensors(file, { y }), 'ERR_NONFINITE', /gradient 0 of 1/)
    parameter.dispose()
    expect(readFileSync(file)).toEqual(first)

    // Disposed by the caller while it is being written.
    const z = full([100_000], 3)
    const saved = io.saveSafetensors(file, { z })
    z.dispose()
    await saved
    expect(decode(readFileSync(file))?.get('z')?.bytes.length).toBe(400_000)
    expect(readdirSync(home)).toEqual(['model.safetensors'])
  })

  it('names the path when it cannot write', async () => {
    using x = zeros([3])
    const missing = path.join(folder, 'no/such/folder/a.safetensors')
    await expectRejection(
      () => io.saveSafetensors(missing, { x }),
      'ERR_IO',
      /no\/such\/folder\/a\.safetensors: could not be written: ENOENT/,
    )
    const isFolder = path.join(folder, 'folder.safetensors')
    mkdirSync(path.join(isFolder, 'inside'), { recursive: true })
    await expectRejection(
      () => io.saveSafetensors(isFolder, { x }),
      'ERR_IO',
      /folder\.safetensors: could not be written/,
    )
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([])
    await expectRejection(
      () => io.saveSafetensors('', { x }),
      'ERR_CONFIG',
      /file: expected a path/,
    )
  })
})

describe('loadSafetensors', () => {
  it.each(['s3dit-tiny', 'autoencoder-tiny'])(
    'reads %s as another program wrote it',
    async (name) => {
      const file = path.join(fixtures, `${name}.safetensors`)
      const plain = decode(readFileSync(file)) as Map<string, PlainTensor>
      const { tensors, metadata } = await io.loadSafetensors(file)
      expect(JSON.parse(metadata.config as string)).toHaveProperty('in_channels')
      expect(Object.keys(tensors)).toEqual([...plain.keys()])
      for (const [key, { shape, bytes }] of plain) {
        const x = tensors[key] as Tensor
        expect([x.dtype, x.shape], key).toEqual(['float32', shape])
        expect((await bits(x)).equals(bytes), key).toBe(true)
      }
      // Written again and read again: the same bits.
      const copy = path.join(folder, `${name}.safetensors`)
      await io.saveSafetensors(copy, tensors, { metadata })
      const again = decode(readFileSync(copy)) as Map<string, PlainTensor>
      for (const [key, { bytes }] of plain) expect(again.get(key)?.bytes.equals(bytes)).toBe(true)
      dispose(tensors)
    },
  )

  it('loads the names asked for, in that order, and says which are not there', async () => {
    const file = place(
      'some.safetensors',
      encode([
        ['a', floats('F32', [1])],
        ['b', floats('F32', [2, 3])],
        ['c', floats('F32', [4])],
      ]),
    )
    const { tensors } = await io.loadSafetensors(file, { names: ['c', 'b', 'c'] })
    expect(Object.keys(tensors)).toEqual(['c', 'b'])
    expect(await tensors.b?.data()).toEqual(new Float32Array([2, 3]))
    expect(await tensors.c?.data()).toEqual(new Float32Array([4]))
    dispose(tensors)
    await expectRejection(
      () => io.loadSafetensors(file, { names: ['a', 'd'] }),
      'ERR_FORMAT',
      `${file}: there is no tensor "d"`,
    )
    expect(await io.loadSafetensors(file, { names: [] })).toEqual({ tensors: {}, metadata: {} })
  })

  it('converts floats where asked and leaves integers alone', async () => {
    const values = [1, -2.5, 1e-3, 65504, 3.14159274]
    const integers: PlainTensor = {
      dtype: 'I32',
      shape: [2],
      bytes: Buffer.from(new Int32Array([16777217, -5]).buffer),
    }
    const file = place(
      'convert.safetensors',
      encode([
        ['f', floats('F32', values)],
        ['i', integers],
      ]),
    )
    for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
      const { tensors } = await io.loadSafetensors(file, { dtype })
      using expected = tensor(values).cast(dtype)
      expect(tensors.f?.dtype).toBe(dtype)
      expect(await bits(tensors.f as Tensor)).toEqual(await bits(expected))
      expect(await tensors.i?.data()).toEqual(new Int32Array([16777217, -5]))
      dispose(tensors)
    }
    await expectRejection(
      () => io.loadSafetensors(file, { dtype: 'int32' as never }),
      'ERR_CONFIG',
      /options\.dtype: expected one of/,
    )
  })

  it('takes I64 that fits in int32, and names the tensor that does not', async () => {
    const wide = (...values: bigint[]): PlainTensor => ({
      dtype: 'I64',
      shape: [values.length],
      bytes: Buffer.from(BigInt64Array.from(values).buffer),
    })
    const fits = place(
      'i64.safetensors',
      encode([['a', wide(0n, -1n, 2147483647n, -2147483648n, 12n)]]),
    )
    const { tensors } = await io.loadSafetensors(fits)
    expect(await tensors.a?.data()).toEqual(new Int32Array([0, -1, 2147483647, -2147483648, 12]))
    dispose(tensors)
    for (const value of [2147483648n, -2147483649n, 1n << 32n, -(1n << 63n), (1n << 63n) - 1n]) {
      const file = place(
        'i64-wide.safetensors',
        encode([
          ['ok', floats('F32', [1])],
          ['ids', wide(1n, value)],
        ]),
      )
      await expectRejection(
        () => io.loadSafetensors(file),
        'ERR_FORMAT',
        `${file}: tensor "ids": an element of I64 does not fit in int32`,
      )
    }
  })

  it('rounds F64 only where told, and takes bytes and booleans as uint8', async () => {
    const bytes = (dtype: string): PlainTensor => ({
      dtype,
      shape: [3],
      bytes: Buffer.from([0, 1, 1]),
    })
    const file = place(
      'f64.safetensors',
      encode([
        ['d', floats('F64', [1 / 3, 1e300, -0])],
        ['u', bytes('U8')],
        ['t', bytes('BOOL')],
      ]),
    )
    await expectRejection(
      () => io.loadSafetensors(file),
      'ERR_FORMAT',
      `${file}: tensor "d": F64 is loaded only where options.dtype says what it is rounded to`,
    )
    const { tensors } = await io.loadSafetensors(file, { dtype: 'float32' })
    expect(await tensors.d?.data()).toEqual(new Float32Array([1 / 3, Infinity, -0]))
    for (const name of ['u', 't'])
      expect([tensors[name]?.dtype, await tensors[name]?.data()]).toEqual([
        'uint8',
        new Uint8Array([0, 1, 1]),
      ])
    dispose(tensors)
    for (const [dtype, width] of Object.entries({
      I8: 1,
      F8_E4M3: 1,
      I16: 2,
      U16: 2,
      U32: 4,
      U64: 8,
    })) {
      const odd = place(
        'odd.safetensors',
        encode([['x', { dtype, shape: [2], bytes: Buffer.alloc(2 * width) }]]),
      )
      await expectRejection(
        () => io.loadSafetensors(odd),
        'ERR_FORMAT',
        `${odd}: tensor "x": tensors of ${dtype} cannot be loaded`,
      )
      expect((await io.inspectSafetensors(odd)).tensors.x?.dtype).toBe(dtype)
    }
  })

  it('uses memory for one tensor at a time besides what it returns', async () => {
    const file = path.join(folder, 'large.safetensors')
    const parts = Object.fromEntries(
      Array.from({ length: 24 }, (_, i) => [`part${i}`, full([1 << 20], i) as Tensor]),
    )
    await io.saveSafetensors(file, parts)
    dispose(parts)
    const before = process.memoryUsage()
    const { tensors } = await io.loadSafetensors(file)
    const after = process.memoryUsage()
    // 96 MiB in tensors, 4 MiB in the buffer, nothing of note on the heap.
    expect(after.heapUsed - before.heapUsed).toBeLessThan(8 << 20)
    expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(16 << 20)
    expect(await tensors.part23?.slice([0], [1]).item()).toBe(23)
    dispose(tensors)
  })

  it('names the path when it cannot read', async () => {
    await expectRejection(
      () => io.loadSafetensors(path.join(folder, 'nothing.safetensors')),
      'ERR_IO',
      /nothing\.safetensors: could not be read: ENOENT/,
    )
    await expectRejection(
      () => io.loadSafetensors(folder),
      'ERR_IO',
      `${folder}: could not be read: it is not a regular file`,
    )
    await expectRejection(
      () => io.loadSafetensors(3 as never),
      'ERR_CONFIG',
      'file: expected a path, got 3',
    )
    await expectRejection(
      () => io.loadSafetensors('a', { name: [] } as never),
      'ERR_CONFIG',
      /options\.name: unknown option/,
    )
  })
})

describe('inspectSafetensors', () => {
  it('tells names, dtypes, shapes and metadata without loading', async () => {
    const file = place(
      'inspect.safetensors',
      encode(
        [
          ['b', floats('F32', [1, 2, 3, 4], [2, 2])],
          ['a', floats('F64', [])],
        ],
        { note: 'x' },
      ),
    )
    const before = memory()
    expect(await io.inspectSafetensors(file)).toEqual({
      tensors: {
        b: { dtype: 'F32', shape: [2, 2], bytes: 16, file },
        a: { dtype: 'F64', shape: [0], bytes: 0, file },
      },
      metadata: { note: 'x' },
    })
    expect(memory().tensors).toBe(before.tensors)
  })
})

describe('sharded files', () => {
  function shards(index: object): string {
    place(
      'm-1.safetensors',
      encode(
        [
          ['a', floats('F32', [1, 2])],
          ['spare', floats('F32', [9])],
        ],
        { format: 'pt' },
      ),
    )
    place('m-2.safetensors', encode([['b', floats('F32', [3])]], { part: '2' }))
    return place('m.safetensors.index.json', JSON.stringify(index))
  }
  const weight_map = { b: 'm-2.safetensors', a: 'm-1.safetensors' }

  it('load as one', async () => {
    const file = shards({
      metadata: { total_size: 12, nested: [{ x: null }, -1.5e3, true] },
      weight_map,
    })
    const { tensors, metadata } = await io.loadSafetensors(file)
    expect(Object.keys(tensors)).toEqual(['b', 'a'])
    expect(await tensors.a?.data()).toEqual(new Float32Array([1, 2]))
    expect(await tensors.b?.data()).toEqual(new Float32Array([3]))
    expect(metadata).toEqual({ format: 'pt', part: '2' })
    dispose(tensors)
    expect((await io.inspectSafetensors(file)).tensors.b?.file).toBe(
      path.join(folder, 'm-2.safetensors'),
    )
  })

  it.each([
    [
      'a tensor that is not there',
      { weight_map: { ...weight_map, c: 'm-1.safetensors' } },
      'tensor "c": it is not in m-1.safetensors',
    ],
    [
      'a shard above the folder',
      { weight_map: { a: '../m-1.safetensors' } },
      'tensor "a": "../m-1.safetensors" is not a file name',
    ],
    [
      'a shard of an absolute path',
      { weight_map: { a: '/etc/passwd' } },
      'tensor "a": "/etc/passwd" is not a file name',
    ],
    [
      'a shard that is no string',
      { weight_map: { a: 3 } },
      /expected '"' at character 19, got "3}}"/,
    ],
    ['no weight map', { metadata: {} }, 'there is no weight_map'],
  ])('are refused with %s', async (_, index, message) => {
    const file = shards(index)
    await expectRejection(
      () => io.loadSafetensors(file),
      'ERR_FORMAT',
      typeof message === 'string' ? `${file}: ${message}` : message,
    )
  })

  it('are refused with a missing or broken shard, with nothing loaded', async () => {
    const file = shards({ weight_map: { ...weight_map, c: 'm-3.safetensors' } })
    await expectRejection(
      () => io.loadSafetensors(file),
      'ERR_IO',
      /m-3\.safetensors: could not be read/,
    )
    const broken = place('m-3.safetensors', compose('{"c":1}'))
    await expectRejection(
      () => io.loadSafetensors(file),
      'ERR_FORMAT',
      new RegExp(`${broken}: tensor "c"`),
    )
  })
})

describe('a file that breaks the rules', () => {
  const entry = (fields: object) =>
    JSON.stringify({ dtype: 'F32', shape: [1], data_offsets: [0, 4], ...fields })
  const four = Buffer.alloc(4)
  const two = Buffer.alloc(8)
  const length = (bytes: bigint) => {
    const prefix = Buffer.alloc(16)
    prefix.writeBigUInt64LE(bytes)
    return prefix
  }
  const cases: [what: string, contents: Buffer, message: string | RegExp][] = [
    ['is empty', Buffer.alloc(0), 'truncated: expected 8 bytes of header length'],
    ['has seven bytes', Buffer.alloc(7), 'truncated: expected 8 bytes of header length'],
    [
      'has a header past the end',
      length(9n),
      'the header is said to end at byte 17 of 16 (truncated?)',
    ],
    [
      'has a header over 100 MB',
      length(100_000_001n),
      'the header is said to be 100000001 bytes, over 100000000',
    ],
    [
      'has a header of 2^64 - 1 bytes',
      length(2n ** 64n - 1n),
      'the header is said to be 18446744073709551615 bytes, over 100000000',
    ],
    ['has an empty header', compose(''), 'the header does not start with {'],
    ['has a header that starts with a space', compose(' {}'), 'the header does not start with {'],
    ['has a byte order mark', compose('\ufeff{}'), 'the header does not start with {'],
    ['has an array for a header', compose('[]'), 'the header does not start with {'],
    ['has a header cut short', compose('{"a":{"dty'), 'tensor "a": the JSON ends inside a string'],
    [
      'has text after the header',
      compose('{}x'),
      'expected the end of the JSON at character 2, got "x"',
    ],
    [
      'has bad UTF-8',
      compose(Buffer.from([0x7b, 0x22, 0xff, 0x22])),
      'the header is not valid UTF-8',
    ],
    [
      'has an overlong UTF-8 sequence',
      compose(Buffer.from([0x7b, 0x22, 0xc0, 0xaf, 0x22])),
      'the header is not valid UTF-8',
    ],
    [
      'has half a surrogate pair',
      compose(`{"\\ud800":${entry({})}}`, four),
      '"\\ud800" is not valid Unicode',
    ],
    ['has a bad escape', compose('{"\\x":1}'), '"\\\\x" is not a JSON string'],
    [
      'has a control character in a name',
      compose('{"a\u0000":1}'),
      '"a\\u0000" is not a JSON string',
    ],
    [
      'has a tensor twice',
      compose(`{"a":${entry({})},"a":${entry({})}}`, four),
      'the key "a" appears twice',
    ],
    [
      'has a tensor twice, once escaped',
      compose(`{"a":${entry({})},"\\u0061":${entry({})}}`, four),
      'the key "a" appears twice',
    ],
    [
      'has a field twice',
      compose('{"a":{"dtype":"F32","dtype":"F32"}}'),
      'tensor "a": the key "dtype" appears twice',
    ],
    [
      'has metadata twice',
      compose('{"__metadata__":{},"__metadata__":{}}'),
      'the key "__metadata__" appears twice',
    ],
    [
      'has metadata that is no string',
      compose('{"__metadata__":{"a":1}}'),
      /__metadata__: expected '"' at character 21/,
    ],
    [
      'has metadata that is no object',
      compose('{"__metadata__":"a"}'),
      /__metadata__: expected '\{' at character 16/,
    ],
    [
      'has an entry that is no object',
      compose('{"a":[]}'),
      /tensor "a": expected '\{' at character 5/,
    ],
    [
      'lacks a field',
      compose('{"a":{"dtype":"F32","shape":[1]}}'),
      'tensor "a": expected the fields dtype, shape and data_offsets',
    ],
    [
      'has an unknown field',
      compose(`{"a":${entry({ extra: 1 })}}`, four),
      'tensor "a": unknown field "extra"',
    ],
    [
      'has an unknown dtype',
      compose(`{"a":${entry({ dtype: 'F31' })}}`, four),
      'tensor "a": unknown dtype "F31"',
    ],
    [
      'has a dtype off the prototype',
      compose(`{"a":${entry({ dtype: 'constructor' })}}`, four),
      'tensor "a": unknown dtype "constructor"',
    ],
    [
      'has a negative size',
      compose(`{"a":${entry({ shape: [-1] })}}`, four),
      'tensor "a": expected an integer from 0 to 2^53 - 1, got -1',
    ],
    [
      'has a fractional size',
      compose(`{"a":${entry({ shape: [1.5] })}}`, four),
      'tensor "a": expected an integer from 0 to 2^53 - 1, got 1.5',
    ],
    [
      'has a size of 2^53',
      compose('{"a":{"dtype":"F32","shape":[9007199254740992],"data_offsets":[0,4]}}', four),
      'tensor "a": expected an integer from 0 to 2^53 - 1, got 9007199254740992',
    ],
    [
      'has sizes whose product wraps to 1',
      compose(`{"a":${entry({ shape: [2 ** 32, 2 ** 32, 1] })}}`, four),
      /tensor "a": the shape .* has over 2\^50 elements/,
    ],
    [
      'hides huge sizes behind a zero',
      compose(`{"a":${entry({ shape: [0, 2 ** 40, 2 ** 40], data_offsets: [0, 0] })}}`),
      /tensor "a": the shape .* has over 2\^50 elements/,
    ],
    [
      'has nine axes',
      compose(`{"a":${entry({ shape: [1, 1, 1, 1, 1, 1, 1, 1, 1] })}}`, four),
      'tensor "a": expected at most 8 sizes',
    ],
    [
      'has offsets past the end',
      compose(`{"a":${entry({ shape: [2], data_offsets: [0, 8] })}}`, four),
      'tensor "a": its bytes end at 8 of the data, which has 4 (truncated?)',
    ],
    [
      'has offsets backwards',
      compose(`{"a":${entry({ shape: [0], data_offsets: [4, 0] })}}`, four),
      'tensor "a": F32 [0] takes 0 bytes, data_offsets are [4, 0]',
    ],
    [
      'has offsets of another size',
      compose(`{"a":${entry({ shape: [2] })}}`, four),
      'tensor "a": F32 [2] takes 8 bytes, data_offsets are [0, 4]',
    ],
    [
      'has one offset',
      compose(`{"a":${entry({ data_offsets: [4] })}}`, four),
      'tensor "a": expected two data_offsets',
    ],
    [
      'has three offsets',
      compose(`{"a":${entry({ data_offsets: [0, 4, 8] })}}`, four),
      'tensor "a": expected at most 2 data_offsets',
    ],
    [
      'has tensors that overlap',
      compose(
        `{"a":${entry({ shape: [2], data_offsets: [0, 8] })},"b":${entry({ data_offsets: [4, 8] })}}`,
        two,
      ),
      'tensor "b": its bytes from 4 on overlap those of another tensor',
    ],
    [
      'has two tensors on the same bytes',
      compose(`{"a":${entry({})},"b":${entry({})}}`, four),
      'tensor "b": its bytes from 0 on overlap those of another tensor',
    ],
    [
      'has a gap',
      compose(`{"b":${entry({ data_offsets: [4, 8] })}}`, two),
      'tensor "b": its bytes start at 4, with a gap after those before, which end at 0',
    ],
    [
      'has bytes of no tensor',
      compose(`{"a":${entry({})}}`, two),
      'the tensors end at 4 of the data, which has 8 bytes',
    ],
    [
      'nests without end',
      compose(`{"a":${'['.repeat(100_000)}`),
      /tensor "a": expected '\{' at character 5/,
    ],
  ]

  it.each(cases)('%s', async (_, contents, message) => {
    const file = place('hostile.safetensors', contents)
    const expected = typeof message === 'string' ? `${file}: ${message}` : message
    await expectRejection(() => io.loadSafetensors(file), 'ERR_FORMAT', expected)
    await expectRejection(() => io.inspectSafetensors(file), 'ERR_FORMAT', expected)
  })

  it('takes offsets in any order of the names, and empty tensors between others', async () => {
    const file = place(
      'order.safetensors',
      compose(
        `{"b":${entry({ data_offsets: [4, 8] })},"e":${entry({ shape: [0], data_offsets: [4, 4] })},"a":${entry({})}}`,
        Buffer.from(new Float32Array([1, 2]).buffer),
      ),
    )
    const { tensors } = await io.loadSafetensors(file)
    expect(await tensors.a?.item()).toBe(1)
    expect(await tensors.b?.item()).toBe(2)
    expect(tensors.e?.size).toBe(0)
    dispose(tensors)
  })

  it('costs an index no stack and no memory, however deep', async () => {
    const file = place('deep.safetensors.index.json', `{"metadata":${'['.repeat(1_000_000)}`)
    await expectRejection(
      () => io.loadSafetensors(file),
      'ERR_FORMAT',
      `${file}: the JSON nests too deep`,
    )
  })
})

describe('random damage', () => {
  const draw = generator(20260524)
  const random = (below: number) => integer(draw, 0, below - 1)

  const sound = encode(
    [
      ['w', floats('F32', [1, 2, 3, 4, 5, 6], [2, 3])],
      ['empty', floats('F32', [], [0, 7])],
      ['ids', { dtype: 'I32', shape: [3], bytes: Buffer.from(new Int32Array([1, 2, 3]).buffer) }],
      ['b', { dtype: 'BF16', shape: [1, 2], bytes: Buffer.from([0x80, 0x3f, 0x00, 0xc0]) }],
      ['u', { dtype: 'U8', shape: [], bytes: Buffer.from([9]) }],
    ],
    { format: 'pt', note: 'é' },
  )
  const headerEnd = 8 + Number(sound.readBigUInt64LE())
  const fragments = [
    '"',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '\\',
    '0',
    '9',
    '-',
    '.',
    'e9',
    '\u0000',
    'F32',
    'F64',
    'BF16',
    'I64',
    'shape',
    'w',
    'b',
    '99999999999999999999',
    ' ',
  ]

  const lowWords = (bytes: Buffer) =>
    Buffer.concat(
      Array.from({ length: bytes.length / 8 }, (_, i) => bytes.subarray(8 * i, 8 * i + 4)),
    )

  function damaged(): Buffer {
    let file = Buffer.from(sound)
    for (let times = 1 + random(2); times > 0; times--) {
      const at = random(file.length)
      switch (random(8)) {
        case 0: // a bit, anywhere
          file[at] = (file[at] as number) ^ (1 << random(8))
          break
        case 1: // a byte of the header
          file[8 + random(headerEnd - 8)] = random(256)
          break
        case 2: // the length
          file[random(8)] = random(256)
          break
        case 3: // cut
          file = file.subarray(0, random(file.length + 1))
          break
        case 4: // the data
          if (file.length > headerEnd)
            file[headerEnd + random(file.length - headerEnd)] = random(256)
          break
        case 5: // longer
          file = Buffer.concat([file, Buffer.alloc(1 + random(16))])
          break
        default: {
          // An edit of the header with a length that fits it.
          const text = file.subarray(8, headerEnd).toString('latin1')
          const start = random(text.length)
          const cut = random(4)
          const edited =
            text.slice(0, start) + fragments[random(fragments.length)] + text.slice(start + cut)
          file = compose(Buffer.from(edited, 'latin1'), file.subarray(headerEnd))
        }
      }
      if (file.length < headerEnd) break
    }
    return file
  }

  it('either loads what a second reader finds or is refused, and costs no memory', async () => {
    const file = path.join(folder, 'fuzz.safetensors')
    await settled() // what earlier tests left to the collector must not go while this one counts
    const before = memory()
    let loadedCount = 0
    let resident = 0
    for (let round = 0; round < 4000; round++) {
      if (round === 1000) resident = process.memoryUsage().rss
      const contents = damaged()
      writeFileSync(file, contents)
      try {
        const { tensors } = await io.loadSafetensors(file)
        const plain = decode(contents)
        if (plain === undefined)
          return expect.fail(`round ${round}: no other reader takes this file`)
        expect(Object.keys(tensors)).toEqual([...plain.keys()])
        for (const [name, x] of Object.entries(tensors)) {
          const { dtype, shape, bytes } = plain.get(name) as PlainTensor
          expect(x.shape).toEqual(shape)
          const expected = dtype === 'I64' ? lowWords(bytes) : bytes
          expect((await bits(x)).equals(expected), `round ${round}: ${name}`).toBe(true)
        }
        dispose(tensors)
        loadedCount++
      } catch (error) {
        if ((error as { code?: string }).code !== 'ERR_FORMAT') throw error
        expect((error as Error).message.startsWith(`${file}: `)).toBe(true)
      }
    }
    expect(loadedCount).toBeGreaterThan(200)
    const after = memory()
    expect([after.tensors, after.bytes]).toEqual([before.tensors, before.bytes])
    expect(process.memoryUsage().rss - resident).toBeLessThan(48 << 20)
  }, 300_000)
})

it('round-trips a tensor made by an op that is still queued', async () => {
  const file = path.join(folder, 'queued.safetensors')
  using x = arange(1000).mul(2)
  await io.saveSafetensors(file, { x: x as Tensor })
  const { tensors } = await io.loadSafetensors(file)
  expect(await tensors.x?.data()).toEqual(Float32Array.from({ length: 1000 }, (_, i) => 2 * i))
  dispose(tensors)
})
