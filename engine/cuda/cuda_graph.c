/* Captured steps. A step of a few rows is some hundreds of launches of kernels that take microseconds each, so launching them one by
 * one would cost more than they do. forward.c makes the same calls in the same order whenever all rows' logits are wanted, so
 * such a step is recorded once for each bucket of sizes and from then on replayed as a whole: the operations only note that they
 * were called, and the end of the step launches the graph. What differs between steps is read from the descriptor on the card;
 * grids are those of the bucket, and blocks beyond the counts in the descriptor's head do nothing.
 *
 * The first step of a bucket is launched directly, with the bucket's grids, so that the driver has loaded every kernel before one is
 * recorded (it loads at the first launch, which a recording may not survive), and what comes once costs no recording.
 *
 * Steps that leave rows behind (prompts) are launched directly: they take milliseconds, and their shapes are many. */
#include "engine/cuda/cuda.h"

#include <assert.h>

static struct qn_cuda_graph *find(struct qn_cuda *c, int rows, int items, int kinds) {
    for (int i = 0; i < c->n_graphs; i++)
        if (c->graph[i].rows == rows && c->graph[i].items == items && c->graph[i].kinds == kinds) return &c->graph[i];
    return NULL;
}

void qn_cuda_graph_begin(struct qn_cuda *c, const struct qn_batch *batch) {
    int rows = qn_cuda_rows_bucket(batch->n_rows);
    c->mode = QN_CUDA_DIRECT;
    if (c->no_graphs || !rows || batch->n_out != batch->n_rows || c->lost) return;
    if (rows > c->base.opts.rows_max) rows = c->base.opts.rows_max;
    int items = qn_cuda_items_bucket(c->plan.n_items);
    struct qn_cuda_graph *g = find(c, rows, items, c->plan.kinds);
    if (!g && c->n_graphs == QN_CUDA_GRAPHS) return;
    if (!g) {
        g = &c->graph[c->n_graphs++];
        *g = (struct qn_cuda_graph){.rows = rows, .items = items, .kinds = c->plan.kinds};
    } else {
        c->mode = g->exec ? QN_CUDA_REPLAY : QN_CUDA_CAPTURE;
    }
    if (c->mode == QN_CUDA_CAPTURE) qn_cuda_ok(c, cudaStreamBeginCapture(c->compute, cudaStreamCaptureModeThreadLocal));
    c->rows = rows;
    c->plan.n_items = items;
    c->graph_now = g;
    c->calls = 0;
}

int qn_cuda_call(struct qn_cuda *c, int kind, const void *what) {
    c->calls = (c->calls ^ (uint64_t)(uintptr_t)what ^ (uint64_t)kind << 56) * 0x9E3779B97F4A7C15u;
    c->calls ^= c->calls >> 29;
    return c->mode != QN_CUDA_REPLAY && !c->lost;
}

/* The capture becomes something that can be launched. */
static void keep(struct qn_cuda *c, struct qn_cuda_graph *g) {
    cudaGraph_t graph = NULL;
    if (qn_cuda_ok(c, cudaStreamEndCapture(c->compute, &graph)) == 0 && qn_cuda_ok(c, cudaGraphInstantiate(&g->exec, graph, 0)) < 0) g->exec = NULL;
    if (graph) cudaGraphDestroy(graph);
    g->calls = c->calls;
    c->captures++;
}

void qn_cuda_graph_end(struct qn_cuda *c) {
    struct qn_cuda_graph *g = c->graph_now;
    if (c->mode == QN_CUDA_CAPTURE) keep(c, g);
    if (c->mode != QN_CUDA_DIRECT && !c->lost) {
        assert(c->calls == g->calls); /* else the graph would compute something that was not asked for */
        qn_cuda_ok(c, cudaGraphLaunch(g->exec, c->compute));
        c->replays += c->mode == QN_CUDA_REPLAY;
    }
    c->mode = QN_CUDA_DIRECT;
}

void qn_cuda_graphs_drop(struct qn_cuda *c) {
    for (int i = 0; i < c->n_graphs; i++)
        if (c->graph[i].exec) cudaGraphExecDestroy(c->graph[i].exec);
    c->n_graphs = 0;
}
