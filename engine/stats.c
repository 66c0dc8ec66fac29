/* The engine's counters as a snapshot that any thread may read while the engine thread goes on: a sequence lock whose
 * words are atomics, so that neither side waits and no read is torn (Boehm, MSPC 2012, section 4). */
#include <string.h>

#include "engine/engine_impl.h"

void qn_engine_publish(struct qn_engine *e) {
    uint64_t words[QN_STATS_WORDS] = {0};
    memcpy(words, &e->now, sizeof e->now);
    uint32_t v = atomic_load_explicit(&e->stats_version, memory_order_relaxed);
    atomic_store_explicit(&e->stats_version, v + 1, memory_order_relaxed);
    for (int i = 0; i < QN_STATS_WORDS; i++) atomic_store_explicit(&e->stats_words[i], words[i], memory_order_release);
    atomic_store_explicit(&e->stats_version, v + 2, memory_order_release);
}

void qn_engine_stats(const struct qn_engine *engine, struct qn_engine_stats *out) {
    struct qn_engine *e = (struct qn_engine *)(uintptr_t)engine;
    uint64_t words[QN_STATS_WORDS];
    for (;;) {
        uint32_t v = atomic_load_explicit(&e->stats_version, memory_order_acquire);
        for (int i = 0; i < QN_STATS_WORDS; i++) words[i] = atomic_load_explicit(&e->stats_words[i], memory_order_acquire);
        if (!(v & 1) && atomic_load_explicit(&e->stats_version, memory_order_relaxed) == v) break;
    }
    memcpy(out, words, sizeof *out);
    out->waiting = atomic_load(&e->pending);
    out->waiting_tokens = atomic_load(&e->pending_tokens);
    out->rejected = atomic_load(&e->rejected);
    int64_t since = atomic_load(&e->submitted_since);
    if (since && (!out->busy_since_ns || since < out->busy_since_ns)) out->busy_since_ns = since;
}
