// What the machine can do: plain C loops that stream the bytes an op has to move, and a plain call of OpenBLAS.
// Reads lines "run TASK SIZE DTYPE REPEATS" (the loops are float32 whatever the dtype), answers each with the seconds of
// one run. Threads by OpenMP (OMP_NUM_THREADS) and by OpenBLAS (OPENBLAS_NUM_THREADS).
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STREAMS 6
static float* streams[STREAMS];
static char* arena;
static size_t arenaBytes;

// `count` arrays of `size` elements in one piece of memory, which is kept, as pages are dear; each element is touched first
// by the thread that works on it. The arrays begin at different sets of the caches.
static void prepare(int count, long size) {
  static int preparedCount;
  static long preparedSize;
  if (count == preparedCount && size == preparedSize) return;
  const size_t stride = (size * sizeof(float) + 4095) / 4096 * 4096 + 17 * 64;
  if (count * stride > arenaBytes) {
    const size_t page = 2 << 20;
    free(arena);
    arenaBytes = (count * stride + page - 1) / page * page;
    arena = aligned_alloc(page, arenaBytes);
    if (arena == NULL) {
      fprintf(stderr, "plain.c: no %zu bytes of memory\n", arenaBytes);
      exit(1);
    }
  }
  for (int s = 0; s < count; ++s) {
    float* stream = streams[s] = (float*)(arena + s * stride);
#pragma omp parallel for schedule(static)
    for (long i = 0; i < size; ++i) stream[i] = (float)(i & 1023) * 1e-3f;
  }
  preparedCount = count;
  preparedSize = size;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

#define LOOP(body)                                  \
  _Pragma("omp parallel for simd schedule(static)") \
  for (long i = 0; i < size; ++i) body

// How many arrays a task needs; 0 if there is no such task. streamN reads N arrays and writes one.
static int arrays(const char* task) {
  if (!strcmp(task, "copy") || !strcmp(task, "scale") || !strcmp(task, "stream1")) return 2;
  if (!strcmp(task, "triad") || !strcmp(task, "stream2") || !strcmp(task, "matmul")) return 3;
  if (!strcmp(task, "stream3")) return 4;
  if (!strcmp(task, "stream4")) return 5;
  if (!strcmp(task, "stream5")) return 6;
  return 0;
}

static void run(const char* task, long size) {
  float *restrict y = streams[0], *restrict a = streams[1], *restrict b = streams[2], *restrict c = streams[3],
        *restrict d = streams[4], *restrict e = streams[5];
  if (!strcmp(task, "copy")) {
    LOOP(y[i] = a[i];)
  } else if (!strcmp(task, "scale") || !strcmp(task, "stream1")) {
    LOOP(y[i] = 3.0f * a[i];)
  } else if (!strcmp(task, "triad")) {
    LOOP(y[i] = a[i] + 3.0f * b[i];)
  } else if (!strcmp(task, "stream2")) {
    LOOP(y[i] = a[i] + b[i];)
  } else if (!strcmp(task, "stream3")) {
    LOOP(y[i] = a[i] + b[i] + c[i];)
  } else if (!strcmp(task, "stream4")) {
    LOOP(y[i] = a[i] + b[i] + c[i] + d[i];)
  } else if (!strcmp(task, "stream5")) {
    LOOP(y[i] = a[i] + b[i] + c[i] + d[i] + e[i];)
  } else {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, size, size, size, 1, a, size, b, size, 0, y, size);
  }
}

int main(void) {
  char task[64], dtype[64];
  long size, repeats;
  while (scanf(" run %63s %ld %63s %ld", task, &size, dtype, &repeats) == 4) {
    const int count = arrays(task);
    if (count == 0) {
      printf("error: %s: no such task here\n", task);
    } else {
      prepare(count, !strcmp(task, "matmul") ? size * size : size);
      const double start = now();
      for (long r = 0; r < repeats; ++r) {
        run(task, size);
        // The next repeat is not the same work to the compiler: it may have seen what this one wrote.
        __asm__ volatile("" ::: "memory");
      }
      printf("%.12f\n", (now() - start) / repeats);
    }
    fflush(stdout);
  }
  return 0;
}
