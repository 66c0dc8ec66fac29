/* The kernels in AVX2, FMA and F16C: the row operations, KV pages and attention of rows_body.h, kv_body.h and attn_body.h over
 * vec_avx2.h, and the matrix tiles of matmul_avx2.c, gathered in one table. Nothing outside this folder calls them
 * directly; cpu.c picks a table by what the processor can do. */
#include <math.h>
#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/half.h"
#include "engine/cpu/tiles.h"

#if defined(__x86_64__)

#include "engine/cpu/vec_avx2.h"

#include "engine/cpu/rows_body.h"

#include "engine/cpu/kv_body.h"

#include "engine/cpu/attn_body.h"

const struct qn_cpu_isa qn_cpu_avx2 = {
    .name = "avx2",
    .tile = QN_TILES(avx2),
    .quant = rows_quant,
    .add_norm = rows_add_norm,
    .head_norm = rows_head_norm,
    .rope = rows_rope,
    .to_bf16 = rows_to_bf16,
    .kv_put = kv_put,
    .glu = rows_glu,
    .scale_cap = rows_scale_cap,
    .attn = attn_tile,
    .attn_merge = attn_merge,
    .exp = rows_exp,
    .attn_cols = QN_ATTN_COLS,
};

#endif
