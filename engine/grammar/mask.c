/* Token masks: a walk over the trie of the vocabulary in step with the states, past every subtree whose first byte leads to DEAD.
 *
 * Most of a vocabulary is plain words, and inside a JSON string or free text each of them may come. Where a state treats all plain
 * characters alike, and so does every state that follows by them (plain.c), it is enough to know how many fit: the tokens of up to that
 * many plain characters are one ready mask, and only the others are walked. Where that holds only further down (names but for a few), or
 * only for some characters (a pattern), the same is asked below each node of the trie. Masks are kept by state: few ids as a list, else as words. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/grammar/constraint_impl.h"
#include "engine/grammar/plain.h"

int qn_mask_init(struct qn_constraint *c, struct qn_err *err) {
    c->path = malloc((c->trie->depth_max + 1) * sizeof *c->path);
    return c->path ? 0 : qn_fail(err, QN_E_NOMEM, "grammar: no memory");
}

void qn_mask_done(struct qn_constraint *c) {
    qn_garena_empty(c->g, &c->masks);
    free(c->mask);
    free(c->path);
}

void qn_mask_drop(struct qn_constraint *c) {
    for (uint32_t i = 0; i < c->states.n; i++) qn_state_at(&c->states, i)->mask = 0;
    c->n_masks = 0;
    qn_garena_empty(c->g, &c->masks);
}

static void set_bit(uint32_t *mask, uint32_t id) { mask[id / 32] |= 1u << (id % 32); }

/* --- the walk --- */

static void enter_state(struct qn_constraint *c, struct qn_step *at, qn_cstate s) {
    const struct qn_classes *k = qn_states_classes(&c->states, s);
    *at = (struct qn_step){.state = s, .of = k ? k->of : NULL, .to = k ? qn_states_row(&c->states, s) : NULL};
}

static qn_cstate next_state(struct qn_constraint *c, const struct qn_step *at, uint8_t byte) {
    unsigned cls = at->of[byte];
    return at->to[cls] != QN_G_UNKNOWN ? at->to[cls] : qn_states_by_class(&c->states, at->state, cls);
}

static void allow(const struct qn_token_trie *t, uint32_t *mask, uint32_t id) {
    for (; id != QN_TRIE_NO_TOKEN; id = t->twin[id]) set_bit(mask, id);
}

/* Nodes [i, end) of `mixed`, whose parent's state was entered. */
static void walk_mixed(struct qn_constraint *c, uint32_t i, uint32_t end, uint32_t *mask) {
    const struct qn_trie_node *node = c->trie->mixed.node;
    while (i < end && !c->g->error) {
        const struct qn_trie_node *x = &node[i];
        qn_cstate to = next_state(c, &c->path[x->depth - 1], x->byte);
        if (to == QN_C_DEAD) {
            i = x->skip;
            continue;
        }
        if (x->token != QN_TRIE_NO_TOKEN) allow(c->trie, mask, x->token);
        if (++i < x->skip) enter_state(c, &c->path[x->depth], to);
    }
}

static void put_plain(const struct qn_token_trie *t, uint32_t i, uint32_t end, int allowed, uint32_t *mask) {
    for (uint32_t k = t->below[i].plain; k < t->below[end].plain; k++) {
        uint32_t id = t->plain_order[k], bit = 1u << (id % 32);
        if (allowed) mask[id / 32] |= bit;
        else mask[id / 32] &= ~bit;
    }
}

/* Node i of `all`, after which the text is in state `to`: 1 when every plain token below may come, though not all are walked. */
static int all_may_come(struct qn_constraint *c, uint32_t i, qn_cstate to) {
    const struct qn_token_trie *t = c->trie;
    const struct qn_trie_node *x = &t->all.node[i];
    enum { WORTH = 4 }; /* fewer are walked as fast */
    if (t->below[x->skip].plain - t->below[i].plain < WORTH) return 0;
    if (qn_plain_all(&c->states, to, &t->below[i])) return 1;
    if (x->byte < 0xC2) return 0; /* else the first byte of a character that counts as any other */
    const struct qn_alike *a = qn_plain_alike(&c->states, c->path[x->depth - 1].state);
    return a && qn_leads_has(&a->leads, x->byte) && qn_plain_all(&c->states, a->next, &t->below[i]);
}

/* All tokens. Below a node from which whatever is plain may come only the others are walked. `full`: all plain ones are allowed already, and
 * those that may not come are taken back. */
static void walk_all(struct qn_constraint *c, int full, uint32_t *mask) {
    const struct qn_token_trie *t = c->trie;
    for (uint32_t i = 0; i < t->all.n && !c->g->error;) {
        const struct qn_trie_node *x = &t->all.node[i];
        qn_cstate to = next_state(c, &c->path[x->depth - 1], x->byte);
        if (to == QN_C_DEAD) {
            if (full) put_plain(t, i, x->skip, 0, mask);
            i = x->skip;
            continue;
        }
        if (x->token != QN_TRIE_NO_TOKEN) allow(t, mask, x->token);
        if (i + 1 == x->skip) {
            i++;
            continue;
        }
        enter_state(c, &c->path[x->depth], to);
        if (!all_may_come(c, i, to)) {
            i++;
            continue;
        }
        uint32_t m = t->below[i].mixed;
        if (!full) put_plain(t, i, x->skip, 1, mask);
        if (m != QN_TRIE_NO_NODE) walk_mixed(c, m + 1, t->mixed.node[m].skip, mask);
        i = x->skip;
    }
}

/* 1 when most plain tokens may come in s. */
static int is_wide(struct qn_constraint *c, qn_cstate s) {
    enum { MOST = 110 }; /* of 92 plain ASCII characters and 51 first bytes of others */
    const struct qn_alike *a = qn_plain_alike(&c->states, s);
    if (!a || __builtin_popcountll(a->leads.set[0]) + __builtin_popcountll(a->leads.set[1]) + __builtin_popcountll(a->leads.set[2]) < MOST) return 0;
    uint32_t run = qn_plain_run(&c->states, a->next);
    if (run == QN_PLAIN_DEPENDS && (a = qn_plain_alike(&c->states, a->next)) != NULL) run = a->run;
    return run == QN_PLAIN_MAX;
}

static void add_text(struct qn_constraint *c, qn_cstate s, uint32_t *mask) {
    const struct qn_token_trie *t = c->trie;
    uint32_t run = qn_plain_run(&c->states, s);
    int depends = run == QN_PLAIN_DEPENDS, full = depends && is_wide(c, s);
    enter_state(c, &c->path[0], s);
    if (c->g->error) return;
    if (depends) run = full ? QN_PLAIN_MAX : 0;
    memcpy(mask, t->plain + (size_t)run * t->n_words, t->n_words * sizeof *mask);
    if (depends) walk_all(c, full, mask);
    else walk_mixed(c, 0, t->mixed.n, mask);
}

static void add_special(struct qn_constraint *c, qn_cstate s, uint32_t *mask) {
    uint32_t list = qn_states_tokens(&c->states, s);
    for (uint32_t i = 0; list && i < c->g->lists[list].n; i++) {
        uint32_t id = qn_gn(c->g, c->g->lists[list].v[i])->a;
        if (id < c->trie->n_vocab) set_bit(mask, id);
    }
    for (uint32_t i = 0; qn_state_at(&c->states, s)->accepts && i < c->trie->n_ends; i++) set_bit(mask, c->trie->ends[i]);
}

static uint32_t count(const uint32_t *mask, size_t words) {
    uint32_t n = 0;
    for (size_t i = 0; i < words; i++) n += (uint32_t)__builtin_popcount(mask[i]);
    return n;
}

enum { SPARE = 40 << 10 }; /* a piece of arena, and the list growing */

/* Keeps the mask of s unless memory is short. */
static void keep(struct qn_constraint *c, qn_cstate s, const uint32_t *mask, size_t words, uint32_t n) {
    struct qn_grammar *g = c->g;
    int is_list = n < words / 2;
    size_t size = (is_list ? n : words) * sizeof *mask;
    if (g->used + size + SPARE > g->bytes_max / 4 * 3 || c->masks.bytes + size > g->bytes_max / 2) return;
    uint32_t *v = qn_g_take(g, &c->masks, size + 1);
    if (!v || qn_g_room(g, &c->mask, &c->masks_cap, c->n_masks + 1, sizeof *c->mask) < 0) return;
    uint32_t k = 0;
    if (!is_list) memcpy(v, mask, size);
    for (size_t i = 0; is_list && i < words; i++)
        for (uint32_t w = mask[i]; w; w &= w - 1) v[k++] = (uint32_t)i * 32 + (uint32_t)__builtin_ctz(w);
    c->mask[c->n_masks++] = (struct qn_mask){.v = v, .n_allowed = n, .n_ids = k, .is_list = is_list};
    qn_state_at(&c->states, s)->mask = c->n_masks;
}

static void unpack(const struct qn_mask *m, uint32_t *mask, size_t words) {
    if (!m->is_list) {
        memcpy(mask, m->v, words * sizeof *mask);
        return;
    }
    memset(mask, 0, words * sizeof *mask);
    for (uint32_t i = 0; i < m->n_ids; i++) set_bit(mask, m->v[i]);
}

uint32_t qn_mask_of(struct qn_constraint *c, qn_cstate s, uint32_t *mask) {
    size_t words = (c->trie->n_vocab + 31) / 32;
    uint32_t kept = qn_state_at(&c->states, s)->mask;
    if (kept) {
        unpack(&c->mask[kept - 1], mask, words);
        c->counts.masks_found++;
        return c->mask[kept - 1].n_allowed;
    }
    int64_t from = qn_clock_ns();
    add_text(c, s, mask);
    add_special(c, s, mask);
    if (c->g->error) { /* a half-made mask is none */
        memset(mask, 0, words * sizeof *mask);
        return 0;
    }
    uint32_t n = count(mask, words);
    keep(c, s, mask, words, n);
    int64_t ns = qn_clock_ns() - from;
    c->counts.masks_made++;
    c->counts.mask_ns += ns;
    if (ns > c->counts.mask_ns_max) c->counts.mask_ns_max = ns;
    return n;
}
