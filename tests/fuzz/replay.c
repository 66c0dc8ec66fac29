/* main() for a fuzz entry where libFuzzer is not linked: replays files and folders, then, with -mutations=N, runs N random
 * mutations of what it read (seeded, so a failure can be repeated with -seed=S). make test uses both. */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { SEEDS_MAX = 4096, INPUT_MAX = 1 << 20 };
static struct { uint8_t *p; size_t n; } seeds[SEEDS_MAX];
static int n_seeds;
static uint64_t rng_state;
static long current;

static uint32_t rnd(void) { /* splitmix64 */
    uint64_t z = (rng_state += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return (uint32_t)((z ^ (z >> 31)) >> 16);
}

static void add_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f || n_seeds == SEEDS_MAX) {
        if (f) fclose(f);
        return;
    }
    uint8_t *p = malloc(INPUT_MAX);
    size_t n = p ? fread(p, 1, INPUT_MAX, f) : 0;
    fclose(f);
    uint8_t *exact = malloc(n ? n : 1); /* exact size, so that ASan sees the first byte past it */
    if (p && exact) {
        memcpy(exact, p, n);
        seeds[n_seeds].p = exact;
        seeds[n_seeds++].n = n;
    }
    free(p);
}

static void add(const char *path) {
    struct stat st;
    if (stat(path, &st)) return;
    if (!S_ISDIR(st.st_mode)) {
        add_file(path);
        return;
    }
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        char sub[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
        add(sub);
    }
    if (d) closedir(d);
}

static size_t mutate(const uint8_t *from, size_t n, uint8_t *to) {
    static const uint64_t odd[] = {0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000u, 0xFFFFFFFFu,
                                   0x7FFFFFFFFFFFFFFFULL, 0x8000000000000000ULL, ~0ULL, 0x4000000000000000ULL};
    memcpy(to, from, n);
    for (uint32_t times = 1 + rnd() % 4; times > 0 && n > 0; times--) {
        size_t at = rnd() % n, len = 1 + rnd() % 16;
        if (len > n - at) len = n - at;
        switch (rnd() % 7) {
        case 0: to[at] ^= (uint8_t)(1u << rnd() % 8); break;
        case 1: to[at] = (uint8_t)rnd(); break;
        case 2: { /* an odd number, little-endian, 1 to 8 bytes */
            uint64_t v = odd[rnd() % (sizeof odd / sizeof *odd)] + rnd() % 3 - 1;
            size_t w = (size_t)1 << rnd() % 4;
            memcpy(to + at, &v, w < n - at ? w : n - at);
            break;
        }
        case 3: memmove(to + at, to + at + len, n - at - len); n -= len; break;
        case 4: { /* a piece again */
            if (n + len > INPUT_MAX) break;
            size_t src = rnd() % n;
            if (src + len > n) len = n - src;
            uint8_t piece[16];
            memcpy(piece, to + src, len);
            memmove(to + at + len, to + at, n - at);
            memcpy(to + at, piece, len);
            n += len;
            break;
        }
        case 5: n = at; break;
        default: { /* a piece of another seed */
            int s = (int)(rnd() % (uint32_t)n_seeds);
            if (!seeds[s].n) break;
            size_t src = rnd() % seeds[s].n;
            if (len > seeds[s].n - src) len = seeds[s].n - src;
            memcpy(to + at, seeds[s].p + src, len);
        }
        }
    }
    return n;
}

static uint64_t first_seed;
static void on_crash(int sig) {
    char line[160];
    int n = snprintf(line, sizeof line, "\nreplay: signal %d at mutation %ld of seed %llu\n", sig, current, (unsigned long long)first_seed);
    if (write(2, line, (size_t)n) < 0) _exit(2);
    _exit(128 + sig);
}

int main(int argc, char **argv) {
    long mutations = 0;
    first_seed = 1;
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "-mutations=", 11)) mutations = atol(argv[i] + 11);
        else if (!strncmp(argv[i], "-seed=", 6)) first_seed = strtoull(argv[i] + 6, NULL, 10);
        else add(argv[i]);
    }
    signal(SIGSEGV, on_crash);
    signal(SIGABRT, on_crash);
    signal(SIGBUS, on_crash);
    signal(SIGFPE, on_crash);
    for (int i = 0; i < n_seeds; i++) {
        current = -1 - i;
        LLVMFuzzerTestOneInput(seeds[i].p, seeds[i].n);
    }
    uint8_t *work = malloc(INPUT_MAX), *from = malloc(INPUT_MAX);
    for (long m = 0; m < mutations && n_seeds && work && from; m++) {
        rng_state = first_seed * 1000003ULL + (uint64_t)m;
        current = m;
        int s = (int)(rnd() % (uint32_t)n_seeds);
        size_t n = mutate(seeds[s].p, seeds[s].n, work);
        uint8_t *exact = malloc(n ? n : 1);
        if (!exact) return 1;
        memcpy(exact, work, n);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    free(work);
    free(from);
    for (int i = 0; i < n_seeds; i++) free(seeds[i].p);
    printf("replayed %d files, %ld mutations\n", n_seeds, mutations);
    return n_seeds == 0;
}
