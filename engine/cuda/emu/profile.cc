/* How well the accesses of a warp go together, in the checked build: the n-th execution of a place in the code by each lane is taken as
 * one request of the warp. Device memory moves in sectors of 32 bytes: counted are the different ones of a request. Shared memory has
 * 32 banks of 4 bytes: counted are the wavefronts, by what is documented for 4, 8 and 16 bytes a lane (whole, half, quarter warp). */
#ifdef QN_EMU_CHECKED
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "engine/cuda/emu/check.h"
#include "engine/cuda/emu/testing.h"

bool emu_profiling;

struct request {
    uint32_t lanes;
    uint64_t at[EMU_LANES];
};
struct place_in_warp { /* of one warp at one site */
    uint32_t count[EMU_LANES];
    std::vector<request> requests;
    size_t bytes;
    bool write, shared;
};
struct site_key {
    std::string kernel;
    uint32_t site;
    bool write; /* cp.async reads and writes in one place */
    bool operator<(const site_key &o) const { return std::tie(kernel, site, write) < std::tie(o.kernel, o.site, o.write); }
};
struct site_sum {
    qn_emu_traffic t;
    bool shared;
    size_t bytes;
};
static std::unordered_map<uint64_t, place_in_warp> running; /* warp and site, of the running block */
static std::map<site_key, site_sum> sums;

void emu_profile_note(emu_fiber *f, const void *p, size_t bytes, bool write, bool shared, uint32_t site) {
    place_in_warp &w = running[(uint64_t)f->warp << 33 | (uint64_t)site << 1 | (uint64_t)write];
    w.bytes = bytes, w.write = write, w.shared = shared;
    uint32_t n = w.count[f->lane]++;
    if (n >= w.requests.size()) w.requests.resize(n + 1);
    w.requests[n].lanes |= 1u << f->lane;
    w.requests[n].at[f->lane] = (uint64_t)(uintptr_t)p;
}

/* Different blocks of `unit` bytes that the request touches. */
static uint64_t count_units(const request &r, size_t bytes, size_t unit) {
    uint64_t u[2 * EMU_LANES];
    size_t n = 0;
    for (int l = 0; l < EMU_LANES; l++)
        if (r.lanes >> l & 1u)
            for (uint64_t a = r.at[l] / unit; a <= (r.at[l] + bytes - 1) / unit && n < 2 * EMU_LANES; a++) u[n++] = a;
    std::sort(u, u + n);
    return (uint64_t)(std::unique(u, u + n) - u);
}
/* In each part of the warp: the most different words in one bank. */
static uint64_t count_wavefronts(const request &r, size_t bytes) {
    int part = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
    uint64_t all = 0;
    for (int first = 0; first < EMU_LANES; first += part) {
        std::vector<uint64_t> words[32];
        for (int l = first; l < first + part; l++)
            if (r.lanes >> l & 1u)
                for (uint64_t a = r.at[l] / 4; a <= (r.at[l] + bytes - 1) / 4; a++) words[a % 32].push_back(a);
        size_t most = 0;
        for (auto &w : words) {
            std::sort(w.begin(), w.end());
            most = std::max(most, (size_t)(std::unique(w.begin(), w.end()) - w.begin()));
        }
        all += most;
    }
    return all;
}
/* Without conflicts: one for each part of the warp that has a lane there. */
static uint64_t least_wavefronts(const request &r, size_t bytes) {
    int part = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
    uint64_t n = 0;
    for (int first = 0; first < EMU_LANES; first += part) n += (r.lanes >> first & (part == 32 ? 0xffffffffu : (1u << part) - 1)) != 0;
    return n;
}

void emu_profile_block_ends(emu_block *b) {
    char name[300];
    emu_kernel_name(b->launch->kernel, b->launch->name, name, sizeof name);
    for (auto &entry : running) {
        const place_in_warp &w = entry.second;
        site_sum &s = sums[site_key{name, (uint32_t)(entry.first >> 1), w.write}];
        s.shared = w.shared, s.bytes = w.bytes;
        for (const request &r : w.requests) {
            s.t.requests++;
            s.t.bytes += (uint64_t)__builtin_popcount(r.lanes) * w.bytes;
            if (w.shared) s.t.wavefronts += count_wavefronts(r, w.bytes), s.t.wavefronts_least += least_wavefronts(r, w.bytes);
            else s.t.sectors += count_units(r, w.bytes, 32), s.t.sectors_least += (count_units(r, w.bytes, w.bytes) * w.bytes + 31) / 32;
        }
    }
    running.clear();
}

extern "C" void qn_emu_profile(int on) {
    emu_profiling = on != 0;
    running.clear();
    if (on) sums.clear();
}
extern "C" int qn_emu_profile_get(const char *kernel, enum qn_emu_traffic_kind kind, int bytes, struct qn_emu_traffic *out) {
    memset(out, 0, sizeof *out);
    int found = 0;
    for (const auto &e : sums) {
        const site_sum &s = e.second;
        if (!strstr(e.first.kernel.c_str(), kernel) || s.shared != (kind >= QN_EMU_SHARED_READS) || e.first.write != (kind % 2 == 1)) continue;
        if (bytes && s.bytes != (size_t)bytes) continue;
        found++;
        out->requests += s.t.requests, out->bytes += s.t.bytes;
        out->sectors += s.t.sectors, out->sectors_least += s.t.sectors_least;
        out->wavefronts += s.t.wavefronts, out->wavefronts_least += s.t.wavefronts_least;
    }
    return found;
}
extern "C" void qn_emu_profile_print(void) {
    char text[600];
    for (const auto &e : sums) {
        const qn_emu_traffic &t = e.second.t;
        printf("    %s %s: %zu bytes %s %s: %llu requests, ", e.first.kernel.c_str(), emu_site_text(e.first.site, text, sizeof text), e.second.bytes,
               e.second.shared ? "shared" : "device", e.first.write ? "written" : "read", (unsigned long long)t.requests);
        if (e.second.shared) printf("%llu wavefronts (least %llu)\n", (unsigned long long)t.wavefronts, (unsigned long long)t.wavefronts_least);
        else printf("%llu sectors (least %llu)\n", (unsigned long long)t.sectors, (unsigned long long)t.sectors_least);
    }
}
extern "C" int qn_emu_is_checked(void) { return 1; }
#else
#include "engine/cuda/emu/testing.h"

/* The plain build sees no accesses. */
extern "C" int qn_emu_is_checked(void) { return 0; }
extern "C" void qn_emu_profile(int) {}
extern "C" int qn_emu_profile_get(const char *, enum qn_emu_traffic_kind, int, struct qn_emu_traffic *out) { return *out = qn_emu_traffic{0, 0, 0, 0, 0, 0}, 0; }
extern "C" void qn_emu_profile_print(void) {}
#endif
