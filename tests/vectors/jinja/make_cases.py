#!/usr/bin/env python3
"""Writes tests/vectors/jinja/cases.json: small templates, variables, and what Jinja2 3.1.6 on Python 3.11 makes of them in
transformers' settings ("want", or "raises": the exception's name). tests/unit/test_jinja.c compares."""
import json, os, sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(here))
from jinja_reference import environment

VARS = {
    "s": "Hello, Wörld!", "e": "", "n": 7, "neg": -3, "f": 2.5, "t": True, "no": None, "l": [3, 1, 2], "words": ["b", "A", "c", "a"],
    "d": {"b": 1, "a": {"x": [1, 2, {"y": "z"}]}, "items": "shadow", "C": None}, "blank": "  \t pad \n ", "csv": "a,b,,c", "lines": "one\ntwo\r\nthree\n\nfive",
    "people": [{"name": "Ann", "age": 30, "tag": {"id": 2}}, {"name": "bob", "age": 25, "tag": {"id": 1}}, {"name": "Cid", "age": 30, "tag": {"id": 3}}],
    "html": "<a href=\"x\">it's & more</a>", "uni": "ΟΔΟΣ ß ŉ İ ǆ ﬁ 😀é", "quote": "it's", "quotes": "it's \"q\"", "big": 9007199254740993, "deep": [[1, [2]], (3,)],
}
E = r"""
1 + 2 * 3 - 4 / 2
7 // 2
-7 // 2
7 % 3
-7 % 3
7 % -3
-7.5 % 2
7.5 // 2
-7.5 // 2
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
(-2) ** 3
1 / 3
10 / 5
1e3
1.5e-7
1e16
123456789012345680.0
1e22
0.1 + 0.2
1_000 + 0x1f + 0o17 + 0b101
3.0
-0.0
1 == 1.0
true == 1
'1' == 1
1 < 2 < 3
1 < 3 < 2
1 < 2 == true
[1, 2] < [1, 3]
[1, 2] == (1, 2)
'a' < 'b'
'é' > 'z'
1 < 'a'
none < 1
none == none
undefined_name == other_undefined
{'a': 1} == {'a': 1.0}
not 1
not not e
1 and 2
0 and 2
0 or 'x'
e or no or 'last'
t and no
'x' if t
'x' if no
'x' if no else 'y'
('x' if no) is defined
1 if t else 2 if no else 3
'a' ~ 1 ~ none ~ true ~ 2.0 ~ [1, 'b']
'a' 'b' "c"
'a' + 'b' * 3
[1] + [2] * 2
(1,) + (2, 3)
'ab' * 0
'ab' * -1
3 * 'ab'
'a' + 1
1 + 'a'
[1] + (2,)
'a' - 'b'
undefined_name + 1
undefined_name ~ 'x'
s[0]
s[-1]
s[7]
s[100]
s[100] is defined
s[1:4]
s[:-1]
s[::2]
s[::-1]
s[5:1]
s[-5:]
s[8:2:-2]
l[0]
l[-1]
l[10]
l[1:]
l[::-1]
l['x']
l[none:none]
l[1:'a']
no[1:]
n[0]
d['b']
d['zzz']
d['zzz'].y
d.b
d.zzz
d.zzz.y
d.a.x[2].y
d['items']
d['keys'] is defined
d['pop'] is defined
d['nope'] is defined
d.a['x'][0]
d.a.x.2.y
d.a.x|length
undefined_name.x
undefined_name[0]
undefined_name|default('dflt')
undefined_name is defined
undefined_name is undefined
undefined_name()
none.x
none.x.y
none()
s.upper()
s.lower()
s.title()
s.capitalize()
s.swapcase()
uni.upper()
uni.lower()
uni.title()
uni.capitalize()
uni.swapcase()
uni|title
'hello wORLD-foo (bar)'|title
"they're bill's".title()
blank.strip()
blank.lstrip()
blank.rstrip()
blank|trim
'xxhixx'.strip('x')
'xyhiyx'.strip('yx')
'xxhixx'.lstrip('x')
'xxhixx'.rstrip('x')
'éaé'.strip('é')
'abc'|trim('ac')
csv.split(',')
csv.split(',', 1)
csv.split(',', -1)
csv.rsplit(',', 1)
csv.split(',')[-1]
csv.split('zz')
csv.split('')
'  a  b c '.split()
'  a  b c '.split(none, 1)
'  a  b c '.rsplit(none, 1)
'  a  b c '.rsplit()
'a--b--c'.rsplit('--', 1)
'aXbXc'.split(sep='X', maxsplit=1)
lines.splitlines()
lines.splitlines(true)
lines.splitlines(keepends=true)
'a\x0bb\x1cc\u2028d'.splitlines()
'abcabc'.replace('b', 'X')
'abcabc'.replace('b', 'X', 1)
'abc'.replace('', '-')
'abc'.replace('', '-', 2)
''.replace('', '-')
'aaa'.replace('aa', 'b')
'abc'|replace('b', 'é')
1231|replace(1, 'x')
'abc'|replace('b', 'x', count=1)
'abc'.startswith('a')
'abc'.startswith(('x', 'ab'))
'abc'.startswith('b', 1)
'abc'.endswith('c')
'abc'.endswith(('x', 'bc'))
'abc'.endswith('b', 0, 2)
'abc'.startswith(1)
'abcabc'.find('c')
'abcabc'.rfind('c')
'abcabc'.find('z')
'abcabc'.index('b')
'abcabc'.index('z')
'abcabc'.rindex('b')
'ééa'.find('a')
'ééa'.find('é', 1)
'abcabc'.count('bc')
'abc'.count('')
'aaaa'.count('aa')
', '.join(['a', 'b'])
', '.join([1])
''.join(('x', 'y'))
'-'.join('abc')
'-'.join({'k': 1, 'l': 2})
'abc'.center(9)
'abc'.center(8, '*')
'abcd'.center(9, '*')
'abc'.ljust(5) ~ '|'
'abc'.rjust(5, '.')
'-42'.zfill(6)
'abc'.zfill(2)
'abc'.isalpha()
'ab1'.isalnum()
'12'.isdigit()
'½'.isdigit()
'½'.isnumeric()
'²'.isdigit()
'²'.isdecimal()
' \n'.isspace()
''.isspace()
'abc'.islower()
'Abc'.islower()
'ABC1'.isupper()
'Title Case'.istitle()
'a\tb'.expandtabs(4)
'a_b1'.isidentifier()
'1a'.isidentifier()
'abc'.isascii()
'é'.isascii()
''.isascii()
'a\n'.isprintable()
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('=')
'abc'.rpartition('=')
'prefix_x'.removeprefix('prefix_')
'x_suffix'.removesuffix('_suffix')
'x'.removeprefix('yy')
'abc'.nosuch()
'abc'.nosuch is defined
'abc'.upper is callable
'{} and {}'.format(1, 'x')
'{0}{1}{0}'.format('a', 'b')
'{a} {b:>5}|'.format(a=1, b='x')
'{:<6}|{:^6}|{:>6}|'.format('a', 'b', 'c')
'{:*^9}'.format('mid')
'{:05d}|{:+d}|{:x}|{:#x}|{:b}|{:,}'.format(42, 42, 255, 255, 5, 1234567)
'{:.2f}|{:8.3f}|{:e}|{:g}|{:.1%}'.format(3.14159, 2.5, 12345.678, 0.0001, 0.256)
'{!r} {!s}'.format('a', 'b')
'{{}}'.format()
'{0.b} {0[b]}'.format(d)
'{}'.format([1, 'a'])
'{:.3}'.format('abcdef')
'{'.format()
'{}'.format()
'{x}'.format()
'{:>{w}}'.format('a', w=5)
'%s is %d' % ('x', 5)
'%s' % 'x'
'%s' % [1, 2]
'%5.2f|%-5d|%05d|%+d|%x|%X|%%' % (3.14159, 42, 42, 42, 255, 255)
'%(a)s-%(b)03d' % {'a': 'x', 'b': 7}
'%r %c' % ('q', 'z')
'%d' % 3.7
'%d' % 'x'
'%s %s' % 'x'
'%s' % ('x', 'y')
'%s %s'|format('a', 1)
'%(k)s'|format(k='v')
'%e %g %G' % (12345.678, 0.00001234, 1e20)
[1, 2].index(2)
[1, 2].index(5)
[1, 2, 2].count(2)
[1].append(2)
[1].append is defined
[1].pop()
l.copy()
l.sort()
(1, 2, 1).count(1)
d.get('b')
d.get('q')
d.get('q', 'dflt')
d.keys()
d.keys()|list
d.values()|list
d.items()|list
{'a': 1}.items()
{'a': 1}.keys()
{'a': 1}.values()
d.pop('b')
d.update({'x': 1})
d.setdefault('z', 1)
d.copy() == d
dict(a=1, b='x')
dict([('k', 'v')], z=2)
dict({'a': 1})
dict.fromkeys(['a', 'b'], 0)
{1: 'a', 1.0: 'b', true: 'c'}
{'a': 1, 'a': 2}
{(1, 2): 'x'}[(1, 2)]
{[1]: 2}
{'a': {'b': [1, (2,), none, false, 1.5, 'x']}}
[]
()
{}
(1,)
[[], {}, ()]
['it\'s', "q\"", 'both \' "', 'a\nb\t\\', '\x00\x7f\u200b\u00e9\U0001f600']
[undefined_name]
[1.0, 1e20, 1e-7, -0.0]
quote|list
[quote]
[quotes]
1 in [1, 2]
'a' in 'abc'
'' in ''
1 in 'abc'
'b' in d
'zz' not in d
none in [none]
2 in (1, 2)
5 in range(10)
'a' in undefined_name
1 in none
[1] in d
1 not in [1]
'x' in d.keys()
('b', 1) in d.items()
1 in d.values()
range(5)|list
range(2, 8, 3)|list
range(5, 0, -2)|list
range(0)|list
range(3)
range(1, 7, 2)
range(10)[2]
range(10)[-1]
range(10)[2:5]
range(3) == range(0, 3)
range(5)|length
range(100000)|length
range(100001)
range(1, 2, 0)
range('a')
range(1.5)
n is number
t is number
s is string
n is integer
t is integer
f is float
f is integer
t is boolean
no is none
no is not none
d is mapping
l is mapping
l is sequence
s is sequence
d is sequence
d.items() is sequence
range(3) is sequence
l is iterable
n is iterable
no is iterable
undefined_name is iterable
undefined_name is sequence
undefined_name is none
undefined_name is string
t is true
n is true
t is false
no is false
n is odd
n is even
n is divisibleby 7
n is divisibleby(2)
's' is odd
n is eq 7
n is equalto(7)
n is ne 8
n is gt 3
n is lt 3
n is ge 7
n is le(7)
n is greaterthan 3
n is in [7]
'a' is in 'abc'
'abc' is lower
'ABC' is upper
l is sameas l
1 is sameas 1
t is sameas true
'trim' is filter
'nope' is filter
'odd' is test
range is callable
s is callable
x is nosuchtest
x|nosuchfilter
'a<b'|e
'a<b'|escape|escape
'a<b'|forceescape
'a<b'|safe
('a<b'|safe) + '<c>'
'<c>' + ('a<b'|safe)
('<b>'|safe) ~ '<c>'
('<b>'|safe).upper() + '<i>'
'<b>'|safe|upper
['<b>'|safe]
'a'|safe is escaped
'a' is escaped
('%s'|safe) == '%s'
html|e
d|tojson
html|tojson
uni|tojson
uni|tojson(ensure_ascii=true)
l|tojson
[1.0, 2.5, 1e20, true, none]|tojson
{'a': [], 'b': {}, 'c': ()}|tojson
d|tojson(indent=2)
d|tojson(indent=4)|indent(2)
[1, {'a': []}]|tojson(indent=0)
[1, [2]]|tojson(indent='--')
{'b': 1, 'a': 2}|tojson(sort_keys=true)
{'b': 1, 'a': [1, 2]}|tojson(separators=(',', ':'))
{'b': 1, 'a': [1, 2]}|tojson(indent=1, separators=(',', '='))
{1: 'a', none: 'b', true: 'c', 1.5: 'd'}|tojson
{(1,): 'a'}|tojson
undefined_name|tojson
[undefined_name]|tojson
range(3)|tojson
'\x00\x1f\x7f"\\/\b\f'|tojson
'\x7f😀é'|tojson(ensure_ascii=true)
('x'|safe)|tojson
e|default('d')
e|default('d', true)
no|default('d')
no|default('d', boolean=true)
undefined_name|d
0|d('x', true)
s|length
l|count
d|length
undefined_name|length
n|length
no|length
(l|map('string'))|length
'abc'|first
[]|first
[]|first is defined
l|last
d|first
d|last
'abc'|last
undefined_name|first
undefined_name|last
(l|map('string'))|first
(l|map('string'))|last
l|list
'añb'|list
d|list
n|list
undefined_name|list
l|join
l|join(', ')
people|join('-', attribute='name')
people|map(attribute='name')|join('/')
undefined_name|join(',')
n|join(',')
l|reverse|list
'añb'|reverse
d|reverse|list
(l|map('string'))|reverse
n|reverse
l|sort
l|sort(reverse=true)
words|sort
words|sort(case_sensitive=true)
words|sort(true, true)
people|sort(attribute='age')|map(attribute='name')|list
people|sort(attribute='age,name')|map(attribute='name')|list
people|sort(attribute='tag.id', reverse=true)|map(attribute='name')|list
people|sort(attribute='age', reverse=true)|map(attribute='name')|list
[1, 'a']|sort
[(2, 'b'), (1, 'z'), (1, 'a')]|sort
[none, 1]|sort
d|dictsort
{'b': 1, 'A': 3, 'c': 2}|dictsort
{'b': 1, 'A': 3, 'c': 2}|dictsort(true)
{'b': 1, 'A': 3, 'c': 2}|dictsort(by='value')
{'b': 1, 'A': 3, 'c': 2}|dictsort(false, 'key', true)
{'b': 1}|dictsort(by='x')
l|dictsort
words|unique|list
['a', 'A', 'b', 'a']|unique|list
['a', 'A', 'b', 'a']|unique(true)|list
people|unique(attribute='age')|map(attribute='name')|list
[[1], [1]]|unique|list
l|sum
l|sum(start=10)
people|sum(attribute='age')
people|sum('age', 1)
[]|sum
['a']|sum
[[1], [2]]|sum(start=[])
l|min
l|max
[]|max
words|min
words|max
people|max(attribute='age')
people|min(attribute='name')
people|groupby('age')
people|groupby('tag.id')|map(attribute='grouper')|list
people|groupby('age')|map(attribute='list')|map('length')|list
(people|groupby('age'))[0].list|length
people|groupby('nope', default='z')
words|groupby(0)|list
l|batch(2)|list
l|batch(2, 'x')|list
range(7)|batch(3, none)|list
range(7)|slice(3)|list
range(7)|slice(3, 'x')|list
range(2)|slice(4)|list
l|map('string')|list
words|map('upper')|join
people|map(attribute='nope')|list
people|map(attribute='nope', default='?')|list
people|map(attribute='tag.id')|list
[[1, 2], [3, 4]]|map(attribute=1)|list
['a,b', 'c']|map('replace', ',', ';')|list
['1', 'x']|map('int', default=5)|list
l|map('nosuch')|list
l|map|list
l|map(attr='x')|list
undefined_name|map('upper')|list
no|map('upper')|list
l|select('odd')|list
l|select|list
[0, 1, '', 'x', none]|select|list
[0, 1, '', 'x', none]|reject|list
l|reject('odd')|list
l|select('gt', 1)|list
l|select('>', 1)|list
l|select('in', [1, 2])|list
l|select('nosuch')|list
people|selectattr('age', 'equalto', 30)|map(attribute='name')|list
people|selectattr('age', '==', 30)|list|length
people|selectattr('nope')|list
people|selectattr('nope', 'defined')|list
people|rejectattr('age', 'gt', 26)|map(attribute='name')|list
people|rejectattr('nope')|list|length
people|selectattr('tag.id', 'odd')|map(attribute='name')|list
people|selectattr('age', 'eq', 25)|first
(people|selectattr('age', 'eq', 99)|list)[0] is defined
d|items|list
undefined_name|items|list
l|items|list
d.items()|map('first')|list
'42'|int
' 42 '|int
'4_2'|int
'x'|int
'x'|int(-1)
'42.9'|int
'-7'|int
'0x1F'|int(base=16)
'1F'|int(0, 16)
'0b11'|int(0, 0)
'1e3'|int
3.99|int
-3.99|int
true|int
none|int
none|int(3)
[]|int
'inf'|int
'3.5'|float
'x'|float
'x'|float(1.5)
' 1e3 '|float
'nan'|float
'-inf'|float
'1_0.5'|float
true|float
3|float
undefined_name|int
-5|abs
-5.5|abs
'x'|abs
-f|abs
-true
+f
-'a'
42.55|round
42.55|round(1)
42.45|round(1)
2.5|round
3.5|round
-2.5|round
42|round
42|round(-1)
45|round(-1)
55|round(-1)
1234.5|round(-2)
42.55|round(1, 'floor')
42.55|round(1, 'ceil')
42.55|round(0, 'ceil')
42.1|round(method='nope')
2.675|round(2)
'x'|round
1e300|round(2)
lines|indent
lines|indent(2)
lines|indent(2, true)
lines|indent(2, false, true)
lines|indent('> ')
lines|indent(width=1, first=true, blank=true)
''|indent
n|indent
'hello world foo bar'|truncate(11)
'hello world foo bar'|truncate(9)
'hello world foo bar'|truncate(9, true)
'hello world foo bar'|truncate(9, true, '!')
'hello world foo bar'|truncate(9, leeway=0, end='..')
'hello world'|truncate(9)
'hi there'|wordcount
'it_is  a-test é'|wordcount
'abc'|center(9)
'abc'|string
5|string
none|string
[1]|string
undefined_name|string
5|upper
none|lower
none|trim
d|attr('b')
d|attr('get') is callable
namespace(a=1).a
namespace(a=1).b is defined
namespace(a=1)['a']
namespace({'a': 1}, b=2)
namespace(_x=1)
cycler('a', 'b').current
cycler()
joiner('|')()
raise_exception('boom ' ~ n)
raise_exception(5)
strftime_now('%Y-%m-%d %H:%M:%S')
strftime_now('%d %b %Y, %A %B %j %y %p %I')
'\n\t\\\'\"\x41\u00e9\101\q'
"a\
b"
'\é'
'{{ not a tag }}'
'%}' ~ '}}'
{'a': {'b': {}}}.a.b
[1, 2, 3,]
(1, 2,)
{'a': 1,}
big + 1
9223372036854775807
-9223372036854775807 - 1
deep
d.a == {'x': [1, 2, {'y': 'z'}]}
people[0].name ~ people[-1]['name']
people[0]['na' ~ 'me']
s is defined and s|length > 3
s is string and n is number or no
not s is string
not (n in l)
n in l or n == 7
l[n - 7]
(l|length) - 1
l|length - 1
-n|abs
s|lower|replace('hello', 'bye')|title
(s if t else 'x')|upper
s.split(',')[0]|lower
s[:5].upper() + s[5:]
(1, 2)[0]
[1, 2][1]
{'k': 'v'}['k']
'abc'[1]
true.x
x.y is defined
d.x.y is defined
d['a'].x is iterable
1 is defined and 2 is defined
f|string ~ '|' ~ f
1.0|string
1|string|length
(none, true, undefined_name)|string
loop is defined
caller is defined
varargs is defined
1,2
'a', 'b'
s.replace('l', 'L', 1).replace('L', 'é')
'a'.join(['<', '>']) ~ ('x'|e)
'İ'.lower()|length
'ΑΣ'.lower() ~ 'ΑΣΒ'.lower() ~ 'Σ'.lower() ~ 'Α.Σ'.lower()
'ßx'.capitalize()
'ǆa'.title()
'1st 2nd'.title()
"a'b"|capitalize
""".strip("\n").split("\n")
JOINED = []
for line in E: # a literal that spans two lines
    if JOINED and JOINED[-1].endswith("\\"): JOINED[-1] += "\n" + line
    else: JOINED.append(line)
T = [
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ x }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{% endfor %}",
    "{% for x in [] %}x{% else %}none{% endfor %}", "{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ loop.last }} {% else %}no{% endfor %}",
    "{% for x in l if x > 9 %}x{% else %}empty{% endfor %}", "{% for x in undefined_name %}x{% else %}undef{% endfor %}", "{% for x in no %}x{% endfor %}",
    "{% for x in n %}{% endfor %}", "{% for c in 'aé' %}[{{ c }}]{% endfor %}", "{% for k in d %}{{ k }} {% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d|dictsort %}{{ k }};{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}",
    "{% for a, b in ['xy'] %}{{ a }}{{ b }}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}else{% endfor %}", "{% for x in l %}{% break %}{% else %}else{% endfor %}",
    "{% for x in l %}{% continue %}{% else %}else{% endfor %}", "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}",
    "{% for x in l %}{% set z = x %}{% endfor %}{{ z is defined }}", "{% set z = 0 %}{% for x in l %}{{ z }}{% set z = z + x %}{{ z }} {% endfor %}{{ z }}",
    "{% set ns = namespace(z=0) %}{% for x in l %}{% set ns.z = ns.z + x %}{% endfor %}{{ ns.z }}", "{% set d.x = 1 %}", "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = l %}", "{% set a = 1, 2 %}{{ a }}", "{% set (a, b) = [1, 2] %}{{ a + b }}", "{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}",
    "{% set x %}a{{ n }}b{% endset %}{{ x }}|{{ x|length }}", "{% set x | upper | trim %} a{{ n }} {% endset %}[{{ x }}]", "{% set x %}{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}",
    "{% if t %}{% set q = 1 %}{% endif %}{{ q }}", "{% if no %}1{% elif t %}2{% else %}3{% endif %}", "{% if no %}1{% elif e %}2{% elif 0 %}3{% endif %}.", "{% if [] or {} or () or '' or 0.0 %}1{% else %}0{% endif %}",
    "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c=9) }} {{ m(b=5, a=6) }} {{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(x=1) }}", "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k=4) }}",
    "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ caller('x') }}{% endmacro %}{% call(v) m() %}<{{ v }}{{ n }}>{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{% set z = 1 %}in{% endcall %}{{ z is defined }}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "{% macro m() %}{{ g }}{% endmacro %}{% set g = 5 %}{{ m() }}{% set g = 6 %}{{ m() }}",
    "{% set g = 1 %}{% macro m() %}{% set g = 2 %}{{ g }}{% endmacro %}{{ m() }}{{ g }}", "{% macro m(n) %}{{ n }}{% endmacro %}{{ m('x') }}{{ n }}", "{{ m is defined }}{% macro m() %}{% endmacro %}{{ m is defined }}{{ m.name }}",
    "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro m(f) %}{{ f('z') }}{% endmacro %}{% macro g(v) %}[{{ v }}]{% endmacro %}{{ m(g) }}", "{{ [1, 2]|map('string')|join }}{% macro j(*a) %}{% endmacro %}",
    "{% filter upper %}a{{ s }}b{% endfilter %}", "{% filter replace('a', 'b')|upper %}aXa{% endfilter %}", "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% with %}{% set z = 1 %}{% endwith %}{{ z is defined }}",
    "{% generation %}x{{ n }}{% set q = 1 %}{% endgeneration %}{{ q is defined }}", "{% print 1, 'a' %}", "{% raw %}{{ x }}{% if %}{% endraw %}", "{% raw -%}  \n a  {%- endraw %} b", "{%- raw %} x {% endraw -%}  y",
    "{# comment #}x{#- y -#}  z", "a {#- c #} b {# d -#} e", "a\n  {# c #}\nb", "a\n  {% if t %}\n  b\n  {% endif %}\nc", "a\n  {%- if t %}\n  b\n  {%- endif %}\nc", "a\n  {%+ if t %}\n  b\n  {%+ endif %}\nc",
    "a {% if t -%}\n\n  b {% endif -%}  \n c", "a\n  {{ n }}  \n b", "a\n  {{- n -}}  \n b", "{% if t +%}\nx{% endif +%}\ny", "  {% if t %}x{% endif %}  \n", "\n\n{% if t %}\n\nx\n{% endif %}\n\n", "x\r\n{% if t %}\r\ny\r\n{% endif %}\r\nz\r\n",
    "{{ n }}\n", "{{ n }}\n\n", "a{{ n }}", "{{n}}{{-n}}", "{{ '}}' }}", "{{ {'a': {'b': 1}} }}", "{{ {'a': {}}}}", "{% set x = {'a': 1} %}{{ x.a }}", "{{ 'a' if n == 7 else 'b' }}", "{{ n if n }}", "{{ - n }}",
    "{% for x in [1, 2] recursive %}{{ x }}{% endfor %}", "{% for x in [{'v': 1, 'c': [{'v': 2, 'c': []}]}, {'v': 3, 'c': []}] recursive %}{{ x.v }}{{ loop.depth }}{% if x.c %}({{ loop(x.c) }}){% endif %}{% endfor %}",
    "{% for x in l %}{{ loop(x) }}{% endfor %}", "{% for x in l %}{{ loop }}{% endfor %}", "{% for loop in l %}{{ loop }}{% endfor %}", "{% for x in range(3) %}{{ x }},{% endfor %}", "{% for x in l|map('string') %}{{ x }}{{ loop.last }}{% endfor %}",
    "{% set g = l|map('string') %}{{ g|list }}{{ g|list }}", "{% set g = l|select('odd') %}{% if g %}yes{% endif %}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}",
    "{% set j = joiner() %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}", "{% set x = namespace(l=[]) %}{% for i in range(5) %}{% set x.l = x.l + [i] %}{% endfor %}{{ x.l }}", "{% set a = 'x' %}{% set b = a + 'y' %}{% set c = a + 'z' %}{{ a }}{{ b }}{{ c }}",
    "{% set a = [1] %}{% set b = a + [2] %}{% set c = a + [3] %}{% set d2 = b + [4] %}{% set e2 = b + [5] %}{{ a }}{{ b }}{{ c }}{{ d2 }}{{ e2 }}", "{% set x = 'abc' * 50 %}{% set y = x + 'd' %}{% set z = x + 'e' %}{{ y[-2:] }}{{ z[-2:] }}{{ x|length }}{% set w = y + 'f' %}{% set v = y + 'g' %}{{ w[-2:] }}{{ v[-2:] }}",
    "{% if n is defined and n is not none and n > 3 %}ok{% endif %}", "{% if 'a' in d and d['a'] is mapping %}ok{% endif %}", "{% if not (s is string) %}1{% else %}2{% endif %}", "{% set x = n if n else 0 %}{{ x }}", "{% if l and l[0] == 3 and l[-1] == 2 %}ok{% endif %}",
    "{% if d.get('items') is string %}ok{% endif %}", "{% for m in people if m.age == 30 and not m.nope %}{{ loop.index }}{{ m.name }}{% endfor %}", "{% for m in people|selectattr('age', 'eq', 30) %}{{ m.name }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for m in people[::-1] %}{% set i = people|length - 1 - loop.index0 %}{{ i }}{{ m.name }}{% endfor %}", "{{ people|map(attribute='tag')|map(attribute='id')|sum }}", "{%- set o = namespace(x=false) -%}{%- if not o.x -%}{%- set o.x = true -%}{%- endif -%}{{ o.x }}",
    "{{ {'a': 1}.a }}{{ {'a': 1}['a'] }}{{ (1, 2)|last }}", "{% macro f(x) -%} {{ x }} {%- endmacro %}[{{ f(1) }}]", "{{ f(1) }}{% macro f(x) %}{% endmacro %}", "{% set f = d.get %}{{ f('b') }}", "{% set u = s.upper %}{{ u() }}", "{{ s.split(', ')|map('lower')|list }}",
    # what is refused or malformed
    "{% if t %}", "{% endif %}", "{{ }}", "{{ 1 + }}", "{{ (1 }}", "{{ [1 }}", "{{ 1) }}", "{% for %}", "{% for x l %}{% endfor %}", "{% set 1 = 2 %}", "{% set x.y.z = 1 %}", "{% nope %}", "{{ 'abc }}", "{{ a b }}", "{# never ends", "{% raw %} never ends",
    "{{ x is }}", "{{ x | }}", "{{ x.}}", "{{ 1 is 2 is 3 }}", "{{ f(a=1, 2) }}", "{{ f(**x, *y) }}", "{% break %}", "{% macro m( %}{% endmacro %}", "{% macro m(a=1, b) %}{% endmacro %}", "{% else %}", "{{ x ? y : z }}", "{{ 1 & 2 }}", "{% call n %}{% endcall %}", "{{ {1} }}",
    "{{ '\\x4' }}", "{% if t %}{% else %}{% else %}{% endif %}", "{{ f(a=1, a=2) }}", "{% set true = 1 %}", "{{ x if }}", "{{ not }}", "{{ a.1b }}", "{{ f(1,,2) }}", "{% for x in l %}{% endif %}{% endfor %}", "text {{ n", "text {%", "{", "{ {", "}}", "%}", "#}", "{{ '{#' }}", "a{{ '' }}b",
]

env = environment()
cases = []
for template in ["{{ " + x + " }}" for x in JOINED if x] + T:
    case = {"template": template}
    try:
        case["want"] = env.from_string(template).render(**json.loads(json.dumps(VARS)))
        assert " at 0x" not in case["want"] and "<function" not in case["want"], template + case["want"]
    except AssertionError as e:
        print("left out:", e)
        continue
    except Exception as e:
        case["raises"] = type(e).__name__
    cases.append(case)
with open(os.path.join(here, "cases.json"), "w", encoding="utf-8") as f:
    f.write('{"vars": ' + json.dumps(VARS, ensure_ascii=False) + ',\n"cases": [\n')
    f.write(",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]}\n")
print(len(cases), "cases,", sum("raises" in c for c in cases), "of them raise")
