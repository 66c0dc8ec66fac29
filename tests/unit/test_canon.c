/* canon: answers that people and models write in many ways, and what they say. The numbers' forms follow the answer extraction of
 * the published evaluations on GSM8K ("#### 1,234", "The answer is $18.") and MATH (\boxed{}). */
#include "api/canon.h"
#include "tests/run.h"

static void same(enum qn_answer_kind kind, const char *text, const char *want) {
    struct qn_buf out;
    qn_buf_init(&out, 4096);
    int rc = qn_canon_answer(kind, text, strlen(text), &out);
    if (rc != (want != NULL) || (want && (out.n != strlen(want) || memcmp(out.p, want, out.n))))
        qn_test_fail(__FILE__, __LINE__, "'%s' says %d '%.*s', wanted '%s'", text, rc, (int)out.n, out.n ? out.p : "", want ? want : "nothing");
    qn_buf_done(&out);
}

TEST(canon, numbers) {
    static const char *const cases[][2] = {
        {"The answer is 42.", "42"}, {"#### 1,234", "1234"}, {"So she pays $18.00 in all.", "18"}, {"= 1,234,567.890", "1234567.89"},
        {"It is 25%.", "25"}, {"x = -3", "-3"}, {"10-3", "3"}, {"10 - 3", "3"}, {"The change: -$5", "-5"}, {"\xe2\x88\x92""7", "-7"}, {"costs \xe2\x82\xac""9", "9"},
        {"0042", "42"}, {"0", "0"}, {"-0.00", "0"}, {".5", "0.5"}, {"0.50", "0.5"}, {"3 apples and 12 pears", "12"}, {"H2O", NULL}, {"none", NULL}, {"", NULL},
        {"1,23", "23"}, {"12,3456", "3456"}, {"$\\boxed{7}$ and not 8", "7"}, {"\\boxed{\\frac{1}{2}} \\boxed{\\text{about } 1,000}", "1000"}, {"\\boxed{oops 5", "5"},
        {"9007199254740993", "9007199254740993"}, {"**12**", "12"}, {"5km", "5"}, {"v. 1.2.3", "3"}, {"100", "100"}, {"100.", "100"}, {"10.0", "10"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) same(QN_ANSWER_NUMBER, cases[i][0], cases[i][1]);
}

TEST(canon, json_and_text) {
    same(QN_ANSWER_JSON, " {\"b\": [1, 2.5], \"a\": \"\\u00e9\"} ", "{\"a\":\"\xc3\xa9\",\"b\":[1,2.5]}");
    same(QN_ANSWER_JSON, "Here:\n```json\n{\"b\":1,\"a\":null}\n```\nDone.", "{\"a\":null,\"b\":1}");
    same(QN_ANSWER_JSON, "true", "true");
    same(QN_ANSWER_JSON, "{\"a\":", NULL);
    same(QN_ANSWER_TEXT, "\n Paris \t", "Paris");
    same(QN_ANSWER_TEXT, "", "");
    same(QN_ANSWER_AUTO, "{\"z\":0,\"a\":[]}", "{\"a\":[],\"z\":0}");
    same(QN_ANSWER_AUTO, "12", "12"); /* no object: a number */
    same(QN_ANSWER_AUTO, "The capital is Paris.", "The capital is Paris.");
    same(QN_ANSWER_AUTO, "so \\boxed{ \\text{A} }", "\\text{A}");
}
