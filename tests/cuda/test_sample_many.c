/* Sampling on the card against qn_sampler_pick on over 20,000 picks: the same ids, ranks and lists, counts and fed ids; log-probabilities
 * within 1e-5 (in fact to the last bit or the one beside it).
 *
 * Where the two could part: sums in double run in different orders, and weights that top_p adds are integers of 2^-shift. A draw then differs if
 * it falls within some 1e-12 of the total beside the border of an entry: in 20,000 draws that is expected 1e-7 times. */
#include "tests/cuda/sample_kit.h"

/* 20,160 picks. */
TEST_SLOW(cuda_sample, agrees_with_the_cpu_on_twenty_thousand_picks, 180) {
    EXPECT_EQ(sk_agree(50, 60, 112, 20000), 0);
    EXPECT_EQ(sk_agree(700, 60, 112, 30000), 0);
    EXPECT_EQ(sk_agree(2500, 48, 112, 40000), 0);
    EXPECT_EQ(sk_agree(5001, 12, 112, 50000), 0);
}

TEST_SLOW(cuda_sample, agrees_with_the_cpu_on_real_vocabularies, 120) {
    EXPECT_EQ(sk_agree(49152, 8, 3, 60000), 0);
    EXPECT_EQ(sk_agree(151936, 3, 3, 70000), 0);
    EXPECT_EQ(sk_agree(262144, 2, 2, 80000), 0);
    EXPECT_EQ(sk_agree(QN_CUDA_VOCAB_MAX, 2, 1, 90000), 0);
}
