/* The engine without HTTP: prefill and decode rates of one stream and of many, for a model file.
 *   bench_engine MODEL.gguf [threads] [prompt] [output] [streams,streams,...] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "tests/lib/engine_client.h"

enum { STREAMS_MAX = 64, PROMPT_MAX = 4096 };

static double run(struct qn_engine *e, int streams, int n_prompt, int n_out, double *ttft_ms, uint32_t salt) {
    static struct said said[STREAMS_MAX], *list[STREAMS_MAX];
    static uint32_t ids[PROMPT_MAX];
    uint32_t n_vocab = qn_engine_info(e)->n_vocab;
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
    double last = 0;
    *ttft_ms = 0;
    for (int i = 0; i < streams; i++) {
        double done = (double)(said[i].done_ns - t0) / 1e9;
        if (done > last) last = done;
        *ttft_ms += (double)(said[i].first_ns - t0) / 1e6 / streams;
        if (said[i].failed || said[i].b[0].n != n_out) exit(1);
        client_close(&said[i]);
    }
    return last;
}

int main(int argc, char **argv) {
    if (argc < 2) return 64;
    int threads = argc > 2 ? atoi(argv[2]) : 0, n_prompt = argc > 3 ? atoi(argv[3]) : 256, n_out = argc > 4 ? atoi(argv[4]) : 48;
    struct qn_engine *e = client_open((struct qn_engine_opts){.model_path = argv[1], .n_threads = threads, .max_seqs = STREAMS_MAX});
    if (!e || n_prompt > PROMPT_MAX) return 1;
    double ttft;
    run(e, 1, 32, 4, &ttft, 1);
    char list[64];
    snprintf(list, sizeof list, "%s", argc > 5 ? argv[5] : "1,8,32");
    uint32_t salt = 100;
    printf("%s, %s\n", qn_engine_info(e)->model_name, qn_engine_info(e)->device);
    for (char *s = strtok(list, ","); s; s = strtok(NULL, ",")) {
        int streams = atoi(s);
        double total = run(e, streams, n_prompt, n_out, &ttft, salt += 1000);
        printf("%2d streams: prompt %d, output %d: %.2f s, out %.1f tok/s, mean ttft %.0f ms", streams, n_prompt, n_out, total,
               streams * n_out / total, ttft);
        if (streams == 1) printf(", prefill %.0f tok/s, decode %.1f tok/s", n_prompt / ttft * 1e3, (n_out - 1) / (total - ttft / 1e3));
        printf("\n");
        fflush(stdout);
    }
    qn_engine_close(e);
    return 0;
}
