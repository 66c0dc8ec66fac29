/* What Python's str methods know about characters: classes and full case mappings, Unicode 14 as in Python 3.11.
 * Pure functions over tables made by tests/vectors/jinja/make_unicode.py. Any thread. */
#ifndef QN_JINJA_UNICODE_H
#define QN_JINJA_UNICODE_H

#include <stdint.h>

enum qn_ju_class {
    QN_JU_SPACE, QN_JU_ALPHA, QN_JU_DECIMAL, QN_JU_DIGIT, QN_JU_NUMERIC, QN_JU_LOWER, QN_JU_UPPER, QN_JU_TITLE,
    QN_JU_UNPRINTABLE, QN_JU_IGNORABLE, QN_JU_CASED, QN_JU_CLASSES
};
int qn_ju_is(uint32_t rune, enum qn_ju_class c);

enum qn_ju_map { QN_JU_TO_UPPER, QN_JU_TO_LOWER, QN_JU_TO_TITLE };
/* Writes 1 to 3 code points, returns how many. (Final sigma is the caller's: it depends on the neighbours.) */
int qn_ju_case(uint32_t rune, enum qn_ju_map m, uint32_t out[3]);

#endif
