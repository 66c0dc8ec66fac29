/* Inverse frequencies of rotary embeddings with the scalings that model files ask for. Pure; open time only. */
#ifndef QN_ROPE_H
#define QN_ROPE_H

enum qn_rope_scaling { QN_ROPE_PLAIN, QN_ROPE_LINEAR, QN_ROPE_YARN };

struct qn_rope_params {
    int dim;                /* rotated elements of a head, even, >= 2 */
    double base;            /* > 0 */
    enum qn_rope_scaling scaling;
    double factor;          /* >= some 0.1; context extension */
    double attn_factor;     /* yarn: extra factor on cos and sin; 1 */
    double ext_factor;      /* yarn: 1 mixes fully */
    double beta_fast, beta_slow; /* yarn: 32, 1 */
    int n_ctx_orig;         /* yarn */
    const float *freq_factors; /* [dim/2] divisors (Llama 3's rope_freqs.weight), or NULL */
};

/* inv_freq[dim/2]: radians a position. Returns the factor that multiplies cos and sin. */
float qn_rope_inv_freq(const struct qn_rope_params *p, float *inv_freq);

#endif
