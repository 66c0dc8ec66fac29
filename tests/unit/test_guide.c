/* Guided branches over the real SmolLM2: budgets of thinking are exact to the token, constraints hold and do not depend on company,
 * preemption, speculation or jump-ahead. The oracle is the plain engine asked for one token at a time. */
#include "engine/grammar/constraint.h"
#include "tests/lib/engine_client.h"
#include "tests/run.h"

enum { IDS_MAX = 600 };

static struct qn_engine *engine_with(struct qn_engine_opts o) {
    o.model_path = client_model("smollm2-135m-instruct-q4_1");
    o.n_ctx = 1024;
    if (!o.n_threads) o.n_threads = 2;
    if (!o.model_path) qn_test_fail(__FILE__, __LINE__, "the model is missing");
    return o.model_path ? client_open(o) : NULL;
}

/* The greedy token after ids[0..n). */
static uint32_t next_id(struct qn_engine *e, const uint32_t *ids, size_t n) {
    static struct said s;
    struct said *list[] = {&s};
    struct qn_job j = client_job(ids, n, 1);
    j.ignore_eos = 1;
    if (client_submit(e, &s, j) < 0 || client_wait(e, list, 1, 60) != 1) return UINT32_MAX;
    uint32_t id = s.b[0].ids[0];
    client_close(&s);
    return id;
}

struct budget { int opened, min, max; const char *open, *close, *more, *hand_in; };

static int contains(const struct qn_tokenizer *t, const uint32_t *ids, size_t n, const char *what) {
    static char text[IDS_MAX * 16];
    size_t n_text = 0;
    for (size_t i = 0; i < n; i++) {
        size_t k;
        const char *p = qn_tokenizer_piece(t, ids[i], &k);
        memcpy(text + n_text, p, k);
        n_text += k;
    }
    text[n_text] = 0;
    return strstr(text, what) != NULL;
}

/* What the output must be, by plain generation and the definition of the budget; returns the number of thinking tokens. */
static int expected(struct qn_engine *e, const uint32_t *prompt, size_t n_prompt, const struct budget *b, uint32_t *out, int n_out) {
    const struct qn_tokenizer *t = qn_engine_tokenizer(e);
    uint32_t ids[IDS_MAX], more[16], hand_in[32];
    size_t n_more = client_ids(e, b->more, more, 16), n_hand_in = client_ids(e, b->hand_in, hand_in, 32), from = n_prompt;
    memcpy(ids, prompt, n_prompt * sizeof *ids);
    size_t n = n_prompt, end = n_prompt + (size_t)n_out;
    int thinking = b->opened, n_thought = 0, n_thinking = -1;
    while (n < end) {
        if (thinking && b->max >= 0 && n_thought >= b->max) {
            for (size_t i = 0; i < n_hand_in; i++) {
                ids[n++] = hand_in[i];
                if (n_thinking < 0 && contains(t, hand_in, i + 1, b->close)) n_thinking = (int)(n - n_prompt); /* the rest is of the answer */
            }
            thinking = 0;
            continue;
        }
        uint32_t id = next_id(e, ids, n);
        ids[n] = id;
        if (thinking && contains(t, ids + from, n + 1 - from, b->close)) {
            if (n_thought < b->min && (b->max < 0 || n_thought + (int)n_more <= b->max)) {
                for (size_t i = 0; i < n_more; i++) ids[n++] = more[i];
                n_thought += (int)n_more;
                from = n; /* what stood before can no longer become part of a mark: the tests' marks are one token */
                continue;
            }
            thinking = 0;
            n_thinking = (int)(n + 1 - n_prompt);
        }
        n++;
        n_thought += thinking;
    }
    memcpy(out, ids + n_prompt, (size_t)n_out * sizeof *out);
    return n_thinking < 0 || n_thinking > n_out ? n_out : n_thinking;
}

static void check_budget(struct qn_engine *e, const char *prompt_text, struct budget b, int n_out) {
    static struct said s;
    struct said *list[] = {&s};
    uint32_t prompt[128], want[IDS_MAX], more[16], hand_in[32];
    size_t n = client_ids(e, prompt_text, prompt, 128);
    int n_thinking = expected(e, prompt, n, &b, want, n_out);
    struct qn_job j = client_job(prompt, n, n_out);
    j.ignore_eos = 1;
    j.n_logprobs = 1;
    j.thinking = (struct qn_thinking){.on = 1, .opened = b.opened, .open = b.open, .n_open = strlen(b.open), .close = b.close, .n_close = strlen(b.close),
                                      .min_tokens = b.min, .max_tokens = b.max, .more = more, .n_more = client_ids(e, b.more, more, 16),
                                      .hand_in = hand_in, .n_hand_in = client_ids(e, b.hand_in, hand_in, 32)};
    ASSERT_EQ(client_submit(e, &s, j), 0);
    ASSERT_EQ(client_wait(e, list, 1, 60), 1);
    ASSERT_EQ(s.b[0].n, n_out);
    EXPECT_EQ(s.b[0].n_thinking, n_thinking);
    for (int i = 0; i < n_out; i++)
        if (s.b[0].ids[i] != want[i]) {
            qn_test_fail(__FILE__, __LINE__, "token %d is %u, not %u (min %d, max %d)", i, s.b[0].ids[i], want[i], b.min, b.max);
            break;
        }
    client_close(&s);
}

TEST_SLOW(guide, budgets_are_exact_to_the_token, 120) {
    struct qn_engine *e = engine_with((struct qn_engine_opts){0});
    ASSERT(e != NULL);
    const char *prompt = "<think>Let me count: one, two, three, four,";
    static const int caps[] = {0, 1, 2, 7, 19};
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++)
        check_budget(e, prompt, (struct budget){.opened = 1, .max = caps[i], .open = "<think>", .close = "</think>", .more = " Wait", .hand_in = "\nTime is up.</think>\n"}, 40);
    /* A mark that the model writes by itself, so that its end comes too early. */
    static const int least[] = {0, 1, 6, 12, 25};
    for (size_t i = 0; i < sizeof least / sizeof *least; i++)
        check_budget(e, "The quick brown fox", (struct budget){.opened = 1, .min = least[i], .max = -1, .open = "<think>", .close = ".", .more = " Wait, and", .hand_in = "."}, 60);
    check_budget(e, "The quick brown fox", (struct budget){.opened = 1, .min = 20, .max = 22, .open = "<think>", .close = ".", .more = " Wait, and", .hand_in = " done."}, 60);
    qn_engine_close(e);
}

/* --- constraints --------------------------------------------------------------------------------------------------- */

enum { N_MOST = 12 };

/* {"name": "…", "size": n, "tags": ["…"], "kind": one of four}: forced runs, free text, counters, a choice. */
static struct qn_constraint *object_constraint(struct qn_engine *e) {
    static const char *const kinds[] = {"vegetable", "fruit", "mineral", "bluebell", "blue"};
    struct qn_grammar *g = NULL;
    struct qn_constraint *c = NULL;
    struct qn_err err = {0};
    if (qn_grammar_new(&g, NULL) < 0) return NULL;
    qn_gnode plain = qn_g_regex(g, "[A-Za-z ]{1,12}", 15, &(struct qn_regex_opts){0}, &err), kind[5];
    for (int i = 0; i < 5; i++) kind[i] = qn_g_bytes(g, kinds[i], strlen(kinds[i]));
    qn_gnode tag = qn_g_cat(g, qn_g_bytes(g, "\"", 1), qn_g_cat(g, plain, qn_g_bytes(g, "\"", 1)));
    const qn_gnode parts[] = {
        qn_g_bytes(g, "{\"name\": \"", 10), plain, qn_g_bytes(g, "\", \"size_in_metres\": ", 20),
        qn_g_regex(g, "[1-9][0-9]{0,3}", 15, &(struct qn_regex_opts){0}, &err), qn_g_bytes(g, ", \"tags\": [", 11), tag,
        qn_g_repeat(g, qn_g_cat(g, qn_g_bytes(g, ", ", 2), tag), 0, 3), qn_g_bytes(g, "], \"kind_of_thing\": \"", 21),
        qn_g_alt_n(g, kind, 5), qn_g_bytes(g, "\"}", 2)};
    qn_gnode root = QN_G_EMPTY;
    for (size_t i = sizeof parts / sizeof *parts; i-- > 0;) root = qn_g_cat(g, parts[i], root);
    if (qn_constraint_new(&c, g, root, qn_engine_trie(e, &err), &err) < 0) printf("    constraint: %s\n", err.text);
    return c;
}

static struct said answers[N_MOST];
static uint32_t seen[N_MOST][256];
static int n_seen[N_MOST];

static struct qn_job guided_job(struct qn_engine *e, struct qn_constraint *c, int i, uint32_t *prompt) {
    char text[64];
    snprintf(text, sizeof text, "Thing number %d, described as JSON:\n", i);
    struct qn_job j = client_job(prompt, client_ids(e, text, prompt, 64), 120);
    j.constraint = c;
    j.n_branches = i % 4 == 3 ? 2 : 1;
    j.speculate = j.n_branches == 1;
    j.n_logprobs = i % 3 == 0 ? 2 : -1;
    if (i % 2) {
        j.sampling.temperature = 1;
        j.sampling.seed = (uint64_t)i;
    }
    return j;
}

static void guided_runs(struct qn_engine_opts o, int alone, const char *what) {
    static uint32_t prompts[N_MOST][64];
    struct said *list[N_MOST];
    struct qn_engine *e = engine_with(o);
    ASSERT(e != NULL);
    struct qn_constraint *c = object_constraint(e);
    ASSERT(c != NULL);
    for (int i = 0; i < N_MOST; i++) {
        ASSERT_EQ(client_submit(e, &answers[i], guided_job(e, c, i, prompts[i])), 0);
        list[i] = &answers[i];
        if (alone) ASSERT_EQ(client_wait(e, &list[i], 1, 60), 1);
    }
    ASSERT_EQ(client_wait(e, list, N_MOST, 120), N_MOST);
    for (int i = 0; i < N_MOST; i++) {
        const struct said_branch *b = &answers[i].b[0];
        EXPECT_EQ(answers[i].failed, 0);
        EXPECT_EQ(b->reason, QN_FINISH_STOP);
        EXPECT_EQ(b->n_output, b->n);
        qn_cstate s = qn_constraint_text(c, qn_constraint_start(c), b->text, b->n_text);
        if (!qn_constraint_accepts(c, s)) qn_test_fail(__FILE__, __LINE__, "%s: answer %d does not hold: %.*s", what, i, (int)b->n_text, b->text);
        if (n_seen[i] == 0) {
            n_seen[i] = b->n;
            memcpy(seen[i], b->ids, sizeof *b->ids * (size_t)b->n);
        } else if (n_seen[i] != b->n || memcmp(seen[i], b->ids, sizeof *b->ids * (size_t)b->n)) {
            qn_test_fail(__FILE__, __LINE__, "%s: answer %d has other tokens: %.*s", what, i, (int)b->n_text, b->text);
        }
        client_close(&answers[i]);
    }
    struct qn_engine_stats s;
    qn_engine_stats(e, &s);
    EXPECT(s.certain_tokens > s.output_tokens / 4);
    qn_engine_close(e);
    qn_constraint_unref(c);
}

TEST_SLOW(guide, constraints_hold_and_ignore_company, 180) {
    memset(n_seen, 0, sizeof n_seen);
    guided_runs((struct qn_engine_opts){.max_seqs = 4, .no_speculation = 1}, 1, "alone");
    guided_runs((struct qn_engine_opts){.max_seqs = 16}, 0, "all at once");
    guided_runs((struct qn_engine_opts){.max_seqs = 16, .step_rows = 40, .prefill_chunk = 7, .n_threads = 3}, 0, "small chunks");
    guided_runs((struct qn_engine_opts){.max_seqs = 16, .preempt_every = 3}, 0, "preempted");
}
