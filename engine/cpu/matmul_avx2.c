/* Matrix tiles in AVX2: still those of matmul_generic.c. */
#include "engine/cpu/tiles.h"

#define TILE(isa, F, f) \
    void qn_tile_##f##_avx2(QN_TILE_ARGS) { qn_tile_##f##_generic(w, steps, group, g, out, stride); }
QN_EACH_FMT(TILE, avx2)
