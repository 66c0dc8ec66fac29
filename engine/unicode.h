/* What tokenizers ask of Unicode: general categories, white space, and canonical composition (NFC).
 *
 * Categories are those of Unicode 16.0.0, the version of the reference's regular expressions; NFC is that of Unicode 9.0,
 * the version of the reference's normaliser (why: scripts/make-unicode.py). Pure functions over const tables; any thread. */
#ifndef QN_UNICODE_H
#define QN_UNICODE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/utf8.h"
#include "engine/unicode_data.h"

enum qn_uni_cat {
    QN_CN, QN_CC, QN_CF, QN_CO, QN_CS, QN_LU, QN_LL, QN_LT, QN_LM, QN_LO, QN_MN, QN_MC, QN_ME, QN_ND, QN_NL, QN_NO,
    QN_PC, QN_PD, QN_PS, QN_PE, QN_PI, QN_PF, QN_PO, QN_SM, QN_SC, QN_SK, QN_SO, QN_ZS, QN_ZL, QN_ZP,
};

/* Bits of qn_uni(): the category below, then */
#define QN_UNI_CAT 0x1Fu
#define QN_UNI_SPACE 0x20u  /* \s: White_Space */
#define QN_UNI_ACTIVE 0x40u /* NFC must look at it */
#define QN_UNI_PUNCT 0x80u  /* the reference's Punctuation pre-tokenizer disagrees with category P */

/* Sets of categories, for qn_uni_in(). */
#define QN_SET(c) (1u << (c))
#define QN_SET_L (QN_SET(QN_LU) | QN_SET(QN_LL) | QN_SET(QN_LT) | QN_SET(QN_LM) | QN_SET(QN_LO))
#define QN_SET_M (QN_SET(QN_MN) | QN_SET(QN_MC) | QN_SET(QN_ME))
#define QN_SET_N (QN_SET(QN_ND) | QN_SET(QN_NL) | QN_SET(QN_NO))
#define QN_SET_P (QN_SET(QN_PC) | QN_SET(QN_PD) | QN_SET(QN_PS) | QN_SET(QN_PE) | QN_SET(QN_PI) | QN_SET(QN_PF) | QN_SET(QN_PO))
#define QN_SET_S (QN_SET(QN_SM) | QN_SET(QN_SC) | QN_SET(QN_SK) | QN_SET(QN_SO))

/* Category and flags of a code point <= 0x10FFFF. */
static inline unsigned qn_uni(uint32_t r) { return qn_uni_block[(unsigned)qn_uni_index[r >> 7] * 128u + (r & 127u)]; }
static inline int qn_uni_in(unsigned uni, unsigned set) { return (int)(set >> (uni & QN_UNI_CAT) & 1u); }

/* The character at s[0..n), n >= 1; a byte that starts none counts as U+FFFD and has length 1. */
static inline size_t qn_uni_next(const char *s, size_t n, uint32_t *rune) {
    if ((unsigned char)*s < 0x80) {
        *rune = (unsigned char)*s;
        return 1;
    }
    int len = qn_utf8_decode(s, n, rune);
    if (len > 0) return (size_t)len;
    *rune = QN_RUNE_BAD;
    return 1;
}

/* 1 when NFC leaves s as it is for certain (a quick test: 0 may also mean that it would not change). */
int qn_uni_is_nfc(const char *s, size_t n);
/* Canonical composition of s. Invalid bytes are carried over and stop composition. *out is allocated (free()).
 * Time O(n log n) at most. Returns 0 or QN_E_NOMEM. */
int qn_uni_nfc(const char *s, size_t n, char **out, size_t *n_out);

#endif
