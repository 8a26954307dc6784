/* Private to trainer/: a run that publishes its model while it trains, for servers to follow (model/publication.h). */
#ifndef TRAINER_PUBLISH_H
#define TRAINER_PUBLISH_H

#include "trainer/trainer.h"
#include "trainer/watch.h"

typedef struct publisher publisher;
/* Before the first batch. Looks at what the folder holds, and says it where servers will have to load a new base. */
ct_code publisher_create(ct_model *model, const ct_trainer *trainer, const ct_train_options *options, ct_watch *watch,
                         publisher **out_publisher, ct_status *status);
void publisher_destroy(publisher *publisher); /* NULL is fine */
/* The run waits for rows, or no longer does: between the two the model is the publisher's. */
void publisher_waits(publisher *publisher, bool waits);
/* A reader's batch was learned. Publishes where it is due. */
ct_code publisher_batch(publisher *publisher, const ct_batch *batch, ct_status *status);
/* Behind the last batch: what has not been published yet. */
ct_code publisher_finish(publisher *publisher, ct_status *status);
int64_t publisher_ns(const publisher *publisher); /* spent on it so far */

#endif
