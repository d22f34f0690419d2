// Times the CUDA kernels of the fused ops on a device, beside the bytes that their contracts ask for.
//
//   didr_cuda_bench path/to/didr_cuda.so [elements]
//
// Arrays are larger than a device's caches, and every op runs on its own. A time is the median of rounds; a round is
// several launches between two waits, so the launches overlap with the work before them.
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "native/core/dtype.h"
#include "native/cuda/module.h"
#include "native/ops/op_headers.h"
#include "native/ops/op_table.h"

namespace didr {
namespace {

constexpr int kRounds = 11;
constexpr int kLaunchesPerRound = 10;
constexpr int64_t kBatch = 16;
constexpr int64_t kParticles = 8;

class Bench {
 public:
  Bench(const CudaModule& module, int64_t elements)
      : module_(module), sampleSize_(elements / kBatch / 8 * 8), count_(sampleSize_ * kBatch) {
    require(module_.createQueue(0, queue_, failure_));
    CudaDeviceInfo info;
    require(module_.deviceInfo(0, info, failure_));
    std::printf("%s, compute capability %d.%d, %s\n", info.name, info.major, info.minor,
                module_.description);
    std::printf("%lld samples of %lld elements; median of %d rounds of %d launches\n\n",
                static_cast<long long>(kBatch), static_cast<long long>(sampleSize_), kRounds,
                kLaunchesPerRound);
    std::printf("%-36s %12s %12s %10s\n", "op", "us/launch", "ns/element", "GB/s");
    const std::vector<float> coefficients(2 * kBatch, 0.7071f);
    coefficients_ = static_cast<float*>(allocate(coefficients.size() * sizeof(float)));
    require(module_.upload(queue_, coefficients_, coefficients.data(),
                           coefficients.size() * sizeof(float), failure_));
    rewards_ = static_cast<float*>(allocate(kParticles * kBatch * sizeof(float)));
    perSample_ = static_cast<float*>(allocate(4 * kBatch * sizeof(float)));
    weights_ = static_cast<float*>(allocate(kParticles * kBatch * sizeof(float)));
    nonFinite_ = static_cast<int32_t*>(allocate(kBatch * sizeof(int32_t)));
    workspace_ = static_cast<double*>(allocate(
        sizeof(double) * static_cast<size_t>(integralKLWorkspace(kBatch, sampleSize_) +
                                             denoisingLossWorkspace(kBatch, sampleSize_))));
    const NormalArgs rewards = {rewards_, kParticles * kBatch, 1, 0, 0.0f, 1.0f, DType::kFloat32};
    launch(Op::normal, rewards);
  }

  void run(DType dtype) {
    const size_t bytes = static_cast<size_t>(count_) * sizeOf(dtype);
    std::vector<void*> arrays;
    for (int i = 0; i < 6; ++i) arrays.push_back(filled(count_, dtype));
    void* const particles = filled(kParticles * count_, dtype);

    time("normal", dtype, bytes, Op::normal,
         NormalArgs{arrays[0], count_, 1, 2, 0.0f, 1.0f, dtype});
    time("perturb", dtype, 2 * bytes, Op::perturb,
         PerturbArgs{arrays[0], arrays[1], nullptr, coefficients_, nonFinite_, kBatch, sampleSize_,
                     1, 2, dtype});
    time("denoisingLoss, flow", dtype, 3 * bytes, Op::denoisingLoss,
         DenoisingLossArgs{arrays[0], arrays[1], coefficients_, nullptr, perSample_, arrays[2],
                           nonFinite_, workspace_, kBatch, sampleSize_, 1, 2, Prediction::kFlow,
                           dtype});
    IntegralKLArgs kl = {};
    kl.x0 = arrays[0];
    kl.xt = arrays[1];
    kl.assistant = arrays[2];
    kl.teacher = arrays[3];
    kl.teacherUncond = arrays[4];
    kl.coefficients = coefficients_;
    kl.gradient = arrays[5];
    kl.target = perSample_;
    kl.reference = perSample_ + kBatch;
    kl.nonFinite = nonFinite_;
    kl.workspace = workspace_;
    kl.batch = kBatch;
    kl.sampleSize = sampleSize_;
    kl.guidance = 4.0f;
    kl.gradientScale = 1.0f;
    kl.assistantPrediction = kl.teacherPrediction = Prediction::kFlow;
    kl.weighting = Weighting::kX0;
    kl.dtype = dtype;
    time("integralKL, x0, guided", dtype, 4 * bytes, Op::integralKL, kl);
    kl.drs = arrays[0];
    time("integralKL, x0, guided, drs", dtype, 5 * bytes, Op::integralKL, kl);
    kl.drs = nullptr;
    kl.weighting = Weighting::kDmd;
    time("integralKL, dmd, guided", dtype, 6 * bytes, Op::integralKL, kl);
    time(
        "diffusedRewardScore, 8 particles", dtype, (kParticles + 1) * bytes,
        Op::diffusedRewardScore,
        DiffusedRewardScoreArgs{particles, rewards_, coefficients_, arrays[0], weights_, perSample_,
                                nonFinite_, kParticles, kBatch, sampleSize_, 1.0f, dtype});
    for (void* const array : arrays) require(module_.release(queue_, array, failure_));
    require(module_.release(queue_, particles, failure_));
  }

 private:
  void require(bool done) {
    if (done) return;
    std::fprintf(stderr, "%s\n", failure_.message);
    std::exit(1);
  }

  void* allocate(size_t bytes) {
    void* memory = nullptr;
    require(module_.allocate(queue_, bytes, memory, failure_));
    return memory;
  }

  void* filled(int64_t count, DType dtype) {
    void* const memory = allocate(static_cast<size_t>(count) * sizeOf(dtype));
    launch(Op::normal, NormalArgs{memory, count, 3, 4, 0.0f, 1.0f, dtype});
    return memory;
  }

  template <class Arguments>
  void launch(Op op, const Arguments& arguments) {
    require(module_.launch(queue_, static_cast<int>(op), &arguments, failure_));
  }

  // `bytes`: the least that the contract allows.
  template <class Arguments>
  void time(const char* name, DType dtype, size_t bytes, Op op, const Arguments& arguments) {
    using Clock = std::chrono::steady_clock;
    launch(op, arguments);
    require(module_.synchronize(queue_, failure_));
    std::vector<double> seconds;
    for (int round = 0; round < kRounds; ++round) {
      const Clock::time_point begin = Clock::now();
      for (int i = 0; i < kLaunchesPerRound; ++i) launch(op, arguments);
      require(module_.synchronize(queue_, failure_));
      seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count() /
                        kLaunchesPerRound);
    }
    std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2, seconds.end());
    const double median = seconds[kRounds / 2];
    std::printf("%-26s %-9s %12.1f %12.4f %10.0f\n", name, nameOf(dtype), 1e6 * median,
                1e9 * median / static_cast<double>(count_),
                static_cast<double>(bytes) / median / 1e9);
  }

  const CudaModule& module_;
  const int64_t sampleSize_;
  const int64_t count_;
  CudaFailure failure_ = {};
  CudaQueue* queue_ = nullptr;
  float* coefficients_;
  float* rewards_;
  float* perSample_;
  float* weights_;
  int32_t* nonFinite_;
  double* workspace_;
};

}  // namespace
}  // namespace didr

int main(int count, char** values) {
  if (count < 2) {
    std::fprintf(stderr, "usage: %s path/to/didr_cuda.so [elements]\n", values[0]);
    return 2;
  }
  void* const library = dlopen(values[1], RTLD_NOW | RTLD_LOCAL);
  const auto entry =
      library == nullptr
          ? nullptr
          : reinterpret_cast<DidrCudaModule>(dlsym(library, didr::kDidrCudaModuleSymbol));
  if (entry == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const didr::CudaModule* const module = entry(didr::kCudaModuleVersion);
  if (module == nullptr) {
    std::fprintf(stderr, "%s: another version of the interface\n", values[1]);
    return 1;
  }
  didr::Bench bench(*module, count > 2 ? std::atoll(values[2]) : int64_t{1} << 24);
  bench.run(didr::DType::kFloat32);
  bench.run(didr::DType::kBFloat16);
  return 0;
}
