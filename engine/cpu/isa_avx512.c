/* The kernels in AVX-512 (F, BW, VL, DQ, VNNI), and the same set with BF16's dot product where the processor has it: the row operations and attention of rows_body.h, kv_body.h and attn_body.h over
 * vec_avx512.h, and the matrix tiles of matmul_avx512.c, gathered in one table. Nothing outside this folder calls them
 * directly; cpu.c picks a table by what the processor can do. */
#include <math.h>
#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/half.h"
#include "engine/cpu/tiles.h"

#if defined(__x86_64__)

#include "engine/cpu/vec_avx512.h"

#include "engine/cpu/rows_body.h"

#include "engine/cpu/kv_body.h"

#include "engine/cpu/attn_body.h"

#define SET(id, isa_name, tiles) \
    const struct qn_cpu_isa id = { \
        .name = isa_name, \
        .tile = tiles, \
        .quant = rows_quant, \
        .add_norm = rows_add_norm, \
        .head_norm = rows_head_norm, \
        .rope = rows_rope, \
        .to_bf16 = rows_to_bf16, \
        .kv_put = kv_put, \
        .glu = rows_glu, \
        .scale_cap = rows_scale_cap, \
        .attn = attn_tile, \
        .attn_merge = attn_merge, \
        .exp = rows_exp, \
        .attn_cols = QN_ATTN_COLS, \
    };
SET(qn_cpu_avx512_vnni, "avx512-vnni", QN_TILES(avx512))
SET(qn_cpu_avx512_bf16, "avx512-bf16", QN_TILES_AVX512_BF16)

#endif
