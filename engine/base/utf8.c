/* The second byte's range depends on the first (RFC 3629 section 4, the ABNF), which is all that is needed to refuse
 * overlong forms and surrogates before a character is complete. */
#include "engine/base/utf8.h"

#include <string.h>

/* Length that the first byte announces and the range of the second; 0 when no character starts with it. */
static int head(unsigned char c, unsigned char *lo, unsigned char *hi) {
    *lo = 0x80;
    *hi = 0xBF;
    if (c < 0x80) return 1;
    if (c < 0xC2) return 0;
    if (c < 0xE0) return 2;
    if (c < 0xF0) {
        if (c == 0xE0) *lo = 0xA0;
        if (c == 0xED) *hi = 0x9F;
        return 3;
    }
    if (c > 0xF4) return 0;
    if (c == 0xF0) *lo = 0x90;
    if (c == 0xF4) *hi = 0x8F;
    return 4;
}

/* How many of the bytes at s are a proper start of one character; *len is its announced length (0: none). */
static int matched(const char *s, size_t n, int *len) {
    unsigned char lo, hi;
    const unsigned char *u = (const unsigned char *)s;
    *len = head(u[0], &lo, &hi);
    if (*len == 0) return 0;
    int i = 1;
    for (; i < *len && (size_t)i < n; i++) {
        if (u[i] < lo || u[i] > hi) break;
        lo = 0x80;
        hi = 0xBF;
    }
    return i;
}

int qn_utf8_decode(const char *s, size_t n, uint32_t *rune) {
    int len, got = matched(s, n, &len);
    if (len == 0 || got < len) return 0;
    const unsigned char *u = (const unsigned char *)s;
    static const unsigned char mask[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t r = u[0] & mask[len];
    for (int i = 1; i < len; i++) r = r << 6 | (u[i] & 0x3F);
    *rune = r;
    return len;
}

int qn_utf8_encode(uint32_t r, char out[4]) {
    if (r < 0x80) {
        out[0] = (char)r;
        return 1;
    }
    int len = r < 0x800 ? 2 : r < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (int i = len - 1; i > 0; i--, r >>= 6) out[i] = (char)(0x80 | (r & 0x3F));
    out[0] = (char)(lead[len] | r);
    return len;
}

int qn_utf8_valid(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        if ((unsigned char)s[i] < 0x80) {
            i++;
            continue;
        }
        uint32_t r;
        int len = qn_utf8_decode(s + i, n - i, &r);
        if (!len) return 0;
        i += (size_t)len;
    }
    return 1;
}

size_t qn_utf8_whole(const char *s, size_t n) {
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)s[n - back];
        if (c < 0x80) return n;
        if (c >= 0xC0) {
            int len, got = matched(s + n - back, back, &len);
            return len > (int)back && got == (int)back ? n - back : n;
        }
    }
    return n;
}

size_t qn_utf8_mend(const char *s, size_t n, char *out) {
    size_t o = 0;
    for (size_t i = 0; i < n;) {
        int len, got = matched(s + i, n - i, &len);
        if (len && got == len) {
            memcpy(out + o, s + i, (size_t)len);
            o += (size_t)len;
            i += (size_t)len;
        } else {
            memcpy(out + o, "\xEF\xBF\xBD", 3);
            o += 3;
            i += got > 0 ? (size_t)got : 1;
        }
    }
    return o;
}
