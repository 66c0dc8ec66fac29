/* The choice: what the filters keep of a row and what is drawn from it; log-probabilities. One block a pick, after sample.cu's passes.
 *
 * Nothing is sorted and no list of candidates is made. What is kept is a predicate on (logit, id), and all filters but min_p cut the
 * order (logit descending, id ascending) somewhere; the cut is found by counting. Keys of logits (integers in their order) between the
 * greatest and the least that can matter fall in 1024 buckets; the bucket in which the running sum crosses the target is divided
 * again: at most four rounds, as a rule two or three, each a read of the chunks whose maximum is not below the bound. Among equal logits the
 * cut goes by id. top_k counts; top_p adds weights as integers of 2^-shift, which any order of atomics adds to the same bits. A draw then
 * adds the kept weights of each chunk, finds the chunk and walks it.
 *
 * Bytes: 4 an entry of the live chunks for each round and 8 for a draw; for a peaked distribution the live chunks are few, for a flat one a
 * pick reads its row some ten times, from L2. Doubles are few: one addition an entry in the draw. */
#include "engine/cuda/sample.cuh"

enum { PICK_THREADS = 256, PICK_WARPS = PICK_THREADS / 32, BUCKETS = 1024, BUCKET_BITS = 10, OWN = BUCKETS / PICK_THREADS, QUADS = SAMPLE_CHUNK / 128 };
#define LOGPROB_LEAST (-9999.0f)
typedef unsigned long long u64;

struct pick_shared {
    u64 weight[BUCKETS];
    uint32_t count[BUCKETS];
    double share[SAMPLE_CHUNKS_MAX];    /* of a chunk: kept weights */
    uint32_t equal[SAMPLE_CHUNKS_MAX];
    float most[SAMPLE_CHUNKS_MAX];      /* the chunks' maxima */
    u64 warp_total[PICK_WARPS];
    struct crossing { u64 before, weight; uint32_t count; int bucket; } crossed; /* bucket -1: none */
    float bound;
    uint32_t id, n_top, rank;
    int32_t chunk;
    double before, total, sums[SAMPLE_SUMS];
    uint32_t top[QN_CUDA_TOP_MAX];
    float top_x[QN_CUDA_TOP_MAX];
};

/* A row and what is kept of it so far. */
struct view {
    sample_row row;
    int n_chunks;
    float max, inv_t;
    float floor;            /* numbers below are not kept */
    float min_p;            /* nor weights below */
    uint32_t cut_key, cut_id; /* nor what stands behind (key, id) */
};

QN_DEVICE int warp_of() { return (int)threadIdx.x / 32; }
QN_DEVICE int lane_of() { return (int)threadIdx.x % 32; }

QN_DEVICE int keeps(const view &v, float x, uint32_t id) {
    float n = number(x);
    uint32_t k = key_of(n);
    if (!(n >= v.floor) || k < v.cut_key || (k == v.cut_key && id > v.cut_id)) return 0;
    return !(v.min_p > 0.0f) || weight_of(x, v.max, v.inv_t) >= v.min_p;
}

/* fn(id, x) for a lane's entries of one chunk. */
template <class F> QN_DEVICE void lane_entries(const view &v, int chunk, F fn) {
#pragma unroll 2
    for (int j = 0; j < QUADS; j++) {
        int at = chunk * SAMPLE_CHUNK + j * 128 + lane_of() * 4;
        float x[4];
        load4(v.row, at, x);
#pragma unroll
        for (int k = 0; k < 4; k++) fn((uint32_t)(at + k), x[k]);
    }
}

/* fn(chunk) for the chunks of a warp; dead ones, which keep nothing, are passed over. */
template <class F> QN_DEVICE void live_chunks(const view &v, const pick_shared &s, F fn) {
    for (int c = warp_of(); c < v.n_chunks; c += PICK_WARPS)
        if (s.most[c] >= v.floor) fn(c);
}

/* --- cuts --------------------------------------------------------------------------------------------------------- */

QN_DEVICE void load_maxima(view &v, pick_shared &s, const float *from) {
    __syncthreads(); /* others may still read those of the row before */
    for (int c = (int)threadIdx.x; c < v.n_chunks; c += PICK_THREADS) s.most[c] = from[c];
    __syncthreads();
    float m = -INFINITY;
    for (int c = lane_of(); c < v.n_chunks; c += 32) m = fmaxf(m, s.most[c]);
    v.max = qn_warp_max(m);
}

/* A bound that at least k entries are not below: the k-th greatest maximum of a chunk. */
QN_DEVICE float bound_of_top(const view &v, pick_shared &s, int k) {
    if (threadIdx.x == 0) s.bound = -FLT_MAX;
    __syncthreads();
    for (int c = (int)threadIdx.x; c < v.n_chunks && k <= v.n_chunks; c += PICK_THREADS) {
        int before = 0;
        for (int o = 0; o < v.n_chunks; o++) before += s.most[o] > s.most[c] || (s.most[o] == s.most[c] && o < c);
        if (before == k - 1 && s.most[c] >= -FLT_MAX) s.bound = s.most[c];
    }
    __syncthreads();
    return s.bound;
}

/* Logit below which every weight is less than e, as in sampler.c; the slack covers what rounding may do. */
QN_DEVICE float bound_of_weight(float max, float temperature, double e) {
    double x = (double)max + (double)temperature * (log_of(e) - 1e-3) - fabs((double)max) * 1e-6;
    return x >= -(double)FLT_MAX ? (float)x : -FLT_MAX;
}

/* Weights as integers: n of them, each at most 2^shift, stay below 2^63. */
QN_DEVICE int shift_of(int n) { return 62 - (32 - __clz(n)); }
QN_DEVICE u64 fixed(float w, int shift) { return (u64)((double)w * (double)(1ULL << shift) + 0.5); }

/* What an entry adds to a running sum: 1, or its weight; nothing from weights at or above `below`. */
template <bool WEIGHTS> QN_DEVICE u64 worth(const view &v, float x, int shift, float below) {
    if (!WEIGHTS) return 1;
    float w = weight_of(x, v.max, v.inv_t);
    return w < below ? fixed(w, shift) : 0;
}

/* Fills the buckets of [least, greatest]: bucket 0 has the greatest keys. */
template <bool WEIGHTS> QN_DEVICE void fill_buckets(const view &v, pick_shared &s, uint32_t least, uint32_t greatest, int bits, int shift, float below) {
    for (int i = (int)threadIdx.x; i < BUCKETS; i += PICK_THREADS) s.weight[i] = 0, s.count[i] = 0;
    if (threadIdx.x == 0) s.crossed = pick_shared::crossing{0, 0, 0, -1};
    __syncthreads();
    live_chunks(v, s, [&](int c) {
        lane_entries(v, c, [&](uint32_t id, float x) {
            uint32_t k = key_of(number(x));
            if (k < least || k > greatest || !keeps(v, x, id)) return;
            u64 w = worth<WEIGHTS>(v, x, shift, below);
            atomicAdd(&s.count[(greatest - k) >> bits], 1u);
            if (WEIGHTS) atomicAdd(&s.weight[(greatest - k) >> bits], w);
        });
    });
    __syncthreads();
}

QN_DEVICE u64 warp_scan(u64 x) {
    for (int d = 1; d < 32; d *= 2) {
        u64 y = __shfl_up_sync(QN_ALL_LANES, x, (unsigned)d);
        if (lane_of() >= d) x += y;
    }
    return x;
}

/* The bucket where the sum, `before` so far, reaches target. */
template <bool WEIGHTS> QN_DEVICE pick_shared::crossing find_crossing(pick_shared &s, u64 before, u64 target) {
    u64 own[OWN], all = 0;
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        int b = (int)threadIdx.x * OWN + i;
        own[i] = WEIGHTS ? s.weight[b] : s.count[b];
        all += own[i];
    }
    u64 upto = warp_scan(all);
    if (lane_of() == 31) s.warp_total[warp_of()] = upto;
    __syncthreads();
    u64 at = before + upto - all;
    for (int w = 0; w < warp_of(); w++) at += s.warp_total[w];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        int b = (int)threadIdx.x * OWN + i;
        if (at < target && at + own[i] >= target) s.crossed = pick_shared::crossing{at, own[i], s.count[b], b};
        at += own[i];
    }
    __syncthreads();
    pick_shared::crossing c = s.crossed;
    __syncthreads(); /* before anyone goes on to the next round */
    return c;
}

/* --- walks through a chunk in order of id --------------------------------------------------------------------------- */

/* By one warp: the id at which the running sum of worth(id, x) exceeds `at`; the last with any worth if none does. T: double or
 * uint32_t. The order of sums is fixed: four of a lane, then lanes by doubling steps, then the run so far. */
template <class T, class F> QN_DEVICE uint32_t walk(const view &v, int chunk, T at, F worth_of) {
    T run = 0;
    uint32_t last = (uint32_t)(chunk * SAMPLE_CHUNK);
    for (int j = 0; j < QUADS; j++) {
        int id0 = chunk * SAMPLE_CHUNK + j * 128 + lane_of() * 4;
        float x[4];
        T w[4], all = 0;
        load4(v.row, id0, x);
#pragma unroll
        for (int k = 0; k < 4; k++) w[k] = worth_of((uint32_t)(id0 + k), x[k]), all += w[k];
        T upto = all;
        for (int d = 1; d < 32; d *= 2) {
            T y = __shfl_up_sync(QN_ALL_LANES, upto, (unsigned)d);
            if (lane_of() >= d) upto += y;
        }
        T before = __shfl_up_sync(QN_ALL_LANES, upto, 1u), end = __shfl_sync(QN_ALL_LANES, upto, 31);
        if (lane_of() == 0) before = 0;
        T sum = run + before;
        int found = 0;
        uint32_t hit = 0, mine = 0; /* first beyond; last with worth */
#pragma unroll
        for (int k = 0; k < 4; k++) {
            sum += w[k];
            if (!found && sum > at) found = 1, hit = (uint32_t)(id0 + k);
            if (w[k] > 0) mine = (uint32_t)(id0 + k);
        }
        unsigned beyond = __ballot_sync(QN_ALL_LANES, found), worthy = __ballot_sync(QN_ALL_LANES, all > 0);
        if (beyond) return __shfl_sync(QN_ALL_LANES, hit, __ffs((int)beyond) - 1);
        uint32_t best = __shfl_sync(QN_ALL_LANES, mine, worthy ? 31 - __clz((int)worthy) : 0);
        if (worthy) last = best;
        run += end;
    }
    return last;
}

/* By one warp: the chunk at which the running sum of share[] exceeds `at`, the last with any share if none does; *before it, *total. */
QN_DEVICE int walk_chunks(const double *share, int n, double at, double *before, double *total) {
    double run = 0;
    int hit = -1, last = 0;
    for (int c0 = 0; c0 < n; c0 += 32) {
        int c = c0 + lane_of();
        double own = c < n ? share[c] : 0, upto = own;
        for (int d = 1; d < 32; d *= 2) {
            double y = __shfl_up_sync(QN_ALL_LANES, upto, (unsigned)d);
            if (lane_of() >= d) upto += y;
        }
        double prev = __shfl_up_sync(QN_ALL_LANES, upto, 1u), end = __shfl_sync(QN_ALL_LANES, upto, 31);
        double from = run + (lane_of() == 0 ? 0.0 : prev);
        unsigned beyond = __ballot_sync(QN_ALL_LANES, c < n && run + upto > at), worthy = __ballot_sync(QN_ALL_LANES, own > 0);
        int lane = beyond ? __ffs((int)beyond) - 1 : worthy ? 31 - __clz((int)worthy) : 0;
        double start = __shfl_sync(QN_ALL_LANES, from, lane);
        if (hit < 0 && (beyond || worthy)) last = c0 + lane, *before = start;
        if (hit < 0 && beyond) hit = last;
        run += end;
    }
    *total = run;
    return last;
}

/* Id of the n-th kept entry (from 1) with this key. */
QN_DEVICE uint32_t nth_equal(const view &v, pick_shared &s, uint32_t key, uint32_t n) {
    for (int c = (int)threadIdx.x; c < v.n_chunks; c += PICK_THREADS) s.equal[c] = 0;
    __syncthreads();
    live_chunks(v, s, [&](int c) {
        lane_entries(v, c, [&](uint32_t id, float x) {
            if (key_of(number(x)) == key && keeps(v, x, id)) atomicAdd(&s.equal[c], 1u);
        });
    });
    __syncthreads();
    if (warp_of() == 0) {
        uint32_t before = 0;
        int c = 0;
        while (before + s.equal[c] < n) before += s.equal[c++];
        uint32_t id = walk<uint32_t>(v, c, n - 1 - before, [&](uint32_t at, float x) { return (uint32_t)(key_of(number(x)) == key && keeps(v, x, at)); });
        if (lane_of() == 0) s.id = id;
    }
    __syncthreads();
    return s.id;
}

/* Keeps the shortest run, greatest first, whose worth is `target` or more (from 1); all if no run's is. */
template <bool WEIGHTS> QN_DEVICE void cut(view &v, pick_shared &s, u64 target, float below) {
    uint32_t greatest = key_of(v.max), least = max(key_of(v.floor), v.cut_key);
    int bits, shift = shift_of(v.row.n);
    pick_shared::crossing x = {0, 0, 0, 0};
    if (greatest < least) return;
    do {
        bits = max(0, 32 - __clz((int)(greatest - least)) - BUCKET_BITS);
        fill_buckets<WEIGHTS>(v, s, least, greatest, bits, shift, below);
        x = find_crossing<WEIGHTS>(s, x.before, target);
        if (x.bucket < 0) return;
        greatest -= (uint32_t)x.bucket << bits;
        least = max(least, greatest - ((1u << bits) - 1u));
    } while (bits > 0);
    u64 each = x.weight / x.count, wanted = (target - x.before + each - 1) / each; /* of the entries with this very key */
    uint32_t last = greatest == v.cut_key ? v.cut_id : 0xffffffffu;
    v.cut_id = wanted < x.count ? nth_equal(v, s, greatest, (uint32_t)wanted) : last;
    v.cut_key = greatest;
}

QN_DEVICE u64 target_of(double weight, int n) {
    double t = ceil(weight * (double)(1ULL << shift_of(n)));
    return t >= 1 ? (u64)t : 1;
}

/* --- filters and the draw ------------------------------------------------------------------------------------------- */

/* The weights that are kept, chunk by chunk, into s.share; their sum. */
QN_DEVICE double weigh(const view &v, pick_shared &s) {
    for (int c = (int)threadIdx.x; c < v.n_chunks; c += PICK_THREADS) s.share[c] = 0;
    __syncthreads();
    live_chunks(v, s, [&](int c) {
        double sum = 0;
        lane_entries(v, c, [&](uint32_t id, float x) { sum += keeps(v, x, id) ? (double)weight_of(x, v.max, v.inv_t) : 0.0; });
        sum = warp_sum_double(sum);
        if (lane_of() == 0) s.share[c] = sum;
    });
    __syncthreads();
    if (warp_of() == 0) {
        double before = 0, total;
        walk_chunks(s.share, v.n_chunks, INFINITY, &before, &total);
        if (lane_of() == 0) s.total = total;
    }
    __syncthreads();
    return s.total;
}

/* top_p alone: the sums above each band tell between which two the cut lies, and only what is between them is counted. What weighs less
 * than (1 - p) / n of the total is never kept (sampler.c, filter_top_p). */
QN_DEVICE void cut_by_bands(view &v, pick_shared &s, const sample_args &a, const qn_cuda_pick &p, int pick) {
    for (int b = warp_of(); b <= SAMPLE_BANDS; b += PICK_WARPS) {
        const double *chunk = sums(a, pick, SUM_ALL + b);
        double sum = 0;
        for (int c = lane_of(); c < v.n_chunks; c += 32) sum += chunk[c];
        sum = warp_sum_double(sum);
        if (lane_of() == 0) s.sums[b] = sum;
    }
    __syncthreads();
    double total = s.sums[SUM_ALL], target = (double)p.top_p * total, least = (1 - (double)p.top_p) * total / v.row.n;
    int b = 0;
    while (b < SAMPLE_BANDS && s.sums[SUM_ABOVE + b] < target) b++;
    double low = b < SAMPLE_BANDS ? (double)bands[b] : least < 1e-30 ? 1e-30 : least;
    v.floor = bound_of_weight(v.max, p.temperature, low);
    if (b == 0) cut<true>(v, s, target_of(target, v.row.n), INFINITY);
    else cut<true>(v, s, target_of(target - s.sums[SUM_ABOVE + b - 1], v.row.n), bands[b - 1]);
}

QN_DEVICE void filter(view &v, pick_shared &s, const sample_args &a, const qn_cuda_pick &p, int pick) {
    int k = has_top_k(p, v.row.n) ? p.top_k : 0;
    if (needs_bands(p, v.row.n)) {
        cut_by_bands(v, s, a, p, pick);
        return;
    }
    if (k) v.floor = bound_of_top(v, s, k);
    if (p.min_p > 0.0f) v.floor = fmaxf(v.floor, bound_of_weight(v.max, p.temperature, (double)p.min_p)), v.min_p = p.min_p;
    if (k) cut<false>(v, s, (u64)k, INFINITY);
    if (p.top_p < 1.0f) cut<true>(v, s, target_of((double)p.top_p * weigh(v, s), v.row.n), INFINITY);
}

/* Philox4x32-10 as engine/base/rng.c; the first word. */
QN_DEVICE uint32_t random_word(uint64_t seed, uint32_t branch, uint32_t position, uint32_t lane) {
    uint32_t c0 = position, c1 = branch, c2 = lane, c3 = 0, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint32_t hi0 = __umulhi(0xD2511F53u, c0), lo0 = 0xD2511F53u * c0, hi1 = __umulhi(0xCD9E8D57u, c2), lo1 = 0xCD9E8D57u * c2;
        c0 = hi1 ^ c1 ^ k0, c1 = lo1, c2 = hi0 ^ c3 ^ k1, c3 = lo0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return c0;
}

QN_DEVICE double uniform_of(const qn_cuda_pick &p) {
    return (double)(random_word(p.seed, p.branch, p.position, 0) >> 8) * 0x1p-24 + (double)(random_word(p.seed, p.branch, p.position, 1) >> 8) * 0x1p-48;
}

/* From the kept entries; the chunks' shares are where `share` points. One warp. */
QN_DEVICE uint32_t draw(const view &v, const double *share, double u) {
    double before = 0, total, none = 0;
    walk_chunks(share, v.n_chunks, INFINITY, &none, &total);
    double at = u * total;
    int c = walk_chunks(share, v.n_chunks, at, &before, &total);
    return walk<double>(v, c, at - before, [&](uint32_t id, float x) { return keeps(v, x, id) ? (double)weight_of(x, v.max, v.inv_t) : 0.0; });
}

/* The lowest id of the greatest. One warp. */
QN_DEVICE uint32_t greatest_of(const view &v, const pick_shared &s) {
    int c = -1;
    for (int c0 = 0; c0 < v.n_chunks && c < 0; c0 += 32) {
        unsigned hit = __ballot_sync(QN_ALL_LANES, c0 + lane_of() < v.n_chunks && s.most[min(c0 + lane_of(), v.n_chunks - 1)] == v.max);
        if (hit) c = c0 + __ffs((int)hit) - 1;
    }
    return walk<uint32_t>(v, c, 0, [&](uint32_t, float x) { return (uint32_t)(number(x) >= v.max); });
}

QN_DEVICE int32_t choose(const sample_args &a, const qn_cuda_pick &p, int pick, pick_shared &s) {
    view v = {row_edited(a, p, pick), a.n_chunks, 0.0f, 0.0f, -FLT_MAX, 0.0f, 0, 0xffffffffu};
    load_maxima(v, s, maxima(a, pick, 0));
    if (v.max == -INFINITY) return -1;
    int filters = !is_greedy(p) && (p.min_p > 0.0f || p.top_p < 1.0f || has_top_k(p, v.row.n));
    const double *share = filters ? s.share : sums(a, pick, SUM_ALL);
    if (!is_greedy(p)) v.inv_t = __fdiv_rn(1.0f, p.temperature);
    if (filters) {
        filter(v, s, a, p, pick);
        weigh(v, s);
    }
    if (warp_of() == 0) {
        uint32_t id = is_greedy(p) ? greatest_of(v, s) : draw(v, share, uniform_of(p));
        if (lane_of() == 0) s.id = id;
    }
    __syncthreads();
    return (int32_t)s.id;
}

/* --- log-probabilities ---------------------------------------------------------------------------------------------- */

QN_DEVICE float logprob_of(float x, float max, double log_sum) {
    if (!(x > -INFINITY) || max == -INFINITY) return LOGPROB_LEAST;
    double v = (double)(x > FLT_MAX ? FLT_MAX : x) - (double)max - log_sum;
    return v < (double)LOGPROB_LEAST ? LOGPROB_LEAST : (float)v;
}

/* The n best, into out, in their order: each counts those that stand before it. */
QN_DEVICE void fill_top(view v, pick_shared &s, int n, double log_sum, qn_cuda_picked *out) {
    if (threadIdx.x == 0) s.n_top = 0;
    v.floor = bound_of_top(v, s, n);
    cut<false>(v, s, (u64)n, INFINITY);
    live_chunks(v, s, [&](int c) {
        lane_entries(v, c, [&](uint32_t id, float x) {
            if (!keeps(v, x, id)) return;
            uint32_t at = atomicAdd(&s.n_top, 1u);
            s.top[at] = id, s.top_x[at] = x;
        });
    });
    __syncthreads();
    uint32_t t = threadIdx.x, m = s.n_top, before = 0;
    for (uint32_t o = 0; o < m && t < m; o++) before += s.top_x[o] > s.top_x[t] || (s.top_x[o] == s.top_x[t] && s.top[o] < s.top[t]);
    if (t < m) out->top[before] = qn_cuda_top{s.top[t], logprob_of(s.top_x[t], v.max, log_sum)};
    if (t == 0) out->n_top = m;
}

/* How many stand before (x, id). */
QN_DEVICE uint32_t rank_of(view v, pick_shared &s, float x, uint32_t id) {
    uint32_t before = 0;
    if (threadIdx.x == 0) s.rank = 0;
    __syncthreads();
    v.floor = number(x);
    live_chunks(v, s, [&](int c) {
        lane_entries(v, c, [&](uint32_t o, float y) { before += (o < (uint32_t)v.row.n) & ((y > x) | ((y == x) & (o < id))); });
    });
    for (int b = 16; b > 0; b /= 2) before += __shfl_xor_sync(QN_ALL_LANES, before, b);
    if (lane_of() == 0) atomicAdd(&s.rank, before);
    __syncthreads();
    return s.rank;
}

QN_DEVICE void score(const sample_args &a, const qn_cuda_pick &p, int pick, int32_t id, pick_shared &s, qn_cuda_picked *out) {
    view v = {row_given(a, p), a.n_chunks, 0.0f, 1.0f, -FLT_MAX, 0.0f, 0, 0xffffffffu};
    load_maxima(v, s, maxima(a, pick, 1));
    double none = 0, total = 1;
    if (v.max > -INFINITY) walk_chunks(sums(a, pick, SUM_LOGPROBS), v.n_chunks, INFINITY, &none, &total);
    double log_sum = v.max > -INFINITY ? log_of(total) : 0;
    if (threadIdx.x == 0) out->n_top = 0, out->logprob = LOGPROB_LEAST, out->rank = 0;
    __syncthreads(); /* before others write there */
    if (p.n_top > 0 && v.max > -INFINITY) fill_top(v, s, min(p.n_top, (int)QN_CUDA_TOP_MAX), log_sum, out);
    if (id < 0) return;
    float x = v.row.x[id] == v.row.x[id] ? v.row.x[id] : -INFINITY;
    uint32_t rank = rank_of(v, s, x, (uint32_t)id);
    if (threadIdx.x == 0) out->logprob = logprob_of(x, v.max, log_sum), out->rank = rank;
}

/* --- the kernel --------------------------------------------------------------------------------------------------- */

/* What the next step needs, by one thread. */
QN_DEVICE void hand_on(const sample_args &a, const qn_cuda_pick &p, int32_t id) {
    if (p.feed >= 0) a.s.feed[p.feed] = id < 0 ? 0 : id;
    if (p.counts < 0 || !p.counts_add || id < 0 || p.given >= 0) return;
    uint32_t *count = a.s.counts + (size_t)p.counts * (size_t)a.s.n_vocab + (size_t)id;
    *count = (*count + 1u) | QN_CUDA_IN_HISTORY;
}

/* Grid [picks]. */
QN_KERNEL(PICK_THREADS, 2) pick_token(sample_args a) {
    QN_SHARED(pick_shared, s);
    int pick = (int)blockIdx.x;
    if (pick >= *a.s.n_picks) return;
    const qn_cuda_pick &p = a.s.picks[pick];
    qn_cuda_picked *out = a.s.out + pick;
    int32_t id = p.given >= 0 ? (p.given < a.s.n_vocab ? p.given : 0) : choose(a, p, pick, s);
    if (p.n_top >= 0) score(a, p, pick, id, s, out);
    if (threadIdx.x == 0) {
        out->id = id;
        hand_on(a, p, id);
    }
}

void qn_cuda_pick_launch(const sample_args &a, int picks, qn_cuda_stream stream) {
    QN_LAUNCH(pick_token, picks, PICK_THREADS, 0, stream, a);
}
