/* Decode: the bytes of a ScoreRequest to a batch. All checks of a request are here, and a refusal names the field and what is wrong.
 * Nothing is trusted: any bytes at all give a batch or a status. Memory comes from the request's arena. */
#ifndef SERVING_DECODE_H
#define SERVING_DECODE_H

#include "base/arena.h"
#include "data/history.h"
#include "proto/clicktower.pb-c.h"

enum { CT_REQUEST_ID_MAX_BYTES = 128, CT_REQUEST_UNIT_MAX_BYTES = 256 };

/* For one schema and the fields that a model uses of it: which names there are, what a request must bring. Immutable, for any number of
 * threads. */
typedef struct ct_decoder ct_decoder;
/* used: (schema->field_count); a vector that is used needs its id field. The schema must outlive the decoder; `used` is copied. */
CT_MUST_CHECK ct_code ct_decoder_create(const ct_schema *schema, const bool *used, uint32_t max_candidates, ct_decoder **out_decoder,
                                        ct_status *status);
/* Where a request lacks a history, that of its unit is taken from these, as they stand. They must outlive the decoder. */
void ct_decoder_set_histories(ct_decoder *decoder, const ct_histories *histories);
void ct_decoder_destroy(ct_decoder *decoder); /* NULL is fine */
/* Columns that only `other`'s schema has are no mistake from now on: they are left out. At most CT_DECODER_OTHERS, and each must outlive
 * the use of this one; before any thread uses it. */
enum { CT_DECODER_OTHERS = 16 };
void ct_decoder_also_knows(ct_decoder *decoder, const ct_decoder *other);

/* Any message, unpacked with memory of the arena, which owns it. CT_INVALID where the bytes are no such message, CT_EXHAUSTED where it
 * would take more than 256 MiB. `what` names it in messages. */
CT_MUST_CHECK ct_code ct_message_unpack(ct_arena *arena, const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t bytes,
                                        const char *what, ProtobufCMessage **out_message, ct_status *status);

/* How many candidates a packed ScoreRequest has, as far as a glance tells: its candidate_count, else the rows of its first candidates'
 * column, else a guess from its size. At least 1. Nothing is allocated. */
size_t ct_request_rows_guess(const uint8_t *data, size_t bytes);

/* Unpacks and checks the request's texts: UTF-8 and length. */
CT_MUST_CHECK ct_code ct_request_unpack(ct_arena *arena, const uint8_t *data, size_t bytes, Clicktower__V1__ScoreRequest **out_request,
                                        ct_status *status);
/* The batch: one row for each candidate; a column that came as context is `shared`; fields that the model does not use are absent.
 * CT_INVALID, or CT_EXHAUSTED beyond max_candidates. All of it is the arena's. */
CT_MUST_CHECK ct_code ct_request_batch(const ct_decoder *decoder, ct_arena *arena, const Clicktower__V1__ScoreRequest *request,
                                       ct_batch *out_batch, ct_status *status);

/* Does the request have a column of that name? */
bool ct_request_brings(const Clicktower__V1__ScoreRequest *request, const char *name);

static inline ProtobufCBinaryData ct_text_data(const char *text) {
    return (ProtobufCBinaryData){__builtin_strlen(text), (uint8_t *)(uintptr_t)text};
}

#endif
