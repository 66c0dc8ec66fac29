/* Prints the perplexity of a text under a model:
 *   perplexity MODEL.gguf [TEXT] [tokens] [device] [isa]
 * TEXT is tests/data/perplexity.txt unless given; tokens bounds how many are scored (0: all). A change of kernels, of the cache's type or
 * of a weight's layout is judged by it: tests/golden/test_perplexity.c holds the figures that count. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/perplexity.h"

int main(int argc, char **argv) {
    if (argc < 2 || argc > 6) {
        fprintf(stderr, "usage: perplexity MODEL.gguf [TEXT] [tokens] [device] [isa]\n");
        return 64;
    }
    const char *text = argc > 2 && *argv[2] ? argv[2] : "tests/data/perplexity.txt";
    struct qn_engine *e = client_open((struct qn_engine_opts){
        .model_path = argv[1], .device = argc > 4 && *argv[4] ? argv[4] : NULL, .isa = argc > 5 ? argv[5] : NULL, .max_seqs = 1});
    struct perplexity p;
    if (!e || client_perplexity(e, text, argc > 3 ? atoi(argv[3]) : 0, &p) < 0) return 1;
    printf("%s, %s: %d tokens, perplexity %.5f\n", qn_engine_info(e)->model_name, qn_engine_info(e)->device, p.n_tokens, p.value);
    qn_engine_close(e);
    return 0;
}
