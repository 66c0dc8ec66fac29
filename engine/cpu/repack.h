/* Weights in lane order: what the tiles of cpu.h are made of, and the way there from the file's blocks.
 *
 * A tile holds 16 outputs. In every format that is not float, the quants of a block of 32 inputs are eight 64-byte
 * vectors W[0..7]; byte 4*r + j of W[i] belongs to output r and input 4*i + j, so that one 32-bit lane is four inputs of
 * one output, as vpdpbusd wants it. They are packed in planes:
 *      nibbles  256 bytes   byte x of vector j (0..3): low nibble is W[j][x], high nibble W[j+4][x]
 *      bit       64 bytes   bit i of byte x: the fifth bit of W[i][x]
 *      pairs    128 bytes   bits 2(i%4).. of byte x of vector i/4: two more bits of W[i][x]
 * and each format is a run of steps:
 *      Q4S  Q4_0    w = d (q - 8)            [nibbles][d 16 x f16]                                     288 bytes
 *      Q4N  IQ4_NL  w = d table[q]           [nibbles][d]                                              288
 *      Q4A  Q4_1    w = d q + m              [nibbles][d][m f16]                                       320
 *      Q5S  Q5_0    w = d (q - 16)           [nibbles][bit][d]                                         352
 *      Q5A  Q5_1    w = d q + m              [nibbles][bit][d][m]                                      384
 *      Q8S  Q8_0    w = d (q - 128)          [512 x u8][d]                                             544
 *      K2   Q2_K    w = d s q - dmin m       8 x [pairs], [s u8 x 16 lanes] x 16, [m] x 16, [d][dmin]  1600
 *      K4   Q4_K    w = d s q - dmin m       8 x [nibbles], [s u8 x 16] x 8, [m] x 8, [d][dmin]        2368
 *      K5   Q5_K    the same                 8 x [nibbles], 8 x [bit], [s] x 8, [m] x 8, [d][dmin]     2880
 *      K6   Q6_K    w = d s (q - 32)         8 x [nibbles], 8 x [pairs], [s s8 x 16] x 16, [d f32]     3392
 * (K: 256 inputs, s and m for each 16 or 32 of them). Q3_K becomes K6, its quants being a subset. All of it is exact: the
 * repacked weight has the file's values. Sizes stay within 1.4 % of the file's, but for Q2_K and Q3_K.
 * F32 and F16 are [n_in][16], BF16 [n_in / 2][16][2] with a zero behind an odd last input. Outputs past n_out are zero. Any thread. */
#ifndef QN_CPU_REPACK_H
#define QN_CPU_REPACK_H

#include <stddef.h>
#include <stdint.h>

#include "engine/cpu/cpu.h"

struct qn_fmt_info {
    int step_elems, step_bytes; /* floats: a step is one input, or a pair of BF16 */
};
extern const struct qn_fmt_info qn_fmt_info[QN_FMT_COUNT];

/* The format that a file's type becomes; -1: none. */
int qn_repack_fmt(enum qn_type type);

/* Tile `tile` of the matrix t [n_out][n_in] into out, tile_bytes = steps * step_bytes. */
void qn_repack_tile(enum qn_type type, const void *data, int n_in, int n_out, int tile, uint8_t *out);

/* The same, output by output: the yardstick. */
void qn_repack_plain(enum qn_type type, const void *data, int n_in, int n_out, int tile, uint8_t *out);

/* repack_wide.c: a whole tile whose first output's blocks start at p, the next output's row_bytes later. 0: it does not know
 * the type, and nothing was written. */
int qn_repack_wide(enum qn_type type, const uint8_t *p, size_t row_bytes, int block_bytes, int steps, int step_bytes, uint8_t *out);

#endif
