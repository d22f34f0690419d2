// The instruction level a CPU kernel is compiled for.
//
// Every *.cpu.cc file is compiled once per level with DIDR_LEVEL set to the level's name and the matching -march
// flag; the build that sets neither gets `base`. All of a kernel's code lives in namespace didr::DIDR_LEVEL (its
// internals in an unnamed namespace inside that), so that no symbol is shared between levels.
#pragma once

#ifndef DIDR_LEVEL
#define DIDR_LEVEL base
#endif
