/* A prefix is a path in a tree whose nodes are published blocks. A node's key is (parent's id and generation, salt, its
 * tokens), hashed by SipHash under the per-boot secret (so nobody outside can steer collisions) and compared in full; the
 * generation of an id grows whenever its content is given up, so a key can never name a parent that has become something
 * else. That makes a lookup exact: equal keys mean equal content, by induction from the root.
 *
 *      root ── b4 ── b9 ── b2      free: a stack of ids        cached: a list, least recently used at its head
 *                └── b7            held: in neither
 *
 * Leaf first without searching: a block enters the list's tail when its last reference goes, and so do its cached
 * ancestors behind it. So an ancestor always stands behind its descendants and the head has no cached child. Holders who
 * drop a chain from its end (the scheduler does) never cause that second step.
 *
 * The prefix idea is vLLM's (hash of parent and tokens); comparing identities instead of trusting the hash is ours. */
#include "engine/kvcache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"

enum { NONE = -1, TOKENS_MAX = 256 };

struct block {
    uint64_t generation, salt;
    uint64_t parent_generation;
    int32_t parent;          /* NONE: the first block of a prompt */
    int32_t refs;
    int32_t hash_next;       /* chain of a bucket */
    int32_t next, prev;      /* cached: the list. free: next is the stack */
    uint64_t stamp;          /* order of the cached list, for the audit */
    uint32_t bucket;
    uint8_t published, is_free;
};

struct qn_kvcache {
    struct block *b;
    int32_t *tokens;         /* [total * block_tokens] of published blocks */
    int32_t *buckets;
    uint32_t bucket_mask;
    int total, block_tokens;
    int n_free, n_cached;
    int32_t free_top;
    int32_t lru_head, lru_tail;
    uint64_t secret[2];
    uint64_t hits_tokens, queries_tokens, evictions, n_stamps;
};

int qn_kvcache_open(struct qn_kvcache **out, int n_blocks, int block_tokens, const uint64_t secret[2]) {
    if (n_blocks < 1 || n_blocks > INT32_MAX / TOKENS_MAX || block_tokens < 1 || block_tokens > TOKENS_MAX) return QN_E_RANGE;
    struct qn_kvcache *c = calloc(1, sizeof *c);
    if (!c) return QN_E_NOMEM;
    uint32_t n_buckets = 16;
    while (n_buckets < 2u * (uint32_t)n_blocks) n_buckets *= 2;
    c->b = calloc((size_t)n_blocks, sizeof *c->b);
    c->tokens = calloc((size_t)n_blocks * (size_t)block_tokens, sizeof *c->tokens);
    c->buckets = malloc(n_buckets * sizeof *c->buckets);
    if (!c->b || !c->tokens || !c->buckets) {
        qn_kvcache_close(c);
        return QN_E_NOMEM;
    }
    c->total = c->n_free = n_blocks;
    c->block_tokens = block_tokens;
    c->bucket_mask = n_buckets - 1;
    c->secret[0] = secret[0];
    c->secret[1] = secret[1];
    memset(c->buckets, 0xff, n_buckets * sizeof *c->buckets); /* NONE */
    c->lru_head = c->lru_tail = NONE;
    for (int32_t i = 0; i < n_blocks; i++) {
        c->b[i].is_free = 1;
        c->b[i].next = i + 1 < n_blocks ? i + 1 : NONE;
    }
    *out = c;
    return 0;
}

void qn_kvcache_close(struct qn_kvcache *c) {
    if (!c) return;
    free(c->b);
    free(c->tokens);
    free(c->buckets);
    free(c);
}

/* ---- the list of cached blocks ---- */

static void list_append(struct qn_kvcache *c, int32_t id) {
    struct block *b = &c->b[id];
    b->next = NONE;
    b->prev = c->lru_tail;
    if (c->lru_tail != NONE) c->b[c->lru_tail].next = id;
    else c->lru_head = id;
    c->lru_tail = id;
    b->stamp = ++c->n_stamps;
    c->n_cached++;
}

static void list_remove(struct qn_kvcache *c, int32_t id) {
    struct block *b = &c->b[id];
    if (b->prev != NONE) c->b[b->prev].next = b->next;
    else c->lru_head = b->next;
    if (b->next != NONE) c->b[b->next].prev = b->prev;
    else c->lru_tail = b->prev;
    c->n_cached--;
}

/* ---- the tree ---- */

static uint64_t generation_of(const struct qn_kvcache *c, int32_t parent) {
    return parent == NONE ? 0 : c->b[parent].generation;
}

static uint32_t bucket_of(const struct qn_kvcache *c, int32_t parent, uint64_t salt, const int32_t *tokens) {
    struct {
        uint64_t parent, generation, salt;
        int32_t tokens[TOKENS_MAX];
    } key;
    size_t n = (size_t)c->block_tokens * sizeof *tokens;
    key.parent = (uint64_t)(int64_t)parent;
    key.generation = generation_of(c, parent);
    key.salt = salt;
    memcpy(key.tokens, tokens, n);
    return (uint32_t)qn_siphash(c->secret, &key, 3 * sizeof(uint64_t) + n) & c->bucket_mask;
}

static int32_t *tokens_of(const struct qn_kvcache *c, int32_t id) {
    return c->tokens + (size_t)id * (size_t)c->block_tokens;
}

static int32_t find(const struct qn_kvcache *c, uint32_t bucket, int32_t parent, uint64_t salt, const int32_t *tokens) {
    uint64_t generation = generation_of(c, parent);
    for (int32_t id = c->buckets[bucket]; id != NONE; id = c->b[id].hash_next) {
        const struct block *b = &c->b[id];
        if (b->parent == parent && b->parent_generation == generation && b->salt == salt &&
            !memcmp(tokens_of(c, id), tokens, (size_t)c->block_tokens * sizeof *tokens))
            return id;
    }
    return NONE;
}

static void unpublish(struct qn_kvcache *c, int32_t id) {
    struct block *b = &c->b[id];
    int32_t *at = &c->buckets[b->bucket];
    while (*at != id) at = &c->b[*at].hash_next;
    *at = b->hash_next;
    b->published = 0;
    b->generation++; /* children that are still held can no longer be reached through this id */
}

static int is_orphan(const struct qn_kvcache *c, const struct block *b) {
    return b->parent != NONE && c->b[b->parent].generation != b->parent_generation;
}

static void release(struct qn_kvcache *c, int32_t id) {
    struct block *b = &c->b[id];
    if (b->published) unpublish(c, id);
    b->is_free = 1;
    b->next = c->free_top;
    c->free_top = id;
    c->n_free++;
}

static void evict(struct qn_kvcache *c) {
    int32_t id = c->lru_head;
    list_remove(c, id);
    release(c, id);
    c->evictions++;
}

/* ---- references ---- */

int32_t qn_kvcache_alloc(struct qn_kvcache *c) {
    if (c->n_free == 0) {
        if (c->n_cached == 0) return NONE;
        evict(c);
    }
    int32_t id = c->free_top;
    struct block *b = &c->b[id];
    c->free_top = b->next;
    c->n_free--;
    b->is_free = 0;
    b->refs = 1;
    return id;
}

void qn_kvcache_ref(struct qn_kvcache *c, int32_t block) {
    struct block *b = &c->b[block];
    assert(block >= 0 && block < c->total && !b->is_free);
    if (b->refs++ == 0) list_remove(c, block);
}

void qn_kvcache_unref(struct qn_kvcache *c, int32_t block) {
    struct block *b = &c->b[block];
    assert(block >= 0 && block < c->total && b->refs > 0);
    if (--b->refs > 0) return;
    if (!b->published || is_orphan(c, b)) {
        release(c, block);
        return;
    }
    list_append(c, block);
    for (int32_t up = b->parent; up != NONE && c->b[up].refs == 0; up = c->b[up].parent) {
        list_remove(c, up);
        list_append(c, up);
        if (is_orphan(c, &c->b[up])) break;
    }
}

int qn_kvcache_writable(const struct qn_kvcache *c, int32_t block) {
    return c->b[block].refs == 1 && !c->b[block].published;
}

int qn_kvcache_refs(const struct qn_kvcache *c, int32_t block) {
    return c->b[block].refs;
}

/* ---- prefixes ---- */

int qn_kvcache_match(struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, int n, int32_t *blocks, int n_max) {
    int n_found = 0;
    int32_t parent = NONE;
    for (int t = 0; t + c->block_tokens <= n && n_found < n_max; t += c->block_tokens) {
        int32_t id = find(c, bucket_of(c, parent, salt, tokens + t), parent, salt, tokens + t);
        if (id == NONE) break;
        qn_kvcache_ref(c, id);
        blocks[n_found++] = parent = id;
    }
    c->queries_tokens += (uint64_t)(n > 0 ? n : 0);
    c->hits_tokens += (uint64_t)n_found * (uint64_t)c->block_tokens;
    return n_found;
}

int32_t qn_kvcache_follow(struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, const int32_t *blocks, int i, int idle_too) {
    int32_t parent = i > 0 ? blocks[i - 1] : NONE;
    if (parent != NONE && !c->b[parent].published) return NONE;
    const int32_t *own = tokens + (size_t)i * (size_t)c->block_tokens;
    int32_t id = find(c, bucket_of(c, parent, salt, own), parent, salt, own);
    if (id == NONE || (!idle_too && c->b[id].refs == 0)) return NONE;
    qn_kvcache_ref(c, id);
    c->hits_tokens += (uint64_t)c->block_tokens;
    return id;
}

int qn_kvcache_peek(const struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, int n, int *n_idle) {
    int n_found = 0;
    int32_t parent = NONE;
    *n_idle = 0;
    for (int t = 0; t + c->block_tokens <= n; t += c->block_tokens) {
        int32_t id = find(c, bucket_of(c, parent, salt, tokens + t), parent, salt, tokens + t);
        if (id == NONE) break;
        *n_idle += c->b[id].refs == 0;
        parent = id;
        n_found++;
    }
    return n_found;
}

int qn_kvcache_probe(const struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, int n) {
    int n_idle;
    return qn_kvcache_peek(c, salt, tokens, n, &n_idle) * c->block_tokens;
}

int qn_kvcache_publish(struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, int32_t *blocks, int i) {
    int32_t id = blocks[i], parent = i > 0 ? blocks[i - 1] : NONE;
    struct block *b = &c->b[id];
    if (b->published || (parent != NONE && !c->b[parent].published)) return 0;
    const int32_t *own = tokens + (size_t)i * (size_t)c->block_tokens;
    uint32_t bucket = bucket_of(c, parent, salt, own);
    int32_t known = find(c, bucket, parent, salt, own);
    if (known != NONE) {
        qn_kvcache_ref(c, known);
        qn_kvcache_unref(c, id);
        blocks[i] = known;
        return 1;
    }
    memcpy(tokens_of(c, id), own, (size_t)c->block_tokens * sizeof *own);
    b->salt = salt;
    b->parent = parent;
    b->parent_generation = generation_of(c, parent);
    b->bucket = bucket;
    b->hash_next = c->buckets[bucket];
    b->published = 1;
    c->buckets[bucket] = id;
    return 0;
}

void qn_kvcache_flush(struct qn_kvcache *c) {
    while (c->n_cached > 0) evict(c);
}

/* ---- counts ---- */

int qn_kvcache_available(const struct qn_kvcache *c) {
    return c->n_free + c->n_cached;
}

void qn_kvcache_counts(const struct qn_kvcache *c, struct qn_kv_counts *out) {
    out->total = c->total;
    out->free = c->n_free;
    out->cached = c->n_cached;
    out->held = c->total - c->n_free - c->n_cached;
    out->hits_tokens = c->hits_tokens;
    out->queries_tokens = c->queries_tokens;
    out->evictions = c->evictions;
}

/* Every published block is found under its own key, exactly once, so no other block has the same content. */
static const char *audit_block(const struct qn_kvcache *c, int32_t id) {
    const struct block *b = &c->b[id];
    if (b->is_free) return b->refs || b->published ? "a free block is held or published" : NULL;
    if (b->refs < 0) return "negative references";
    if (b->refs == 0 && !b->published) return "a block is neither free, held nor cached";
    if (!b->published) return NULL;
    if (is_orphan(c, b)) return NULL;
    if (b->refs == 0 && b->parent != NONE && c->b[b->parent].refs == 0 && c->b[b->parent].stamp < b->stamp)
        return "a parent would be evicted before its child";
    if (bucket_of(c, b->parent, b->salt, tokens_of(c, id)) != b->bucket) return "a block is in the wrong bucket";
    if (find(c, b->bucket, b->parent, b->salt, tokens_of(c, id)) != id) return "two blocks have the same content";
    return NULL;
}

const char *qn_kvcache_audit(const struct qn_kvcache *c) {
    int n_free = 0, n_cached = 0, n_idle = 0, n_chained = 0, n_published = 0;
    for (int32_t id = 0; id < c->total; id++) {
        const char *bad = audit_block(c, id);
        if (bad) return bad;
        n_idle += !c->b[id].is_free && c->b[id].refs == 0;
        n_published += c->b[id].published;
    }
    for (int32_t id = c->free_top; id != NONE && n_free <= c->total; id = c->b[id].next)
        if (n_free++, !c->b[id].is_free) return "a block on the free stack is in use";
    for (int32_t id = c->lru_head; id != NONE && n_cached <= c->total; id = c->b[id].next, n_cached++) {
        const struct block *b = &c->b[id];
        if (b->is_free || b->refs) return "a block on the cached list is in use";
        if (b->prev != NONE && c->b[b->prev].stamp >= b->stamp) return "the cached list is out of order";
    }
    for (uint32_t i = 0; i <= c->bucket_mask; i++)
        for (int32_t id = c->buckets[i]; id != NONE && n_chained <= c->total; id = c->b[id].hash_next)
            if (n_chained++, !c->b[id].published) return "an unpublished block can be found";
    if (n_chained != n_published) return "a published block cannot be found";
    if (n_free != c->n_free) return "the free stack and its count differ";
    if (n_cached != c->n_cached || n_idle != n_cached) return "the cached list and its count differ";
    return NULL;
}
