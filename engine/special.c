/* The entries are sorted, so walking down a trie is narrowing a range by binary search: no nodes to build, and gemma's
 * 6,400 specials cost one sort at open.
 *
 * Who may match where. CONTROL and UNKNOWN tokens are guarded: only trusted bytes become them. USER tokens are the
 * reference's added tokens that are not special; it finds them in all text. We do the same for those that are text (runs
 * of spaces, HTML tags), but not for those that look structural: Qwen's <tool_call> is such a USER token, and a message
 * that could forge it would break what the chat template promises. There safety goes before agreement. */
#include "engine/special.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const char *const html_names[] = {
    "a", "abbr", "article", "aside", "audio", "b", "bbox", "blockquote", "body", "br", "button", "canvas", "caption", "center",
    "cite", "code", "col", "colgroup", "dd", "del", "details", "div", "dl", "dt", "em", "figcaption", "figure", "font", "footer",
    "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html", "i", "iframe", "img", "input", "ins", "kbd",
    "label", "li", "link", "main", "mark", "meta", "nav", "ol", "option", "p", "pre", "q", "s", "samp", "script", "section",
    "select", "small", "span", "strike", "strong", "style", "sub", "summary", "sup", "svg", "table", "tbody", "td", "template",
    "textarea", "tfoot", "th", "thead", "title", "tr", "tt", "u", "ul", "var", "video",
};

static int is_html(const char *p, size_t n) {
    if (n > 0 && *p == '/') p++, n--;
    for (size_t i = 0; i < sizeof html_names / sizeof *html_names; i++)
        if (strlen(html_names[i]) == n && !memcmp(html_names[i], p, n)) return 1;
    return 0;
}

static int has(struct qn_str s, const char *needle) { return memmem(s.p, s.n, needle, strlen(needle)) != NULL; }

int qn_special_looks_structural(struct qn_str s, int html) {
    if (s.n < 2) return 0;
    if (has(s, "<|") || has(s, "|>") || has(s, "<\xEF\xBD\x9C") || has(s, "\xEF\xBD\x9C>")) return 1; /* U+FF5C too */
    if (has(s, "<<") || has(s, ">>")) return 1;
    if (s.p[0] == '<' && s.p[s.n - 1] == '>')
        return !is_html(s.p + 1, s.n - 2) || (!html && (s.n == 3 || s.n == 4) && s.p[s.n - 2] == 's');
    if (s.p[0] == '[' && s.p[s.n - 1] == ']')
        for (size_t i = 1; i + 1 < s.n; i++)
            if (isupper((unsigned char)s.p[i])) return 1;
    return 0;
}

int qn_special_looks_final(struct qn_str s) {
    static const char *const final[] = {
        "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|return|>", "<|call|>",
        "<|calls|>", "<|flush|>", "<end_of_turn>", "<|END_OF_TURN_TOKEN|>", "<end_of_utterance>", "</s>", "<eos>", "<EOT>",
        "_<EOT>", "[EOT]", "[EOS]", "<turn|>", "<|tool_response>", "[e~[",
        "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",
        "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", /* what a completion model writes when its file is done */
    };
    for (size_t i = 0; i < sizeof final / sizeof *final; i++)
        if (strlen(final[i]) == s.n && !memcmp(final[i], s.p, s.n)) return 1;
    return 0;
}

static int by_bytes(const void *a, const void *b) {
    const struct qn_special_entry *x = a, *y = b;
    uint32_t n = x->n < y->n ? x->n : y->n;
    int c = memcmp(x->p, y->p, n);
    if (c) return c;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    if (x->guarded != y->guarded) return y->guarded - x->guarded; /* of the same spelling the guarded one counts, */
    return x->id < y->id ? -1 : x->id > y->id;                    /* else the first */
}

int qn_specials_init(struct qn_specials *s, const struct qn_vocab *v, const unsigned char *guarded, int spaces,
                     struct qn_err *err) {
    uint32_t n = 0;
    *s = (struct qn_specials){.spaces = spaces};
    for (uint32_t id = 0; id < v->n; id++)
        n += v->kind[id] == QN_TOKEN_CONTROL || v->kind[id] == QN_TOKEN_UNKNOWN || v->kind[id] == QN_TOKEN_USER;
    s->entry = malloc((n + 1) * sizeof *s->entry);
    if (!s->entry) return qn_fail(err, QN_E_NOMEM, "vocabulary: no memory");
    for (uint32_t id = 0; id < v->n; id++) {
        if (v->kind[id] != QN_TOKEN_CONTROL && v->kind[id] != QN_TOKEN_UNKNOWN && v->kind[id] != QN_TOKEN_USER) continue;
        uint32_t len = v->at[id + 1] - v->at[id];
        if (len == 0 || len > QN_SPECIAL_LEN_MAX) continue;
        s->entry[s->n++] = (struct qn_special_entry){v->bytes + v->at[id], len, id, guarded[id]};
    }
    qsort(s->entry, s->n, sizeof *s->entry, by_bytes);
    uint32_t k = 0;
    for (uint32_t i = 0; i < s->n; i++) { /* one entry a spelling */
        if (k > 0 && s->entry[k - 1].n == s->entry[i].n && !memcmp(s->entry[k - 1].p, s->entry[i].p, s->entry[i].n)) continue;
        s->entry[k++] = s->entry[i];
    }
    s->n = k;
    k = 0;
    for (unsigned b = 0; b < 256; b++) {
        s->from[b] = k;
        while (k < s->n && (unsigned char)s->entry[k].p[0] == b) k++;
    }
    s->from[256] = k;
    return 0;
}

void qn_specials_done(struct qn_specials *s) {
    free(s->entry);
    *s = (struct qn_specials){0};
}

/* First entry of [lo, hi), which share their first d bytes and are longer, whose byte d is >= c. */
static uint32_t bound(const struct qn_specials *s, uint32_t lo, uint32_t hi, uint32_t d, unsigned c) {
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((unsigned char)s->entry[mid].p[d] < c) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* One byte of the text as the entries spell it; *len is how many bytes that took. */
static inline unsigned text_byte(const struct qn_specials *s, const char *p, size_t n, size_t *len) {
    *len = 1;
    if (s->spaces && n >= 3 && !memcmp(p, "\xE2\x96\x81", 3)) {
        *len = 3;
        return ' ';
    }
    return (unsigned char)*p;
}

const struct qn_special_entry *qn_specials_match(const struct qn_specials *s, const char *p, size_t n, size_t trusted,
                                                 size_t *len) {
    const struct qn_special_entry *best = NULL;
    uint32_t lo = 0, hi = s->n;
    size_t i = 0, step;
    for (uint32_t d = 0; i < n && lo < hi; d++) {
        unsigned c = text_byte(s, p + i, n - i, &step);
        uint32_t a = d == 0 ? s->from[c] : bound(s, lo, hi, d, c);
        hi = d == 0 ? s->from[c + 1] : bound(s, a, hi, d, c + 1);
        lo = a;
        i += step;
        if (lo < hi && s->entry[lo].n == d + 1) { /* ends here; the longer ones follow it */
            if (!s->entry[lo].guarded || i <= trusted) {
                best = &s->entry[lo];
                *len = i;
            }
            lo++;
        }
    }
    return best;
}

size_t qn_specials_next(const struct qn_specials *s, const char *p, size_t n) {
    size_t i = 0;
    for (; i < n; i++) {
        unsigned c = (unsigned char)p[i];
        if (s->from[c] != s->from[c + 1]) break;
        if (s->spaces && c == 0xE2 && s->from[' '] != s->from[' ' + 1]) break;
    }
    return i;
}

const struct qn_special_entry *qn_specials_find(const struct qn_specials *s, const char *p, size_t n) {
    uint32_t lo = 0, hi = s->n;
    for (uint32_t d = 0; d < n && lo < hi; d++) {
        uint32_t a = bound(s, lo, hi, d, (unsigned char)p[d]);
        hi = bound(s, a, hi, d, (unsigned)(unsigned char)p[d] + 1);
        lo = a;
        if (lo < hi && s->entry[lo].n == d + 1) {
            if (d + 1 == n) return &s->entry[lo];
            lo++;
        }
    }
    return NULL;
}
