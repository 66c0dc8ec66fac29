/* The GGUF reader: a sound file is read whole; each way to break it is refused with a message that names the offset or
 * the key; nothing is taken for a count that the bytes cannot hold. The kinds are those of the CVE list of GGUF readers
 * (size overflows, counts past the file, bad alignment, offsets past the end) and of the format's own rules. */
#include "engine/gguf.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tests/lib/engine_client.h"
#include "tests/run.h"
#include "tests/unit/tiny_gguf.h"

/* Places in the sound file that the table below writes to. */
enum mark {
    MAGIC, VERSION, N_TENSORS, N_KEYS, KEY_LEN, KEY, KEY_TYPE, TEXT_LEN, ALIGN_KEY_LEN, ALIGN_TYPE, ALIGN, BOOL_TYPE, BOOL, STRS_TYPE, STRS_ELEM, STRS_N,
    STR0_LEN, STR2_LEN, INTS_ELEM, INTS_N, BOOLS_N, BOOLS, LAST_KEY, LAST_TYPE, LAST, T0_LEN, T0_NAME, T0_DIMS, T0_DIM0, T0_DIM1, T0_TYPE, T0_AT,
    T1_LEN, T1_NAME, T1_DIMS, T1_DIM0, T1_TYPE, T1_AT, T2_LEN, T2_NAME, T2_DIM0, T2_DIM1, T2_TYPE, T2_AT, DATA, MARKS,
};
struct sound {
    struct tiny_gguf g;
    size_t at[MARKS];
};

static void tensor(struct sound *s, enum mark first, int has_dim1, const char *name, uint64_t d0, uint64_t d1, uint32_t type, uint64_t at) {
    size_t *m = &s->at[first];
    *m++ = s->g.n;
    tiny_u64(&s->g, strlen(name));
    *m++ = s->g.n;
    tiny_put(&s->g, name, strlen(name));
    if (first != T2_LEN) *m++ = s->g.n;
    tiny_u32(&s->g, has_dim1 ? 2 : 1);
    *m++ = s->g.n;
    tiny_u64(&s->g, d0);
    if (has_dim1) {
        *m++ = s->g.n;
        tiny_u64(&s->g, d1);
    }
    *m++ = s->g.n;
    tiny_u32(&s->g, type);
    *m++ = s->g.n;
    tiny_u64(&s->g, at);
}

static void key(struct sound *s, enum mark len, const char *k, enum mark type_mark, uint32_t type) {
    if (len != MARKS) s->at[len] = s->g.n;
    if (len == KEY_LEN) s->at[KEY] = s->g.n + 8;
    if (type_mark != MARKS) s->at[type_mark] = s->g.n + 8 + strlen(k);
    tiny_key(&s->g, k, type);
}

static struct sound build(void) {
    struct sound s = {0};
    struct tiny_gguf *g = &s.g;
    tiny_open(g);
    s.at[VERSION] = 4, s.at[N_TENSORS] = 8, s.at[N_KEYS] = 16;
    key(&s, KEY_LEN, "general.architecture", KEY_TYPE, TINY_STR);
    s.at[TEXT_LEN] = g->n;
    tiny_text(g, "llama", 5);
    key(&s, ALIGN_KEY_LEN, "general.alignment", ALIGN_TYPE, TINY_U32);
    s.at[ALIGN] = g->n;
    tiny_u32(g, 32);
    key(&s, MARKS, "t.bool", BOOL_TYPE, TINY_BOOL);
    s.at[BOOL] = g->n;
    tiny_put(g, "\1", 1);
    key(&s, MARKS, "t.strs", STRS_TYPE, TINY_ARRAY);
    s.at[STRS_ELEM] = g->n, s.at[STRS_N] = g->n + 4, s.at[STR0_LEN] = g->n + 12;
    tiny_u32(g, TINY_STR), tiny_u64(g, 3), tiny_text(g, "a", 1), tiny_text(g, "bc", 2);
    s.at[STR2_LEN] = g->n;
    tiny_text(g, "d\0f", 3);
    key(&s, MARKS, "t.ints", MARKS, TINY_ARRAY);
    s.at[INTS_ELEM] = g->n, s.at[INTS_N] = g->n + 4;
    tiny_u32(g, TINY_I32), tiny_u64(g, 3), tiny_u32(g, 1), tiny_u32(g, (uint32_t)-2), tiny_u32(g, 3);
    key(&s, MARKS, "t.bools", MARKS, TINY_ARRAY);
    s.at[BOOLS_N] = g->n + 4, s.at[BOOLS] = g->n + 12;
    tiny_u32(g, TINY_BOOL), tiny_u64(g, 2), tiny_put(g, "\0\1", 2);
    key(&s, LAST_KEY, "t.f32", LAST_TYPE, TINY_F32);
    s.at[LAST] = g->n;
    float pi = 3.25f;
    tiny_put(g, &pi, 4);
    tensor(&s, T0_LEN, 1, "a.weight", 4, 2, QN_F32, 0);
    tensor(&s, T1_LEN, 0, "b.weight", 256, 0, QN_Q4_K, 32);
    tensor(&s, T2_LEN, 1, "c.weight", 32, 3, QN_Q8_0, 192);
    memcpy(g->p + 8, &(uint64_t){3}, 8);
    tiny_close(g); /* pads to 32 and writes the number of keys */
    s.at[DATA] = g->n;
    for (int i = 0; i < 192 + 3 * 34; i++) tiny_put(g, &(char){(char)i}, 1);
    return s;
}

static int parse_exact(const char *p, size_t n, struct qn_gguf **g, struct qn_err *err) { /* of exact size, for ASan's sake */
    char *copy = malloc(n ? n : 1);
    ASSERT(copy);
    memcpy(copy, p, n);
    int rc = qn_gguf_parse(g, copy, n, err);
    if (rc < 0) free(copy);
    return rc;
}

TEST(gguf, a_sound_file_is_read_whole) {
    struct sound s = build();
    struct qn_gguf *g;
    struct qn_err err = {0};
    for (uint32_t version = 2; version <= 3; version++) {
        memcpy(s.g.p + 4, &version, 4);
        ASSERT_EQ(qn_gguf_parse(&g, s.g.p, s.g.n, &err), 0);
        EXPECT_EQ(qn_gguf_n_tensors(g), 3);
        const struct qn_tensor *t = qn_gguf_tensor(g, "c.weight");
        ASSERT(t && t == qn_gguf_tensor_at(g, 2));
        EXPECT(t->type == QN_Q8_0 && t->n_dims == 2 && t->dim[0] == 32 && t->dim[1] == 3 && t->dim[2] == 1 && t->n_bytes == 102);
        EXPECT_EQ((const char *)t->data - s.g.p, s.at[DATA] + 192);
        EXPECT(!qn_gguf_tensor(g, "c.weigh") && !qn_gguf_tensor(g, "") && !qn_gguf_tensor_at(g, 3));
        struct qn_str text;
        const struct qn_str *strs;
        uint64_t n, u;
        int64_t i, ints[3];
        int b;
        double d;
        float f[1];
        EXPECT_EQ(qn_gguf_str(g, "general.architecture", &text), 0);
        EXPECT_MEM(text.p, text.n, "llama", 5);
        EXPECT_EQ(qn_gguf_array_strs(g, "t.strs", &strs, &n), 0);
        EXPECT_EQ(n, 3);
        EXPECT_MEM(strs[2].p, strs[2].n, "d\0f", 3);
        EXPECT_EQ(qn_gguf_array_i64(g, "t.ints", ints, 3, &n), 0);
        EXPECT(n == 3 && ints[0] == 1 && ints[1] == -2 && ints[2] == 3);
        EXPECT_EQ(qn_gguf_array_i64(g, "t.ints", ints, 1, &n), 0); /* a short buffer still learns the count */
        EXPECT_EQ(n, 3);
        EXPECT_EQ(qn_gguf_array_i64(g, "t.bools", ints, 3, &n), 0);
        EXPECT(n == 2 && ints[0] == 0 && ints[1] == 1);
        EXPECT_EQ(qn_gguf_bool(g, "t.bool", &b), 0);
        EXPECT_EQ(b, 1);
        EXPECT_EQ(qn_gguf_f64(g, "t.f32", &d), 0);
        EXPECT_NEAR(d, 3.25, 0);
        EXPECT_EQ(qn_gguf_u64(g, "general.alignment", &u), 0);
        EXPECT_EQ(u, 32);
        EXPECT_EQ(qn_gguf_i64(g, "general.alignment", &i), 0);
        EXPECT_EQ(qn_gguf_array_n(g, "t.strs", &n), 0);
        /* Another type, or none. */
        EXPECT_EQ(qn_gguf_u64(g, "t.f32", &u), QN_E_DATA);
        EXPECT_EQ(qn_gguf_u64(g, "t.ints", &u), QN_E_DATA);
        EXPECT_EQ(qn_gguf_f64(g, "t.bool", &d), QN_E_DATA);
        EXPECT_EQ(qn_gguf_str(g, "t.strs", &text), QN_E_DATA);
        EXPECT_EQ(qn_gguf_bool(g, "general.alignment", &b), QN_E_DATA);
        EXPECT_EQ(qn_gguf_array_strs(g, "t.ints", &strs, &n), QN_E_DATA);
        EXPECT_EQ(qn_gguf_array_f32(g, "t.ints", f, 1, &n), QN_E_DATA);
        EXPECT_EQ(qn_gguf_array_n(g, "t.bool", &n), QN_E_DATA);
        EXPECT_EQ(qn_gguf_u64(g, "t.none", &u), QN_E_NOT_FOUND);
        qn_gguf_close(g);
    }
    free(s.g.p);
}

TEST(gguf, integers_of_every_width_keep_their_sign_and_range) {
    static const struct { uint32_t type; int n; uint64_t bits; int as_u64, as_i64; uint64_t u; int64_t i; } all[] = {
        {0, 1, 255, 1, 1, 255, 255}, {1, 1, 0x80, 0, 1, 0, -128}, {1, 1, 0x7F, 1, 1, 127, 127}, {2, 2, 65535, 1, 1, 65535, 65535},
        {3, 2, 0x8000, 0, 1, 0, -32768}, {4, 4, 0xFFFFFFFF, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF}, {5, 4, 0xFFFFFFFF, 0, 1, 0, -1},
        {10, 8, UINT64_MAX, 1, 0, UINT64_MAX, 0}, {10, 8, INT64_MAX, 1, 1, INT64_MAX, INT64_MAX}, {11, 8, UINT64_MAX, 0, 1, 0, -1},
    };
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        struct tiny_gguf w;
        struct qn_gguf *g;
        uint64_t u = 0;
        int64_t i = 0;
        tiny_open(&w);
        tiny_key(&w, "k", all[k].type);
        tiny_put(&w, &all[k].bits, (size_t)all[k].n);
        tiny_close(&w);
        ASSERT_EQ(qn_gguf_parse(&g, w.p, w.n, NULL), 0);
        EXPECT_EQ(qn_gguf_u64(g, "k", &u), all[k].as_u64 ? 0 : QN_E_DATA);
        EXPECT_EQ(qn_gguf_i64(g, "k", &i), all[k].as_i64 ? 0 : QN_E_DATA);
        EXPECT(u == all[k].u && i == all[k].i);
        qn_gguf_close(g);
        free(w.p);
    }
}

#define TOP 0x8000000000000000ULL
static const struct bad { const char *kind; enum mark at; int bytes; uint64_t value; const char *says; } bad[] = {
    {"magic of another format", MAGIC, 4, 0x04034B50, "offset 0: not a GGUF file"},
    {"magic in lower case", MAGIC, 4, 0x66756767, "offset 0: not a GGUF file"},
    {"magic backwards", MAGIC, 4, 0x47475546, "offset 0: not a GGUF file"},
    {"version 0", VERSION, 4, 0, "offset 4: GGUF version 0"},
    {"version 1, whose counts are 32 bits", VERSION, 4, 1, "offset 4: GGUF version 1"},
    {"version 4", VERSION, 4, 4, "offset 4: GGUF version 4"},
    {"version of a big-endian file", VERSION, 4, 0x03000000, "big-endian"},
    {"version with its top bit", VERSION, 4, 0x80000003, "offset 4"},
    {"2^64 - 1 tensors", N_TENSORS, 8, UINT64_MAX, "offset 8: 18446744073709551615 tensors"},
    {"2^63 tensors, negative as a signed number", N_TENSORS, 8, TOP, "offset 8: "},
    {"2^61 tensors, whose table wraps", N_TENSORS, 8, 1ULL << 61, "offset 8: "},
    {"100,001 tensors", N_TENSORS, 8, 100001, "offset 8: 100001 tensors; the limit is 100000"},
    {"more tensors than the bytes hold", N_TENSORS, 8, 90, "bytes are left"},
    {"one tensor more than there is", N_TENSORS, 8, 4, "offset"},
    {"2^64 - 1 keys", N_KEYS, 8, UINT64_MAX, "offset 16: 18446744073709551615 keys"},
    {"2^60 keys, whose table wraps", N_KEYS, 8, 1ULL << 60, "offset 16: "},
    {"100,001 keys", N_KEYS, 8, 100001, "offset 16: 100001 keys; the limit is 100000"},
    {"more keys than the bytes hold", N_KEYS, 8, 80, "bytes are left"},
    {"one key more than there is", N_KEYS, 8, 8, "offset"},
    {"one key less than there is", N_KEYS, 8, 6, "offset"},
    {"key of no length", KEY_LEN, 8, 0, "offset 24: key"},
    {"key longer than the limit", KEY_LEN, 8, 65536, "offset 24: a key of 65536 bytes"},
    {"key longer than the file", KEY_LEN, 8, 60000, "offset 32: a key needs 60000 bytes"},
    {"key of 2^64 - 1 bytes", KEY_LEN, 8, UINT64_MAX, "offset 24: a key of"},
    {"key of 2^64 - 8 bytes, back to its own length", KEY_LEN, 8, UINT64_MAX - 7, "offset 24: a key of"},
    {"NUL in a key", KEY, 1, 0, "plain ASCII"},
    {"line feed in a key", KEY, 1, '\n', "plain ASCII"},
    {"escape in a key", KEY, 1, 0x1B, "plain ASCII"},
    {"byte above ASCII in a key", KEY, 1, 0xC3, "plain ASCII"},
    {"value type 13", KEY_TYPE, 4, 13, "unknown value type 13"},
    {"value type 2^32 - 1", KEY_TYPE, 4, UINT32_MAX, "unknown value type 4294967295"},
    {"string read as array", KEY_TYPE, 4, TINY_ARRAY, "general.architecture"},
    {"text longer than the file", TEXT_LEN, 8, 5000, "a string needs 5000 bytes"},
    {"text longer than the limit", TEXT_LEN, 8, (16u << 20) + 1, "a string of 16777217 bytes"},
    {"text of 2^63 bytes", TEXT_LEN, 8, TOP, "a string of 9223372036854775808 bytes"},
    {"text of 2^64 - 1 bytes", TEXT_LEN, 8, UINT64_MAX, "a string of"},
    {"alignment 0", ALIGN, 4, 0, "'general.alignment' is 0"},
    {"alignment 1", ALIGN, 4, 1, "'general.alignment' is 1"},
    {"alignment 4", ALIGN, 4, 4, "'general.alignment' is 4"},
    {"alignment 24", ALIGN, 4, 24, "'general.alignment' is 24"},
    {"alignment 33", ALIGN, 4, 33, "'general.alignment' is 33"},
    {"alignment 8192", ALIGN, 4, 8192, "'general.alignment' is 8192"},
    {"alignment 2^31", ALIGN, 4, 1u << 31, "'general.alignment' is 2147483648"},
    {"alignment 2^32 - 1", ALIGN, 4, UINT32_MAX, "'general.alignment' is 4294967295"},
    {"alignment as i32", ALIGN_TYPE, 4, TINY_I32, "'general.alignment' is not a u32"},
    {"alignment as f32", ALIGN_TYPE, 4, TINY_F32, "'general.alignment' is not a u32"},
    {"alignment 4096, which moves the data past the end", ALIGN, 4, 4096, "tensor"},
    {"bool of 2", BOOL, 1, 2, "'t.bool': a bool is neither 0 nor 1"},
    {"bool of 255", BOOL, 1, 255, "'t.bool': a bool is neither 0 nor 1"},
    {"bool of 3 in an array", BOOLS, 1, 3, "'t.bools': a bool is neither 0 nor 1"},
    {"array of arrays", STRS_ELEM, 4, TINY_ARRAY, "'t.strs': arrays of arrays"},
    {"array of type 13", STRS_ELEM, 4, 13, "'t.strs': unknown value type 13"},
    {"array of type 2^31", INTS_ELEM, 4, 1u << 31, "'t.ints': unknown value type 2147483648"},
    {"strings past the end", STRS_N, 8, 1000, "'t.strs': 1000 strings cannot fit"},
    {"10,000,001 strings", STRS_N, 8, 10000001, "'t.strs': 10000001 elements, the limit is 10000000"},
    {"2^60 strings, whose index wraps", STRS_N, 8, 1ULL << 60, "'t.strs': 1152921504606846976 elements"},
    {"2^64 - 1 strings", STRS_N, 8, UINT64_MAX, "'t.strs': 18446744073709551615 elements"},
    {"first string past the end", STR0_LEN, 8, 4000, "a string of an array needs 4000 bytes"},
    {"last string of 2^64 - 1 bytes", STR2_LEN, 8, UINT64_MAX, "a string of an array of"},
    {"numbers past the end", INTS_N, 8, 5000, "a value needs 20000 bytes"},
    {"10,000,001 numbers", INTS_N, 8, 10000001, "'t.ints': 10000001 elements"},
    {"2^62 numbers of 4 bytes", INTS_N, 8, 1ULL << 62, "'t.ints': 4611686018427387904 elements"},
    {"2^62 + 3 numbers of 4 bytes, 12 bytes when it wraps", INTS_N, 8, (1ULL << 62) + 3, "'t.ints': "},
    {"2^63 bools", BOOLS_N, 8, TOP, "'t.bools': "},
    {"tensor name of no length", T0_LEN, 8, 0, "tensor name"},
    {"tensor name of 64 bytes", T0_LEN, 8, 64, "a tensor name of 64 bytes, the limit is 63"},
    {"tensor name of 2^64 - 1 bytes", T0_LEN, 8, UINT64_MAX, "a tensor name of"},
    {"NUL in a tensor name", T0_NAME, 1, 0, "plain ASCII"},
    {"tensor of 0 dimensions", T0_DIMS, 4, 0, "'a.weight' has 0 dimensions"},
    {"tensor of 5 dimensions", T0_DIMS, 4, 5, "'a.weight' has 5 dimensions"},
    {"tensor of 2^32 - 1 dimensions", T0_DIMS, 4, UINT32_MAX, "'a.weight' has 4294967295 dimensions"},
    {"dimension 0 of 0", T0_DIM0, 8, 0, "'a.weight': dimension 0 is 0"},
    {"dimension 1 of 0", T0_DIM1, 8, 0, "'a.weight': dimension 1 is 0"},
    {"dimension of 2^64 - 1", T0_DIM0, 8, UINT64_MAX, "'a.weight': its dimensions overflow"},
    {"dimension of 2^63", T0_DIM0, 8, TOP, "'a.weight': its dimensions overflow"},
    {"dimension of 2^62, 0 when multiplied by 4 bytes", T0_DIM0, 8, 1ULL << 62, "'a.weight': its dimensions overflow"},
    {"dimensions whose product wraps to 8", T0_DIM1, 8, (1ULL << 62) + 2, "'a.weight': its dimensions overflow"},
    {"tensor of 2^45 elements", T0_DIM0, 8, 1ULL << 44, "lie past the end of the file"},
    {"rows that are not whole blocks of 256", T1_DIM0, 8, 255, "'b.weight': rows of 255 elements are not whole Q4_K blocks"},
    {"rows that are not whole blocks of 32", T2_DIM0, 8, 48, "'c.weight': rows of 48 elements are not whole Q8_0 blocks"},
    {"removed type 4", T0_TYPE, 4, 4, "'a.weight' has type 4 (unknown), which is not supported"},
    {"type that is not read", T1_TYPE, 4, 23, "'b.weight' has type 23 (IQ4_XS), which is not supported"},
    {"type of activations only", T1_TYPE, 4, 15, "(Q8_K)"},
    {"type 2^32 - 1", T2_TYPE, 4, UINT32_MAX, "'c.weight' has type 4294967295"},
    {"offset that is not aligned", T1_AT, 8, 33, "'b.weight': offset 33 is not a multiple of the alignment 32"},
    {"offset past the end", T2_AT, 8, 1 << 20, "'c.weight': bytes"},
    {"last byte past the end", T2_AT, 8, 224, "lie past the end of the file"},
    {"offset of 2^64 - 32, before the data when it wraps", T2_AT, 8, UINT64_MAX - 31, "'c.weight': offset 18446744073709551584 overflows"},
    {"offset of 2^63", T2_AT, 8, TOP, "'c.weight': bytes"},
    {"one more row than the data has", T2_DIM1, 8, 4, "'c.weight': bytes"},
    {"tensors at one offset", T1_AT, 8, 0, "overlap"},
    {"tensors that overlap by one block", T2_AT, 8, 160, "tensors 'b.weight' and 'c.weight' overlap"},
    {"tensor that covers the one after it", T0_DIM1, 8, 3, "tensors 'a.weight' and 'b.weight' overlap"},
    {"two tensors of one name", T1_NAME, 1, 'a', "tensor 'a.weight' appears twice"},
};
enum { N_BAD = sizeof bad / sizeof *bad };

TEST(gguf, each_way_to_break_a_file_is_refused_with_its_place) {
    _Static_assert(N_BAD >= 60, "the kinds that issue reports and CVEs name");
    for (int i = 0; i < N_BAD; i++) {
        struct sound s = build();
        struct qn_gguf *g = NULL;
        struct qn_err err = {0};
        memcpy(s.g.p + s.at[bad[i].at], &bad[i].value, (size_t)bad[i].bytes);
        int64_t t0 = qn_clock_ns();
        int rc = parse_exact(s.g.p, s.g.n, &g, &err);
        EXPECT(qn_clock_ns() - t0 < QN_S);
        if ((rc != QN_E_DATA && rc != QN_E_UNSUPPORTED) || g || !strstr(err.text, bad[i].says))
            qn_test_fail(__FILE__, __LINE__, "%s: code %d, \"%s\", wanted \"%s\"", bad[i].kind, rc, err.text, bad[i].says);
        else if (!strpbrk(err.text, "0123456789'")) qn_test_fail(__FILE__, __LINE__, "%s: \"%s\" names no place", bad[i].kind, err.text);
        free(s.g.p);
    }
}

TEST(gguf, a_file_cut_anywhere_is_refused) {
    struct sound s = build();
    for (size_t n = 0; n < s.g.n; n++) {
        struct qn_gguf *g = NULL;
        struct qn_err err = {0};
        int rc = parse_exact(s.g.p, n, &g, &err);
        if (rc != QN_E_DATA || !err.text[0]) qn_test_fail(__FILE__, __LINE__, "cut to %zu bytes: %d %s", n, rc, err.text);
    }
    free(s.g.p);
}

TEST(gguf, a_key_given_twice_is_refused_whatever_its_type) {
    struct tiny_gguf w;
    struct qn_gguf *g;
    struct qn_err err = {0};
    tiny_open(&w);
    tiny_kv_u32(&w, "llama.block_count", 2);
    tiny_kv_str(&w, "general.name", "x");
    tiny_kv_str(&w, "llama.block_count", "2");
    tiny_close(&w);
    EXPECT_EQ(qn_gguf_parse(&g, w.p, w.n, &err), QN_E_DATA);
    EXPECT_STR(err.text, "key 'llama.block_count' appears twice");
    free(w.p);
}

/* Bounded by the file, not by what it claims. */
TEST(gguf, claims_cost_no_memory) {
    struct rlimit r = {256 << 20, 256 << 20};
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    ASSERT_EQ(setrlimit(RLIMIT_AS, &r), 0);
#endif
    (void)r;
    static const enum mark counts[] = {N_TENSORS, N_KEYS, KEY_LEN, TEXT_LEN, STRS_N, STR0_LEN, INTS_N, BOOLS_N, T0_LEN, T0_DIM0};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (int bit = 8; bit < 64; bit++) {
            struct sound s = build();
            struct qn_gguf *g = NULL;
            struct qn_err err = {0};
            memcpy(s.g.p + s.at[counts[i]], &(uint64_t){1ULL << bit}, 8);
            int rc = qn_gguf_parse(&g, s.g.p, s.g.n, &err);
            if (rc != QN_E_DATA) qn_test_fail(__FILE__, __LINE__, "mark %d, 2^%d: %d %s", (int)counts[i], bit, rc, err.text);
            free(s.g.p);
        }
}

TEST(gguf, many_keys_and_tensors_are_read_in_no_time) {
    enum { N = 20000 };
    struct tiny_gguf w;
    struct qn_gguf *g;
    struct qn_err err = {0};
    char name[64];
    tiny_open(&w);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "k.%d", i);
        tiny_kv_u32(&w, name, (uint32_t)i);
    }
    for (int i = 0; i < N; i++) {
        int n = snprintf(name, sizeof name, "t.%d", i);
        tiny_text(&w, name, (size_t)n);
        tiny_u32(&w, 1), tiny_u64(&w, 8), tiny_u32(&w, QN_F32), tiny_u64(&w, 32ULL * (uint64_t)(N - 1 - i));
    }
    memcpy(w.p + 8, &(uint64_t){N}, 8);
    tiny_close(&w);
    for (int i = 0; i < N * 8; i++) tiny_u32(&w, 0);
    int64_t t0 = qn_clock_ns();
    ASSERT_EQ(qn_gguf_parse(&g, w.p, w.n, &err), 0);
    EXPECT(qn_clock_ns() - t0 < QN_S);
    uint64_t v = 0;
    EXPECT_EQ(qn_gguf_u64(g, "k.12345", &v), 0);
    EXPECT_EQ(v, 12345);
    EXPECT(qn_gguf_tensor(g, "t.777") == qn_gguf_tensor_at(g, 777));
    qn_gguf_close(g);
    free(w.p);
}

TEST(gguf, what_is_no_model_file_is_refused_by_name) {
    struct qn_gguf *g = NULL;
    struct { const char *path; int code; const char *says; } all[] = {
        {"tests/none.gguf", QN_E_NOT_FOUND, "model file 'tests/none.gguf': cannot open: No such file"},
        {"tests", QN_E_DATA, "model file 'tests': not a regular file"},
        {"/dev/null", QN_E_DATA, "not a regular file"},
        {"Makefile", QN_E_DATA, "offset 0: not a GGUF file"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct qn_err err = {0};
        EXPECT_EQ(qn_gguf_open(&g, all[i].path, &err), all[i].code);
        if (!strstr(err.text, all[i].says)) EXPECT_STR(err.text, all[i].says);
    }
    char path[] = "/tmp/quern-gguf-XXXXXX", fifo[64];
    int fd = mkstemp(path);
    ASSERT(fd >= 0);
    close(fd);
    struct qn_err err = {0};
    EXPECT_EQ(qn_gguf_open(&g, path, &err), QN_E_DATA);
    EXPECT(strstr(err.text, "empty") != NULL);
    unlink(path);
    snprintf(fifo, sizeof fifo, "%s.fifo", path);
    ASSERT_EQ(mkfifo(fifo, 0600), 0);
    EXPECT_EQ(qn_gguf_open(&g, fifo, NULL), QN_E_DATA); /* and does not wait for a writer */
    unlink(fifo);
}

/* A vocabulary of 151,936 tokens and as many merges; 262,144 tokens. */
TEST(gguf, large_vocabularies_open_in_milliseconds) {
    static const char *const names[] = {"qwen2.5-coder-0.5b-instruct-q4_k_m", "gemma-3-270m-q4_k_m"};
    static const uint64_t tokens[] = {151936, 262144};
    for (int i = 0; i < 2; i++) {
        struct qn_gguf *g;
        struct qn_err err = {0};
        const char *path = client_model(names[i]);
        ASSERT(path != NULL);
        int64_t best = INT64_MAX;
        for (int turn = 0; turn < 5; turn++) {
            int64_t t0 = qn_clock_ns();
            ASSERT_EQ(qn_gguf_open(&g, path, &err), 0);
            int64_t t = qn_clock_ns() - t0;
            best = t < best ? t : best;
            const struct qn_str *strs;
            uint64_t n = 0;
            EXPECT_EQ(qn_gguf_array_strs(g, "tokenizer.ggml.tokens", &strs, &n), 0);
            EXPECT_EQ(n, tokens[i]);
            qn_gguf_close(g);
        }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        EXPECT(best < 30 * QN_MS);
#endif
        printf("    %s: %.1f ms\n", names[i], (double)best / 1e6);
    }
}
