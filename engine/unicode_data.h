/* The tables of unicode_data.c, which scripts/make-unicode.py writes. Only unicode.c reads them. */
#ifndef QN_UNICODE_DATA_H
#define QN_UNICODE_DATA_H

#include <stdint.h>

struct qn_uni_decomp { uint32_t from; uint16_t at; uint8_t n; }; /* full canonical decomposition: pool[at .. at+n) */
struct qn_uni_compose { uint32_t a, b, to; };                    /* sorted by a, then b */
struct qn_uni_mark { uint32_t from, to; uint8_t ccc; };          /* ranges with a combining class other than 0 */

extern const uint16_t qn_uni_index[];  /* code point / 128 -> block */
extern const uint8_t qn_uni_block[];   /* block * 128 + code point % 128 -> qn_uni() byte */
extern const struct qn_uni_decomp qn_uni_decomp[];
extern const uint32_t qn_uni_pool[];
extern const struct qn_uni_compose qn_uni_compose[];
extern const struct qn_uni_mark qn_uni_mark[];
extern const unsigned qn_uni_n_decomp, qn_uni_n_compose, qn_uni_n_marks;

#endif
