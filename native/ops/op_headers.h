// Every op's contract, for the files that work on the whole table.
#pragma once

#include "native/ops/didr/denoising_loss.h"
#include "native/ops/didr/diffused_reward_score.h"
#include "native/ops/didr/integral_kl.h"
#include "native/ops/didr/perturb.h"
#include "native/ops/didr/report_nonfinite.h"
#include "native/ops/elementwise/binary.h"
#include "native/ops/elementwise/cast.h"
#include "native/ops/elementwise/unary.h"
#include "native/ops/elementwise/where.h"
#include "native/ops/layout/arange.h"
#include "native/ops/layout/copy.h"
#include "native/ops/layout/fill.h"
#include "native/ops/matmul/matmul.h"
#include "native/ops/random/random.h"
#include "native/ops/reduce/reduce.h"
#include "native/ops/reduce/softmax.h"
