/* The framing of a chunked body (RFC 9112 7.1), checked as it passes and made plain: extensions are left out,
 * trailers checked and left out. Strict CR LF. Pure, in place, any cut of the bytes. */
#ifndef QN_CHUNK_H
#define QN_CHUNK_H

#include <stddef.h>
#include <stdint.h>

struct qn_chunk {
    int state;
    int digits;             /* of the size line so far, leading zeros not counted */
    int any;                /* the size line has a digit */
    uint64_t left;          /* bytes of data to come in this chunk */
    uint64_t data, framing; /* bytes seen of either kind */
    uint32_t trailer_bytes, ext_bytes;
    int token_done;         /* the trailer line is past its colon */
};

enum { QN_CHUNK_MORE = 0, QN_CHUNK_END = 1, QN_CHUNK_BAD = -1 };

void qn_chunk_init(struct qn_chunk *c);
/* Reads in[0..*n_in) and writes to out (which may be `in`) at most as many bytes as it read; *n_in becomes the number
 * read, *n_out the number written. END: the body is complete and nothing after it was read. BAD: not chunked framing, or
 * more framing than data deserves (64 KiB and as much again as there is data). */
int qn_chunk_pass(struct qn_chunk *c, const char *in, size_t *n_in, char *out, size_t *n_out);

#endif
