#include "native/core/report_nonfinite.h"

#include <string>

namespace didr {
namespace {

// Empty if no count is above zero.
std::string describe(const int32_t* counts, int64_t batch) {
  int64_t first = -1;
  int64_t samples = 0;
  for (int64_t sample = 0; sample < batch; ++sample) {
    if (counts[sample] == 0) continue;
    if (first < 0) first = sample;
    ++samples;
  }
  if (samples == 0) return {};
  std::string message = "sample " + std::to_string(first) + " has " +
                        std::to_string(counts[first]) + " NaN or infinite values";
  if (samples > 1)
    message += ", and " + std::to_string(samples - 1) + " more of the " + std::to_string(batch) +
               " samples have some";
  return message;
}

std::string describeGradients(int64_t tensors, int64_t first, int64_t count) {
  if (first < 0) return "the gradients are finite but their norm is past the range of float32";
  return "gradient " + std::to_string(first) + " of " + std::to_string(tensors) + " has " +
         std::to_string(count) + " NaN or infinite values; nothing was changed";
}

}  // namespace

Status gradientStatus(int64_t tensors, int64_t first, int64_t count) {
  return {Code::kNonfinite, "gradientNorm: " + describeGradients(tensors, first, count)};
}

void refuseGradients(CpuContext& context, int64_t tensors, int64_t first, int64_t count) {
  context.failure = {Code::kNonfinite, describeGradients(tensors, first, count)};
}

Status nonFiniteStatus(const char* op, const int32_t* counts, int64_t batch) {
  const std::string message = describe(counts, batch);
  if (message.empty()) return {};
  return {Code::kNonfinite, std::string(op) + ": " + message};
}

void refuseNonFinite(CpuContext& context, const char* op, const int32_t* counts, int64_t batch) {
  std::string message = describe(counts, batch);
  if (message.empty()) return;
  context.op = op;
  context.failure = {Code::kNonfinite, std::move(message)};
}

}  // namespace didr
