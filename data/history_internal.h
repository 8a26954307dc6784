/* Private to data/: a table of histories in memory, and what writes it. */
#ifndef DATA_HISTORY_INTERNAL_H
#define DATA_HISTORY_INTERNAL_H

#include <pthread.h>

#include "base/file.h"
#include "data/history.h"

#define CT_HISTORY_MAGIC      "CTHISTD\n" /* of what has changed; 8 bytes */
#define CT_HISTORY_MAGIC_ONCE "CTHIST1\n" /* of a file of earlier programs, which held all */
#define CT_HISTORY_PERIODS    0x7fffffffu

typedef struct ct_history_entry {
    int64_t when;    /* the row's time in ms; without a time column its number, from 1 */
    uint64_t key;    /* of the id */
    uint64_t vector; /* key of its vector; 0 where no similarity asks for it */
} ct_history_entry;

/* entries[begin .. end): by rising `when`, of equal ones in the order of the log. The last max_values of those before the newest time, and
 * all of the newest time, which rows of that time must not see. */
typedef struct ct_history_unit {
    uint64_t key;
    ct_history_entry *entries;
    uint32_t begin, end, capacity;
    uint32_t changed : 31; /* the period in which it last changed; 0 = never. Of a version that is not settled: else the entries are not its
                              own */
    uint32_t summed : 1;   /* its hash is in the history's sum */
} ct_history_unit;

typedef struct ct_history {
    size_t field, of; /* itself; the id */
    int64_t vector;   /* a vector field of the id, whose keys a similarity needs; -1 = none does */
    bool clicked;
    uint32_t max_values;
    ct_history_unit *units; /* (unit_count), in the order of appearance */
    size_t unit_count, unit_capacity;
    uint32_t *slots; /* (slot_count, a power of two): unit + 1, 0 = free; linear probing by the unit's key */
    size_t slot_count;
    uint64_t entry_count; /* of all units */
    ct_sum sum;           /* of the hashes of the units that are summed */
    uint64_t bytes;       /* of all of these, with what malloc adds to each list of entries */
} ct_history;

/* The files that a saving's folder has links to: file 0 holds all units of its moment, each other one those that had changed since the one
 * before. */
typedef struct ct_history_chain {
    char *folder; /* scratch, where they stay from one saving to the next; NULL = each saving writes all */
    size_t files; /* 0 = there are none to build on */
    uint64_t first_bytes, other_bytes;
} ct_history_chain;

struct ct_histories {
    const ct_schema *schema;
    int64_t unit, time, label; /* fields, -1 = none */
    int64_t rows;              /* that entered: the clock where there is no time */
    int64_t late;
    bool shares; /* a version: entries of units that have not changed are those of the version before */
    bool once;   /* as a file of earlier programs had them: the digest is that of its bytes */
    ct_history *list;
    size_t count;
    pthread_mutex_t mutex; /* around all that enters rows or clears, of what follows, and of the units' marks */
    pthread_cond_t saved;  /* saving has become NULL */
    ct_histories_saving *saving;
    uint32_t period;        /* the present one, from 1; the next one begins when changes are forgotten, and when a saving begins */
    uint32_t forgotten;     /* the last one whose changes are */
    uint32_t written;       /* the last one whose changes are in the chain, or are being written */
    uint32_t cleared;       /* in which all was cleared; 0 = never */
    uint64_t changed_bytes; /* about what a file would have of the units that changed since `written` */
    ct_history_chain chain;
};

/* --- history.c --- */
/* The unit, made where there is none yet; NULL when out of memory. */
ct_history_unit *ct_history_unit_of(ct_history *history, uint64_t key);
/* Room for `count` entries of one of its units from the begin on; `capacity` (>= count) where new memory is needed. */
bool ct_history_unit_reserve(ct_history *history, ct_history_unit *unit, uint32_t count, uint32_t capacity);
/* Bytes of a history of these units and entries that was just read. */
uint64_t ct_history_opened_bytes(const ct_history *history);
/* In the lock, ahead of any change of one of history `number`'s units: false when out of memory. */
bool ct_history_unit_change(ct_histories *histories, size_t number, ct_history_unit *unit);

/* --- history_saving.c, in the lock: the unit of history `number` is about to change (false: out of memory); waits while too much is kept;
 * the units of a history are about to go: true where they are another's from now on. --- */
bool ct_histories_keep(ct_histories *histories, size_t number, const ct_history_unit *unit);
void ct_histories_wait_for_room(ct_histories *histories);
bool ct_histories_move_units(ct_histories *histories, size_t number);
uint64_t ct_histories_most_kept_bytes(const ct_histories *histories);

/* --- history_write.c --- */
/* Where words go: one of the three. */
typedef struct ct_history_sink {
    ct_file_writer *writer;
    ct_digest *digest;
    uint64_t *words; /* (count of room), malloc'd; the caller's */
    size_t count, room;
} ct_history_sink;
ct_code ct_history_put(ct_history_sink *to, const void *words, size_t count, ct_status *status);
ct_code ct_history_put_head(ct_history_sink *to, int64_t rows, size_t histories, bool all, ct_status *status);
/* A history's units ahead of their entries: sorts them by key. */
typedef struct ct_history_order {
    uint64_t key;
    uint32_t unit, count; /* of its entries */
} ct_history_order;
ct_code ct_history_put_units(ct_history_sink *to, uint64_t hash, ct_history_order *order, size_t count, ct_status *status);
/* What a digest is of: the head, then each history. */
void ct_history_digest_head(ct_digest *digest, int64_t rows, size_t histories);
void ct_history_digest(ct_digest *digest, uint64_t hash, size_t units, const ct_sum *sum);
void ct_history_sum_add(ct_sum *sum, uint64_t key, const ct_history_entry *entries, uint32_t count);
/* In the lock: the sum of all units as they are now. */
ct_sum ct_history_sum(const ct_histories *histories, ct_history *history);

/* --- history_read.c --- */
/* ct_histories_apply; `shares`: entries that a unit has are another version's, and stay as they are. */
ct_code ct_histories_take_changes(ct_histories *histories, const uint64_t *words, size_t count, const char *path, bool shares,
                                  ct_status *status);

#endif
