/* The template interpreter: 850 small cases whose results Jinja2 made (tests/vectors/jinja/cases.json), marks of trust
 * through every operation, and hostile templates that must end in an error value, soon. */
#include <jansson.h>
#include <time.h>

#include "api/jinja.h"
#include "tests/run.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int render_with(const char *text, const json_t *vars, const json_t *trusted, const struct qn_jinja_limits *lim, struct qn_rendered *out, struct qn_err *err) {
    struct qn_jinja *t = NULL;
    int rc = qn_jinja_compile(&t, text, strlen(text), err);
    if (rc == 0) rc = qn_jinja_render(t, vars, trusted, 1760000000, lim, out, err);
    qn_jinja_free(t);
    return rc;
}

/* The text with trusted bytes as they are and every other byte as '.'. */
static const char *trust_map(const char *text, const char *vars_json) {
    static char map[4096];
    struct qn_rendered r = {0};
    struct qn_err err = {0};
    json_t *vars = json_loads(vars_json, 0, NULL), *trusted = json_pack("{ss}", "bos", "<s>");
    map[0] = 0;
    if (render_with(text, vars, trusted, NULL, &r, &err) < 0) snprintf(map, sizeof map, "error: %s", err.text);
    else {
        memset(map, '.', r.text.n);
        map[r.text.n] = 0;
        for (size_t i = 0; i < r.n_trusted; i++) {
            EXPECT(r.trusted[i].from < r.trusted[i].to && r.trusted[i].to <= r.text.n);
            EXPECT(i == 0 || r.trusted[i].from > r.trusted[i - 1].to); /* ascending and merged */
            memcpy(map + r.trusted[i].from, r.text.p + r.trusted[i].from, r.trusted[i].to - r.trusted[i].from);
        }
    }
    qn_rendered_done(&r);
    json_decref(vars);
    json_decref(trusted);
    return map;
}

TEST(jinja, agrees_with_jinja2_on_the_case_table) {
    json_error_t e;
    json_t *all = json_load_file("tests/vectors/jinja/cases.json", JSON_ALLOW_NUL, &e), *c;
    if (!all) fprintf(stderr, "tests/vectors/jinja/cases.json: %s (run from the top folder)\n", e.text);
    ASSERT(all);
    json_t *vars = json_object_get(all, "vars");
    size_t i, n = 0;
    json_array_foreach(json_object_get(all, "cases"), i, c) {
        struct qn_rendered r = {0};
        struct qn_err err = {0};
        const char *text = json_string_value(json_object_get(c, "template"));
        json_t *want = json_object_get(c, "want");
        int rc = render_with(text, vars, NULL, NULL, &r, &err);
        n++;
        if (!want) {
            if (rc >= 0) qn_test_fail(__FILE__, __LINE__, "%s: rendered, Jinja2 raises %s", text, json_string_value(json_object_get(c, "raises")));
            else EXPECT(err.code == rc && err.text[0]);
        } else if (rc < 0) {
            qn_test_fail(__FILE__, __LINE__, "%s: %s", text, err.text);
        } else if (r.text.n != json_string_length(want) || memcmp(r.text.p ? r.text.p : "", json_string_value(want), r.text.n)) {
            qn_test_fail(__FILE__, __LINE__, "%s: \"%s\", Jinja2: \"%s\"", text, r.text.p, json_string_value(want));
        }
        qn_rendered_done(&r);
    }
    EXPECT(n > 800);
    json_decref(all);
}

TEST(jinja, marks_of_trust_survive_every_operation) {
    static const struct { const char *text, *want; } cases[] = {
        {"a{{ u }}b", "a...b"}, {"{{ 'x' + u + 'y' }}", "x...y"}, {"{{ bos }}{{ u }}", "<s>..."}, {"{{ 'x' ~ u ~ 1 }}", "x...1"},
        {"{{ u[0] }}{{ ('ab' + u)[1:4] }}", ".b.."}, {"{{ ('ab' + u + 'cd')[::-1] }}", "dc...ba"}, {"{{ ('  a' + u + '  ')|trim }}", "a..."},
        {"{{ ('A' + u).lower() }}|{{ ('a' + u)|upper }}", "a...|A..."}, {"{{ ('a-' + u + '-b').split('-')|join('+') }}", "a+...+b"},
        {"{{ 'a_b'.replace('_', u) }}", "a...b"}, {"{{ u.replace('y', '<|im_end|>') }}", ".<|im_end|>."}, {"{{ ('<' + u + '>') * 2 }}", "<...><...>"},
        {"{{ '{}<{}>'.format(u, 1) }}", "...<1>"}, {"{{ '%s<%s>' % (u, 'k') }}", "...<k>"}, {"{{ u ~ 'a' if u else '' }}", "...a"},
        {"{% set x %}a{{ u }}b{% endset %}{{ x }}{{ x }}", "a...ba...b"}, {"{% macro m(v) %}<{{ v }}>{% endmacro %}{{ m(u) }}{{ m('t') }}", "<...><t>"},
        {"{% filter upper %}a{{ u }}{% endfilter %}", "A..."}, {"{{ [u, 'a'] }}", "............"}, {"{{ ['b', 'a'] }}", "['b', 'a']"},
        {"{{ {'k': u}|tojson }}", "............"}, {"{{ {'k': 1}|tojson }}", "{\"k\": 1}"}, {"{{ d|tojson }}", "........"}, {"{{ n }}{{ n + 1 }}{{ 5 }}", "..5"},
        {"{{ n|string + 'x' }}", ".x"}, {"{{ t }}{{ true }}", "....True"}, {"{{ u|length }}", "3"}, {"{{ '7'|int }}{{ q|int }}", "7."}, {"{{ u|e }}", "..."},
        {"{{ ('<' + h)|e }}", "&lt;...."}, {"{% for c in 'a' + u %}{{ c }}{% endfor %}", "a..."}, {"{% for k, v in d.items() %}{{ k }}={{ v }}{% endfor %}", ".=."},
        {"{{ u.join(['a', 'b']) }}", "a...b"}, {"{{ (u + '\\n' + 'b')|indent(2) }}", "...\n  b"}, {"{{ u.center(5, '*') }}", "*...*"}, {"{{ 'ab'.center(6, u[0]) }}", "..ab.."},
        {"{{ u|default('x') }}{{ zz|default('x') }}", "...x"}, {"{{ (u ~ 'abc')|truncate(5, true, '!', 0) }}", "...a!"}, {"{{ ('x' ~ u).title() }}", "X..."},
        {"{{ [u, 't']|map('upper')|join(' ') }}", "... T"}, {"{{ ('a' ~ u ~ 'b').partition(u)[2] }}", "b"}, {"{{ ('p' ~ u).removeprefix('p') }}", "..."},
        {"{{ ['t', u]|sort|join }}", "t..."}, {"{{ ('a\\t' ~ u).expandtabs(4) }}", "a   ..."}, {"{{ u|replace('x', 'a')|replace('a', 'b') }}", "b.."},
        {"{% set ns = namespace(s='') %}{% for i in range(40) %}{% set ns.s = ns.s + 't' + u %}{% endfor %}{{ ns.s[:8] }}{{ ns.s[-5:] }}", "t...t....t..."},
        {"{% set a = 'x' * 200 %}{% set b = a + u %}{% set c = a + 'T' %}{% set d2 = b + 'E' %}{{ b[-4:] }}{{ c[-2:] }}{{ d2[-5:] }}{{ b[-4:] }}", "x...xTx...Ex..."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *got = trust_map(cases[i].text, "{\"u\": \"xyz\", \"d\": {\"k\": 1}, \"n\": 5, \"t\": true, \"q\": \"5\", \"h\": \"<\"}");
        if (strcmp(got, cases[i].want)) qn_test_fail(__FILE__, __LINE__, "%s: \"%s\", wanted \"%s\"", cases[i].text, got, cases[i].want);
    }
}

/* A template that must fail with `code` within a second. */
static void bomb(int line, const char *text, int code) {
    struct qn_rendered r = {0};
    struct qn_err err = {0};
    json_t *vars = json_pack("{s[i]s{si}}", "l", 1, "d", "a", 1);
    double t = now();
    int rc = render_with(text, vars, NULL, NULL, &r, &err);
    t = now() - t;
    if (rc != code) qn_test_fail(__FILE__, line, "%.60s: %d, wanted %d (%s)", text, rc, code, err.text);
    if (t > 8.0) qn_test_fail(__FILE__, line, "%.60s: %.1f s", text, t); /* half a second at most; sanitizers are slower */
    qn_rendered_done(&r);
    json_decref(vars);
}
#define BOMB(text, code) bomb(__LINE__, text, code)

TEST_SLOW(jinja, bombs_end_in_an_error_value, 120) {
    BOMB("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", QN_E_LIMIT);
    BOMB("{{ 'a' * 1000000000 }}", QN_E_LIMIT);
    BOMB("{{ 'a' * 10000000000000 }}", QN_E_LIMIT);
    BOMB("{{ ('a' * 60000000)|length }}{{ ('a' * 60000000)|length }}", QN_E_LIMIT);
    BOMB("{{ [1] * 100000000 }}", QN_E_LIMIT);
    BOMB("{{ [1] * 100000000000 }}", QN_E_LIMIT);
    BOMB("{{ range(1000000000) }}", QN_E_LIMIT);
    BOMB("{{ '%9999999999d' % 1 }}", QN_E_LIMIT);
    BOMB("{{ '%99999d' % 1 }}{{ '{:99999d}'.format(1) }}", 0);
    BOMB("{{ 'x'.center(1000000000) }}", QN_E_LIMIT);
    BOMB("{{ 'x'|indent(1000000000, true) }}", QN_E_LIMIT);
    BOMB("{{ [[1]]|tojson(indent=100000000) }}", QN_E_LIMIT);
    BOMB("{{ [1]|batch(1000000000, 0)|list }}", QN_E_LIMIT);
    BOMB("{{ [1]|slice(1000000000, 0)|list }}", QN_E_LIMIT);
    BOMB("{% for i in range(100000) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}", QN_E_LIMIT);
    BOMB("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", QN_E_LIMIT);
    BOMB("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}", QN_E_LIMIT);
    BOMB("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", QN_E_LIMIT);
    BOMB("{% for x in l recursive %}{{ loop(l) }}{% endfor %}", QN_E_LIMIT);
    BOMB("{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s|replace('a', 'aa') %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l, ns.l] %}{% endfor %}{{ ns.l }}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == ns.l + [] }}{{ ns.l|tojson }}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(l=[1]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(l=[1]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l|tojson }}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(40000) %}{% set ns.l = [ns.l] %}{% set ns.m = [ns.m] %}{% endfor %}{{ ns.l == ns.m }}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(l=(1,)) %}{% for i in range(90000) %}{% set ns.l = (ns.l,) %}{% endfor %}{{ {ns.l: 1} }}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(a=1) %}{% set ns.a = ns %}{{ ns }}", QN_E_LIMIT);
    BOMB("{% set ns = namespace(a=1) %}{% set ns.a = [ns] %}{{ ns.a|tojson }}", QN_E_LIMIT);
    BOMB("{{ (('ab' * 200000) + 'c').count('ba' * 100000) }}{% for i in range(100000) %}{{ ('a' * 100000).find('b') }}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% if s.rfind('b') > 0 %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% if s.upper() == s.lower() %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set s = ' ' * 1000000 %}{% for i in range(100000) %}{% if s.strip() %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set s = 'a ' * 500000 %}{% for i in range(100000) %}{% if s.split() %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% if s.rsplit('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab', 1) %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% if s|e %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% if [s]|string %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% if s.strip('b') == 'b' * 1000000 %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set s = 'é' * 1000000 %}{% for i in range(100000) %}{% if s[500000] %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set l = range(100000)|list %}{% for i in range(100000) %}{% if -1 in l %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% set l = range(90000)|list %}{% for i in range(100000) %}{% if l|sort|reverse %}{% endif %}{% endfor %}", QN_E_LIMIT);
    BOMB("{% macro m() %}{{ kwargs|length }}{% endmacro %}{% set d = dict.fromkeys(range(20000)|map('string')|list, 1) %}{{ m(**d) }}", QN_E_LIMIT);
    BOMB("{% set d = dict.fromkeys(range(20000)|map('string')|list, 1) %}{{ ('{a}' * 20000).format_map(d) }}", QN_E_DATA);
    BOMB("{% set d = dict.fromkeys(range(20000)|map('string')|list, 1) %}{{ ('{19999}' * 20000).format_map(d) }}", QN_E_DATA);
    BOMB("{% set d = dict.fromkeys(['a'] + range(20000)|map('string')|list + ['b'], 1) %}{{ ('{b}' * 20000).format_map(d) }}", QN_E_LIMIT);
    BOMB("{% set x = 2 ** 63 %}", QN_E_DATA);
    BOMB("{{ 9223372036854775807 + 1 }}", QN_E_DATA);
    BOMB("{{ (-9223372036854775807 - 1) // -1 }}", QN_E_DATA);
    BOMB("{{ (-9223372036854775807 - 1) % -1 }}{{ (-9223372036854775807 - 1)|abs }}", QN_E_DATA);
    BOMB("{{ 10 ** 1000000 }}", QN_E_DATA);
    BOMB("{{ 1e300 * 1e300 }}{{ 1e308|int }}", QN_E_DATA);
}

static char *repeat(const char *head, const char *what, size_t times, const char *tail) {
    size_t n = strlen(what), h = strlen(head), t = strlen(tail);
    char *s = malloc(h + n * times + t + 1), *p = s + h;
    memcpy(s, head, h);
    for (size_t i = 0; i < times; i++, p += n) memcpy(p, what, n);
    memcpy(p, tail, t + 1);
    return s;
}

TEST_SLOW(jinja, deep_templates_are_refused_not_overflowed, 60) {
    static const struct { const char *head, *what, *tail; } deep[] = {
        {"{{ ", "(", " }}"}, {"{{ ", "[", " }}"}, {"{{ ", "{1:", " }}"}, {"{{ ", "-", "1 }}"}, {"{{ ", "not ", "1 }}"}, {"{{ x", "[0]", " }}"}, {"{{ x", ".a", " }}"},
        {"{{ x", "()", " }}"}, {"{{ x", "|e", " }}"}, {"{{ x", " is defined", " }}"}, {"{{ ", "f(", " }}"}, {"{{ 1", " if 1 else 1", " }}"}, {"{{ ", "x[", " }}"},
        {"", "{% if x %}", ""}, {"", "{% for x in y %}", ""}, {"", "{% macro m() %}", ""}, {"", "{% filter e %}", ""}, {"", "{% set x %}", ""}, {"", "{% call f() %}", ""},
        {"{% set ", "(", " = 1 %}"}, {"{{ 1", " + 1", " }}"}, {"{{ 1", " and 1", " }}"}, {"{{ 1", " ** 1", " }}"}, {"{{ ", "'a' is eq ", "1 }}"},
    };
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++) {
        char *s = repeat(deep[i].head, deep[i].what, 60000, deep[i].tail);
        struct qn_rendered r = {0};
        struct qn_err err = {0};
        double t = now();
        int rc = render_with(s, NULL, NULL, NULL, &r, &err);
        t = now() - t;
        if (rc >= 0 || t > 8) qn_test_fail(__FILE__, __LINE__, "%s%s…: %d in %.1f s", deep[i].head, deep[i].what, rc, t);
        qn_rendered_done(&r);
        free(s);
    }
}

TEST(jinja, refuses_what_reaches_other_templates) {
    static const char *const texts[] = {"{% include 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% extends 'x' %}", "{% block b %}{% endblock %}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct qn_rendered r = {0};
        struct qn_err err = {0};
        EXPECT_EQ(render_with(texts[i], NULL, NULL, NULL, &r, &err), QN_E_UNSUPPORTED);
        EXPECT(strstr(err.text, "line 1"));
    }
}

TEST(jinja, errors_say_what_and_where) {
    static const struct { const char *text; int code; const char *says; } cases[] = {
        {"a\n\n{{ 1 + }}", QN_E_DATA, "line 3"}, {"a\n{% nope %}", QN_E_DATA, "line 2: Encountered unknown tag 'nope'"}, {"{{ x.y.z }}", QN_E_DATA, "'x' is undefined"},
        {"\n{{ l.q.z }}", QN_E_DATA, "line 2: 'list object' has no attribute 'q'"}, {"{{ raise_exception('No\nway') }}", QN_E_RAISED, "No way"},
        {"{{ 'a' + 1 }}", QN_E_DATA, "can only concatenate str"}, {"{{ x|nope }}", QN_E_UNSUPPORTED, "No filter named 'nope'"}, {"{{ l.append(1) }}", QN_E_DATA, "unsafe"},
        {"\xff", QN_E_DATA, "UTF-8"}, {"{{ 99999999999999999999 }}", QN_E_UNSUPPORTED, "64 bits"}, {"{{ 'x'.encode() }}", QN_E_UNSUPPORTED, "not supported"},
    };
    json_t *vars = json_pack("{s[]}", "l");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qn_rendered r = {0};
        struct qn_err err = {0};
        EXPECT_EQ(render_with(cases[i].text, vars, NULL, NULL, &r, &err), cases[i].code);
        if (!strstr(err.text, cases[i].says)) qn_test_fail(__FILE__, __LINE__, "%s: \"%s\" lacks \"%s\"", cases[i].text, err.text, cases[i].says);
    }
    json_decref(vars);
}

TEST(jinja, limits_are_the_callers) {
    struct qn_rendered r = {0};
    struct qn_err err = {0};
    struct qn_jinja_limits lim = {.out_bytes = 10};
    EXPECT_EQ(render_with("{{ 'x' * 10 }}", NULL, NULL, &lim, &r, &err), 0);
    EXPECT_EQ(r.text.n, 10);
    qn_rendered_done(&r);
    EXPECT_EQ(render_with("{{ 'x' * 11 }}", NULL, NULL, &lim, &r, &err), QN_E_LIMIT);
    lim = (struct qn_jinja_limits){.depth = 3};
    err.code = 0;
    EXPECT_EQ(render_with("{% macro m(n) %}{{ n }}{% if n > 1 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", NULL, NULL, &lim, &r, &err), 0);
    EXPECT_STR(r.text.p, "321");
    qn_rendered_done(&r);
    EXPECT_EQ(render_with("{% macro m(n) %}{{ n }}{% if n > 1 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(4) }}", NULL, NULL, &lim, &r, &err), QN_E_LIMIT);
    lim = (struct qn_jinja_limits){.steps = 100};
    err.code = 0;
    EXPECT_EQ(render_with("{% for i in range(10) %}{{ i }}{% endfor %}", NULL, NULL, &lim, &r, &err), 0);
    qn_rendered_done(&r);
    EXPECT_EQ(render_with("{% for i in range(100) %}{{ i }}{% endfor %}", NULL, NULL, &lim, &r, &err), QN_E_LIMIT);
    lim = (struct qn_jinja_limits){.memory_bytes = 100000};
    err.code = 0;
    EXPECT_EQ(render_with("{{ ('x' * 50000)|length }}", NULL, NULL, &lim, &r, &err), QN_E_LIMIT);
}

TEST(jinja, long_conversations_fit_the_default_limits) { /* 8 MiB of body is the server's limit, 4 MiB of output ours */
    json_t *messages = json_array();
    char *big = repeat("", "some words of a long document; ", 4000, "");
    for (int i = 0; i < 30; i++) json_array_append_new(messages, json_pack("{ssss}", "role", i % 2 ? "assistant" : "user", "content", big));
    for (int i = 0; i < 1000; i++) json_array_append_new(messages, json_pack("{ssss}", "role", i % 2 ? "assistant" : "user", "content", "short"));
    json_t *vars = json_pack("{so}", "messages", messages);
    struct qn_rendered r = {0};
    struct qn_err err = {0};
    int rc = render_with("{% set ns = namespace(all='') %}{% for m in messages %}{% set c = m.content|trim %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}"
                         "{% set ns.all = ns.all + '<|im_start|>' + m.role + c + '<|im_end|>' %}{% endfor %}{{ ns.all }}", vars, NULL, NULL, &r, &err);
    if (rc < 0) qn_test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT(r.text.n > 3500000);
    EXPECT_EQ(r.n_trusted, 1031);
    qn_rendered_done(&r);
    json_decref(vars);
    free(big);
}

TEST(jinja, knows_which_globals_a_template_reads) {
    struct qn_jinja *t = NULL;
    const char *text = "{% if enable_thinking is defined %}{{ x.tools }}{% endif %}{% set y = 1 %}{{ f(k=1) }}";
    ASSERT_EQ(qn_jinja_compile(&t, text, strlen(text), NULL), 0);
    EXPECT_EQ(qn_jinja_mentions(t, "enable_thinking"), 1);
    EXPECT_EQ(qn_jinja_mentions(t, "x"), 1);
    EXPECT_EQ(qn_jinja_mentions(t, "tools"), 0);
    EXPECT_EQ(qn_jinja_mentions(t, "k"), 0);
    qn_jinja_free(t);
}

TEST(jinja, twenty_messages_take_well_under_a_millisecond) {
    json_t *messages = json_array();
    for (int i = 0; i < 20; i++)
        json_array_append_new(messages, json_pack("{ssss}", "role", i % 2 ? "assistant" : "user", "content", "A message of usual length, with some words in it, and then a few more words."));
    json_t *vars = json_pack("{sosnsb}", "messages", messages, "tools", "add_generation_prompt", 1);
    const char *text =
        "{%- if tools %}{{ tools|tojson }}{%- endif %}{%- set ns = namespace(last=messages|length - 1) %}{%- for m in messages[::-1] %}{%- set i = messages|length - 1 - loop.index0 %}"
        "{%- if m.role == 'user' and m.content is string and not(m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}{%- set ns.last = i %}{%- break %}{%- endif %}"
        "{%- endfor %}{%- for m in messages %}{%- if m.content is string %}{%- set c = m.content %}{%- else %}{%- set c = '' %}{%- endif %}{%- if m.role == 'user' or m.role == 'system' and not loop.first %}"
        "{{- '<|im_start|>' + m.role + '\\n' + c + '<|im_end|>' + '\\n' }}{%- elif m.role == 'assistant' %}{%- set r = '' %}{%- if m.reasoning_content is string %}{%- set r = m.reasoning_content %}{%- else %}"
        "{%- if '</think>' in c %}{%- set r = c.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{%- set c = c.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{%- endif %}"
        "{%- if loop.index0 > ns.last %}{{- '<|im_start|>' + m.role + '\\n<think>\\n' + r.strip('\\n') + '\\n</think>\\n\\n' + c.lstrip('\\n') }}{%- else %}{{- '<|im_start|>' + m.role + '\\n' + c }}{%- endif %}"
        "{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
    struct qn_jinja *t = NULL;
    struct qn_err err = {0};
    ASSERT_EQ(qn_jinja_compile(&t, text, strlen(text), &err), 0);
    double best = 1e9;
    for (int i = 0; i < 200; i++) {
        struct qn_rendered r = {0};
        double at = now();
        ASSERT_EQ(qn_jinja_render(t, vars, NULL, 0, NULL, &r, &err), 0);
        at = now() - at;
        if (at < best) best = at;
        qn_rendered_done(&r);
    }
    printf("20 messages: %.3f ms\n", best * 1e3);
    EXPECT(best < 1e-3 * (getenv("QN_BUILD") && strstr(getenv("QN_BUILD"), "release") ? 1 : 10));
    qn_jinja_free(t);
    json_decref(vars);
}
