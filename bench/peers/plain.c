// What the machine can do: plain C loops that stream the bytes an op has to move, and a plain call of OpenBLAS.
// Reads lines "task size", answers each with the seconds of one run. Threads by OpenMP (OMP_NUM_THREADS) and by OpenBLAS
// (OPENBLAS_NUM_THREADS).
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STREAMS 8
static float* streams[STREAMS];
static long allocated = 0;

static void prepare(long size) {
  if (size == allocated) return;
  for (int i = 0; i < STREAMS; ++i) {
    free(streams[i]);
    streams[i] = aligned_alloc(2 << 20, (size * sizeof(float) + (2 << 20) - 1) / (2 << 20) * (2 << 20));
  }
  allocated = size;
#pragma omp parallel for
  for (long i = 0; i < size; ++i)
    for (int s = 0; s < STREAMS; ++s) streams[s][i] = (float)((i * (s + 1)) % 1000) * 1e-3f;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

#define LOOP(body)                                  \
  _Pragma("omp parallel for simd schedule(static)") \
  for (long i = 0; i < size; ++i) body

static void run(const char* task, long size) {
  float *restrict y = streams[0], *restrict a = streams[1], *restrict b = streams[2], *restrict c = streams[3],
        *restrict d = streams[4], *restrict e = streams[5];
  if (!strcmp(task, "triad")) {
    LOOP(y[i] = a[i] + 3.0f * b[i];)
  } else if (!strcmp(task, "add")) {
    LOOP(y[i] = a[i] + b[i];)
  } else if (!strcmp(task, "stream1")) {
    LOOP(y[i] = 3.0f * a[i];)
  } else if (!strcmp(task, "stream2")) {
    LOOP(y[i] = a[i] + b[i];)
  } else if (!strcmp(task, "stream3")) {
    LOOP(y[i] = a[i] + b[i] + c[i];)
  } else if (!strcmp(task, "stream4")) {
    LOOP(y[i] = a[i] + b[i] + c[i] + d[i];)
  } else if (!strcmp(task, "stream5")) {
    LOOP(y[i] = a[i] + b[i] + c[i] + d[i] + e[i];)
  } else if (!strcmp(task, "matmul")) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, size, size, size, 1, a, size, b, size, 0, y, size);
  } else {
    fprintf(stderr, "unknown task %s\n", task);
    exit(1);
  }
}

int main(void) {
  char task[64];
  long size;
  while (scanf("%63s %ld", task, &size) == 2) {
    prepare(!strcmp(task, "matmul") ? size * size : size);
    const double start = now();
    run(task, size);
    printf("%.9f\n", now() - start);
    fflush(stdout);
  }
  return 0;
}
