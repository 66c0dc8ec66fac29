/* theta_i = base^(-2i/dim) (RoFormer, arXiv:2104.09864, equation 15), divided by Llama 3's per-pair factors, by a linear
 * factor (arXiv:2306.15595), or mixed with it by wavelength (YaRN, arXiv:2309.00071, equations 17 to 23; the cut-offs as
 * transformers and llama.cpp round them). Everything in double, rounded once. */
#include "engine/rope.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

/* The pair whose wavelength turns `rotations` times within the original context. */
static double correction_dim(const struct qn_rope_params *p, double rotations) {
    return p->dim * log(p->n_ctx_orig / (rotations * 2 * PI)) / (2 * log(p->base));
}

float qn_rope_inv_freq(const struct qn_rope_params *p, float *inv_freq) {
    int half = p->dim / 2;
    double low = 0, high = 0;
    if (p->scaling == QN_ROPE_YARN) {
        low = fmax(0, floor(correction_dim(p, p->beta_fast)));
        high = fmin(p->dim - 1, ceil(correction_dim(p, p->beta_slow)));
    }
    for (int i = 0; i < half; i++) {
        double theta = pow(p->base, -2.0 * i / p->dim);
        if (p->freq_factors) theta /= (double)p->freq_factors[i];
        if (p->scaling == QN_ROPE_LINEAR) theta /= p->factor;
        if (p->scaling == QN_ROPE_YARN) {
            double ramp = 1 - fmin(1, fmax(0, (i - low) / fmax(0.001, high - low))); /* 1: extrapolate */
            double mix = ramp * p->ext_factor;
            theta = theta / p->factor * (1 - mix) + theta * mix;
        }
        inv_freq[i] = (float)theta;
    }
    if (p->scaling != QN_ROPE_YARN || p->ext_factor == 0) return (float)p->attn_factor;
    return (float)(p->attn_factor * (1 + 0.1 * log(p->factor)));
}
