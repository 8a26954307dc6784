/* The ring's entries follow each other from `oldest` to `newest`; one that does not fit before the end of the memory begins at its start.
 * Chains of a hash table over the ids go through them, newest first. One lock, held for some hundred nanoseconds. */
#include "serving/calibration.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { UNIT = 8, LEAST_BYTES = 4096, BYTES_A_CHAIN = 64, SHOWN = 1, CLICKED = 2, EARLY_SLOTS = 1 << 16 };
#define NOWHERE UINT32_MAX

/* Behind it: probabilities (candidates), then marks, a byte each (candidates). Places are in units of 8 bytes. */
typedef struct entry {
    uint64_t request;
    uint32_t next; /* of its chain */
    uint32_t candidates;
    uint32_t series;
    uint32_t units; /* it takes */
} entry;

typedef struct early_event {
    uint64_t request;
    uint32_t candidate;
    ct_feedback_kind kind;
    bool waits;
} early_event;

struct ct_calibration {
    pthread_mutex_t lock;
    uint64_t *memory; /* (units) */
    uint32_t units;
    uint32_t oldest, newest_end; /* equal: full or empty */
    uint32_t wrapped;            /* where the entries before the start of the memory end; NOWHERE = none does */
    uint32_t *chains;            /* (chain_count, a power of two) */
    size_t chain_count;
    early_event early[CT_CALIBRATION_EARLY];
    size_t early_next;
    uint16_t early_slots[EARLY_SLOTS]; /* by the request: how many wait, so that few exposures look for theirs in vain */
    ct_calibration_series *series;     /* (CT_CALIBRATION_SERIES) */
    ct_calibration_stats stats;
};

static entry *entry_at(const ct_calibration *c, uint32_t place) { return (entry *)(void *)(c->memory + place); }
static float *scores_of(entry *e) { return (float *)(void *)(e + 1); }
static uint8_t *marks_of(entry *e) { return (uint8_t *)(scores_of(e) + e->candidates); }
static uint32_t *chain_of(const ct_calibration *c, uint64_t request) { return &c->chains[request & (c->chain_count - 1)]; }

static entry *find(const ct_calibration *c, uint64_t request) {
    for (uint32_t at = *chain_of(c, request); at != NOWHERE; at = entry_at(c, at)->next)
        if (entry_at(c, at)->request == request) return entry_at(c, at);
    return NULL;
}

/* The oldest one goes. It is the last of its chain. */
static void drop_oldest(ct_calibration *c) {
    const entry *gone = entry_at(c, c->oldest);
    uint32_t *link = chain_of(c, gone->request);
    while (*link != c->oldest) link = &entry_at(c, *link)->next;
    *link = gone->next;
    c->oldest += gone->units;
    if (c->oldest == c->wrapped) {
        c->oldest = 0;
        c->wrapped = NOWHERE;
    }
    c->stats.exposures--;
    c->stats.fallen++;
    if (c->stats.exposures == 0) {
        c->oldest = c->newest_end = 0;
        c->wrapped = NOWHERE;
    }
}

/* A place for so many units; older entries go. */
static uint32_t make_room(ct_calibration *c, uint32_t units) {
    for (;;) {
        const bool behind = c->stats.exposures == 0 || c->wrapped == NOWHERE; /* free: from the newest's end to the end of the memory */
        if (behind && c->units - c->newest_end >= units) return c->newest_end;
        if (behind) { /* the rest of the memory stays empty for this round */
            c->wrapped = c->newest_end;
            c->newest_end = 0;
        }
        if (c->oldest - c->newest_end >= units && c->wrapped != NOWHERE) return c->newest_end;
        drop_oldest(c);
    }
}

static unsigned bucket_of(float probability) {
    static const double bounds[] = CT_SCORE_BOUNDS;
    unsigned bucket = 0;
    while (bucket < CT_SCORE_BUCKETS - 1 && (double)probability > bounds[bucket]) bucket++;
    return bucket;
}

static bool mark(ct_calibration *c, uint64_t request, uint32_t candidate, ct_feedback_kind kind) {
    entry *e = find(c, request);
    if (e == NULL) return false;
    if (candidate >= e->candidates) {
        c->stats.unknown++;
        return true;
    }
    uint8_t *marks = &marks_of(e)[candidate];
    const uint8_t before = *marks, now = before | (kind == CT_FEEDBACK_SHOWN ? SHOWN : CLICKED);
    ct_calibration_series *series = &c->series[e->series];
    const float probability = scores_of(e)[candidate];
    const unsigned bucket = bucket_of(probability);
    *marks = now;
    (*(now == before ? &c->stats.repeated : &c->stats.counted))++;
    if ((now & SHOWN) && !(before & SHOWN)) {
        series->shown[bucket]++;
        series->predicted[bucket] += (double)probability;
    }
    if (now == (SHOWN | CLICKED) && before != now) series->clicks[bucket]++;
    return true;
}

/* NOWHERE: there are too many. */
static uint32_t find_series(ct_calibration *c, const char *model, const char *arm) {
    ct_calibration_series wanted;
    (void)snprintf(wanted.model, sizeof wanted.model, "%s", model);
    (void)snprintf(wanted.arm, sizeof wanted.arm, "%s", arm);
    size_t s = 0;
    while (s < c->stats.series_count && (strcmp(c->series[s].model, wanted.model) != 0 || strcmp(c->series[s].arm, wanted.arm) != 0)) s++;
    if (s == CT_CALIBRATION_SERIES) return NOWHERE;
    if (s < c->stats.series_count) return (uint32_t)s;
    memcpy(c->series[s].model, wanted.model, sizeof wanted.model);
    memcpy(c->series[s].arm, wanted.arm, sizeof wanted.arm);
    c->stats.series_count++;
    return (uint32_t)s;
}

/* Events that were there before their exposure. */
static void take_early(ct_calibration *c, uint64_t request) {
    for (size_t i = 0; c->early_slots[request % EARLY_SLOTS] > 0 && i < CT_CALIBRATION_EARLY; i++) {
        early_event *event = &c->early[i];
        if (!event->waits || event->request != request) continue;
        event->waits = false;
        c->stats.waiting--;
        c->early_slots[request % EARLY_SLOTS]--;
        (void)mark(c, request, event->candidate, event->kind);
    }
}

void ct_calibration_expose(ct_calibration *c, const char *request_id, const char *model, const char *arm, const float *probabilities,
                           size_t candidates) {
    if (c == NULL || candidates == 0) return;
    const uint64_t request = ct_hash64(request_id, strlen(request_id), 0);
    const size_t bytes = sizeof(entry) + candidates * (sizeof(float) + 1), units = (bytes + UNIT - 1) / UNIT;
    (void)pthread_mutex_lock(&c->lock);
    const uint32_t series = units <= c->units / 2 ? find_series(c, model, arm) : NOWHERE;
    if (series == NOWHERE) {
        c->stats.fallen++;
    } else {
        const uint32_t place = make_room(c, (uint32_t)units);
        uint32_t *chain = chain_of(c, request);
        entry *e = entry_at(c, place);
        *e = (entry){.request = request, .next = *chain, .candidates = (uint32_t)candidates, .series = series, .units = (uint32_t)units};
        memcpy(scores_of(e), probabilities, candidates * sizeof(float));
        memset(marks_of(e), 0, candidates);
        *chain = place;
        c->newest_end = place + (uint32_t)units;
        c->stats.exposures++;
        take_early(c, request);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

void ct_calibration_feedback(ct_calibration *c, const void *request_id, size_t id_bytes, uint32_t candidate, ct_feedback_kind kind) {
    if (c == NULL) return;
    const uint64_t request = ct_hash64(request_id, id_bytes, 0);
    (void)pthread_mutex_lock(&c->lock);
    if (!mark(c, request, candidate, kind)) {
        early_event *event = &c->early[c->early_next++ % CT_CALIBRATION_EARLY];
        if (event->waits) { /* its exposure never came */
            c->stats.unknown++;
            c->stats.waiting--;
            c->early_slots[event->request % EARLY_SLOTS]--;
        }
        c->stats.waiting++;
        c->early_slots[request % EARLY_SLOTS]++;
        *event = (early_event){request, candidate, kind, true};
    }
    (void)pthread_mutex_unlock(&c->lock);
}

void ct_calibration_stats_get(ct_calibration *c, ct_calibration_stats *out_stats) {
    (void)pthread_mutex_lock(&c->lock);
    *out_stats = c->stats;
    (void)pthread_mutex_unlock(&c->lock);
}

void ct_calibration_series_get(ct_calibration *c, size_t index, ct_calibration_series *out_series) {
    (void)pthread_mutex_lock(&c->lock);
    *out_series = c->series[index];
    (void)pthread_mutex_unlock(&c->lock);
}

/* --- life --- */

ct_code ct_calibration_create(size_t bytes, ct_calibration **out_calibration, ct_status *status) {
    if (bytes < LEAST_BYTES) bytes = LEAST_BYTES;
    ct_calibration *c = calloc(1, sizeof *c);
    if (c == NULL) return ct_fail_memory(status, sizeof *c, "a table of exposures");
    (void)pthread_mutex_init(&c->lock, NULL);
    c->units = (uint32_t)(bytes / UNIT);
    c->wrapped = NOWHERE;
    c->chain_count = 1;
    while (c->chain_count < bytes / BYTES_A_CHAIN) c->chain_count *= 2;
    c->memory = malloc((size_t)c->units * UNIT);
    c->chains = malloc(c->chain_count * sizeof *c->chains);
    c->series = calloc(CT_CALIBRATION_SERIES, sizeof *c->series);
    if (c->memory == NULL || c->chains == NULL || c->series == NULL) {
        ct_calibration_destroy(c);
        return ct_fail_memory(status, bytes, "a table of exposures");
    }
    for (size_t i = 0; i < c->chain_count; i++) c->chains[i] = NOWHERE;
    c->stats.bytes = sizeof *c + (size_t)c->units * UNIT + c->chain_count * sizeof *c->chains + CT_CALIBRATION_SERIES * sizeof *c->series;
    *out_calibration = c;
    return CT_OK;
}

void ct_calibration_destroy(ct_calibration *c) {
    if (c == NULL) return;
    (void)pthread_mutex_destroy(&c->lock);
    free(c->memory);
    free(c->chains);
    free(c->series);
    free(c);
}
