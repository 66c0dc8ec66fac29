/* fiber.cc towards the emulator's other files: a block's fibers, run to their end on this OS thread. */
#ifndef QN_CUDA_EMU_BLOCK_H
#define QN_CUDA_EMU_BLOCK_H

#include "engine/cuda/emu/core.h"

emu_block *emu_block_new(); /* one an OS thread, kept for its life */
void emu_block_free(emu_block *b);
void emu_block_run(emu_block *b, emu_launch *l, uint64_t linear);
void emu_leave(emu_block *b);
int emu_stack_owner(const emu_block *b, const void *p);
bool emu_in_arena(const emu_block *b, const void *p);

#endif
