/* The checked build's eyes: check.cc says what an access touches and whether it may; profile.cc counts how well a warp's accesses go
 * together. Only with QN_EMU_CHECKED; then one OS thread runs all blocks, one after the other. */
#ifndef QN_CUDA_EMU_CHECK_H
#define QN_CUDA_EMU_CHECK_H

#include "engine/cuda/emu/block.h"

#ifdef QN_EMU_CHECKED

/* Where in the source: an instruction, or what a wrapper was told. */
struct emu_site {
    const void *pc; /* NULL: file and line */
    const char *file;
    int line;
};
/* One access of one thread, by any means. */
void emu_access(emu_fiber *f, const void *p, size_t bytes, int how, const emu_site &at);
/* A copy by cp.async: source read and target written, but not to be read before the wait. */
void emu_copy_begins(emu_fiber *f, const emu_copy &c);
void emu_copy_lands(emu_fiber *f, const emu_copy &c);
void emu_fence_of(emu_fiber *f);
void emu_block_begins(emu_block *b);
void emu_block_ends(emu_block *b);

void emu_profile_note(emu_fiber *f, const void *p, size_t bytes, bool write, bool shared, uint32_t site);
void emu_profile_block_ends(emu_block *b);
extern bool emu_profiling;
/* "file:line" of a site's number. */
const char *emu_site_text(uint32_t site, char *text, size_t room);
#else
static inline void emu_copy_begins(emu_fiber *, const emu_copy &) {}
static inline void emu_copy_lands(emu_fiber *, const emu_copy &) {}
static inline void emu_fence_of(emu_fiber *) {}
static inline void emu_block_begins(emu_block *) {}
static inline void emu_block_ends(emu_block *) {}
#endif

#endif
