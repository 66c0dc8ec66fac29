/* Checked arithmetic for numbers that came from a file or a request. Each returns 1 on overflow and leaves *out alone.
 * Raw `*` and `+` on such values are not allowed elsewhere (make lint looks for them in the parsers). */
#ifndef QN_BASE_CHK_H
#define QN_BASE_CHK_H

#include <stdint.h>

static inline int qn_add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t r;
    if (__builtin_add_overflow(a, b, &r)) return 1;
    *out = r;
    return 0;
}

static inline int qn_mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t r;
    if (__builtin_mul_overflow(a, b, &r)) return 1;
    *out = r;
    return 0;
}

/* Rounds `a` up to a multiple of `align` (a power of two). */
static inline int qn_align_u64(uint64_t a, uint64_t align, uint64_t *out) {
    uint64_t r;
    if (qn_add_u64(a, align - 1, &r)) return 1;
    *out = r & ~(align - 1);
    return 0;
}

#endif
