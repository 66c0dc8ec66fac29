/* UTF-8 without tables: decoding, validation, and the border up to which text may be sent. RFC 3629 section 4
 * (no surrogates, nothing above U+10FFFF, no overlong forms). Pure functions, any thread. */
#ifndef QN_BASE_UTF8_H
#define QN_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define QN_RUNE_BAD 0xFFFDu

/* Decodes the character at s[0..n), n >= 1. Returns its length 1..4, or 0 when the bytes are invalid or cut short. */
int qn_utf8_decode(const char *s, size_t n, uint32_t *rune);
/* Writes `rune` (a valid scalar value) and returns its length. */
int qn_utf8_encode(uint32_t rune, char out[4]);
/* 1 when all of s is valid. */
int qn_utf8_valid(const char *s, size_t n);
/* The longest prefix of s that does not end inside a character that later bytes could still complete. Invalid bytes
 * count as whole (they can never become a character). */
size_t qn_utf8_whole(const char *s, size_t n);
/* Copies s to out with every maximal invalid part replaced by U+FFFD (W3C/Unicode practice); returns the length, at most
 * 3*n bytes. */
size_t qn_utf8_mend(const char *s, size_t n, char *out);

#endif
