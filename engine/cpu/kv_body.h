/* Writing one position into a KV page, and reading 16 elements of it, in each of the three types (struct qn_kv_page has
 * the layouts). Written once over the 16-lane vector of vec_*.h.
 *
 * A slot is written whole and depends on nothing around it: q8_0 scales a position's own 32 elements. So a page is the
 * same bytes however the prompt was cut, and copying the first n slots copies n positions. */
#ifndef QN_CPU_KV_BODY_H
#define QN_CPU_KV_BODY_H

#include "engine/cpu/cpu.h"
#include "engine/cpu/half.h"

/* f16 of x[n], clamped to the finite range; bf16 reaches as far as f32. */
static void kv_to_16(enum qn_kv_type type, uint16_t *out, const float *x, int n) {
    const v16 most = v_set1(65504.0f), least = v_set1(-65504.0f);
    for (int i = 0; i < n; i += 16) {
        int m = n - i < 16 ? n - i : 16;
        v16 v = v_load_n(x + i, m);
        uint16_t t[16], *to = m == 16 ? out + i : t;
        if (type == QN_KV_BF16) v_store_b(to, v);
        else v_store_h(to, v_max(least, v_min(most, v)));
        if (m < 16) memcpy(out + i, t, (size_t)m * sizeof *t);
    }
}

/* 32 elements of x, of which n exist, as q = round(x / d), |q| <= 127. Returns d in f16: the one that q was made for. A
 * block with an infinity or a NaN gets d = NaN and spoils the rows that see it. */
V_INL uint16_t kv_quant(int8_t *q, const float *x, int n) {
    const v16 top = v_set1(127.0f), low = v_set1(-127.0f);
    v16 a = v_load_n(x, n < 16 ? n : 16), b = n > 16 ? v_load_n(x + 16, n - 16) : v_zero();
    uint16_t h[16];
    int bad = 0;
    v_store_h(h, v_set1(v_most(v_max(v_abs(a), v_abs(b))) / 127.0f));
    float d = qn_half_f32(h[0]), id = d > 0.0f ? 1.0f / d : 0.0f;
    a = v_mul(a, v_set1(id)), b = v_mul(b, v_set1(id));
    (void)v_quant(q, v_max(low, v_min(top, a)), &bad);
    (void)v_quant(q + 16, v_max(low, v_min(top, b)), &bad);
    return bad || !(d < INFINITY) ? 0x7e00 : h[0];
}

static void kv_put_q8(const struct qn_kv_page *p, uint8_t *page, int slot, const float *k, const float *v) {
    for (int i = 0; i < p->hd; i += 32) {
        int8_t q[32];
        int n = p->head_dim - i < 32 ? p->head_dim - i : 32;
        size_t at = (size_t)(i / 32 * 16 + slot) * sizeof(uint16_t);
        uint16_t d = kv_quant(q, k + i, n);
        for (int e = 0; e < 32; e += 4) memcpy(page + (size_t)((i + e) / 4 * 16 + slot) * 4, q + e, 4);
        memcpy(page + p->k_scale + at, &d, sizeof d);
        d = kv_quant((int8_t *)page + p->v + (size_t)(slot * p->hd + i), v + i, n);
        memcpy(page + p->v_scale + at, &d, sizeof d);
    }
}

static void kv_put(const struct qn_kv_page *p, uint8_t *page, int slot, const float *k, const float *v) {
    if (p->type == QN_KV_Q8_0) {
        kv_put_q8(p, page, slot, k, v);
        return;
    }
    uint16_t t[16], *to = (uint16_t *)page + slot;
    for (int i = 0; i < p->head_dim; i += 16) {
        int n = p->head_dim - i < 16 ? p->head_dim - i : 16;
        kv_to_16(p->type, t, k + i, n);
        for (int e = 0; e < n; e++) to[(i + e) * QN_KV_BLOCK] = t[e];
    }
    kv_to_16(p->type, (uint16_t *)(page + p->v) + (size_t)slot * (size_t)p->hd, v, p->head_dim);
}

/* 16 elements from element i on; those of q8_0 without their scale. */
V_INL v16 kv_load(const enum qn_kv_type type, const uint8_t *p, size_t i) {
    if (type == QN_KV_Q8_0) return v_load_q((const int8_t *)p + i);
    return type == QN_KV_BF16 ? v_load_b((const uint16_t *)p + i) : v_load_h((const uint16_t *)p + i);
}

#endif
