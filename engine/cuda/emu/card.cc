/* The card that the emulator says it is: what host code asks of a device, and the names of errors. The figures are those of an A100
 * where the backend plans by them (multiprocessors, shared memory), so that plans look as on a real card. */
#include <stdio.h>
#include <string.h>

#include "engine/cuda/emu/core.h"

enum { CARD_SMS = 108, CARD_THREADS_SM = 2048, CARD_SHARED_SM = 228 * 1024, CARD_REGISTERS = 65536, CARD_L2 = 40 << 20 };

extern "C" cudaError_t cudaGetDeviceCount(int *n) { return *n = 1, cudaSuccess; }
extern "C" cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
extern "C" cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
extern "C" cudaError_t cudaRuntimeGetVersion(int *v) { return *v = CUDART_VERSION, cudaSuccess; }
extern "C" cudaError_t cudaDriverGetVersion(int *v) { return *v = CUDART_VERSION, cudaSuccess; }
extern "C" cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    if (device) return cudaErrorInvalidDevice;
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated card");
    p->totalGlobalMem = emu_config().memory;
    p->sharedMemPerBlock = EMU_SHARED_STATIC;
    p->sharedMemPerBlockOptin = EMU_SHARED_MOST;
    p->sharedMemPerMultiprocessor = CARD_SHARED_SM;
    p->major = 8, p->minor = 0;
    p->multiProcessorCount = CARD_SMS;
    p->maxThreadsPerBlock = EMU_THREADS_MAX;
    p->maxThreadsPerMultiProcessor = CARD_THREADS_SM;
    p->warpSize = EMU_LANES;
    p->regsPerBlock = CARD_REGISTERS;
    p->l2CacheSize = CARD_L2;
    return cudaSuccess;
}

extern "C" cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr what, int device) {
    static const struct { enum cudaDeviceAttr what; int v; } table[] = {
        {cudaDevAttrMaxThreadsPerBlock, EMU_THREADS_MAX}, {cudaDevAttrMaxSharedMemoryPerBlock, EMU_SHARED_STATIC},
        {cudaDevAttrWarpSize, EMU_LANES}, {cudaDevAttrMultiProcessorCount, CARD_SMS}, {cudaDevAttrL2CacheSize, CARD_L2},
        {cudaDevAttrMaxThreadsPerMultiProcessor, CARD_THREADS_SM}, {cudaDevAttrComputeCapabilityMajor, 8},
        {cudaDevAttrComputeCapabilityMinor, 0}, {cudaDevAttrMaxSharedMemoryPerMultiprocessor, CARD_SHARED_SM},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, EMU_SHARED_MOST},
    };
    if (device) return cudaErrorInvalidDevice;
    for (const auto &row : table)
        if (row.what == what) return *v = row.v, cudaSuccess;
    return cudaErrorInvalidValue;
}

static const struct { cudaError_t e; const char *name, *text; } errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
};
extern "C" const char *cudaGetErrorString(cudaError_t e) {
    for (const auto &row : errors)
        if (row.e == e) return row.text;
    return "unknown error";
}
extern "C" const char *cudaGetErrorName(cudaError_t e) {
    for (const auto &row : errors)
        if (row.e == e) return row.name;
    return "cudaErrorUnknown";
}
