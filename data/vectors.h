/* Vector file: frozen item vectors. A .npy (version 1 to 3, little-endian float32, float16 or float64, C order, two axes) and the ids of
 * its rows: text lines (UTF-8, one a row), an int64 .npy, or 1 .. N where there is no file. Every row's values must be finite. */
#ifndef DATA_VECTORS_H
#define DATA_VECTORS_H

#include "base/hash.h"
#include "base/mapped.h"
#include "base/status.h"

typedef struct ct_vectors {
    size_t count, dim;
    float *values;  /* (count, dim) */
    bool mapped;    /* values are the scratch file's */
    uint64_t *keys; /* (count): XXH3 of the id's text, seed 0, as a batch's vector column; distinct (a repeated id is CT_INVALID) */
    char content_hash[CT_DIGEST_HEX_BYTES]; /* of dim, keys and values */
} ct_vectors;

/* scratch: the values are its memory instead of the heap's, so what is anonymous are some 60 bytes a row while it is read, and 8 then; may
 * be NULL. */
CT_MUST_CHECK ct_code ct_vectors_load(const char *path, const char *ids_path /* may be NULL */, ct_mapped *scratch,
                                      ct_vectors **out_vectors, ct_status *status);
/* Deals the vectors anew among the ids, each to one, by the seed: a placebo, with the same values and no content. */
CT_MUST_CHECK ct_code ct_vectors_shuffle(ct_vectors *vectors, uint64_t seed, ct_status *status);
void ct_vectors_destroy(ct_vectors *vectors); /* NULL is fine */
/* Writes a float32 .npy and, where ids_path is given, one id a line. */
CT_MUST_CHECK ct_code ct_vectors_write(const char *path, const char *ids_path, const float *values, size_t count, size_t dim,
                                       const char *const *ids, ct_status *status);

#endif
