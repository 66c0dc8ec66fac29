/* How far llama.cpp itself is from float32 on the vectors of make_logits.py: the bar that tests/unit/test_logits.c holds
 * Quern to. Not part of the build; README.md has the command. Usage: peer_logits MODEL.gguf LOGITS.bin */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

enum { TOP = 4 };

static void quiet(enum ggml_log_level level, const char *text, void *user) { (void)level, (void)text, (void)user; }

static double log_sum(const float *v, int n, int *best) {
    double most = v[0], sum = 0;
    *best = 0;
    for (int i = 1; i < n; i++)
        if (v[i] > most) most = v[i], *best = i;
    for (int i = 0; i < n; i++) sum += exp(v[i] - most);
    return most + log(sum);
}

int main(int argc, char **argv) {
    FILE *f = argc == 3 ? fopen(argv[2], "rb") : NULL;
    char magic[4];
    uint32_t n_prompts;
    if (!f || fread(magic, 1, 4, f) != 4 || memcmp(magic, "QNLG", 4) || fread(&n_prompts, 4, 1, f) != 1) return 1;
    llama_log_set(quiet, NULL);
    struct llama_model *m = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!m) return 1;
    int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(m)), n = 0, agree = 0;
    double sum = 0, squares = 0;
    for (uint32_t p = 0; p < n_prompts; p++) {
        struct llama_context_params cp = llama_context_default_params();
        cp.n_ctx = 2048, cp.n_batch = 2048, cp.n_ubatch = 512, cp.n_threads = cp.n_threads_batch = 2;
        struct llama_context *c = llama_init_from_model(m, cp);
        uint32_t len;
        if (!c || fread(&len, 4, 1, f) != 1 || len > 2048) return 1;
        int32_t *ids = malloc(len * sizeof *ids);
        if (!ids || fread(ids, 4, len, f) != len) return 1;
        struct llama_batch b = llama_batch_init((int32_t)len, 0, 1);
        for (uint32_t i = 0; i < len; i++) {
            b.token[i] = ids[i], b.pos[i] = (int)i, b.n_seq_id[i] = 1, b.seq_id[i][0] = 0, b.logits[i] = 1;
        }
        b.n_tokens = (int)len;
        if (llama_decode(c, b)) return 1;
        for (uint32_t i = 0; i + 1 < len; i++) {
            float want;
            struct { int32_t id; float lp; } top[TOP];
            int best;
            if (fread(&want, 4, 1, f) != 1 || fread(top, 8, TOP, f) != TOP) return 1;
            const float *v = llama_get_logits_ith(c, (int)i);
            double lp = v[ids[i + 1]] - log_sum(v, n_vocab, &best), d = fabs(lp - want);
            n++, agree += best == top[0].id, sum += d, squares += d * d;
        }
        free(ids);
        llama_batch_free(b);
        llama_free(c);
    }
    double mean = sum / n;
    printf("%d positions: top-1 agreement %.4f, mean |difference of log-probability| %.4f (standard error %.4f)\n", n,
           (double)agree / n, mean, sqrt((squares / n - mean * mean) / n));
    return 0;
}
