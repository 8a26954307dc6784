/* Least significant digit first, 11 bits a pass; a pass whose rows all share the digit is left out. Runs on disk are merged through a heap
 * that is ordered by keys, then by run: an earlier run holds earlier rows, which makes the merge as stable as the sort. */
#include "trainer/metrics_sort.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS, DIGIT_MASK = DIGITS - 1 };
enum { LEAST_ROWS = 16, FIRST_ROWS = 4096, OUT_ROWS = 4096 };

typedef struct run {
    uint64_t offset; /* in the file: one array for each word */
    size_t rows, loaded;
    /* the part that is in memory, while merging */
    uint64_t *buffer[CT_SORT_MAX_WORDS];
    size_t next, count;
    uint64_t key[CT_SORT_MAX_KEYS]; /* of row `next` */
} run;

struct ct_sorter {
    ct_sort_order order;
    size_t max_rows; /* in memory */
    uint64_t *rows[CT_SORT_MAX_WORDS];
    size_t count, capacity;
    int64_t total;
    bool sorted; /* the rows in memory are */

    int file; /* -1 = none yet */
    uint64_t file_bytes;
    run *runs;
    size_t run_count, run_capacity;

    bool given;                       /* the rows in memory were given out */
    size_t *heap;                     /* (run_count) */
    size_t heap_count, buffer_rows;   /* of a run */
    uint64_t *slab;                   /* buffers of all runs, then `out` */
    uint64_t *out[CT_SORT_MAX_WORDS]; /* (out_rows) */
    size_t out_rows;
};

/* --- in memory --- */

/* One stable pass by one digit; false, and nothing moved, where all rows have the same digit. */
static bool sort_pass(const uint64_t *by, unsigned shift, uint64_t *const from[], uint64_t *const to[], size_t words, size_t n) {
    size_t place[DIGITS] = {0};
    for (size_t i = 0; i < n; i++) place[by[i] >> shift & DIGIT_MASK]++;
    if (n == 0 || place[by[0] >> shift & DIGIT_MASK] == n) return false;
    size_t sum = 0;
    for (size_t d = 0; d < DIGITS; d++) {
        const size_t count = place[d];
        place[d] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++) {
        const size_t at = place[by[i] >> shift & DIGIT_MASK]++;
        to[0][at] = from[0][i];
        if (words > 1) to[1][at] = from[1][i];
        if (words > 2) to[2][at] = from[2][i];
    }
    return true;
}

void ct_sort_rows(const ct_sort_order *order, uint64_t *const words[], uint64_t *const scratch[], size_t n) {
    uint64_t *const *from = words, *const *to = scratch;
    for (size_t k = order->keys; k-- > 0;) {
        for (unsigned shift = order->key[k].shift; shift < 64; shift += DIGIT_BITS) {
            if (!sort_pass(from[order->key[k].word], shift, from, to, order->words, n)) continue;
            uint64_t *const *swap = from;
            from = to, to = swap;
        }
    }
    if (from == words) return;
    for (size_t w = 0; w < order->words; w++) memcpy(words[w], scratch[w], n * sizeof *words[w]);
}

/* --- life --- */

ct_code ct_sorter_create(const ct_sort_order *order, size_t memory_bytes, ct_sorter **out_sorter, ct_status *status) {
    ct_sorter *sorter = calloc(1, sizeof *sorter);
    if (sorter == NULL) return ct_fail_memory(status, sizeof *sorter, "a sorter");
    sorter->order = *order;
    sorter->max_rows = memory_bytes / (2 * order->words * sizeof(uint64_t));
    if (sorter->max_rows < LEAST_ROWS) sorter->max_rows = LEAST_ROWS;
    sorter->file = -1;
    *out_sorter = sorter;
    return CT_OK;
}

static void end_merge(ct_sorter *sorter) {
    free(sorter->heap);
    free(sorter->slab);
    sorter->heap = NULL;
    sorter->slab = NULL;
}

void ct_sorter_destroy(ct_sorter *sorter) {
    if (sorter == NULL) return;
    end_merge(sorter);
    for (size_t w = 0; w < CT_SORT_MAX_WORDS; w++) free(sorter->rows[w]);
    free(sorter->runs);
    if (sorter->file >= 0) (void)close(sorter->file);
    free(sorter);
}

void ct_sorter_reset(ct_sorter *sorter) {
    end_merge(sorter);
    if (sorter->file >= 0) (void)close(sorter->file);
    sorter->file = -1;
    sorter->file_bytes = 0;
    sorter->count = sorter->run_count = 0;
    sorter->total = 0;
    sorter->sorted = false;
}

int64_t ct_sorter_rows(const ct_sorter *sorter) { return sorter->total; }

/* --- the file --- */

static const char *temporary_folder(void) {
    const char *folder = getenv("TMPDIR");
    return folder != NULL && folder[0] != '\0' ? folder : "/tmp";
}

static ct_code fail_file(const char *what, ct_status *status) {
    return ct_fail_errno(status, "metrics: a temporary file in %s cannot be %s (TMPDIR names the folder)", temporary_folder(), what);
}

/* Without a name from the start where the file system can do that, else unlinked at once. */
static ct_code open_file(ct_sorter *sorter, ct_status *status) {
    const char *folder = temporary_folder();
    int file = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (file < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        char *path = NULL;
        if (asprintf(&path, "%s/clicktower-XXXXXX", folder) < 0) return ct_fail_memory(status, strlen(folder), "a path");
        file = mkostemp(path, O_CLOEXEC);
        if (file >= 0) (void)unlink(path);
        free(path);
    }
    if (file < 0) return fail_file("made", status);
    sorter->file = file;
    return CT_OK;
}

static ct_code write_all(const ct_sorter *sorter, const void *data, size_t bytes, uint64_t offset, ct_status *status) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t wrote = pwrite(sorter->file, (const char *)data + done, bytes - done, (off_t)(offset + done));
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote == 0) errno = ENOSPC;
        if (wrote <= 0) return fail_file("written", status);
        done += (size_t)wrote;
    }
    return CT_OK;
}

static ct_code read_all(const ct_sorter *sorter, void *data, size_t bytes, uint64_t offset, ct_status *status) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t got = pread(sorter->file, (char *)data + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = EIO;
        if (got <= 0) return fail_file("read", status);
        done += (size_t)got;
    }
    return CT_OK;
}

/* --- taking rows --- */

static ct_code grow(ct_sorter *sorter, size_t rows, ct_status *status) {
    size_t capacity = sorter->capacity < FIRST_ROWS / 2 ? FIRST_ROWS : 2 * sorter->capacity;
    if (capacity < rows) capacity = rows;
    if (capacity > sorter->max_rows) capacity = sorter->max_rows;
    for (size_t w = 0; w < sorter->order.words; w++) {
        uint64_t *grown = realloc(sorter->rows[w], capacity * sizeof *grown);
        if (grown == NULL) return ct_fail_memory(status, capacity * sizeof *grown, "the rows of the metrics");
        sorter->rows[w] = grown;
    }
    sorter->capacity = capacity;
    return CT_OK;
}

static ct_code sort_memory(ct_sorter *sorter, ct_status *status) {
    const size_t words = sorter->order.words, n = sorter->count;
    if (sorter->sorted || n == 0) return CT_OK;
    uint64_t *slab = malloc(words * n * sizeof *slab), *scratch[CT_SORT_MAX_WORDS] = {0};
    if (slab == NULL) return ct_fail_memory(status, words * n * sizeof *slab, "the order of the rows");
    for (size_t w = 0; w < words; w++) scratch[w] = slab + w * n;
    ct_sort_rows(&sorter->order, sorter->rows, scratch, n);
    free(slab);
    sorter->sorted = true;
    return CT_OK;
}

/* Sorts what is in memory and writes it out as one more run. */
static ct_code spill(ct_sorter *sorter, ct_status *status) {
    if (sorter->file < 0) CT_TRY(open_file(sorter, status));
    if (sorter->run_count == sorter->run_capacity) {
        const size_t capacity = 2 * sorter->run_capacity + 8;
        run *grown = realloc(sorter->runs, capacity * sizeof *grown);
        if (grown == NULL) return ct_fail_memory(status, capacity * sizeof *grown, "the runs of the metrics");
        sorter->runs = grown;
        sorter->run_capacity = capacity;
    }
    CT_TRY(sort_memory(sorter, status));
    run *spilled = &sorter->runs[sorter->run_count];
    *spilled = (run){.offset = sorter->file_bytes, .rows = sorter->count};
    const size_t bytes = sorter->count * sizeof(uint64_t);
    for (size_t w = 0; w < sorter->order.words; w++)
        CT_TRY(write_all(sorter, sorter->rows[w], bytes, sorter->file_bytes + w * bytes, status));
    sorter->file_bytes += sorter->order.words * bytes;
    sorter->run_count++;
    sorter->count = 0;
    sorter->sorted = false;
    return CT_OK;
}

ct_code ct_sorter_add(ct_sorter *sorter, const uint64_t *const words[], size_t n, ct_status *status) {
    for (size_t done = 0; done < n;) {
        if (sorter->count == sorter->max_rows) CT_TRY(spill(sorter, status));
        if (sorter->count == sorter->capacity) CT_TRY(grow(sorter, sorter->count + n - done, status));
        const size_t room = sorter->capacity - sorter->count, rows = n - done < room ? n - done : room;
        for (size_t w = 0; w < sorter->order.words; w++)
            memcpy(sorter->rows[w] + sorter->count, words[w] + done, rows * sizeof *sorter->rows[w]);
        sorter->count += rows;
        done += rows;
    }
    sorter->total += (int64_t)n;
    return CT_OK;
}

/* --- giving them back --- */

static bool before(const ct_sorter *sorter, size_t a, size_t b) {
    const run *first = &sorter->runs[a], *second = &sorter->runs[b];
    for (size_t k = 0; k < sorter->order.keys; k++)
        if (first->key[k] != second->key[k]) return first->key[k] < second->key[k];
    return a < b;
}

static void sift_down(ct_sorter *sorter, size_t at) {
    size_t *heap = sorter->heap;
    const size_t moved = heap[at];
    for (size_t child; (child = 2 * at + 1) < sorter->heap_count; at = child) {
        if (child + 1 < sorter->heap_count && before(sorter, heap[child + 1], heap[child])) child++;
        if (!before(sorter, heap[child], moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void set_keys(const ct_sorter *sorter, run *from) {
    for (size_t k = 0; k < sorter->order.keys; k++)
        from->key[k] = from->buffer[sorter->order.key[k].word][from->next] >> sorter->order.key[k].shift;
}

/* The next part of a run; nothing where it is at its end (count == 0). */
static ct_code load(const ct_sorter *sorter, run *from, ct_status *status) {
    const size_t left = from->rows - from->loaded, rows = left < sorter->buffer_rows ? left : sorter->buffer_rows;
    for (size_t w = 0; w < sorter->order.words; w++)
        CT_TRY(read_all(sorter, from->buffer[w], rows * sizeof(uint64_t), from->offset + (w * from->rows + from->loaded) * sizeof(uint64_t),
                        status));
    from->loaded += rows;
    from->next = 0;
    from->count = rows;
    if (rows > 0) set_keys(sorter, from);
    return CT_OK;
}

static ct_code begin_merge(ct_sorter *sorter, ct_status *status) {
    const size_t words = sorter->order.words, runs = sorter->run_count;
    end_merge(sorter);
    sorter->buffer_rows = sorter->max_rows / runs > LEAST_ROWS ? sorter->max_rows / runs : LEAST_ROWS;
    sorter->out_rows = sorter->max_rows < OUT_ROWS ? sorter->max_rows : OUT_ROWS;
    const size_t slab_words = words * (runs * sorter->buffer_rows + sorter->out_rows);
    sorter->slab = malloc(slab_words * sizeof *sorter->slab);
    sorter->heap = malloc(runs * sizeof *sorter->heap);
    if (sorter->slab == NULL || sorter->heap == NULL) return ct_fail_memory(status, slab_words * sizeof *sorter->slab, "merging rows");
    uint64_t *free_words = sorter->slab;
    for (size_t w = 0; w < words; w++, free_words += sorter->out_rows) sorter->out[w] = free_words;
    sorter->heap_count = runs;
    for (size_t r = 0; r < runs; r++) {
        run *from = &sorter->runs[r];
        for (size_t w = 0; w < words; w++, free_words += sorter->buffer_rows) from->buffer[w] = free_words;
        from->loaded = 0;
        CT_TRY(load(sorter, from, status));
        sorter->heap[r] = r;
    }
    for (size_t at = runs / 2; at-- > 0;) sift_down(sorter, at);
    return CT_OK;
}

ct_code ct_sorter_rewind(ct_sorter *sorter, ct_status *status) {
    sorter->given = false;
    if (sorter->run_count == 0) return sort_memory(sorter, status);
    if (sorter->count > 0) CT_TRY(spill(sorter, status));
    return begin_merge(sorter, status);
}

ct_code ct_sorter_next(ct_sorter *sorter, const uint64_t *out_words[], size_t *out_rows, ct_status *status) {
    const size_t words = sorter->order.words;
    if (sorter->run_count == 0) {
        if (sorter->given || sorter->count == 0) return CT_END;
        sorter->given = true;
        for (size_t w = 0; w < words; w++) out_words[w] = sorter->rows[w];
        *out_rows = sorter->count;
        return CT_OK;
    }
    size_t n = 0;
    while (n < sorter->out_rows && sorter->heap_count > 0) {
        run *from = &sorter->runs[sorter->heap[0]];
        for (size_t w = 0; w < words; w++) sorter->out[w][n] = from->buffer[w][from->next];
        n++;
        if (++from->next < from->count) {
            set_keys(sorter, from);
        } else {
            CT_TRY(load(sorter, from, status));
            if (from->count == 0) sorter->heap[0] = sorter->heap[--sorter->heap_count];
        }
        if (sorter->heap_count > 0) sift_down(sorter, 0);
    }
    if (n == 0) return CT_END;
    for (size_t w = 0; w < words; w++) out_words[w] = sorter->out[w];
    *out_rows = n;
    return CT_OK;
}
