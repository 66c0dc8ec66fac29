/* SIZE -> (EXT) -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE … ; a size of 0 leads to the trailers:
 * LINE -> (FIELD -> FIELD_LF -> LINE)* -> LAST_LF. What goes out never outgrows what came in: a spare zero, an extension or
 * a trailer is only ever left out, byte for byte as it is read, so that any cut of the input has room. */
#include "server/chunk.h"

#include <string.h>

enum { SIZE, EXT, SIZE_LF, DATA, DATA_CR, DATA_LF, LINE, FIELD, FIELD_LF, LAST_LF };
enum { EXT_BYTES_MAX = 1024, TRAILER_BYTES_MAX = 8192, FRAMING_FREE = 65536, DIGITS_MAX = 15 };

void qn_chunk_init(struct qn_chunk *c) { memset(c, 0, sizeof *c); }

static int hex(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int text(unsigned char c) { return c == '\t' || (c >= 32 && c != 127); }

static int token(unsigned char c) {
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

int qn_chunk_pass(struct qn_chunk *c, const char *in, size_t *n_in, char *out, size_t *n_out) {
    size_t n = *n_in, i = 0, o = 0;
    int rc = QN_CHUNK_MORE;
    while (i < n && rc == QN_CHUNK_MORE) {
        unsigned char b = (unsigned char)in[i];
        if (c->state == DATA) {
            size_t k = n - i < c->left ? n - i : (size_t)c->left;
            memmove(out + o, in + i, k);
            i += k;
            o += k;
            c->left -= k;
            c->data += k;
            if (!c->left) c->state = DATA_CR;
            continue;
        }
        i++;
        if (++c->framing > FRAMING_FREE + c->data) {
            rc = QN_CHUNK_BAD;
            break;
        }
        int keep = 0;
        switch (c->state) {
        case SIZE:
            if (hex(b) >= 0) {
                c->left = c->left * 16 + (unsigned)hex(b);
                keep = c->left != 0 || !c->any;
                c->any = 1;
                if (c->left && ++c->digits > DIGITS_MAX) rc = QN_CHUNK_BAD;
            } else if (!c->any) {
                rc = QN_CHUNK_BAD;
            } else if (b == ';') {
                c->state = EXT;
                c->ext_bytes = 0;
            } else if (b == '\r') {
                keep = 1;
                c->state = SIZE_LF;
            } else {
                rc = QN_CHUNK_BAD;
            }
            break;
        case EXT:
            if (b == '\r') keep = 1, c->state = SIZE_LF;
            else if (!text(b) || ++c->ext_bytes > EXT_BYTES_MAX) rc = QN_CHUNK_BAD;
            break;
        case SIZE_LF:
            keep = 1;
            c->state = c->left ? DATA : LINE;
            if (b != '\n') rc = QN_CHUNK_BAD;
            break;
        case DATA_CR:
            keep = 1;
            if (b == '\r') c->state = DATA_LF;
            else rc = QN_CHUNK_BAD;
            break;
        case DATA_LF:
            keep = 1;
            c->state = SIZE;
            c->digits = c->any = 0;
            if (b != '\n') rc = QN_CHUNK_BAD;
            break;
        case LINE:
            c->token_done = 0;
            if (b == '\r') keep = 1, c->state = LAST_LF;
            else if (token(b)) c->state = FIELD;
            else rc = QN_CHUNK_BAD;
            if (++c->trailer_bytes > TRAILER_BYTES_MAX) rc = QN_CHUNK_BAD;
            break;
        case FIELD:
            if (b == '\r' && c->token_done) c->state = FIELD_LF;
            else if (b == ':' && !c->token_done) c->token_done = 1;
            else if (c->token_done ? !text(b) : !token(b)) rc = QN_CHUNK_BAD;
            if (++c->trailer_bytes > TRAILER_BYTES_MAX) rc = QN_CHUNK_BAD;
            break;
        case FIELD_LF:
            c->state = LINE;
            if (b != '\n') rc = QN_CHUNK_BAD;
            break;
        default: /* LAST_LF */
            keep = 1;
            rc = b == '\n' ? QN_CHUNK_END : QN_CHUNK_BAD;
        }
        if (keep && rc != QN_CHUNK_BAD) out[o++] = (char)b; /* never ahead of the byte just read */
    }
    *n_in = i;
    *n_out = o;
    return rc;
}
