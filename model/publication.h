/* What a training publishes while it runs, and those who follow it.
 *
 *     DIR/base-000000000012         a model folder; its publish.json holds {"sequence": 12}
 *     DIR/delta-000000000013.ctd    what takes the model from 12 to 13 (embedding_store/delta.h)
 *
 * States are numbered, and named by their digest, that of ct_model_digest. A delta leads from one state to the next: it names both, and
 * the base that its chain began with. A base and a delta of the same number are the same state. */
#ifndef MODEL_PUBLICATION_H
#define MODEL_PUBLICATION_H

#include "model/model.h"

typedef struct ct_delta ct_delta; /* embedding_store/delta.h */

/* --- the folder --- */

/* Numbers of the bases and of the deltas that are there by name, rising. */
typedef struct ct_publication {
    int64_t *bases, *deltas;
    size_t base_count, delta_count;
} ct_publication;
CT_MUST_CHECK ct_code ct_publication_list(const char *folder, ct_publication *out_list, ct_status *status);
void ct_publication_deinit(ct_publication *list);
/* Does a folder hold a base or a delta by name? */
bool ct_publication_is(const char *folder);
/* malloc'd; NULL when out of memory. */
char *ct_publication_base(const char *folder, int64_t sequence);
char *ct_publication_delta(const char *folder, int64_t sequence);

/* The last state that a folder holds, and the base under it. */
typedef struct ct_published {
    int64_t sequence; /* -1 = none */
    int64_t rows;     /* of the training; -1 where its file could not be read */
    char digest[CT_DIGEST_HEX_BYTES];
    int64_t base_sequence; /* -1 = none that can be read */
    char base[CT_DIGEST_HEX_BYTES];
    uint64_t base_bytes, delta_bytes; /* of the deltas behind the base */
    int64_t deltas;                   /* behind the base */
} ct_published;
CT_MUST_CHECK ct_code ct_publication_end(const char *folder, ct_published *out_end, ct_status *status);

/* --- writing --- */

/* What a delta says of itself. */
typedef struct ct_delta_facts {
    int64_t sequence, base_sequence;
    char base[CT_DIGEST_HEX_BYTES], from[CT_DIGEST_HEX_BYTES], to[CT_DIGEST_HEX_BYTES];
    int64_t rows, step;                   /* of the training, afterwards */
    int64_t created_ms;                   /* since 1970, as the others */
    int64_t oldest_row_ms, newest_row_ms; /* when the first and the last of its rows were read */
    int64_t records;                      /* that have changed */
    uint64_t bytes;
} ct_delta_facts;

/* Before the first batch: deltas will be written, and a part of the limit on memory is for them. */
void ct_model_expect_deltas(ct_model *model);
/* Deltas need to know what changes: from now on. */
CT_MUST_CHECK ct_code ct_model_track_changes(ct_model *model, ct_status *status);
int64_t ct_model_changes(const ct_model *model);
/* Within a limit on memory: it is time for a delta. */
bool ct_model_changes_full(const ct_model *model);
/* A model folder of the state with that number; changes count from here. Its digest: ct_model_digest. */
CT_MUST_CHECK ct_code ct_model_publish_base(ct_model *model, const char *folder, int64_t sequence, const json_t *metrics,
                                            ct_status *status);
/* facts: sequence, base_sequence, base, from and the rows' times are given, the others are filled in. Between two batches. After a failure
 * the model is good for nothing but ct_model_destroy. */
CT_MUST_CHECK ct_code ct_model_publish_delta(ct_model *model, const char *path, ct_delta_facts *facts, ct_status *status);

/* --- reading --- */

CT_MUST_CHECK ct_code ct_delta_facts_get(const ct_delta *delta, ct_delta_facts *out_facts, ct_status *status);
/* Of a base: -1 where the folder has no publish.json. */
CT_MUST_CHECK ct_code ct_publication_sequence(const char *model_folder, int64_t *out_sequence, ct_status *status);
/* May the delta follow the state (sequence -1 = unknown, digest)? CT_INVALID says with both numbers what is wrong: a gap, another order,
 * another base. */
CT_MUST_CHECK ct_code ct_delta_check_follows(const ct_delta *delta, const ct_delta_facts *facts, int64_t sequence, const char *digest,
                                             ct_status *status);
/* Takes a model that was opened for training, without a limit on memory, on to the state after the delta. */
CT_MUST_CHECK ct_code ct_model_apply_delta(ct_model *model, const ct_delta *delta, ct_status *status);

/* --- a model that is served and follows ---
 * Two models take turns: while one is read, the other one gets the delta's tower, and a view of the rows with the delta's
 * (embedding_store/following.h). */
typedef struct ct_follower ct_follower;
/* A base, for reading. memory_bytes: of the rows, 0 = no limit; a quarter is for rows that deltas change and that were not in memory. Those
 * that find no room there are kept on disk, in the folder `scratch`, which is made when it is needed and removed by close; NULL = such a
 * delta is refused. */
CT_MUST_CHECK ct_code ct_follower_open(const char *folder, uint64_t memory_bytes, const char *scratch, ct_pool *pool,
                                       ct_follower **out_follower, ct_status *status);
void ct_follower_close(ct_follower *follower);             /* when nobody reads; NULL is fine */
ct_model *ct_follower_model(const ct_follower *follower);  /* as it is now; the follower's */
int64_t ct_follower_sequence(const ct_follower *follower); /* -1 = the base does not say */
/* The model behind the delta, which must follow; for whoever asks from now on. On failure everything is as before. */
CT_MUST_CHECK ct_code ct_follower_stage(ct_follower *follower, const ct_delta *delta, ct_model **out_model, ct_status *status);
void ct_follower_drop(ct_follower *follower); /* instead of settle: nobody has read it */
/* Nobody reads the model before any more. On failure the new one is read all the same, but none can be staged; call it again. */
CT_MUST_CHECK ct_code ct_follower_settle(ct_follower *follower, ct_status *status);

#endif
