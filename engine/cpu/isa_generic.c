/* The kernels in plain C: correct everywhere, fast nowhere: the row operations, KV pages and attention of rows_body.h, kv_body.h and attn_body.h over
 * vec_generic.h, and the matrix tiles of matmul_generic.c, gathered in one table. Nothing outside this folder calls them
 * directly; cpu.c picks a table by what the processor can do. */
#include <math.h>
#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/tiles.h"
#include "engine/cpu/vec_generic.h"

#include "engine/cpu/rows_body.h"

#include "engine/cpu/kv_body.h"

#include "engine/cpu/attn_body.h"

const struct qn_cpu_isa qn_cpu_generic = {
    .name = "generic",
    .tile = QN_TILES(generic),
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
