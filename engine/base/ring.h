/* A single-producer single-consumer ring of bytes that carries whole records. One thread writes, one reads, neither
 * locks. A record is written in place (reserve, fill, commit) and read in place (peek, consume); it never wraps, a filler
 * takes the tail of the buffer instead. Memory order: commit releases, peek acquires. */
#ifndef QN_BASE_RING_H
#define QN_BASE_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct qn_ring {
    unsigned char *p; /* owned, 16-byte aligned */
    uint32_t cap;     /* power of two */
    _Alignas(64) _Atomic uint32_t head; /* bytes ever consumed (mod 2^32); the consumer writes it */
    _Alignas(64) _Atomic uint32_t tail; /* bytes ever committed; the producer writes it */
    uint32_t reserved;                  /* producer: size of the open record with its header and filler */
};

/* cap_min is rounded up to a power of two, 256 bytes .. 1 GiB. Returns 0 or QN_E_NOMEM. */
int qn_ring_init(struct qn_ring *r, size_t cap_min);
void qn_ring_done(struct qn_ring *r);

/* Producer. Where a record of n bytes may be written (16-byte aligned), or NULL when there is no room for it now. */
void *qn_ring_reserve(struct qn_ring *r, uint32_t n);
void qn_ring_commit(struct qn_ring *r);

/* Consumer. The oldest record and its size, or NULL. It stays valid until consume(). */
const void *qn_ring_peek(struct qn_ring *r, uint32_t *n);
void qn_ring_consume(struct qn_ring *r);
/* Either side: 1 when nothing is waiting (may be stale on the other side). */
int qn_ring_empty(struct qn_ring *r);

#endif
