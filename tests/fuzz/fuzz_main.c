/* The target as a test: every seed, some of its beginnings, and mutations of it that are the same at each run: 400, or FUZZ_MUTATIONS in
 * the environment, for targets that take long.
 *
 *     NAME_fuzz_test [FILE...]      with FILEs (what libFuzzer has left, say) only these are run */
#include "base/random.h"
#include "tests/fuzz/fuzz.h"

enum { MUTATIONS = 400, MUTATIONS_A_BEGINNING = 7 };

static uint8_t seed[FUZZ_MAX_BYTES], other[FUZZ_MAX_BYTES], mutant[FUZZ_MAX_BYTES];

static size_t at_most(uint32_t word, size_t limit) { return limit ? word % (limit + 1) : 0; }

/* One change of `mutant`; returns its size. */
static size_t change(size_t bytes, ct_random4 r, size_t other_bytes) {
    static const char *const tokens[] = {
        "\t",   "\n", "\r\n", ",",  "\"", ":",    "{",    "}", "[", "-", "18446744073709551616", "1e999", "nan", " ", "\xff\xff\xff\xff",
        "\x80", "\\", "#",    "&a", "*a", "null", "true", "0", "."};
    const size_t at = at_most(r.word[1], bytes), length = at_most(r.word[2], bytes - at < 64 ? bytes - at : 64);
    switch (r.word[0] % 8) {
        case 0: /* a bit */
        case 1: /* a byte */
            if (at < bytes) mutant[at] = (uint8_t)(r.word[0] % 8 ? r.word[3] : mutant[at] ^ (1u << r.word[3] % 8));
            return bytes;
        case 2: /* a piece goes */
            memmove(mutant + at, mutant + at + length, bytes - at - length);
            return bytes - length;
        case 3: /* a piece comes twice */
            if (bytes + length > FUZZ_MAX_BYTES) return bytes;
            memmove(mutant + at + length, mutant + at, bytes - at);
            return bytes + length;
        case 4: { /* a token comes */
            const char *token = tokens[r.word[3] % (sizeof tokens / sizeof tokens[0])];
            const size_t size = strlen(token);
            if (bytes + size > FUZZ_MAX_BYTES) return bytes;
            memmove(mutant + at + size, mutant + at, bytes - at);
            memcpy(mutant + at, token, size);
            return bytes + size;
        }
        case 5: { /* a piece of another seed */
            const size_t from = at_most(r.word[3], other_bytes);
            size_t size = other_bytes - from < length ? other_bytes - from : length;
            memcpy(mutant + at, other + from, size);
            return bytes;
        }
        case 6: /* a digit */
            for (size_t i = at; i < bytes; i++) {
                if (mutant[i] < '0' || mutant[i] > '9') continue;
                mutant[i] = (uint8_t)('0' + r.word[3] % 10);
                break;
            }
            return bytes;
        default: /* a number of 32 bits */
            if (at + 4 <= bytes) memcpy(mutant + at, &r.word[3], 4);
            return bytes;
    }
}

/* The bytes as a block of their own, so that the sanitizers see a step beyond them. */
static void run(const uint8_t *data, size_t bytes) {
    uint8_t *exact = malloc(bytes ? bytes : 1);
    FUZZ_MUST(exact);
    if (bytes) memcpy(exact, data, bytes);
    (void)LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
}

static int run_files(int count, char **paths) {
    for (int i = 0; i < count; i++) {
        FILE *file = fopen(paths[i], "rb");
        if (!file) {
            perror(paths[i]);
            return 1;
        }
        run(mutant, fread(mutant, 1, sizeof mutant, file));
        (void)fclose(file);
    }
    return 0;
}

int main(int argc, char **argv) {
    size_t runs = 0, seeds = 0;
    if (argc > 1) return run_files(argc - 1, argv + 1);
    const char *given = getenv("FUZZ_MUTATIONS");
    const uint32_t mutations = given != NULL ? (uint32_t)strtoul(given, NULL, 10) : MUTATIONS;
    (void)fprintf(stderr, "[ RUN      ] %s\n", fuzz_name);
    run(seed, 0);
    for (size_t bytes; (bytes = fuzz_seed(seeds, seed)) != 0; seeds++) {
        size_t other_bytes = fuzz_seed(seeds + 1, other);
        if (!other_bytes) other_bytes = fuzz_seed(0, other);
        run(seed, bytes);
        const size_t step = MUTATIONS_A_BEGINNING * bytes / mutations + 1;
        for (size_t cut = 0; cut < bytes; cut += step, runs++) run(seed, cut);
        for (uint32_t m = 0; m < mutations; m++, runs++) {
            size_t size = bytes;
            memcpy(mutant, seed, bytes);
            for (uint32_t c = 0; c <= m % 4; c++) size = change(size, ct_random(m, CT_PLACE_TEST, 0, seeds, c), other_bytes);
            run(mutant, size);
        }
    }
    (void)fprintf(stderr, "%zu seeds, %zu runs\n[       OK ] %s\n", seeds, seeds + runs, fuzz_name);
    return 0;
}
