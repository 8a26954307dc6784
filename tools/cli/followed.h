/* A model of `clicktower serve` that follows a publish folder: begins with a base, and takes each delta in turn; where there is none to
 * take and a later base, that. What is not complete yet is looked at again; what is broken or does not fit is refused, logged and counted,
 * and the model goes on as it is. */
#ifndef TOOLS_CLI_FOLLOWED_H
#define TOOLS_CLI_FOLLOWED_H

#include "model/publication.h"
#include "serving/server.h"

typedef struct ct_followed ct_followed;
/* folder: of the base; NULL = the newest one in `publication` that can be read. Takes what deltas there are. memory_bytes: of the rows; 0 =
 * no limit. scratch: a folder for what finds no room in it; NULL = such deltas are refused. Texts are the caller's and must live on. */
CT_MUST_CHECK ct_code ct_followed_open(const char *name, const char *folder, const char *publication, uint64_t memory_bytes,
                                       const char *scratch, ct_pool *pool, ct_followed **out_followed, ct_status *status);
void ct_followed_close(ct_followed *followed); /* after the server; NULL is fine */
ct_model *ct_followed_model(const ct_followed *followed);

/* Has the server answer with this model from now on; back when nobody asks the one before any more. */
typedef ct_code (*ct_followed_swap_fn)(void *context, ct_model *model, ct_status *status);
/* The server that answers with the model: from now on it is told what follows, and has what there is so far. */
void ct_followed_begin(ct_followed *followed, ct_server *server);
/* For the bases to come; lives as long as this. */
void ct_followed_set_pool(ct_followed *followed, ct_pool *pool);
/* Takes all that is new. Behind ct_followed_begin. */
void ct_followed_look(ct_followed *followed, ct_followed_swap_fn swap, void *context);

#endif
