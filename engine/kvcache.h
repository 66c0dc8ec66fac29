/* KV blocks as ids: who holds which, which prefixes are known, what may be evicted. Never the floats.
 *
 * A block is free, held (refs > 0) or cached (refs 0, full, content known, evictable). free + held + cached = total after
 * every call (invariant 3). A full block can be published under a key that chains its parent's identity, its 16 tokens and
 * the owner's salt, keyed with a per-boot secret; a lookup compares the tokens themselves, not only the hash, and the
 * parent by identity, so a collision can never attach somebody else's state. Salts never share entries (invariant 9).
 * Eviction: least recently used leaf first (a block whose cached children are gone). Drop the blocks of a chain from its
 * end to its start: that is the cheap order. All memory is allocated at open.
 * Thread: engine. */
#ifndef QN_KVCACHE_H
#define QN_KVCACHE_H

#include <stdint.h>

#include "engine/base/err.h"

struct qn_kvcache;

struct qn_kv_counts {
    int total, free, held, cached;
    uint64_t hits_tokens, queries_tokens, evictions;
};

/* n_blocks >= 1 blocks of `block_tokens` tokens. secret: per-boot key for the hashes. */
int qn_kvcache_open(struct qn_kvcache **out, int n_blocks, int block_tokens, const uint64_t secret[2]);
void qn_kvcache_close(struct qn_kvcache *c);

/* A private block with refs 1, evicting cached leaves when none is free. -1: none to be had. */
int32_t qn_kvcache_alloc(struct qn_kvcache *c);
void qn_kvcache_ref(struct qn_kvcache *c, int32_t block);
/* Drops one reference; at zero a published block becomes cached, any other free. */
void qn_kvcache_unref(struct qn_kvcache *c, int32_t block);
/* 1 when exactly one holder may write to it: refs 1 and not published. */
int qn_kvcache_writable(const struct qn_kvcache *c, int32_t block);
int qn_kvcache_refs(const struct qn_kvcache *c, int32_t block);

/* Finds the longest known chain of full blocks for tokens[0..n) under `salt`, takes a reference on each, writes their
 * ids to blocks and returns how many. At most n_max blocks. */
int qn_kvcache_match(struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, int n, int32_t *blocks, int n_max);
/* The same without taking anything: how many tokens would be found. */
int qn_kvcache_probe(const struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, int n);
/* The same in blocks; *n_idle of them are cached: taking those lowers available(). */
int qn_kvcache_peek(const struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, int n, int *n_idle);
/* The known i-th block of `tokens` behind blocks[0..i), which the caller holds; takes a reference. -1: none, or it is cached
 * (nobody else holds it) and idle_too is 0. */
int32_t qn_kvcache_follow(struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, const int32_t *blocks, int i, int idle_too);
/* Publishes blocks[i] as the i-th full block of `tokens`; blocks[0..i) must be published or equal in content. If an equal
 * chain is known already the caller's blocks[i] is swapped for the known one (reference moved) and 1 is returned. */
int qn_kvcache_publish(struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, int32_t *blocks, int i);
/* Forgets everything that is cached; what is held stays published. */
void qn_kvcache_flush(struct qn_kvcache *c);

/* Blocks that alloc() could give right now: free + cached. */
int qn_kvcache_available(const struct qn_kvcache *c);
void qn_kvcache_counts(const struct qn_kvcache *c, struct qn_kv_counts *out);
/* Walks everything and returns NULL, or what is broken (tests; O(total)). */
const char *qn_kvcache_audit(const struct qn_kvcache *c);

#endif
