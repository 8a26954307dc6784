/* Private to data/: a table of histories in memory. */
#ifndef DATA_HISTORY_INTERNAL_H
#define DATA_HISTORY_INTERNAL_H

#include <pthread.h>

#include "data/history.h"

#define CT_HISTORY_MAGIC "CTHIST1\n" /* of a file; 8 bytes */

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
    bool changed; /* since changes were forgotten; of a version that is not settled: the entries are its own */
    bool kept;    /* what is being saved of it is a copy */
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
    uint64_t bytes; /* of all of these, with what malloc adds to each list of entries */
} ct_history;

struct ct_histories {
    const ct_schema *schema;
    int64_t unit, time, label; /* fields, -1 = none */
    int64_t rows;              /* that entered: the clock where there is no time */
    int64_t late;
    bool cleared; /* since changes were forgotten */
    bool shares;  /* a version: entries of units that have not changed are those of the version before */
    ct_history *list;
    size_t count;
    pthread_mutex_t mutex; /* around all that enters rows or clears, and of: */
    pthread_cond_t saved;  /* saving has become NULL */
    ct_histories_saving *saving;
};

/* The unit, made where there is none yet; NULL when out of memory. */
ct_history_unit *ct_history_unit_of(ct_history *history, uint64_t key);
/* Room for `count` entries of one of its units from the begin on. */
bool ct_history_unit_reserve(ct_history *history, ct_history_unit *unit, uint32_t count);

/* history_saving.c, in the lock: the unit of history `number` is about to change (false: out of memory); waits while too much is kept; the
 * units of a history are about to go: true where they are another's from now on. */
bool ct_histories_keep(ct_histories *histories, size_t number, ct_history_unit *unit);
void ct_histories_wait_for_room(ct_histories *histories);
bool ct_histories_move_units(ct_histories *histories, size_t number);
uint64_t ct_histories_most_kept_bytes(const ct_histories *histories);

/* ct_histories_apply; `shares`: entries that a unit has are another version's, and stay as they are. */
ct_code ct_histories_take_changes(ct_histories *histories, const uint64_t *words, size_t count, const char *path, bool shares,
                                  ct_status *status);

#endif
