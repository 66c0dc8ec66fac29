/* The engine without HTTP: prefill and decode rates of one stream and of many, for a model file.
 *   bench_engine MODEL.gguf [threads] [prompt,prompt,...] [output] [streams,streams,...] [times] [kv-type]
 * Prompts of the given lengths (no two alike) with `output` tokens each; every case runs `times` times after a short warm-up, the
 * line is the run with the median total. One stream also gives the two rates: prefill up to the first token, decode after it.
 * No guessing ahead, greedy. scripts/bench/forward.py drives it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "tests/lib/engine_client.h"

enum { STREAMS_MAX = 64, PROMPT_MAX = 32768, TIMES_MAX = 32, LIST_MAX = 16 };

struct result { double total, ttft; }; /* seconds */

static struct result run(struct qn_engine *e, int streams, int n_prompt, int n_out, uint32_t salt) {
    static struct said said[STREAMS_MAX], *list[STREAMS_MAX];
    static uint32_t ids[PROMPT_MAX];
    uint32_t n_vocab = qn_engine_info(e)->n_vocab;
    struct result r = {0};
    int64_t t0 = qn_clock_ns();
    for (int i = 0; i < streams; i++) {
        for (int k = 0; k < n_prompt; k++) ids[k] = (uint32_t)((uint64_t)(k + 1) * 7919u * (salt + (uint32_t)i + 3u) % (n_vocab / 2));
        struct qn_job job = client_job(ids, (size_t)n_prompt, n_out);
        job.ignore_eos = 1;
        job.n_logprobs = -1;
        if (client_submit(e, &said[i], job) < 0) exit(1);
        list[i] = &said[i];
    }
    if (client_wait(e, list, streams, 600) != streams) exit(1);
    for (int i = 0; i < streams; i++) {
        double done = (double)(said[i].done_ns - t0) / 1e9;
        if (done > r.total) r.total = done;
        r.ttft += (double)(said[i].first_ns - t0) / 1e9 / streams;
        if (said[i].failed || said[i].b[0].n != n_out) exit(1);
        client_close(&said[i]);
    }
    return r;
}

static int by_total(const void *a, const void *b) {
    double x = ((const struct result *)a)->total, y = ((const struct result *)b)->total;
    return (x > y) - (x < y);
}

static int numbers(const char *text, int most, int *out) {
    int n = 0;
    for (const char *p = text; *p && n < LIST_MAX; n++) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || v < 1 || v > most) return -1;
        out[n] = (int)v;
        p = *end == ',' ? end + 1 : end;
    }
    return n;
}

int main(int argc, char **argv) {
    int prompts[LIST_MAX], streams[LIST_MAX], threads = argc > 2 ? atoi(argv[2]) : 0, n_out = argc > 4 ? atoi(argv[4]) : 48, times = argc > 6 ? atoi(argv[6]) : 1;
    int n_prompts = numbers(argc > 3 ? argv[3] : "256", PROMPT_MAX, prompts), n_streams = numbers(argc > 5 ? argv[5] : "1,8,32", STREAMS_MAX, streams);
    if (argc < 2 || n_prompts < 1 || n_streams < 1 || times < 1 || times > TIMES_MAX || n_out < 1) {
        fprintf(stderr, "usage: bench_engine MODEL.gguf [threads] [prompt,...] [output] [streams,...] [times] [kv-type]\n");
        return 64;
    }
    int ctx = 0; /* the default, unless a prompt needs more */
    for (int i = 0; i < n_prompts; i++)
        if (prompts[i] + n_out > 8192 && prompts[i] + n_out > ctx) ctx = prompts[i] + n_out;
    struct qn_engine *e = client_open((struct qn_engine_opts){.model_path = argv[1], .n_threads = threads, .max_seqs = STREAMS_MAX, .n_ctx = ctx,
                                                              .kv_type = argc > 7 ? argv[7] : NULL});
    if (!e) return 1;
    run(e, 1, 32, 4, 1);
    uint32_t salt = 100;
    printf("%s, %s\n", qn_engine_info(e)->model_name, qn_engine_info(e)->device);
    for (int c = 0; c < n_prompts * n_streams; c++) {
        int n_prompt = prompts[c % n_prompts], n = streams[c / n_prompts];
        struct result all[TIMES_MAX];
        for (int t = 0; t < times; t++) all[t] = run(e, n, n_prompt, n_out, salt += 1000);
        qsort(all, (size_t)times, sizeof *all, by_total);
        struct result r = all[times / 2];
        printf("%2d streams: prompt %d, output %d: %.2f s, out %.1f tok/s, mean ttft %.0f ms", n, n_prompt, n_out, r.total, n * n_out / r.total,
               r.ttft * 1e3);
        if (n == 1) printf(", prefill %.0f tok/s", n_prompt / r.ttft);
        if (n == 1 && n_out > 1) printf(", decode %.1f tok/s", (n_out - 1) / (r.total - r.ttft));
        printf("\n");
        fflush(stdout);
    }
    qn_engine_close(e);
    return 0;
}
