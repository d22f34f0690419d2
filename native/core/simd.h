// Vectors of one instruction level: 4 lanes of 32 bits (x86-64-v2, NEON, plain builds), 8 (v3) or
// 16 (v4).
//
// One kernel source serves every level: it is written against kLanes and the functions below, which
// the compiler's predefined macros resolve. Types are GCC vector extensions, so + - * / & | ^ << >>
// and comparisons work as operators; a comparison yields an I32 mask (all bits set where true).
//
// Every function gives the same bits at every level. That is why `fma` is exact even where the
// machine has none, and why sums run over kLogicalLanes lanes whatever the hardware's width: see
// LaneSum.
//
// All functions are static and always inlined: the file is compiled once per level and nothing of
// it may leave an object file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "native/core/dtype.h"
#include "native/core/level.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "didr's kernels assume a little-endian machine"
#endif

#define DIDR_SIMD static inline __attribute__((always_inline))

namespace didr {
namespace DIDR_LEVEL {
namespace simd {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define DIDR_SIMD_AVX512 1
constexpr int kLanes = 16;
#elif defined(__AVX2__) && defined(__FMA__)
#define DIDR_SIMD_AVX2 1
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kVectorBytes = kLanes * 4;

typedef float F32 __attribute__((vector_size(kVectorBytes)));
typedef int32_t I32 __attribute__((vector_size(kVectorBytes)));
typedef uint32_t U32 __attribute__((vector_size(kVectorBytes)));
typedef uint64_t U64 __attribute__((vector_size(kVectorBytes)));  // kLanes / 2 lanes
typedef uint16_t U16 __attribute__((vector_size(kLanes * 2)));
typedef uint8_t U8 __attribute__((vector_size(kLanes)));

#if defined(DIDR_SIMD_AVX512)
// Intrinsics with an all-ones mask compile to the unmasked instruction; the unmasked intrinsics of
// GCC 12 warn about their own uninitialised operand (GCC bug 105593).
constexpr __mmask16 kAllLanes = 0xffff;
#endif

// --- Bits, broadcast, lane numbers

DIDR_SIMD F32 asFloat(U32 x) { return reinterpret_cast<F32>(x); }
DIDR_SIMD F32 asFloat(I32 x) { return reinterpret_cast<F32>(x); }
DIDR_SIMD U32 asBits(F32 x) { return reinterpret_cast<U32>(x); }
DIDR_SIMD U32 asBits(I32 x) { return reinterpret_cast<U32>(x); }
DIDR_SIMD U32 asBits(U64 x) { return reinterpret_cast<U32>(x); }
DIDR_SIMD I32 asInt(F32 x) { return reinterpret_cast<I32>(x); }
DIDR_SIMD I32 asInt(U32 x) { return reinterpret_cast<I32>(x); }
DIDR_SIMD U64 asWide(U32 x) { return reinterpret_cast<U64>(x); }

// `x - T{}` rather than `x + T{}`: it keeps the sign of -0.
DIDR_SIMD F32 broadcast(float x) { return x - F32{}; }
DIDR_SIMD I32 broadcast(int32_t x) { return x + I32{}; }
DIDR_SIMD U32 broadcast(uint32_t x) { return x + U32{}; }
DIDR_SIMD U64 broadcast(uint64_t x) { return x + U64{}; }
DIDR_SIMD F32 zero() { return F32{}; }

// 0, 1, 2, ...
DIDR_SIMD I32 laneIndex() {
  I32 lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return lanes;
}

// --- Arithmetic

#if defined(__SSE2__) && !defined(__FMA__)
struct DoublePairs {
  __m128d low, high;
};
DIDR_SIMD DoublePairs toDouble(F32 x) {
  return {_mm_cvtps_pd(x), _mm_cvtps_pd(_mm_movehl_ps(x, x))};
}

// a*b + c in double, rounded to odd (Boldo and Melquiond, "Emulation of FMA and correctly rounded
// sums", IEEE Trans. Computers 2008): with the last bit set whenever something was cut off, the
// rounding to float that follows cannot be fooled by this one. The product of two floats is exact
// in double.
DIDR_SIMD __m128d fmaToOdd(__m128d a, __m128d b, __m128d c) {
  const __m128d product = _mm_mul_pd(a, b);
  const __m128d sum = _mm_add_pd(product, c);
  const __m128d cPart = _mm_sub_pd(sum, product);
  const __m128d error =
      _mm_add_pd(_mm_sub_pd(product, _mm_sub_pd(sum, cPart)), _mm_sub_pd(c, cPart));
  const __m128d nothing = _mm_setzero_pd();
  // Both comparisons are false for the NaN error of an infinite sum.
  const __m128i inexact =
      _mm_castpd_si128(_mm_or_pd(_mm_cmplt_pd(error, nothing), _mm_cmpgt_pd(error, nothing)));
  const __m128i bits = _mm_castpd_si128(sum);
  const __m128i even = _mm_andnot_si128(bits, _mm_set1_epi64x(1));
  // Away from zero when the error has the sum's sign, else towards it.
  const __m128i differ = _mm_srli_epi64(_mm_xor_si128(bits, _mm_castpd_si128(error)), 63);
  const __m128i step = _mm_sub_epi64(even, _mm_slli_epi64(_mm_and_si128(differ, even), 1));
  return _mm_castsi128_pd(_mm_add_epi64(bits, _mm_and_si128(step, inexact)));
}

static __attribute__((noinline, cold, unused)) F32 fmaByOddRounding(F32 a, F32 b, F32 c) {
  const DoublePairs da = toDouble(a), db = toDouble(b), dc = toDouble(c);
  return _mm_movelh_ps(_mm_cvtpd_ps(fmaToOdd(da.low, db.low, dc.low)),
                       _mm_cvtpd_ps(fmaToOdd(da.high, db.high, dc.high)));
}

// Rounding the sum to double and then to float goes wrong only where the double is halfway between
// two floats: its last 28 bits are zero then (more of them for a subnormal float). So are those of
// sums that are floats already, which the exact path handles as well.
DIDR_SIMD F32 fmaByDouble(F32 a, F32 b, F32 c) {
  const DoublePairs da = toDouble(a), db = toDouble(b), dc = toDouble(c);
  const __m128d low = _mm_add_pd(_mm_mul_pd(da.low, db.low), dc.low);
  const __m128d high = _mm_add_pd(_mm_mul_pd(da.high, db.high), dc.high);
  const __m128i lastBits =
      _mm_and_si128(_mm_castps_si128(_mm_shuffle_ps(_mm_castpd_ps(low), _mm_castpd_ps(high), 0x88)),
                    _mm_set1_epi32(0x0fffffff));
  const __m128i suspect = _mm_cmpeq_epi32(lastBits, _mm_setzero_si128());
  if (__builtin_expect(_mm_movemask_ps(_mm_castsi128_ps(suspect)) != 0, 0))
    return fmaByOddRounding(a, b, c);
  return _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
}
#endif

// a*b + c, rounded once.
DIDR_SIMD F32 fma(F32 a, F32 b, F32 c) {
#if defined(DIDR_SIMD_AVX512)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(DIDR_SIMD_AVX2)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm_fmadd_ps(a, b, c);
#elif defined(__SSE2__)
  return fmaByDouble(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  for (int i = 0; i < kLanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#endif
}

// Correctly rounded.
DIDR_SIMD F32 sqrt(F32 x) {
#if defined(DIDR_SIMD_AVX512)
  return _mm512_maskz_sqrt_ps(kAllLanes, x);
#elif defined(DIDR_SIMD_AVX2)
  return _mm256_sqrt_ps(x);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(x);
#elif defined(__aarch64__)
  return vsqrtq_f32(x);
#else
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

// `mask` lanes are all ones or all zeros.
DIDR_SIMD F32 select(I32 mask, F32 a, F32 b) { return mask ? a : b; }
DIDR_SIMD I32 select(I32 mask, I32 a, I32 b) { return mask ? a : b; }
DIDR_SIMD U32 select(I32 mask, U32 a, U32 b) { return mask ? a : b; }

// a < b ? a : b, so b where either is NaN.
DIDR_SIMD F32 min(F32 a, F32 b) {
#if defined(DIDR_SIMD_AVX512)
  return _mm512_maskz_min_ps(kAllLanes, a, b);
#elif defined(DIDR_SIMD_AVX2)
  return _mm256_min_ps(a, b);
#elif defined(__SSE2__)
  return _mm_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}
// a > b ? a : b, so b where either is NaN.
DIDR_SIMD F32 max(F32 a, F32 b) {
#if defined(DIDR_SIMD_AVX512)
  return _mm512_maskz_max_ps(kAllLanes, a, b);
#elif defined(DIDR_SIMD_AVX2)
  return _mm256_max_ps(a, b);
#elif defined(__SSE2__)
  return _mm_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
DIDR_SIMD I32 min(I32 a, I32 b) { return a < b ? a : b; }
DIDR_SIMD I32 max(I32 a, I32 b) { return a > b ? a : b; }

DIDR_SIMD F32 abs(F32 x) { return asFloat(asBits(x) & 0x7fffffffu); }
// |magnitude| with the sign of `sign`.
DIDR_SIMD F32 copySign(F32 magnitude, F32 sign) {
  return asFloat((asBits(magnitude) & 0x7fffffffu) | (asBits(sign) & 0x80000000u));
}

DIDR_SIMD I32 isNan(F32 x) { return x != x; }
// All ones where x is an infinity or a NaN. The sign falls off the top, so the comparison can be
// signed.
DIDR_SIMD I32 isNonFinite(F32 x) { return asInt(asBits(x) & 0x7fffffffu) >= 0x7f800000; }

// True where any lane of the mask is set.
DIDR_SIMD bool any(I32 mask) {
#if defined(DIDR_SIMD_AVX512)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(DIDR_SIMD_AVX2)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask)) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_ps(reinterpret_cast<__m128>(mask)) != 0;
#else
  int32_t found = 0;
  for (int i = 0; i < kLanes; ++i) found |= mask[i];
  return found != 0;
#endif
}

// --- Bit logic

DIDR_SIMD U32 xor3(U32 a, U32 b, U32 c) {
#if defined(DIDR_SIMD_AVX512)
  return reinterpret_cast<U32>(_mm512_ternarylogic_epi32(reinterpret_cast<__m512i>(a),
                                                         reinterpret_cast<__m512i>(b),
                                                         reinterpret_cast<__m512i>(c), 0x96));
#else
  return a ^ b ^ c;
#endif
}
DIDR_SIMD U64 xor3(U64 a, U64 b, U64 c) { return asWide(xor3(asBits(a), asBits(b), asBits(c))); }

// Bit by bit: a where the mask is 1, b where it is 0.
DIDR_SIMD U32 selectBits(U32 mask, U32 a, U32 b) {
#if defined(DIDR_SIMD_AVX512)
  return reinterpret_cast<U32>(_mm512_ternarylogic_epi32(reinterpret_cast<__m512i>(mask),
                                                         reinterpret_cast<__m512i>(a),
                                                         reinterpret_cast<__m512i>(b), 0xca));
#else
  return (a & mask) | (b & ~mask);
#endif
}

// a where x has a bit of `bits` set, else b.
DIDR_SIMD F32 selectIfBits(U32 x, uint32_t bits, F32 a, F32 b) {
#if defined(DIDR_SIMD_AVX512)
  return _mm512_mask_blend_ps(_mm512_test_epi32_mask(reinterpret_cast<__m512i>(x),
                                                     reinterpret_cast<__m512i>(broadcast(bits))),
                              b, a);
#else
  return (x & bits) != 0u ? a : b;
#endif
}

// The low halves of each 64-bit lane, multiplied to 64 bits; the high halves are ignored.
DIDR_SIMD U64 mulLow(U64 a, U64 b) {
#if defined(DIDR_SIMD_AVX512)
  return reinterpret_cast<U64>(
      _mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(DIDR_SIMD_AVX2)
  return reinterpret_cast<U64>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__SSE2__)
  return reinterpret_cast<U64>(
      _mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#elif defined(__aarch64__)
  return vmull_u32(vmovn_u64(a), vmovn_u64(b));
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// Even 32-bit lanes from `even`, odd ones from the even lanes of `odd`.
DIDR_SIMD U32 interleaveLow(U64 even, U64 odd) {
#if defined(DIDR_SIMD_AVX512)
  return reinterpret_cast<U32>(_mm512_mask_shuffle_epi32(
      reinterpret_cast<__m512i>(even), 0xaaaa, reinterpret_cast<__m512i>(odd), _MM_PERM_CCAA));
#elif defined(DIDR_SIMD_AVX2)
  return reinterpret_cast<U32>(
      _mm256_blend_epi32(reinterpret_cast<__m256i>(even),
                         _mm256_slli_epi64(reinterpret_cast<__m256i>(odd), 32), 0xaa));
#else
  return asBits((even & 0xffffffffu) | (odd << 32));
#endif
}

// Even 32-bit lanes from the odd lanes of `even`, odd ones from `odd`.
DIDR_SIMD U32 interleaveHigh(U64 even, U64 odd) {
#if defined(DIDR_SIMD_AVX512)
  return reinterpret_cast<U32>(_mm512_mask_shuffle_epi32(
      reinterpret_cast<__m512i>(odd), 0x5555, reinterpret_cast<__m512i>(even), _MM_PERM_DDBB));
#elif defined(DIDR_SIMD_AVX2)
  return reinterpret_cast<U32>(
      _mm256_blend_epi32(_mm256_srli_epi64(reinterpret_cast<__m256i>(even), 32),
                         reinterpret_cast<__m256i>(odd), 0xaa));
#else
  return asBits((even >> 32) | (odd & 0xffffffff00000000u));
#endif
}

// The 4x4 transpose of rows a, b, c, d inside every group of four lanes.
DIDR_SIMD void transposeQuads(F32& a, F32& b, F32& c, F32& d) {
#if defined(DIDR_SIMD_AVX512)
  const __m512 ab0 = _mm512_maskz_unpacklo_ps(kAllLanes, a, b),
               ab1 = _mm512_maskz_unpackhi_ps(kAllLanes, a, b);
  const __m512 cd0 = _mm512_maskz_unpacklo_ps(kAllLanes, c, d),
               cd1 = _mm512_maskz_unpackhi_ps(kAllLanes, c, d);
  a = _mm512_maskz_shuffle_ps(kAllLanes, ab0, cd0, 0x44);
  b = _mm512_maskz_shuffle_ps(kAllLanes, ab0, cd0, 0xee);
  c = _mm512_maskz_shuffle_ps(kAllLanes, ab1, cd1, 0x44);
  d = _mm512_maskz_shuffle_ps(kAllLanes, ab1, cd1, 0xee);
#elif defined(DIDR_SIMD_AVX2)
  const __m256 ab0 = _mm256_unpacklo_ps(a, b), ab1 = _mm256_unpackhi_ps(a, b);
  const __m256 cd0 = _mm256_unpacklo_ps(c, d), cd1 = _mm256_unpackhi_ps(c, d);
  a = _mm256_shuffle_ps(ab0, cd0, 0x44);
  b = _mm256_shuffle_ps(ab0, cd0, 0xee);
  c = _mm256_shuffle_ps(ab1, cd1, 0x44);
  d = _mm256_shuffle_ps(ab1, cd1, 0xee);
#elif defined(__SSE2__)
  _MM_TRANSPOSE4_PS(a, b, c, d);
#else
  const F32 rows[4] = {a, b, c, d};
  F32 columns[4];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) columns[i][j] = rows[j][i];
  a = columns[0];
  b = columns[1];
  c = columns[2];
  d = columns[3];
#endif
}

// --- Integer and float conversions

// Nearest even, as the scalar conversion.
DIDR_SIMD F32 toFloat(I32 x) { return __builtin_convertvector(x, F32); }
// Towards zero; |x| < 2^31.
DIDR_SIMD I32 truncateToInt(F32 x) {
#if defined(DIDR_SIMD_AVX512)
  return reinterpret_cast<I32>(_mm512_maskz_cvttps_epi32(kAllLanes, x));
#elif defined(DIDR_SIMD_AVX2)
  return reinterpret_cast<I32>(_mm256_cvttps_epi32(x));
#elif defined(__SSE2__)
  return reinterpret_cast<I32>(_mm_cvttps_epi32(x));
#else
  return __builtin_convertvector(x, I32);
#endif
}
// To nearest even; |x| < 2^31.
DIDR_SIMD I32 roundToInt(F32 x) {
#if defined(DIDR_SIMD_AVX512)
  return reinterpret_cast<I32>(_mm512_maskz_cvtps_epi32(kAllLanes, x));
#elif defined(DIDR_SIMD_AVX2)
  return reinterpret_cast<I32>(_mm256_cvtps_epi32(x));
#elif defined(__SSE2__)
  return reinterpret_cast<I32>(_mm_cvtps_epi32(x));
#elif defined(__aarch64__)
  return vcvtnq_s32_f32(x);
#else
  I32 y;
  for (int i = 0; i < kLanes; ++i) y[i] = static_cast<int32_t>(__builtin_rintf(x[i]));
  return y;
#endif
}
// Towards zero; saturates, and NaN gives 0.
DIDR_SIMD I32 saturateToInt(F32 x) {
  const F32 limit = broadcast(2147483648.0f);
  const I32 inside = abs(x) < limit;
  const I32 whole = truncateToInt(select(inside, x, zero()));
  return select(x >= limit, broadcast(INT32_MAX), select(x <= -limit, broadcast(INT32_MIN), whole));
}

// As toBFloat16 of dtype.h, in the low 16 bits of each lane.
DIDR_SIMD U32 roundToBFloat16(F32 x) {
  const U32 u = asBits(x);
  const U32 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return select(isNan(x), (u >> 16) | 0x40u, rounded);
}
// As toFloat16 of dtype.h.
DIDR_SIMD U32 roundToFloat16(F32 x) {
  const U32 u = asBits(x);
  const U32 sign = (u >> 16) & 0x8000u;
  const U32 magnitude = u & 0x7fffffffu;
  const I32 ordered = asInt(magnitude);
  const U32 normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const U32 small = asBits(asFloat(magnitude) + 0.5f) - 0x3f000000u;
  const U32 nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  U32 half = select(ordered < 0x38800000, small, normal);
  half = select(ordered >= 0x477ff000, broadcast(0x7c00u), half);
  half = select(ordered > 0x7f800000, nan, half);
  return sign | half;
}
// As toFloat(Float16) of dtype.h, from the low 16 bits of each lane.
DIDR_SIMD F32 floatOfFloat16(U32 bits) {
  const U32 sign = (bits & 0x8000u) << 16;
  const U32 magnitude = bits & 0x7fffu;
  const I32 ordered = asInt(magnitude);
  const U32 normal = (magnitude << 13) + (112u << 23);
  const U32 small = asBits(toFloat(ordered) * 0x1p-24f);
  const U32 large = 0x7f800000u | ((magnitude & 0x3ffu) << 13);
  return asFloat(sign | select(ordered >= 0x7c00, large, select(ordered < 0x0400, small, normal)));
}

// --- Loads and stores of whole vectors
// Addresses need no more alignment than their element type.

template <class V, class T>
DIDR_SIMD V loadBits(const T* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class T>
DIDR_SIMD void storeBits(T* p, V v) {
  memcpy(p, &v, sizeof v);
}

DIDR_SIMD I32 loadInts(const int32_t* p) { return loadBits<I32>(p); }
DIDR_SIMD U32 loadInts(const uint32_t* p) { return loadBits<U32>(p); }
DIDR_SIMD void storeInts(int32_t* p, I32 v) { storeBits(p, v); }
DIDR_SIMD void storeInts(uint32_t* p, U32 v) { storeBits(p, v); }

DIDR_SIMD F32 load(const float* p) { return loadBits<F32>(p); }
DIDR_SIMD F32 load(const BFloat16* p) {
  return asFloat(__builtin_convertvector(loadBits<U16>(p), U32) << 16);
}
DIDR_SIMD F32 load(const Float16* p) {
  return floatOfFloat16(__builtin_convertvector(loadBits<U16>(p), U32));
}
DIDR_SIMD F32 load(const int32_t* p) { return toFloat(loadInts(p)); }
DIDR_SIMD F32 load(const uint8_t* p) {
  return toFloat(asInt(__builtin_convertvector(loadBits<U8>(p), U32)));
}

// Lanes of 32 bits whose values fit in 16.
DIDR_SIMD U16 narrowToU16(U32 v) {
#if defined(DIDR_SIMD_AVX512)
  return reinterpret_cast<U16>(
      _mm512_maskz_cvtepi32_epi16(kAllLanes, reinterpret_cast<__m512i>(v)));
#elif defined(DIDR_SIMD_AVX2)
  const __m256i packed =
      _mm256_packus_epi32(reinterpret_cast<__m256i>(v), reinterpret_cast<__m256i>(v));
  return reinterpret_cast<U16>(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
#else
  return __builtin_convertvector(v, U16);
#endif
}

DIDR_SIMD void store(float* p, F32 v) { storeBits(p, v); }
DIDR_SIMD void store(BFloat16* p, F32 v) { storeBits(p, narrowToU16(roundToBFloat16(v))); }
DIDR_SIMD void store(Float16* p, F32 v) { storeBits(p, narrowToU16(roundToFloat16(v))); }
// Towards zero, saturating, NaN to 0.
DIDR_SIMD void store(int32_t* p, F32 v) { storeInts(p, saturateToInt(v)); }
DIDR_SIMD void store(uint8_t* p, F32 v) {
  const I32 whole = saturateToInt(v);
  const I32 byte = min(max(whole, I32{}), broadcast(255));
  storeBits(p, __builtin_convertvector(asBits(byte), U8));
}

// Past the caches, for outputs far larger than them: saves reading the lines that are about to be
// overwritten. `p` is a multiple of the stored bytes; call streamFence() after the last one, before
// another thread may read.
DIDR_SIMD void storeStreaming(float* p, F32 v) {
#if defined(DIDR_SIMD_AVX512)
  _mm512_stream_ps(p, v);
#elif defined(DIDR_SIMD_AVX2)
  _mm256_stream_ps(p, v);
#elif defined(__SSE2__)
  _mm_stream_ps(p, v);
#else
  store(p, v);
#endif
}
DIDR_SIMD void storeStreaming(BFloat16* p, F32 v) {
#if defined(DIDR_SIMD_AVX512)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p),
                      reinterpret_cast<__m256i>(narrowToU16(roundToBFloat16(v))));
#elif defined(DIDR_SIMD_AVX2)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p),
                   reinterpret_cast<__m128i>(narrowToU16(roundToBFloat16(v))));
#else
  store(p, v);
#endif
}
DIDR_SIMD void streamFence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// Outputs of at least this many bytes leave the last-level cache before anything reads them.
constexpr int64_t kStreamingBytes = int64_t{16} << 20;

// Asks for the cache lines of `count` elements at `p`, which may lie outside the array. For loops whose arithmetic is longer
// than what a core sees ahead, where its own prefetcher stops at every page.
template <class T>
DIDR_SIMD void prefetch(const T* p, int64_t count) {
  const auto* line = reinterpret_cast<const char*>(p);
  for (int64_t byte = 0; byte < count * static_cast<int64_t>(sizeof(T)); byte += 64)
    __builtin_prefetch(line + byte);
}

// Whether an output of `bytes` at `p`, written by whole aligned vectors, is better stored past the
// caches.
DIDR_SIMD bool streamingPays(const void* p, int64_t bytes) {
  return bytes >= kStreamingBytes && reinterpret_cast<uintptr_t>(p) % kVectorBytes == 0;
}

template <bool kStreaming, class T>
DIDR_SIMD void storeOutput(T* p, F32 v) {
  if constexpr (kStreaming)
    storeStreaming(p, v);
  else
    store(p, v);
}

// --- The first n lanes, 0 <= n <= kLanes
// Nothing past p + n is touched; absent lanes load as zero.

// The lanes of the next vector when `count` elements are left.
DIDR_SIMD int lanesLeft(int64_t count) {
  return count >= kLanes ? kLanes : count > 0 ? static_cast<int>(count) : 0;
}

DIDR_SIMD I32 laneMask(int n) { return laneIndex() < n; }

template <class V, class T>
DIDR_SIMD V loadBitsPartial(const T* p, int n) {
  V v{};
  for (int i = 0; i < n; ++i) memcpy(reinterpret_cast<char*>(&v) + i * sizeof(T), p + i, sizeof(T));
  return v;
}
template <class V, class T>
DIDR_SIMD void storeBitsPartial(T* p, V v, int n) {
  for (int i = 0; i < n; ++i) memcpy(p + i, reinterpret_cast<char*>(&v) + i * sizeof(T), sizeof(T));
}

DIDR_SIMD I32 loadIntsPartial(const int32_t* p, int n) {
#if defined(DIDR_SIMD_AVX512)
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1u);
  return reinterpret_cast<I32>(_mm512_maskz_loadu_epi32(mask, p));
#elif defined(DIDR_SIMD_AVX2)
  return reinterpret_cast<I32>(_mm256_maskload_epi32(p, reinterpret_cast<__m256i>(laneMask(n))));
#else
  return loadBitsPartial<I32>(p, n);
#endif
}
DIDR_SIMD void storeIntsPartial(int32_t* p, I32 v, int n) {
#if defined(DIDR_SIMD_AVX512)
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1u);
  _mm512_mask_storeu_epi32(p, mask, reinterpret_cast<__m512i>(v));
#elif defined(DIDR_SIMD_AVX2)
  _mm256_maskstore_epi32(p, reinterpret_cast<__m256i>(laneMask(n)), reinterpret_cast<__m256i>(v));
#else
  storeBitsPartial(p, v, n);
#endif
}
DIDR_SIMD F32 loadPartial(const float* p, int n) {
  return asFloat(loadIntsPartial(reinterpret_cast<const int32_t*>(p), n));
}
DIDR_SIMD F32 loadPartial(const BFloat16* p, int n) {
  return asFloat(__builtin_convertvector(loadBitsPartial<U16>(p, n), U32) << 16);
}
DIDR_SIMD F32 loadPartial(const Float16* p, int n) {
  return floatOfFloat16(__builtin_convertvector(loadBitsPartial<U16>(p, n), U32));
}
DIDR_SIMD F32 loadPartial(const int32_t* p, int n) { return toFloat(loadIntsPartial(p, n)); }
DIDR_SIMD F32 loadPartial(const uint8_t* p, int n) {
  return toFloat(asInt(__builtin_convertvector(loadBitsPartial<U8>(p, n), U32)));
}
DIDR_SIMD void storePartial(float* p, F32 v, int n) {
  storeIntsPartial(reinterpret_cast<int32_t*>(p), asInt(v), n);
}
template <class T>
DIDR_SIMD void storePartial(T* p, F32 v, int n) {
  T lanes[kLanes];
  store(lanes, v);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

// --- Reductions in a fixed order

// Sums run over this many lanes at every level: element i of a run goes to lane i mod
// kLogicalLanes.
constexpr int kLogicalLanes = 16;
constexpr int kLaneVectors = kLogicalLanes / kLanes;

// Sum of lanes 0..15, as a tree of fixed shape: lane i and i + 8, then + 4, + 2, + 1.
DIDR_SIMD float sumLogicalLanes(const F32 (&parts)[kLaneVectors]) {
  float lanes[kLogicalLanes];
  for (int v = 0; v < kLaneVectors; ++v) store(lanes + v * kLanes, parts[v]);
  for (int half = kLogicalLanes / 2; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// A float32 sum with the same bits at every level. Add vector v of each run of kLaneVectors with
// part(v).
struct LaneSum {
  F32 parts[kLaneVectors] = {};

  __attribute__((always_inline)) float total() const { return sumLogicalLanes(parts); }
};

}  // namespace simd
}  // namespace DIDR_LEVEL
}  // namespace didr
