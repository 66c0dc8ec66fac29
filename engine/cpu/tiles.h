/* Names of the matrix kernels, one for each repacked format and instruction set; contract: struct qn_cpu_isa.tile. */
#ifndef QN_CPU_TILES_H
#define QN_CPU_TILES_H

#include <stddef.h>
#include <stdint.h>

#include "engine/cpu/cpu.h"

#define QN_TILE_ARGS const uint8_t *w, int steps, const uint8_t *next, const void *group, int g, float *out, size_t stride
#define QN_EACH_FLOAT(M, isa) M(isa, F32, f32) M(isa, F16, f16) M(isa, BF16, bf16)
#define QN_EACH_BLOCK(M, isa) \
    M(isa, Q4S, q4s) M(isa, Q4N, q4n) M(isa, Q4A, q4a) M(isa, Q5S, q5s) \
    M(isa, Q5A, q5a) M(isa, Q8S, q8s) M(isa, K2, k2) M(isa, K4, k4) M(isa, K5, k5) M(isa, K6, k6)

#define QN_EACH_FMT(M, isa) QN_EACH_FLOAT(M, isa) QN_EACH_BLOCK(M, isa)

/* What a kernel prefetches while it computes step s: the bytes that will be read QN_AHEAD bytes later (the time that
 * memory takes at the speed of one thread), past the end of the tile those of the next one. */
enum { QN_AHEAD = 8192 };
static inline const uint8_t *qn_tile_ahead(const uint8_t *w, const uint8_t *next, int s, int steps, int bytes) {
    int at = s + QN_AHEAD / bytes;
    return at < steps ? w + QN_AHEAD / bytes * bytes : next + (ptrdiff_t)(at - steps) * bytes;
}

#define QN_TILE_DECL(isa, F, f) void qn_tile_##f##_##isa(QN_TILE_ARGS);
QN_EACH_FMT(QN_TILE_DECL, generic)
QN_EACH_FMT(QN_TILE_DECL, avx2)
QN_EACH_FMT(QN_TILE_DECL, avx512)
void qn_tile_bf16_avx512_bf16(QN_TILE_ARGS);

#define QN_TILE_ROW(isa, F, f) [QN_FMT_##F] = qn_tile_##f##_##isa,
#define QN_TILES(isa) { QN_EACH_FMT(QN_TILE_ROW, isa) }
#define QN_TILES_AVX512_BF16 \
    { QN_TILE_ROW(avx512, F32, f32) QN_TILE_ROW(avx512, F16, f16) QN_TILE_ROW(avx512_bf16, BF16, bf16) QN_EACH_BLOCK(QN_TILE_ROW, avx512) }

#endif
