/* Where a model goes: its device, and how much of that device's memory keys and values get. Runs once, on the thread that
 * opens the engine.
 *
 * In the machine's own memory the pool is a number that is known beforehand. A card's memory is what is left of it when
 * everything else is there, so there the pool comes last, after a dry run: the first launch of a kernel takes memory too. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine_impl.h"

enum { KV_CONTEXTS_DEFAULT = 4, OUT_ROWS_MAX = 64, DRY_ROWS = 40 };
const char *const qn_kv_names[QN_KV_TYPES] = {"auto", "f16", "bf16", "q8_0"};

/* Blocks that one full context needs, and those that max_seqs of them could ever use. */
static int64_t least_blocks(const struct qn_engine *e) { return (e->info.n_ctx + QN_KV_BLOCK - 1) / QN_KV_BLOCK + 1; }
static int64_t most_blocks(const struct qn_engine *e) { return (int64_t)e->opts.max_seqs * (e->info.n_ctx + QN_KV_BLOCK) / QN_KV_BLOCK; }

/* The pool's size: what was asked for, else four contexts, bounded by a quarter of the machine's memory and by what
 * max_seqs full contexts could ever use. At least one context. */
static int pool_blocks(const struct qn_engine *e, struct qn_err *err) {
    const struct qn_model_desc *d = &e->model->desc;
    int64_t token_bytes = qn_kv_block_bytes(d, e->kv_type) / QN_KV_BLOCK;
    int64_t ram = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    int64_t tokens = (int64_t)KV_CONTEXTS_DEFAULT * e->info.n_ctx;
    if (tokens > ram / 4 / token_bytes) tokens = ram / 4 / token_bytes;
    if (e->opts.kv_bytes) tokens = e->opts.kv_bytes / token_bytes;
    int64_t blocks = tokens / QN_KV_BLOCK, least = least_blocks(e);
    if (blocks > most_blocks(e)) blocks = most_blocks(e);
    if (blocks < least && e->opts.kv_bytes)
        return qn_fail(err, QN_E_RANGE, "kv_bytes holds %lld tokens, but one context of %d needs %lld bytes", (long long)tokens,
                       e->info.n_ctx, (long long)(least * QN_KV_BLOCK * token_bytes));
    if (blocks < least) blocks = least;
    if (blocks > INT_MAX / QN_KV_BLOCK) return qn_fail(err, QN_E_RANGE, "a KV pool of %lld blocks is too large", (long long)blocks);
    return (int)blocks;
}

/* Bytes that a device needs besides what it holds already: the weights, a context of KV, and scratch by a wide guess. */
static uint64_t need_bytes(const struct qn_engine *e) {
    const struct qn_model_desc *d = &e->model->desc;
    uint64_t scratch = (uint64_t)e->opts.step_rows * (uint64_t)(6 * d->d_model + 3 * d->d_ff) * sizeof(float) + (uint64_t)e->out_max * (uint64_t)d->n_vocab * sizeof(float);
    return d->weight_bytes + d->weight_bytes / 8 + (uint64_t)(least_blocks(e) * qn_kv_block_bytes(d, e->kv_type)) + scratch;
}

/* One step of a few rows of prompt and one of a single row, over block 0 and those after it: every kernel has been
 * launched once. */
static int dry_run(struct qn_engine *e, struct qn_err *err) {
    int rows = e->opts.step_rows < DRY_ROWS ? e->opts.step_rows : DRY_ROWS, used;
    int32_t token[DRY_ROWS] = {0}, pos[DRY_ROWS], blocks[DRY_ROWS / QN_KV_BLOCK + 1];
    for (int i = 0; i < rows; i++) pos[i] = i;
    for (int i = 0; i < DRY_ROWS / QN_KV_BLOCK + 1; i++) blocks[i] = i;
    int rc = e->backend->ops->kv_pool(e->backend, DRY_ROWS / QN_KV_BLOCK + 1, DRY_ROWS / QN_KV_BLOCK + 1, &used, err);
    if (rc < 0) return rc;
    struct qn_batch_seq seq = {.n_rows = rows, .n_ctx = rows, .blocks = blocks};
    int32_t out = rows - 1, first = 0;
    struct qn_batch b = {.n_rows = rows, .n_seqs = 1, .token = token, .pos = pos, .seqs = &seq, .n_out = 1, .out_row = &out};
    qn_forward_step(e->forward, &b);
    qn_forward_logits(e->forward, &out, 1);
    seq.n_rows = seq.n_ctx = b.n_rows = 1;
    b.out_row = &first;
    qn_forward_step(e->forward, &b);
    qn_forward_logits(e->forward, &first, 1);
    const char *lost = e->backend->ops->lost ? e->backend->ops->lost(e->backend) : NULL;
    return lost ? qn_fail(err, QN_E_DEVICE, "%s does not compute: %s", e->backend->device_name, lost) : 0;
}

/* The pool of a device with memory of its own: kv_bytes if it was given, else what the device has left. */
static int device_pool(struct qn_engine *e, struct qn_err *err) {
    int64_t least = e->opts.kv_bytes ? e->info.kv_blocks : least_blocks(e), most = e->opts.kv_bytes ? e->info.kv_blocks : most_blocks(e);
    if (most > INT_MAX / QN_KV_BLOCK) most = INT_MAX / QN_KV_BLOCK;
    int rc = e->opts.kv_bytes ? 0 : dry_run(e, err);
    return rc < 0 ? rc : e->backend->ops->kv_pool(e->backend, (int)least, (int)(most > least ? most : least), &e->info.kv_blocks, err);
}

static int open_on(struct qn_engine *e, const char *device, struct qn_err *err) {
    struct qn_backend_opts o = {.n_threads = e->opts.n_threads, .cores = e->opts.cores, .isa = e->opts.isa, .kv_blocks = e->info.kv_blocks, .kv_type = e->kv_type,
                                .rows_max = e->opts.step_rows, .seqs_max = e->opts.max_seqs, .out_max = e->out_max, .picks_max = e->out_max + e->opts.max_seqs, .n_ctx = e->info.n_ctx};
    int rc = qn_device_open(&e->backend, device, e->opts.plugin_dir, &e->model->desc, &o, need_bytes(e), e->device_note, err);
    if (rc == 0) rc = qn_forward_open(&e->forward, e->model, e->backend, err);
    if (rc == 0 && e->backend->ops->kv_pool) rc = device_pool(e, err);
    return rc;
}

static void close_backend(struct qn_engine *e) {
    qn_forward_close(e->forward);
    if (e->backend) e->backend->ops->close(e->backend);
    e->forward = NULL;
    e->backend = NULL;
}

/* "auto" has taken a card that cannot do this model after all. */
static int fall_back(struct qn_engine *e, int blocks, const struct qn_err *why, struct qn_err *err) {
    char note[QN_DEVICE_NOTE_MAX];
    close_backend(e);
    e->info.kv_blocks = blocks;
    int rc = open_on(e, "cpu", err);
    snprintf(note, sizeof note, "cpu: the card cannot serve this model: %s", why->text);
    memcpy(e->device_note, note, sizeof note);
    return rc;
}

int qn_engine_place(struct qn_engine *e, struct qn_err *err) {
    const char *device = e->opts.device ? e->opts.device : "cpu";
    struct qn_err first = {0};
    int blocks = pool_blocks(e, err);
    if (blocks < 0) return blocks;
    e->info.kv_blocks = blocks;
    e->out_max = e->opts.max_seqs < OUT_ROWS_MAX ? e->opts.max_seqs : OUT_ROWS_MAX;
    int rc = open_on(e, device, &first);
    if (rc < 0 && !strcmp(device, "auto") && e->backend && strncmp(e->backend->ops->name, "cpu", 3)) rc = fall_back(e, blocks, &first, err);
    else if (rc < 0) qn_fail(err, rc, "%s", first.text);
    if (rc < 0) return rc;
    e->info.device = e->backend->device_name;
    e->info.device_note = e->device_note;
    e->backend->ops->bytes(e->backend, &e->info.kv_bytes);
    e->info.kv_type = e->kv_type != QN_KV_AUTO ? qn_kv_names[e->kv_type] : strcmp(e->backend->ops->name, "cpu-ref") ? "f16" : "f32";
    return 0;
}
