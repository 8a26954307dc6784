/* Private to trainer/: a whole run, between its loop (train.c) and the folders that it writes and goes on from (checkpoint.c). */
#ifndef TRAINER_TRAIN_INTERNAL_H
#define TRAINER_TRAIN_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/progress.h"
#include "trainer/publish.h"
#include "trainer/trainer.h"
#include "trainer/watch.h"

/* A folder that is written while training goes on. */
typedef struct run_saving {
    ct_model_saving *saving;
    pthread_t thread;
    bool started; /* and not joined yet */
    atomic_bool failed;
    ct_status status;
    int64_t rows, began_ns, took_ns;
    bool out;                /* it is the out folder */
    bool last;               /* the run ends with it */
    const char *kept_folder; /* of older checkpoints: pruned behind it to most_kept; NULL = none are kept */
    uint32_t most_kept;
} run_saving;

typedef struct train_run {
    ct_model *model;
    const ct_train_options *options;
    ct_train_result *result;
    ct_trainer *trainer;
    ct_watch *watch;
    publisher *publisher; /* NULL = nothing is published */
    char *out;            /* the out folder, without slashes behind it */
    ct_progress progress;
    int64_t started_ns;
    uint32_t first_epoch;    /* of this run: where the model stands */
    int64_t first_rows;      /* rows of that epoch that are learned already */
    int64_t rows_before;     /* rows that the model knew before this run */
    int64_t next_checkpoint; /* rows */
    int64_t pass_rows;       /* of the first whole pass over the log; 0 = none yet */
    uint64_t fingerprint;    /* of the rows of this pass that are learned */
    uint64_t first_print;    /* what it must be at first_rows */
    bool has_first_print;
    char *tail_folder; /* of the state before the last batch; NULL = none */
    bool tail_saved;
    char *kept_folder; /* of older checkpoints; NULL = none are kept */
    run_saving saving;
    bool finishing;       /* the folder that is written is the one that the run ends with */
    int64_t folder_rows;  /* of the training that out_folder holds; -1 = it holds none of this training */
    ct_train_result best; /* early stop: of the epoch whose folder was written last */
} train_run;

/* --- checkpoint.c --- */

/* Writes a folder: the out folder, or the tail's. Beside training, but for the one that the run ends with. Where the one before is still
 * written, it waits. */
ct_code run_checkpoint(train_run *run, const char *folder, ct_status *status);
/* From here on folders cost what has changed. from: the model folder that the model is as; NULL = none. */
ct_code run_save_beside(const train_run *run, const char *from, ct_status *status);
/* Waits for what is written beside training, and says how it ended. */
ct_code run_saved(train_run *run, ct_status *status);
/* Removes the tail's folder, if there is one. */
ct_code run_remove_tail(const train_run *run, ct_status *status);
/* Where a run goes on: position, sums, and the curve so far. Sets the names of the other folders. */
ct_code run_take_up(train_run *run, ct_status *status);
/* The fingerprint of a pass with one more batch: all labels, and of every other column the first value of the batch. */
uint64_t run_fingerprint(uint64_t fingerprint, const ct_batch *batch);

#endif
