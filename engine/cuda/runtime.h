/* The part of the CUDA runtime that the backend's host code calls: NVIDIA's own header, or the emulator's, which has the same names
 * for what we use. Plain C. */
#ifndef QN_CUDA_RUNTIME_H
#define QN_CUDA_RUNTIME_H

#ifdef QN_CUDA_EMU
#include "engine/cuda/emu/runtime.h"
#else
#include <cuda_runtime_api.h>
#endif

#endif
