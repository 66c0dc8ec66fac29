/* Each stage below states its expression and matches it by hand, so that every step is a step forward: what backtracking
 * would find is worked out beforehand. Facts come from the models' published tokenizer.json files (Hugging Face
 * tokenizers 0.23: Split with behaviour Isolated, ByteLevel, Digits, Punctuation); where llama.cpp (b-series of 2026,
 * src/llama-vocab.cpp) differs, the former is followed, since models were trained with it:
 *   - qwen2, command-r, mpt and others compose their text first (NFC); llama.cpp does not;
 *   - falcon splits digits after its bytes became letters, so the bytes B2 B3 B9 BC BD BE count as digits (they are
 *     spelled with superscripts and fractions);
 *   - (?i:'s) also matches U+017F, the long s.
 * A stage sees one piece of the stage before it: the end of the piece is the end of the text for (?!\S) and $. */
#include "engine/pretok.h"

#include <string.h>

#include "engine/unicode.h"

#define LETTER QN_SET_L
#define LETTER_MARK (QN_SET_L | QN_SET_M)
#define NUMBER QN_SET_N
/* o200k's two sorts of letters: those that may begin a word's capitals and those that may end a word. */
#define UPPER (QN_SET(QN_LU) | QN_SET(QN_LT) | QN_SET(QN_LM) | QN_SET(QN_LO) | QN_SET_M)
#define LOWER (QN_SET(QN_LL) | QN_SET(QN_LM) | QN_SET(QN_LO) | QN_SET_M)

/* Character at p[0..n) and its class; the length is 0 at the end. */
struct ch {
    uint32_t r;
    unsigned uni;
    size_t len;
};
static inline struct ch at(const char *p, size_t n, size_t i) {
    struct ch c = {0, QN_CN, 0};
    if (i >= n) return c;
    c.len = qn_uni_next(p + i, n - i, &c.r);
    c.uni = qn_uni(c.r);
    return c;
}
static inline int is(struct ch c, unsigned set) { return c.len && qn_uni_in(c.uni, set); }
static inline int space(struct ch c) { return (c.uni & QN_UNI_SPACE) != 0; }
static inline int newline(struct ch c) { return c.r == '\n' || c.r == '\r'; }
/* [^\s\p{L}\p{N}] and its like: `set` names what is excluded beside white space. */
static inline int other(struct ch c, unsigned set) { return c.len && !space(c) && !qn_uni_in(c.uni, set); }

/* Where the run of `set` that may begin at i ends. */
static size_t run(const char *p, size_t n, size_t i, unsigned set) {
    for (struct ch c = at(p, n, i); is(c, set); c = at(p, n, i)) i += c.len;
    return i;
}
static size_t run_other(const char *p, size_t n, size_t i, unsigned set) {
    for (struct ch c = at(p, n, i); other(c, set); c = at(p, n, i)) i += c.len;
    return i;
}
static size_t up_to(const char *p, size_t n, size_t i, unsigned set, int max) {
    for (struct ch c = at(p, n, i); max > 0 && is(c, set); c = at(p, n, i), max--) i += c.len;
    return i;
}

/* \s+(?!\S)|\s+ at 0, where white space begins: all of the run but its last character, unless the text ends with it. */
static size_t spaces(const char *p, size_t n) {
    size_t i = 0, last = 0;
    for (struct ch c = at(p, n, 0); c.len && space(c); c = at(p, n, i)) {
        last = i;
        i += c.len;
    }
    return i == n || last == 0 ? i : last;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : through the last line end of the run where it has one. */
static size_t lines_or_spaces(const char *p, size_t n) {
    size_t i = 0, end = 0;
    for (struct ch c = at(p, n, 0); c.len && space(c); c = at(p, n, i)) {
        i += c.len;
        if (newline(c)) end = i;
    }
    return end ? end : spaces(p, n);
}

/* 's|'t|'re|'ve|'m|'ll|'d at i: its length or 0. `fold`: in any case, where the long s is an s too. */
static size_t contraction(const char *p, size_t n, size_t i, int fold) {
    if (n - i < 2 || p[i] != '\'') return 0;
    char a = p[i + 1], b = n - i > 2 ? p[i + 2] : 0;
    if (fold) {
        if (n - i > 2 && a == '\xC5' && b == '\xBF') return 3;
        if (a >= 'A' && a <= 'Z') a = (char)(a + 32);
        if (b >= 'A' && b <= 'Z') b = (char)(b + 32);
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * GPT-2's, which ByteLevel applies when use_regex is set. */
static size_t gpt2(const char *p, size_t n) {
    size_t i = contraction(p, n, 0, 0);
    if (i) return i;
    i = p[0] == ' ' && n > 1;
    struct ch c = at(p, n, i);
    if (is(c, LETTER)) return run(p, n, i, LETTER);
    if (is(c, NUMBER)) return run(p, n, i, NUMBER);
    if (other(c, LETTER | NUMBER)) return run_other(p, n, i, LETTER | NUMBER);
    return spaces(p, n);
}

struct shape { /* what differs between the descendants of cl100k_base */
    unsigned letter;
    int digits, contractions;
};

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static inline size_t cl100k(const char *p, size_t n, struct shape s) {
    size_t i = s.contractions ? contraction(p, n, 0, 1) : 0;
    if (i) return i;
    struct ch c = at(p, n, 0);
    if (is(c, s.letter)) return run(p, n, 0, s.letter);
    if (is(c, NUMBER)) return up_to(p, n, 0, NUMBER, s.digits);
    if (!newline(c) && is(at(p, n, c.len), s.letter)) return run(p, n, c.len, s.letter);
    i = c.r == ' ' && n > 1;
    if (other(at(p, n, i), s.letter | NUMBER)) {
        i = run_other(p, n, i, s.letter | NUMBER);
        while (i < n && (p[i] == '\r' || p[i] == '\n')) i++;
        return i;
    }
    return lines_or_spaces(p, n);
}
static size_t llama3(const char *p, size_t n) { return cl100k(p, n, (struct shape){LETTER, 3, 1}); }
static size_t qwen2(const char *p, size_t n) { return cl100k(p, n, (struct shape){LETTER, 1, 1}); }
static size_t qwen35(const char *p, size_t n) { return cl100k(p, n, (struct shape){LETTER_MARK, 1, 1}); }

/* [UPPER]*[LOWER]+|[UPPER]+[LOWER]* at i, where LOWER and UPPER share letters without case and marks: the end, or i when
 * neither matches. The first alternative gives back capitals until a shared letter ends the word. */
static size_t cased(const char *p, size_t n, size_t i, int second) {
    size_t up = i, shared_end = i;
    for (struct ch c = at(p, n, up); is(c, UPPER); c = at(p, n, up)) {
        up += c.len;
        if (is(c, LOWER)) shared_end = up;
    }
    size_t low = run(p, n, up, LOWER);
    if (low > up) return low;
    return second ? up : shared_end;
}

/* [^\r\n\p{L}\p{N}]?[UPPER]*[LOWER]+(?i:'s|...)?|[^\r\n\p{L}\p{N}]?[UPPER]+[LOWER]*(?i:'s|...)?|\p{N}{1,3}|
 *  ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+   o200k_base; tekken has single digits and no contractions. */
static inline size_t o200k(const char *p, size_t n, struct shape s) {
    struct ch c = at(p, n, 0);
    size_t lead = newline(c) || is(c, LETTER | NUMBER) ? 0 : c.len, i = 0;
    for (int second = 0; second <= 1 && i == 0; second++) {
        if (lead) i = cased(p, n, lead, second);
        if (!lead || i == lead) i = cased(p, n, 0, second);
    }
    if (i > 0) return i + (s.contractions && i < n ? contraction(p, n, i, 1) : 0);
    if (is(c, NUMBER)) return up_to(p, n, 0, NUMBER, s.digits);
    i = c.r == ' ' && n > 1;
    if (other(at(p, n, i), LETTER | NUMBER)) {
        i = run_other(p, n, i, LETTER | NUMBER);
        while (i < n && (p[i] == '\r' || p[i] == '\n' || p[i] == '/')) i++;
        return i;
    }
    return lines_or_spaces(p, n);
}
static size_t gpt4o(const char *p, size_t n) { return o200k(p, n, (struct shape){LETTER, 3, 1}); }
static size_t tekken(const char *p, size_t n) { return o200k(p, n, (struct shape){LETTER, 1, 0}); }

/* Digits of the reference: Rust's is_numeric, whose Unicode is one version ahead of the regular expressions'. */
static int numeric(struct ch c) {
    return is(c, NUMBER) || (c.r >= 0x11DE0 && c.r <= 0x11DE9) || (c.r >= 0x16FF4 && c.r <= 0x16FF6);
}
static size_t digit(const char *p, size_t n) { /* each alone */
    struct ch c = at(p, n, 0);
    if (numeric(c)) return c.len;
    size_t i = c.len;
    for (c = at(p, n, i); c.len && !numeric(c); c = at(p, n, i)) i += c.len;
    return i;
}
static size_t digit_re(const char *p, size_t n) { /* \p{N}{1,3}, isolated */
    struct ch c = at(p, n, 0);
    if (is(c, NUMBER)) return up_to(p, n, 0, NUMBER, 3);
    size_t i = c.len;
    for (c = at(p, n, i); c.len && !is(c, NUMBER); c = at(p, n, i)) i += c.len;
    return i;
}
static size_t number(const char *p, size_t n) { /* \p{N}+ */
    size_t i = run(p, n, 0, NUMBER);
    if (i) return i;
    for (struct ch c = at(p, n, i); c.len && !is(c, NUMBER); c = at(p, n, i)) i += c.len;
    return i;
}

static int byte_digit(char c) {
    return (c >= '0' && c <= '9') || (c != 0 && strchr("\xB2\xB3\xB9\xBC\xBD\xBE", c));
}
static size_t byte_number(const char *p, size_t n) { /* Digits, contiguous, over bytes spelled as letters */
    size_t i = 1;
    while (i < n && byte_digit(p[i]) == byte_digit(p[0])) i++;
    return i;
}
static int three(const char *p, size_t n) {
    return n >= 3 && p[0] >= '0' && p[0] <= '9' && p[1] >= '0' && p[1] <= '9' && p[2] >= '0' && p[2] <= '9';
}
static size_t three_digits(const char *p, size_t n) { /* [0-9][0-9][0-9] */
    if (three(p, n)) return 3;
    size_t i = 1;
    while (i < n && !three(p + i, n - i)) i++;
    return i;
}

static int punct(struct ch c) { /* Punctuation of the reference: ASCII punctuation, or category P of Unicode 8 */
    if (c.r < 0x80) return c.len && is(c, QN_SET_P | QN_SET_S);
    return c.len && is(c, QN_SET_P) != ((c.uni & QN_UNI_PUNCT) != 0);
}
static size_t puncts(const char *p, size_t n) { /* Punctuation, contiguous */
    struct ch c = at(p, n, 0);
    int first = punct(c);
    size_t i = c.len;
    for (c = at(p, n, i); c.len && punct(c) == first; c = at(p, n, i)) i += c.len;
    return i;
}
static int llama_punct(struct ch c) { return c.len && (is(c, QN_SET_P) || (c.r < 0x80 && c.r && strchr("$+<=>^~|", (int)c.r))); }
static size_t llama_puncts(const char *p, size_t n) { /* [\p{P}\$\+<=>\^~\|]+ */
    struct ch c = at(p, n, 0);
    int first = llama_punct(c);
    size_t i = c.len;
    for (c = at(p, n, i); c.len && llama_punct(c) == first; c = at(p, n, i)) i += c.len;
    return i;
}

static size_t newline_char(const char *p, size_t n) { /* [\r\n] */
    if (p[0] == '\r' || p[0] == '\n') return 1;
    size_t i = 1;
    while (i < n && p[i] != '\r' && p[i] != '\n') i++;
    return i;
}

/* \s?X+ for a class X: the match at 0, or the gap before the next one. */
static inline size_t spaced(const char *p, size_t n, int (*in)(struct ch)) {
    size_t i = 0;
    for (struct ch c = at(p, n, 0); c.len; c = at(p, n, i)) {
        int here = in(c) || (space(c) && in(at(p, n, i + c.len)));
        if (here && i > 0) return i;
        i += c.len;
        if (here) {
            for (c = at(p, n, i); in(c); c = at(p, n, i)) i += c.len;
            return i;
        }
    }
    return i;
}

/* The letters with case as deepseek-llm's tokenizer.json spells them out (those of Unicode 11, some left out). */
static const struct { uint32_t from, to; } cased_letters[] = {
    {0x41, 0x5A}, {0x61, 0x7A}, {0xB5, 0xB5}, {0xC0, 0xD6}, {0xD8, 0xF6}, {0xF8, 0x1BA}, {0x1BC, 0x1BF}, {0x1C4, 0x293},
    {0x295, 0x2AF}, {0x370, 0x373}, {0x376, 0x377}, {0x37B, 0x37D}, {0x37F, 0x37F}, {0x386, 0x386}, {0x388, 0x38A},
    {0x38C, 0x38C}, {0x38E, 0x3A1}, {0x3A3, 0x3F5}, {0x3F7, 0x481}, {0x48A, 0x52F}, {0x531, 0x556}, {0x10A0, 0x10C5},
    {0x13A0, 0x13F5}, {0x13F8, 0x13FD}, {0x1C90, 0x1CBA}, {0x1CBD, 0x1CBF}, {0x1D00, 0x1D2B}, {0x1D6B, 0x1D77},
    {0x1D79, 0x1D9A}, {0x1E00, 0x1F15}, {0x1F18, 0x1F1D}, {0x1F20, 0x1F45}, {0x1F48, 0x1F4D}, {0x1F50, 0x1F57},
    {0x1F59, 0x1F59}, {0x1F5B, 0x1F5B}, {0x1F5D, 0x1F5D}, {0x1F5F, 0x1F7D}, {0x1F80, 0x1FB4}, {0x1FB6, 0x1FBC},
    {0x1FBE, 0x1FBE}, {0x1FC2, 0x1FC4}, {0x1FC6, 0x1FCC}, {0x1FD0, 0x1FD3}, {0x1FD6, 0x1FDB}, {0x1FE0, 0x1FEC},
    {0x1FF2, 0x1FF4}, {0x1FF6, 0x1FFC}, {0x2102, 0x2102}, {0x2107, 0x2107}, {0x210A, 0x2113}, {0x2115, 0x2115},
    {0x2119, 0x211D}, {0x2124, 0x2124}, {0x2126, 0x2126}, {0x2128, 0x2128}, {0x212A, 0x212D}, {0x212F, 0x2134},
    {0x2139, 0x2139}, {0x213C, 0x213F}, {0x2145, 0x2149}, {0x214E, 0x214E}, {0x2183, 0x2184}, {0x2C00, 0x2C7B},
    {0x2C7E, 0x2CE4}, {0x2CEB, 0x2CEE}, {0x2CF2, 0x2CF3}, {0xA640, 0xA66D}, {0xA680, 0xA69B}, {0xA722, 0xA76F},
    {0xA771, 0xA787}, {0xA78B, 0xA78E}, {0xAB70, 0xABBF}, {0xFB00, 0xFB06}, {0xFB13, 0xFB17}, {0xFF21, 0xFF3A},
    {0xFF41, 0xFF5A}, {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB}, {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2},
    {0x118A0, 0x118DF}, {0x1E900, 0x1E943},
};
static int in_cased(struct ch c) {
    size_t lo = 0, hi = sizeof cased_letters / sizeof *cased_letters;
    if (!c.len) return 0;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cased_letters[mid].to < c.r) lo = mid + 1;
        else hi = mid;
    }
    return lo < sizeof cased_letters / sizeof *cased_letters && cased_letters[lo].from <= c.r;
}
static int in_letter(struct ch c) { return is(c, LETTER); }
static int in_punct(struct ch c) { return is(c, QN_SET_P); }
static int in_ds_punct(struct ch c) { /* [!-/:-~！-／：-～‘-‟　-。] */
    uint32_t r = c.r;
    return c.len && ((r >= 0x21 && r <= 0x2F) || (r >= 0x3A && r <= 0x7E) || (r >= 0xFF01 && r <= 0xFF0F) ||
                     (r >= 0xFF1A && r <= 0xFF5E) || (r >= 0x2018 && r <= 0x201F) || (r >= 0x3000 && r <= 0x3002));
}
static size_t spaced_cased(const char *p, size_t n) { return spaced(p, n, in_cased); }
static size_t spaced_letters(const char *p, size_t n) { return spaced(p, n, in_letter); }
static size_t spaced_puncts(const char *p, size_t n) { return spaced(p, n, in_punct); }
static size_t spaced_ds_puncts(const char *p, size_t n) { return spaced(p, n, in_ds_punct); }

/* \s+$ : from the end backwards, or a text of many short runs would be scanned once for each. */
static size_t trailing_spaces(const char *p, size_t n) {
    size_t i = n;
    while (i > 0) {
        size_t k = i - 1;
        while (k > 0 && i - k < 4 && ((unsigned char)p[k] & 0xC0) == 0x80) k--;
        struct ch c = at(p, n, k);
        if (!space(c) || k + c.len != i) break;
        i = k;
    }
    return i == 0 ? n : i;
}

static int in_cjk(struct ch c) { return (c.r >= 0x800 && c.r <= 0x9FA5) || (c.r >= 0xAC00 && c.r <= 0xD7FF); }
static int in_kana(struct ch c) { return (c.r >= 0x4E00 && c.r <= 0x9FA5) || (c.r >= 0x3040 && c.r <= 0x30FF); }
static inline size_t runs(const char *p, size_t n, int (*in)(struct ch)) {
    struct ch c = at(p, n, 0);
    int first = in(c);
    size_t i = c.len;
    for (c = at(p, n, i); c.len && in(c) == first; c = at(p, n, i)) i += c.len;
    return i;
}
static size_t cjk(const char *p, size_t n) { return runs(p, n, in_cjk); }   /* [一-龥ࠀ-一가-퟿]+ */
static size_t kana(const char *p, size_t n) { return runs(p, n, in_kana); } /* [一-龥぀-ゟ゠-ヿ]+ */

/* [!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * DeepSeek V3. Controls, formats and unassigned code points match nothing alone. */
static int ascii_letter(const char *p, size_t n, size_t i) {
    return i < n && ((p[i] >= 'a' && p[i] <= 'z') || (p[i] >= 'A' && p[i] <= 'Z'));
}
static size_t deepseek3_match(const char *p, size_t n) { /* length at 0, or 0 */
    struct ch c = at(p, n, 0);
    size_t i = 1;
    if (c.r < 0x80 && is(c, QN_SET_P | QN_SET_S) && ascii_letter(p, n, 1)) {
        while (ascii_letter(p, n, i)) i++;
        return i;
    }
    if (!newline(c) && !is(c, LETTER | QN_SET_P | QN_SET_S) && is(at(p, n, c.len), LETTER_MARK))
        return run(p, n, c.len, LETTER_MARK);
    if (is(c, LETTER_MARK)) return run(p, n, 0, LETTER_MARK);
    i = run(p, n, c.r == ' ', QN_SET_P | QN_SET_S);
    if (i > (c.r == ' ')) {
        while (i < n && (p[i] == '\r' || p[i] == '\n')) i++;
        return i;
    }
    return space(c) ? lines_or_spaces(p, n) : 0;
}
static size_t deepseek3(const char *p, size_t n) {
    size_t i = deepseek3_match(p, n);
    if (i > 0) return i;
    do i += at(p, n, i).len; /* a gap: up to the first place where something matches */
    while (i < n && deepseek3_match(p + i, n - i) == 0);
    return i;
}

static const struct qn_pretok rows[] = {
    {.name = "smollm", .stage = {digit, gpt2}},
    {.name = "qwen2", .stage = {qwen2}, .nfc = 1},
    {.name = "deepseek-r1-qwen", .stage = {qwen2}, .nfc = 1},
    {.name = "llama-bpe", .stage = {llama3}, .whole_words = 1, .adds_bos = 1},
    {.name = "llama3", .stage = {llama3}, .whole_words = 1, .adds_bos = 1},
    {.name = "llama-v3", .stage = {llama3}, .whole_words = 1, .adds_bos = 1},
    {.name = "gpt-2", .stage = {gpt2}},
    {.name = "deepseek-llm", .stage = {newline_char, spaced_cased, spaced_ds_puncts, trailing_spaces, cjk, digit}},
    {.name = "deepseek-coder", .stage = {newline_char, spaced_letters, spaced_puncts, cjk, digit}},
    {.name = "deepseek-v3", .stage = {digit_re, kana, deepseek3}},
    {.name = "falcon", .stage = {puncts, gpt2, byte_number, three_digits}},
    {.name = "starcoder", .stage = {digit, gpt2}},
    {.name = "refact", .stage = {digit, gpt2}},
    {.name = "codeshell", .stage = {digit, gpt2}},
    {.name = "command-r", .stage = {digit, gpt2}, .nfc = 1},
    {.name = "mpt", .stage = {gpt2}, .nfc = 1},
    {.name = "olmo", .stage = {gpt2}, .nfc = 1},
    {.name = "phi-2", .stage = {gpt2}},
    {.name = "dbrx", .stage = {llama3}},
    {.name = "smaug-bpe", .stage = {llama3}},
    {.name = "glm4", .stage = {llama3}, .whole_words = 1},
    {.name = "chatglm-bpe", .stage = {llama3}},
    {.name = "qwen35", .stage = {qwen35}},
    {.name = "gpt-4o", .stage = {gpt4o}},
    {.name = "llama4", .stage = {gpt4o}},
    {.name = "tekken", .stage = {tekken}, .whole_words = 1, .adds_bos = 1},
    /* llama.cpp's rule for files that name none. */
    {.name = "default", .stage = {llama_puncts, gpt2, number, three_digits}},
};

const struct qn_pretok *qn_pretok_find(const char *name, size_t n) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strlen(rows[i].name) == n && !memcmp(rows[i].name, name, n)) return &rows[i];
    return NULL;
}

const char *qn_pretok_names(void) {
    return "smollm, qwen2, deepseek-r1-qwen, llama-bpe (llama3, llama-v3), gpt-2, deepseek-llm, deepseek-coder, deepseek-v3, "
           "falcon, starcoder, "
           "refact, codeshell, command-r, mpt, olmo, phi-2, dbrx, smaug-bpe, glm4, chatglm-bpe, qwen35, gpt-4o, llama4, tekken, "
           "default";
}

struct split {
    const qn_pre_stage *stage;
    int (*word)(void *, const char *, size_t);
    void *ctx;
};

/* The depth is that of the row's table. */
static int apply(const struct split *s, int k, const char *p, size_t n) {
    if (!s->stage[k]) return s->word(s->ctx, p, n);
    while (n > 0) {
        size_t len = s->stage[k](p, n);
        int rc = apply(s, k + 1, p, len);
        if (rc < 0) return rc;
        p += len;
        n -= len;
    }
    return 0;
}

int qn_pretok_split(const struct qn_pretok *t, const char *p, size_t n, int (*word)(void *, const char *, size_t), void *ctx) {
    struct split s = {t->stage, word, ctx};
    return apply(&s, 0, p, n);
}
