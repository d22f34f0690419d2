// What crosses every boundary of the core instead of exceptions: a code that TypeScript users can switch on
// and a sentence that names the argument, what was expected and what came.
#pragma once

#include <string>
#include <utility>

namespace didr {

enum class Code {
  kOk,
  kShape,
  kDtype,
  kDevice,
  kDisposed,
  kRange,
  kConfig,
  kNonfinite,
  kBackend,
  kOutOfMemory,
};

const char* nameOf(Code code);  // "ERR_SHAPE" and so on

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

}  // namespace didr
