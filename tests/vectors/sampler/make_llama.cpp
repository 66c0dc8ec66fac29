// Writes llama.txt: what llama.cpp's samplers keep, and with which probability.
//
//   L=the llama.cpp of the llama-cpp-python 0.3.36 source package (vendor/llama.cpp)
//   c++ -O1 -std=c++17 -no-pie -Wl,--unresolved-symbols=ignore-all -I$L/include -I$L/ggml/include -I$L/src -o make_llama \
//       tests/vectors/sampler/make_llama.cpp $L/src/llama-{sampler,grammar,vocab,impl}.cpp $L/src/unicode*.cpp
//   ./make_llama > tests/vectors/sampler/llama.txt
//
// Only its samplers are linked. Logits and histories are those of test_sampler.c (row(), and k*k*31 + seed*7 + (k%5)*3 modulo `mod`).
// The temperature comes first, as in our order; the filters follow in it. Mirostat draws by itself: what it kept is printed.
// A pair of a text that breaks DRY's repetitions is given as the lists of ids that test_sampler.c's pieces make of it.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <algorithm>
#include <vector>
#include "llama.h"

struct llama_sampler * llama_sampler_init_dry_testing(float, float, int32_t, int32_t, const std::vector<std::vector<llama_token>> &);

static uint32_t hash32(uint32_t h) {
    h = (h ^ (h >> 16)) * 0x7FEB352Du;
    h = (h ^ (h >> 15)) * 0x846CA68Bu;
    return h ^ (h >> 16);
}

static float logit(uint32_t i, uint32_t seed) {
    uint32_t h = hash32(i * 0x9E3779B1u + seed * 0x85EBCA77u);
    return (float)((double)(h & 0xFFFFFF) * 0x1p-21 - 4 + (h >> 24 == 7 ? 3 : 0));
}

struct Case {
    int n, seed;
    float temp = 1, sigma = 0, min_p = 0, typ = 1, top_p = 1, xtc = 0, dyna = 0, exponent = 1, mult = 0, base = 1.75f, tau = 5, eta = 0.1f;
    float rep = 1, freq = 0, pres = 0;
    int top_k = 0, keep = 0, mirostat = 0, allowed = 2, last_n = 0, breakers = 0, hist = 0, mod = 1, pen_n = 0;
};

static std::vector<std::vector<llama_token>> breaker_ids(int n, int which) {
    std::vector<std::vector<llama_token>> all;
    for (int a = 0; which & 1 && a < n; a++)
        if (a % 11 == 3) all.push_back({a});
    for (int a = 0; which & 2 && a < n; a++)
        for (int b = 0; b < n; b++)
            if (a % 13 == 5 && b % 13 == 6) all.push_back({a, b});
    return all;
}

static void run(const Case & c) {
    std::vector<llama_token_data> d;
    for (int i = 0; i < c.n; i++) d.push_back({i, logit((uint32_t)i, (uint32_t)c.seed), 0});
    llama_token_data_array a = {d.data(), d.size(), -1, false};
    std::vector<llama_sampler *> chain;
    if (c.rep != 1 || c.freq != 0 || c.pres != 0) chain.push_back(llama_sampler_init_penalties(c.n, c.pen_n, c.rep, c.freq, c.pres));
    if (c.mult > 0) chain.push_back(llama_sampler_init_dry_testing(c.mult, c.base, c.allowed, c.last_n ? c.last_n : c.hist, breaker_ids(c.n, c.breakers)));
    chain.push_back(c.dyna > 0 ? llama_sampler_init_temp_ext(c.temp, c.dyna, c.exponent) : llama_sampler_init_temp(c.temp));
    size_t keep = (size_t)c.keep;
    if (c.sigma > 0) chain.push_back(llama_sampler_init_top_n_sigma(c.sigma));
    if (c.min_p > 0) chain.push_back(llama_sampler_init_min_p(c.min_p, keep));
    if (c.top_k > 0) chain.push_back(llama_sampler_init_top_k(c.top_k));
    if (c.typ < 1) chain.push_back(llama_sampler_init_typical(c.typ, keep));
    if (c.top_p < 1) chain.push_back(llama_sampler_init_top_p(c.top_p, keep));
    if (c.xtc > 0) chain.push_back(llama_sampler_init_xtc(1.0f, c.xtc, keep, 1));
    if (c.mirostat == 1) chain.push_back(llama_sampler_init_mirostat(c.n, 1, c.tau, c.eta, 100));
    if (c.mirostat == 2) chain.push_back(llama_sampler_init_mirostat_v2(1, c.tau, c.eta));
    for (auto * s : chain) {
        for (int k = 0; k < c.hist; k++) llama_sampler_accept(s, (llama_token)((k * k * 31 + c.seed * 7 + (k % 5) * 3) % c.mod));
        llama_sampler_apply(s, &a);
        llama_sampler_free(s);
    }
    double sum = 0;
    float max = -INFINITY;
    for (size_t i = 0; i < a.size; i++) max = std::max(max, a.data[i].logit);
    std::vector<std::pair<int, double>> kept;
    for (size_t i = 0; i < a.size; i++)
        if (a.data[i].logit > max - 86) { // below, a weight is 0 here
            kept.push_back({a.data[i].id, std::exp((double)a.data[i].logit - (double)max)});
            sum += kept.back().second;
        }
    std::sort(kept.begin(), kept.end());
    printf("case n=%d seed=%d kept=%zu temp=%.9g sigma=%.9g min_p=%.9g typ=%.9g top_p=%.9g xtc=%.9g dyna=%.9g exponent=%.9g mult=%.9g base=%.9g tau=%.9g "
           "rep=%.9g freq=%.9g pres=%.9g top_k=%d keep=%d mirostat=%d allowed=%d last_n=%d breakers=%d hist=%d mod=%d pen_n=%d\n",
           c.n, c.seed, kept.size(), c.temp, c.sigma, c.min_p, c.typ, c.top_p, c.xtc, c.dyna, c.exponent, c.mult, c.base, c.tau, c.rep, c.freq, c.pres,
           c.top_k, c.keep, c.mirostat, c.allowed, c.last_n, c.breakers, c.hist, c.mod, c.pen_n);
    for (auto & k : kept) printf("%d %.7g\n", k.first, k.second / sum);
}

#define CASE(n, seed, ...) do { Case c{n, seed}; __VA_ARGS__; run(c); } while (0)

int main() {
    printf("# llama.cpp of llama-cpp-python 0.3.36; see make_llama.cpp\n");
    CASE(500, 1, c.sigma = 1);
    CASE(500, 2, c.sigma = 0.5f; c.temp = 0.6f);
    CASE(500, 3, c.sigma = 2; c.top_p = 0.8f);
    CASE(500, 4, c.typ = 0.9f);
    CASE(500, 5, c.typ = 0.2f);
    CASE(500, 6, c.typ = 0.5f; c.temp = 0.5f; c.top_k = 60);
    CASE(500, 7, c.typ = 0.01f; c.keep = 9);
    CASE(500, 8, c.typ = 0.7f; c.top_p = 0.6f; c.temp = 0.7f);
    CASE(500, 9, c.xtc = 0.004f);
    CASE(500, 10, c.xtc = 0.02f; c.top_k = 30; c.temp = 0.5f);
    CASE(500, 11, c.xtc = 0.01f; c.top_k = 40; c.keep = 25; c.temp = 0.6f);
    CASE(500, 12, c.xtc = 0.5f; c.temp = 0.1f);
    CASE(500, 13, c.xtc = 0.02f; c.top_p = 0.5f; c.temp = 0.4f; c.keep = 2);
    CASE(500, 14, c.min_p = 0.3f; c.keep = 20);
    CASE(500, 15, c.min_p = 0.9f; c.keep = 3; c.temp = 0.3f);
    CASE(500, 16, c.top_p = 0.05f; c.keep = 30; c.temp = 0.8f);
    CASE(500, 17, c.min_p = 0.1f; c.top_k = 25; c.top_p = 0.3f; c.keep = 10);
    CASE(500, 18, c.dyna = 0.5f);
    CASE(500, 19, c.dyna = 0.9f; c.exponent = 2; c.temp = 1.2f);
    CASE(500, 20, c.dyna = 1; c.exponent = 0.5f; c.temp = 0.6f);
    CASE(500, 21, c.dyna = 0.4f; c.temp = 0.5f; c.top_k = 50; c.top_p = 0.9f);
    CASE(500, 22, c.mirostat = 2);
    CASE(500, 23, c.mirostat = 2; c.tau = 2);
    CASE(500, 24, c.mirostat = 2; c.tau = 0.5f; c.temp = 0.5f);
    CASE(500, 25, c.mirostat = 1; c.tau = 3);
    CASE(500, 26, c.mirostat = 1; c.tau = 1.5f; c.temp = 0.5f);
    CASE(500, 27, c.mirostat = 1; c.tau = 2.5f; c.temp = 0.4f);
    CASE(100, 28, c.mult = 0.8f; c.hist = 60; c.mod = 5);
    CASE(100, 29, c.mult = 1.5f; c.base = 1.1f; c.hist = 100; c.mod = 9; c.allowed = 1);
    CASE(100, 30, c.mult = 0.2f; c.base = 1.2f; c.hist = 200; c.mod = 40; c.allowed = 0);
    CASE(100, 31, c.mult = 0.5f; c.base = 1.05f; c.hist = 90; c.mod = 17; c.last_n = 40; c.breakers = 1);
    CASE(100, 32, c.mult = 0.5f; c.base = 1.05f; c.hist = 91; c.mod = 17; c.breakers = 1);
    CASE(100, 33, c.mult = 0.5f; c.base = 1.05f; c.hist = 92; c.mod = 7; c.breakers = 2; c.allowed = 1);
    CASE(100, 34, c.mult = 0.5f; c.base = 1.02f; c.hist = 150; c.mod = 20; c.breakers = 3; c.allowed = 1);
    CASE(100, 35, c.mult = 0.5f; c.base = 1.05f; c.hist = 97; c.mod = 29; c.breakers = 3; c.allowed = 1);
    CASE(100, 36, c.rep = 1.3f; c.hist = 80; c.mod = 60; c.pen_n = 20);
    CASE(100, 37, c.freq = 0.4f; c.pres = 0.3f; c.hist = 80; c.mod = 50; c.pen_n = 64; c.rep = 1.1f);
    CASE(150000, 38, c.sigma = 1.5f; c.temp = 0.3f; c.top_k = 90);
    CASE(150000, 39, c.xtc = 0.02f; c.min_p = 0.4f; c.temp = 0.1f);
    return 0;
}
