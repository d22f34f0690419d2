// reportNonFinite: the CPU fails the op, a device's queue reads what its kernels counted.
#include "native/core/report_nonfinite.h"

#include <string>

#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

TEST_CASE("reportNonFinite: the counts stay as they are, and say the same on both devices") {
  const std::vector<int32_t> counts = {0, 3, 0, 1};
  const Array<int32_t> array(counts);
  for (const Side side : {Side::kCuda, Side::kCudaAgain}) {
    const ReportNonFiniteArgs arguments = {array.at(side), 4, "perturb"};
    runOn(side, Op::reportNonFinite, &arguments);
  }
  REQUIRE(array.cuda() == counts);

  ThreadPool pool(1);
  CpuContext context = {pool, "reportNonFinite", Status()};
  const ReportNonFiniteArgs arguments = {array.at(Side::kCpu), 4, "perturb"};
  cpuOps().kernels[static_cast<int>(Op::reportNonFinite)](&arguments, context);
  const std::vector<int32_t> counted = array.cuda();
  const Status status = nonFiniteStatus("perturb", counted.data(), 4);
  REQUIRE(status.code() == Code::kNonfinite);
  REQUIRE(context.failure.code() == status.code());
  REQUIRE(std::string(context.op) + ": " + context.failure.message() == status.message());
  REQUIRE(status.message().find("sample 1 has 3 NaN or infinite values") != std::string::npos);
}

}  // namespace
}  // namespace didr::test
