/* Sampling, the passes over whole rows: edits with the maxima of chunks, and the sums of exponentials. The choice itself is
 * sample_pick.cu's.
 *
 *   edit   a block a chunk of 1024 entries: reads the row, and writes a copy if there are edits          4 (+ 4, + 4 for counts) bytes an entry
 *   sums   half a warp a chunk: reads the row once more, for log-probabilities once again                4 bytes an entry each
 *
 * Float sums have engine/sampler_vec.c's order: 16 lanes take every 16th entry of a chunk, the lanes are added one after the other in
 * double. So what top_p compares with has the CPU's bits. Both kernels leave their results to the third in scratch; blocks of picks that need
 * nothing end at once. */
#include "engine/cuda/sample.cuh"

#include "engine/cuda/runtime.h"

#include <assert.h>

/* --- scratch ------------------------------------------------------------------------------------------------------ */

static int chunks_of(int n_vocab) { return (n_vocab + SAMPLE_CHUNK - 1) / SAMPLE_CHUNK; }
static int64_t round256(int64_t n) { return (n + 255) / 256 * 256; }

/* Sets the pointers of `a` into scratch; returns its size. */
static int64_t lay_out(sample_args *a, void *scratch, int picks_max, int n_vocab) {
    int64_t chunks = chunks_of(n_vocab), stride = (n_vocab + 63) / 64 * 64;
    int64_t work = round256(4 * stride * picks_max), most = round256(4 * 2 * chunks * picks_max), sum = round256(8 * SAMPLE_SUMS * chunks * picks_max);
    char *p = (char *)scratch;
    if (a) {
        a->work = (float *)(void *)p;
        a->chunk_max = (float *)(void *)(p + work);
        a->sums = (double *)(void *)(p + work + most);
        a->n_chunks = (int32_t)chunks;
        a->work_stride = (int32_t)stride;
    }
    return work + most + sum;
}

extern "C" int64_t qn_cuda_sample_scratch(int picks_max, int n_vocab) { return lay_out(nullptr, nullptr, picks_max, n_vocab); }

/* --- edits and maxima --------------------------------------------------------------------------------------------- */

enum { EDIT_THREADS = SAMPLE_CHUNK / 4 };

struct edit_shared {
    float x[SAMPLE_CHUNK];
    float most[2][EDIT_THREADS / 32];
};

/* Entries of a list with one id are one thread's, the one at the first of them: they take effect in order. */
QN_DEVICE void apply_bias(float *x, uint32_t from, const qn_cuda_bias *b, int n) {
    for (int t = (int)threadIdx.x; t < n; t += EDIT_THREADS) {
        uint32_t id = b[t].id, at = id - from;
        int first = at < SAMPLE_CHUNK;
        for (int s = 0; s < t && first; s++) first = b[s].id != id;
        for (int s = t; s < n && first; s++)
            if (b[s].id == id) x[at] = b[s].add <= -100.0f ? -INFINITY : __fadd_rn(x[at], b[s].add);
    }
}

QN_DEVICE void apply_bans(float *x, uint32_t from, const uint32_t *ban, int n) {
    for (int t = (int)threadIdx.x; t < n; t += EDIT_THREADS) {
        int first = ban[t] - from < SAMPLE_CHUNK;
        for (int s = 0; s < t && first; s++) first = ban[s] != ban[t];
        if (first) x[ban[t] - from] = -INFINITY;
    }
}

/* Keskar et al. (CTRL) and OpenAI's two, as apply_penalties of engine/sampler.c. */
QN_DEVICE float penalised(float x, uint32_t count, const qn_cuda_pick &p) {
    uint32_t n = count & ~QN_CUDA_IN_HISTORY;
    if (count && p.repetition != 1.0f) x = x > 0.0f ? __fdiv_rn(x, p.repetition) : __fmul_rn(x, p.repetition);
    return n ? __fsub_rn(x, __fadd_rn(__fmul_rn(p.frequency, (float)n), p.presence)) : x;
}

QN_DEVICE void edit_chunk(const sample_args &a, const qn_cuda_pick &p, int pick, edit_shared &s, float x[4]) {
    int chunk0 = (int)blockIdx.x * SAMPLE_CHUNK, own = (int)threadIdx.x * 4, at = chunk0 + own;
    for (int k = 0; k < 4; k++) s.x[own + k] = x[k];
    __syncthreads();
    apply_bias(s.x, (uint32_t)chunk0, a.s.bias + p.bias0, p.n_bias);
    __syncthreads();
    apply_bans(s.x, (uint32_t)chunk0, a.s.ban + p.ban0, p.n_ban);
    __syncthreads();
    uint32_t word = p.mask >= 0 && at < a.s.n_vocab ? a.s.masks[(size_t)p.mask * (size_t)((a.s.n_vocab + 31) / 32) + (size_t)(at / 32)] : QN_ALL_LANES;
    int counted = has_penalties(p);
    for (int k = 0; k < 4; k++) {
        x[k] = word >> (at % 32 + k) & 1u ? s.x[own + k] : -INFINITY;
        if (counted && at + k < a.s.n_vocab) x[k] = penalised(x[k], a.s.counts[(size_t)p.counts * (size_t)a.s.n_vocab + (size_t)(at + k)], p);
    }
    if (at < a.work_stride) { /* -inf behind the vocabulary */
        qn_vec16 v = {{__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3])}};
        qn_store16(a.work + (size_t)pick * (size_t)a.work_stride + (size_t)at, v);
    }
}

QN_DEVICE float max4(const float x[4]) { return fmaxf(fmaxf(number(x[0]), number(x[1])), fmaxf(number(x[2]), number(x[3]))); }

/* Grid [chunks, picks]. */
QN_KERNEL(EDIT_THREADS, 4) edit(sample_args a) {
    QN_SHARED(edit_shared, s);
    int pick = (int)blockIdx.y, lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    if (pick >= *a.s.n_picks) return;
    const qn_cuda_pick &p = a.s.picks[pick];
    float x[4];
    load4(row_given(a, p), ((int)blockIdx.x * EDIT_THREADS + (int)threadIdx.x) * 4, x);
    float given = qn_warp_max(max4(x)), edited = given;
    if (has_edits(p)) {
        edit_chunk(a, p, pick, s, x);
        edited = qn_warp_max(max4(x));
    }
    if (lane == 0) s.most[0][warp] = edited, s.most[1][warp] = given;
    __syncthreads();
    if (threadIdx.x < 2) {
        float m = s.most[threadIdx.x][0];
        for (int w = 1; w < EDIT_THREADS / 32; w++) m = fmaxf(m, s.most[threadIdx.x][w]);
        a.chunk_max[((size_t)pick * 2 + threadIdx.x) * (size_t)a.n_chunks + blockIdx.x] = m;
    }
}

/* --- sums --------------------------------------------------------------------------------------------------------- */

enum { SUM_WARPS = 4, SUM_LANES = 16 };

struct sum_shared { float part[SUM_WARPS][1 + SAMPLE_BANDS][32]; };

/* A lane's share of a chunk: all and, if N > 1, what is at least each band. */
template <int N> QN_DEVICE void lane_sums(const sample_row &r, int from, float max, float inv_t, float sum[N]) {
    for (int b = 0; b < N; b++) sum[b] = 0.0f;
#pragma unroll 4
    for (int j = 0; j < SAMPLE_CHUNK / SUM_LANES; j++) {
        int at = from + j * SUM_LANES;
        float e = at < r.n ? weight_of(r.x[at], max, inv_t) : 0.0f;
        sum[0] = __fadd_rn(sum[0], e);
#pragma unroll
        for (int b = 1; b < N; b++) sum[b] = __fadd_rn(sum[b], e >= bands[b - 1] ? e : 0.0f);
    }
}

template <int N> QN_DEVICE void chunk_sums(const sample_args &a, const sample_row &r, int pick, int first_sum, float max, float inv_t, sum_shared &s) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, side = lane / SUM_LANES, l = lane % SUM_LANES;
    int chunk = ((int)blockIdx.x * SUM_WARPS + warp) * 2 + side;
    float sum[N];
    lane_sums<N>(r, chunk * SAMPLE_CHUNK + l, max, inv_t, sum);
    for (int b = 0; b < N; b++) s.part[warp][b][lane] = sum[b];
    __syncwarp();
    if (l >= N || chunk >= a.n_chunks) return;
    double all = 0;
    for (int k = 0; k < SUM_LANES; k++) all += (double)s.part[warp][l][side * SUM_LANES + k];
    a.sums[((size_t)pick * SAMPLE_SUMS + (size_t)(first_sum + l)) * (size_t)a.n_chunks + (size_t)chunk] = all;
}

/* Grid [chunks / (2 * SUM_WARPS), picks, 2]: z 0 for the draw, 1 for log-probabilities. */
QN_KERNEL(32 * SUM_WARPS, 4) sum_chunks(sample_args a) {
    QN_SHARED(sum_shared, s);
    int pick = (int)blockIdx.y, as_given = (int)blockIdx.z;
    if (pick >= *a.s.n_picks) return;
    const qn_cuda_pick &p = a.s.picks[pick];
    if (!(as_given ? p.n_top >= 0 : needs_sums(p, a.s.n_vocab))) return;
    float max = max_of_chunks(maxima(a, pick, as_given), a.n_chunks);
    if (max == -INFINITY) return;
    if (as_given) chunk_sums<1>(a, row_given(a, p), pick, SUM_LOGPROBS, max, 1.0f, s);
    else if (needs_bands(p, a.s.n_vocab)) chunk_sums<1 + SAMPLE_BANDS>(a, row_edited(a, p, pick), pick, SUM_ALL, max, __fdiv_rn(1.0f, p.temperature), s);
    else chunk_sums<1>(a, row_edited(a, p, pick), pick, SUM_ALL, max, __fdiv_rn(1.0f, p.temperature), s);
}

/* --- launchers ---------------------------------------------------------------------------------------------------- */

void qn_cuda_pick_launch(const sample_args &a, int picks, qn_cuda_stream stream); /* sample_pick.cu */

extern "C" void qn_cuda_sample(const qn_cuda_sampling *s, int picks_bound, qn_cuda_stream stream) {
    sample_args a = {*s, nullptr, nullptr, nullptr, 0, 0};
    assert(s->n_vocab >= 1 && s->n_vocab <= QN_CUDA_VOCAB_MAX && s->logits_stride >= s->n_vocab && picks_bound <= s->picks_max);
    lay_out(&a, s->scratch, s->picks_max, s->n_vocab);
    if (picks_bound <= 0) return;
    unsigned chunks = (unsigned)a.n_chunks, picks = (unsigned)picks_bound, per_block = 2 * SUM_WARPS;
    QN_LAUNCH(edit, dim3(chunks, picks), EDIT_THREADS, 0, stream, a);
    QN_LAUNCH(sum_chunks, dim3((chunks + per_block - 1) / per_block, picks, 2), 32 * SUM_WARPS, 0, stream, a);
    qn_cuda_pick_launch(a, picks_bound, stream);
}

enum { LIST_THREADS = 128 };

QN_KERNEL(LIST_THREADS, 8) count_tokens(uint32_t *counts, int n_vocab, const int32_t *tokens, int n_prompt, int n) {
    int i = (int)blockIdx.x * LIST_THREADS + (int)threadIdx.x;
    if (i >= n || (uint32_t)tokens[i] >= (uint32_t)n_vocab) return;
    atomicOr(&counts[tokens[i]], QN_CUDA_IN_HISTORY);
    if (i >= n_prompt) atomicAdd(&counts[tokens[i]], 1u);
}

extern "C" void qn_cuda_counts_set(uint32_t *counts, int n_vocab, int slot, const int32_t *tokens, int n_prompt, int n, qn_cuda_stream stream) {
    uint32_t *own = counts + (size_t)slot * (size_t)n_vocab;
    cudaMemsetAsync(own, 0, (size_t)n_vocab * sizeof *own, stream);
    if (n > 0) QN_LAUNCH(count_tokens, (unsigned)((n + LIST_THREADS - 1) / LIST_THREADS), LIST_THREADS, 0, stream, own, n_vocab, tokens, n_prompt, n);
}

QN_KERNEL(LIST_THREADS, 8) feed_tokens(int32_t *token, const int32_t *feed, const int32_t *count) {
    int r = (int)blockIdx.x * LIST_THREADS + (int)threadIdx.x;
    if (r < *count && token[r] < 0) token[r] = feed[-1 - token[r]];
}

extern "C" void qn_cuda_feed_tokens(int32_t *token, const int32_t *feed, const qn_cuda_step *step, int rows_bound, qn_cuda_stream stream) {
    if (rows_bound > 0)
        QN_LAUNCH(feed_tokens, (unsigned)((rows_bound + LIST_THREADS - 1) / LIST_THREADS), LIST_THREADS, 0, stream, token, feed, &step->head->n_rows);
}
