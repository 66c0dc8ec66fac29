/* Buckets of equal width between the least and the greatest entry; the bucket in which the running sum crosses the target
 * is divided again. Two or three rounds leave a handful, whatever n. Bucket numbers are monotone in x (a difference and a
 * product of doubles are), so a bucket boundary never separates equal entries, and a round always parts the greatest from
 * the least. Sums run in order of index: the result is a function of the entries alone. */
#include "engine/sampler_cut.h"

enum { BUCKETS = 256, FEW = 24 };

struct range {
    double lo, hi;
};

static struct range range_of(const float *x, const uint32_t *list, uint32_t n) {
    float lo = x[list[0]], hi = lo;
    for (uint32_t i = 1; i < n; i++) {
        float v = x[list[i]];
        lo = v < lo ? v : lo;
        hi = v > hi ? v : hi;
    }
    return (struct range){(double)lo, (double)hi};
}

static int bucket_of(float v, struct range r, double scale) {
    int b = (int)((r.hi - (double)v) * scale);
    return b < BUCKETS ? b : BUCKETS - 1;
}

/* A handful, by plain selection; or equal entries, which go by index. */
static struct qn_cut walk(const float *x, const float *w, uint32_t *list, uint32_t n, double target, int equal) {
    double sum = 0;
    for (uint32_t done = 0; done < n; done++) {
        uint32_t best = done;
        for (uint32_t i = done + 1; !equal && i < n; i++)
            if (x[list[i]] > x[list[best]] || (x[list[i]] == x[list[best]] && list[i] < list[best])) best = i;
        uint32_t at = list[best];
        list[best] = list[done];
        list[done] = at;
        sum += w ? (double)w[at] : 1;
        if (sum >= target || done + 1 == n) return (struct qn_cut){x[at], at};
    }
    return (struct qn_cut){x[list[0]], list[0]}; /* n >= 1: not reached */
}

struct qn_cut qn_sampler_cut(const float *x, const float *w, uint32_t *list, uint32_t n, double target) {
    for (;;) {
        struct range r = range_of(x, list, n);
        if (n <= FEW || !(r.hi > r.lo)) return walk(x, w, list, n, target, !(r.hi > r.lo));
        double scale = BUCKETS / (r.hi - r.lo), sum[BUCKETS] = {0};
        uint32_t count[BUCKETS] = {0};
        for (uint32_t i = 0; i < n; i++) {
            int b = bucket_of(x[list[i]], r, scale);
            sum[b] += w ? (double)w[list[i]] : 1;
            count[b]++;
        }
        int cross = 0, last = 0;
        double before = 0;
        for (; cross < BUCKETS && before + sum[cross] < target; before += sum[cross++])
            if (count[cross]) last = cross;
        if (cross == BUCKETS) { /* the whole weighs less than the target: keep all, that is cut at the very last */
            cross = last;
            target = 1e300;
        } else {
            target -= before;
        }
        while (count[cross] == 0) cross--; /* a target of 0 crosses in the first bucket, which holds the greatest */
        uint32_t m = 0;
        for (uint32_t i = 0; i < n; i++)
            if (bucket_of(x[list[i]], r, scale) == cross) list[m++] = list[i];
        n = m;
    }
}
