/* The vote: branches count in the order of their lengths, shortest first, until no number of the others could overturn the first
 * place; then those that still run are closed. Branches go on in step, so the shorter one has always finished before, and votes
 * and winner do not depend on how the news arrived. (Where slots are short, branches run one after another, and a shorter one may come
 * later: the winner is the same, its count may not be.) Shown of the winners is the shortest.
 *
 * A branch that max_tokens cut off has no answer and no vote, unless that holds for all. */
#include "api/select.h"

#include <stdlib.h>
#include <string.h>

#include "api/canon.h"
#include "api/json_out.h"

int qn_select_check(struct qn_exchange *x) {
    if (x->params.select_by == QN_SELECT_NONE) return 0;
    if (x->gen->n_parts > 1) return qn_refuse(&x->refusal, 400, "invalid_value", "quern.samples", "'quern.samples' needs a single prompt, but got %d.", x->gen->n_parts);
    if (x->params.select_by != QN_SELECT_SCHEMA || x->form.form == QN_FORM_SCHEMA || x->form.form == QN_FORM_OBJECT) return 0;
    return qn_refuse(&x->refusal, 400, "invalid_value", "quern.select", "'schema' needs a request for JSON, by 'response_format' or another spelling.");
}

int qn_select_finished(struct qn_exchange *x, struct qn_choice *c) {
    if (x->params.select_by == QN_SELECT_NONE) return 0;
    const char *text = c->text.p;
    size_t n = c->text.n;
    int rc = c->answer ? qn_answer_content(c->answer, &text, &n) : 0;
    if (rc < 0) return rc;
    qn_buf_reset(&c->canon);
    rc = qn_canon_answer(x->params.answer_kind, text ? text : "", n, &c->canon);
    c->votes = rc > 0;
    char why[128];
    c->fits = x->params.select_by == QN_SELECT_SCHEMA && qn_answer_form_check(&x->form, text ? text : "", n, why, sizeof why);
    return rc < 0 ? rc : 0;
}

static double mean(const struct qn_choice *c) { return c->n_lp ? c->sum_lp / c->n_lp : -1e300; }

/* --- counting ----------------------------------------------------------------------------------------------------- */

struct count {
    int order[QN_CHOICES_MAX]; /* finished branches, shortest first */
    int n;
    int first[QN_CHOICES_MAX], votes[QN_CHOICES_MAX]; /* answers: who gave it first, how many did */
    int n_answers, n_voted;    /* branches that were counted */
    int cut_too;               /* nobody has an answer but those that were cut off */
};

static int same(const struct qn_choice *a, const struct qn_choice *b) {
    return a->canon.n == b->canon.n && (a->canon.n == 0 || !memcmp(a->canon.p, b->canon.p, a->canon.n));
}

static int has_vote(const struct count *k, const struct qn_choice *c) { return c->votes && (k->cut_too || c->reason != QN_FINISH_LENGTH); }

static void sort(const struct qn_gen *g, struct count *k) {
    k->n = 0;
    for (int i = 0; i < g->n_choices; i++) {
        if (!g->choices[i].finished) continue;
        int at = k->n++;
        for (; at > 0 && g->choices[k->order[at - 1]].n_output > g->choices[i].n_output; at--) k->order[at] = k->order[at - 1];
        k->order[at] = i;
    }
}

static void add(const struct qn_gen *g, struct count *k, int i) {
    const struct qn_choice *c = &g->choices[i];
    k->n_voted++;
    if (!has_vote(k, c)) return;
    int a = 0;
    while (a < k->n_answers && !same(&g->choices[k->first[a]], c)) a++;
    if (a == k->n_answers) {
        k->first[a] = i;
        k->votes[a] = 0;
        k->n_answers++;
    }
    k->votes[a]++;
}

/* The answer with the most votes, the first to get them on a tie; -1: none. *lead: how many more than the next. */
static int leader(const struct count *k, int *lead) {
    int best = -1, next = 0;
    for (int a = 0; a < k->n_answers; a++) {
        if (best < 0 || k->votes[a] > k->votes[best]) {
            if (best >= 0) next = k->votes[best] > next ? k->votes[best] : next;
            best = a;
        } else if (k->votes[a] > next) {
            next = k->votes[a];
        }
    }
    *lead = best < 0 ? 0 : k->votes[best] - next;
    return best;
}

/* Counts until it is decided, or all there are. 1: decided. */
static int count(const struct qn_exchange *x, struct count *k) {
    const struct qn_gen *g = x->gen;
    memset(k, 0, sizeof *k);
    sort(g, k);
    int lead, all = k->n == g->n_choices, stop_early = x->params.select_by == QN_SELECT_MAJORITY;
    for (int i = 0; i < k->n; i++) {
        add(g, k, k->order[i]);
        if (stop_early && leader(k, &lead) >= 0 && lead > g->n_choices - k->n_voted) return 1;
    }
    if (!all || k->n_answers) return all;
    k->cut_too = 1;
    k->n_voted = 0;
    for (int i = 0; i < k->n; i++) add(g, k, k->order[i]);
    return 1;
}

/* --- choosing ----------------------------------------------------------------------------------------------------- */

int qn_select_over(const struct qn_exchange *x) {
    struct count k;
    if (x->gen->n_finished == x->gen->n_choices) return 1;
    return x->params.select_by == QN_SELECT_MAJORITY && count(x, &k);
}

/* A valid answer comes before one that is not. */
static int is_better(const struct qn_choice *a, const struct qn_choice *b) { return a->fits != b->fits ? a->fits : mean(a) > mean(b); }

/* The n_shown best of each prompt's branches, the best first. */
static void pick_best(struct qn_gen *g) {
    for (int p = 0; p < g->n_parts; p++)
        for (int s = 0; s < g->n_shown; s++) {
            int *to = &g->shown[p * g->n_shown], best = -1;
            for (int i = p * g->n; i < (p + 1) * g->n; i++) {
                int taken = 0;
                for (int k = 0; k < s; k++) taken |= to[k] == i;
                if (!taken && (best < 0 || is_better(&g->choices[i], &g->choices[best]))) best = i;
            }
            to[s] = best;
        }
}

void qn_select_pick(struct qn_exchange *x) {
    struct qn_gen *g = x->gen;
    struct count k;
    int lead, a;
    if (g->n_shown == g->n && x->params.select_by == QN_SELECT_NONE) {
        for (int i = 0; i < g->n_choices; i++) g->shown[i] = i;
    } else if (x->params.select_by != QN_SELECT_MAJORITY) {
        pick_best(g);
    } else {
        count(x, &k);
        a = leader(&k, &lead);
        g->shown[0] = a < 0 ? k.order[0] : k.first[a];
    }
}

void qn_select_write(const struct qn_exchange *x, struct qn_buf *out) {
    static const char *const ways[] = {"", "majority", "mean_logprob", "schema"};
    const struct qn_gen *g = x->gen;
    struct count k;
    if (x->params.select_by == QN_SELECT_NONE) return;
    count(x, &k);
    const struct qn_choice *won = &g->choices[g->shown[0]];
    int agree = 0;
    qn_buf_printf(out, ",\"quern\":{\"samples\":%d,\"select\":\"%s\",\"votes\":[", g->n, ways[x->params.select_by]);
    for (int a = 0; a < k.n_answers; a++) {
        const struct qn_choice *c = &g->choices[k.first[a]];
        qn_buf_puts(out, a ? ",{\"answer\":" : "{\"answer\":");
        qn_json_string(out, c->canon.p ? c->canon.p : "", c->canon.n);
        qn_buf_printf(out, ",\"count\":%d}", k.votes[a]);
        if (same(c, won)) agree = k.votes[a];
    }
    qn_buf_printf(out, "],\"voted\":%d,\"agreement\":", k.n_voted);
    qn_json_float(out, (float)agree / (float)(k.n_voted ? k.n_voted : 1));
    qn_buf_puts(out, ",\"selected\":");
    if (won->votes) qn_json_string(out, won->canon.p ? won->canon.p : "", won->canon.n);
    else qn_buf_puts(out, "null");
    qn_buf_puts(out, ",\"mean_logprob\":");
    qn_json_float(out, (float)mean(won));
    qn_buf_putc(out, '}');
}
